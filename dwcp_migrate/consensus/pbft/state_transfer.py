"""Helps those who lag, and catches up when it is this replica that does.

Rule: nothing is believed that is not proven. A batch proves itself by its digest; that it was decided takes `weak`
replicas that say so; a state takes a quorum's signatures, and each of its parts is checked as it comes. Whoever sends
something else is not asked again for a while.

Everybody says every `status_s` where it stands. Who is ahead answers with what the other lacks, at most `HELP_MAX`
slots at a time: repeats its votes, tells what was decided, or points to its checkpoint.

A batch may be decided and nobody who can be believed may know it but this replica: of those who voted some are gone to
another view, or lie. With nothing else to decide that would stay so. Then this replica leaves the view: what it has
decided is what the next one begins with.
"""

from typing import Final

from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.epochs import Epochs
from dwcp_migrate.consensus.pbft.execution import BatchExecutor
from dwcp_migrate.consensus.pbft.model.checkpoints import is_proven
from dwcp_migrate.consensus.pbft.model.keys import digest
from dwcp_migrate.consensus.pbft.model.log import count
from dwcp_migrate.consensus.pbft.model.messages import (
    BatchContent,
    Decided,
    EpochLink,
    FetchBatch,
    FetchState,
    ReplicaStatus,
    StableCheckpoint,
    StableProof,
    StateManifest,
    StatePart,
)
from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot, manifest_digest
from dwcp_migrate.consensus.pbft.normal_case import NormalCase
from dwcp_migrate.consensus.pbft.view_change import ViewChanges

HELP_MAX: Final = 16
"""Slots in one answer: a status interval later there is more."""
PARTS_AHEAD: Final = 8
"""Parts of a state asked for at once: 512 KiB on the way."""
SILENT_TIMEOUTS: Final = 2
"""How long one who did not answer is not asked for a state again, in request timeouts."""
LIED_TIMEOUTS: Final = 60
"""The same for one who sent what did not hold."""
STUCK_TIMEOUTS: Final = 4
"""How long `weak` replicas may stand still behind this one before it leaves the view, in its timeouts. A liar alone
cannot bring that about: one of them is honest, and asks for what it lacks all that time."""
HEARD_STATUSES: Final = 3
"""A replica not heard of for so many intervals is away, not stuck."""


class _Standing:
    """How far another replica has come."""

    def __init__(self, executed: int, now: float) -> None:
        self.executed = executed
        self.since = now
        self.heard = now


class _Transfer:
    """A state on its way here."""

    def __init__(self, source: str, now: float) -> None:
        self.source = source
        self.since = now
        self.proof: StableProof | None = None
        self.digests: tuple[bytes, ...] = ()
        self.parts: dict[int, bytes] = {}
        self.asked = 0


class Catchup:
    """ReplicaStatus, retransmission and state transfer."""

    def __init__(
        self, core: Core, epochs: Epochs, agreement: NormalCase, executor: BatchExecutor, views: ViewChanges
    ) -> None:
        self._core = core
        self._epochs = epochs
        self._agreement = agreement
        self._executor = executor
        self._views = views
        self._next_status = 0.0
        self._transfer: _Transfer | None = None
        self._avoided: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._standings: dict[str, _Standing] = {}
        core.on_epoch.append(self._on_epoch)

    # --- saying where this replica stands

    def tick(self) -> None:
        """Say where this replica stands, repeat what was not answered, leave a view in which others are stuck."""
        core = self._core
        if core.now < self._next_status:
            return
        self._next_status = core.now + core.options.status_s
        core.broadcast(ReplicaStatus(core.group.epoch, core.view, core.active, core.executed, core.stable.sequence))
        if not core.active and core.is_voter:
            self._views.announce()
        for name in self._views.missing():
            core.broadcast(FetchBatch(name))
        transfer = self._transfer
        if transfer is not None and core.now - transfer.since > core.options.request_timeout_s:
            self._give_up(transfer.source, SILENT_TIMEOUTS)
        if core.active and core.is_voter and self._stuck() >= core.group.numbers.weak:
            self._standings.clear()
            self._views.leave(core.view + 1)

    def _stuck(self) -> int:
        """How many replicas have long been where they are, behind this one, though they say so and are answered."""
        core = self._core
        heard_since = core.now - HEARD_STATUSES * core.options.status_s
        there_since = core.now - STUCK_TIMEOUTS * self._views.timeout_s
        return sum(
            name in core.group.keys
            and known.executed < core.executed
            and known.heard > heard_since
            and known.since < there_since
            for name, known in self._standings.items()
        )

    def _note(self, sender: str, executed: int) -> None:
        known = self._standings.get(sender)
        if known is None or known.executed != executed:
            self._standings[sender] = _Standing(executed, self._core.now)
        else:
            known.heard = self._core.now

    # --- helping others

    def on_status(self, sender: str, status: ReplicaStatus) -> None:
        """Send what the other lacks; fetch what this replica lacks. Who asks too often is not answered."""
        core = self._core
        if core.now - self._answered.get(sender, -1.0) < core.options.status_s / 2:
            return
        self._answered[sender] = core.now
        self._note(sender, status.executed)
        if status.stable > core.executed:
            self._fetch_from(sender)
        elif status.stable < core.stable.sequence <= status.executed:
            core.send(sender, StableCheckpoint(core.stable))
        self._epochs.help(sender, status)
        same_epoch = status.epoch == core.group.epoch
        proof = core.new_view
        if same_epoch and proof is not None and (status.view, status.active) < (core.view, True):
            core.send(sender, proof)
        for vote in core.ballot.vote_of(core.name, status.stable):
            core.send(sender, vote)
        last = min(status.executed + HELP_MAX, core.log.stable + core.log.window)
        for sequence in range(max(status.executed, core.log.stable) + 1, last + 1):
            slot = core.log.slots.get(sequence)
            if slot is None or core.now - slot.since < core.options.status_s:
                continue
            if slot.decided is not None and sequence <= core.executed:
                core.send(sender, Decided(sequence, core.log.batches[slot.decided]))
            if core.active and core.is_voter and same_epoch and status.view == core.view:
                self._agreement.send_again(sender, slot)

    def on_fetch_batch(self, sender: str, fetch: FetchBatch) -> None:
        """Hand out a batch."""
        data = self._core.log.batches.get(fetch.digest)
        if data is not None:
            self._core.send(sender, BatchContent(data))

    def on_fetch_state(self, sender: str, fetch: FetchState) -> None:
        """Hand out the last stable state, or a part of it."""
        core = self._core
        state = core.state
        if state is None:
            return
        if fetch.index < 0:
            core.send(sender, StateManifest(core.stable, state.parts))
        elif fetch.sequence == core.stable.sequence and fetch.index < len(state.parts):
            core.send(sender, StatePart(fetch.sequence, fetch.index, state.part(fetch.index)))

    # --- catching up

    def on_decided(self, sender: str, message: Decided) -> None:
        """Believe what `weak` replicas say was decided."""
        core = self._core
        if (
            sender not in core.group.keys
            or message.sequence <= core.executed
            or not core.log.is_inside(message.sequence)
        ):
            return
        slot = core.log.slot(message.sequence, core.now)
        name = digest(message.batch)
        slot.claims.setdefault(sender, name)
        if slot.decided is not None or count(slot.claims, name) < core.group.numbers.weak:
            return
        known = name in core.log.batches
        if core.log.keep(name, message.batch) is not None:
            self._executor.decide(slot, name, b"" if known else message.batch)

    def on_link(self, link: EpochLink) -> None:
        """Learn who follows the members that are known."""
        if self._epochs.learn(link):
            self._executor.make_stable(link.proof)

    def on_stable(self, message: StableCheckpoint) -> None:
        """Believe a checkpoint that is proven."""
        proof = message.proof
        if self._core.stable.sequence < proof.sequence <= self._core.executed and is_proven(proof, self._core.groups):
            self._executor.make_stable(proof)

    def _fetch_from(self, source: str) -> None:
        core = self._core
        if self._transfer is None and source in core.group.keys and self._avoided.get(source, core.now) <= core.now:
            self._transfer = _Transfer(source, core.now)
            core.send(source, FetchState(0, -1))

    def on_manifest(self, sender: str, manifest: StateManifest) -> None:
        """Check the proof of a state and ask for its first parts."""
        core = self._core
        transfer = self._transfer
        if transfer is None or transfer.source != sender or transfer.proof is not None:
            return
        proof = manifest.proof
        if proof.sequence <= core.executed:
            self._transfer = None
            return
        if not is_proven(proof, self._epochs.trusted) or manifest_digest(manifest.parts) != proof.digest:
            self._give_up(sender, LIED_TIMEOUTS)
            return
        transfer.proof, transfer.digests = proof, manifest.parts
        self._ask(transfer)

    def on_part(self, sender: str, part: StatePart) -> None:
        """Check a part of a state; adopt the state when it is complete."""
        core = self._core
        transfer = self._transfer
        if transfer is None or transfer.source != sender or transfer.proof is None:
            return
        if part.sequence != transfer.proof.sequence or part.index >= len(transfer.digests):
            return
        if digest(part.data) != transfer.digests[part.index]:
            self._give_up(sender, LIED_TIMEOUTS)
            return
        transfer.parts[part.index] = part.data
        transfer.since = core.now
        if len(transfer.parts) < len(transfer.digests):
            self._ask(transfer)
            return
        self._transfer = None
        if transfer.proof.sequence > core.executed:
            body = b"".join(transfer.parts[index] for index in range(1, len(transfer.digests)))
            core.counters.states_fetched += 1
            self._executor.adopt(transfer.proof, GroupSnapshot(transfer.parts[0], body))

    def _ask(self, transfer: _Transfer) -> None:
        assert transfer.proof is not None, "asked after the manifest"
        while transfer.asked < len(transfer.digests) and transfer.asked - len(transfer.parts) < PARTS_AHEAD:
            self._core.send(transfer.source, FetchState(transfer.proof.sequence, transfer.asked))
            transfer.asked += 1

    def _give_up(self, source: str, timeouts: int) -> None:
        """Ask others first for a while."""
        self._transfer = None
        self._avoided[source] = self._core.now + timeouts * self._core.options.request_timeout_s

    def _on_epoch(self) -> None:
        self._transfer = None
        self._avoided.clear()
        self._standings.clear()
