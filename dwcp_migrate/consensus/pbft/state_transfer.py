"""State transfer: helps replicas that lag, and fetches what this replica lacks.

Rule: nothing is believed that is not proven. A batch proves itself by its digest; that it was decided takes `weak`
replicas that say so; a state takes a quorum's signatures, and each of its parts is checked as it comes. A replica that
sends something else, or nothing, or too slowly, is not asked again for a while. A state is handed out as it was when
its fetching began, however many checkpoints follow meanwhile, and parts that are here already are not fetched.

Each replica reports its progress every `status_s`. One that is ahead answers with what the other lacks, at most
`HELP_MAX` slots at a time: it repeats its votes, tells what was decided, or points to its checkpoint.

It may happen that only this replica knows of a decision, and is not believed: of the voters some are in another view by
now, or lie. As long as nothing else is decided that would not change. Then this replica leaves the view, and the next
view begins with what it has decided.
"""

from collections import deque
from typing import Final, NamedTuple

from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.epochs import Epochs
from dwcp_migrate.consensus.pbft.execution import BatchExecutor
from dwcp_migrate.consensus.pbft.model.checkpoints import is_proven
from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.consensus.pbft.model.log import count_votes
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
PARTS_IN_TIMEOUT: Final = 16
"""Least pace of a state, in parts for each request timeout: 1 MiB/s. A slower source is given up."""
SERVED_TIMEOUTS: Final = 8
"""Request timeouts for which a state is kept for a replica that asks for its parts, though a newer one is stable."""
SERVED_MAX: Final = 8
"""Replicas that a state is kept for at once."""
SILENT_TIMEOUTS: Final = 2
"""Time in which a replica that did not answer is not asked for a state again, in request timeouts."""
LIED_TIMEOUTS: Final = 60
"""The same for a replica that sent something wrong."""
STUCK_TIMEOUTS: Final = 4
"""Time that `weak` replicas may stand still behind this one before it leaves the view, in its timeouts. A liar alone
cannot bring that about: one of them is honest, and asks for what it lacks all that time."""
HEARD_STATUSES: Final = 3
"""A replica not heard of for so many intervals is away, not stuck."""


class _Standing:
    """Another replica's progress."""

    def __init__(self, executed: int, now: float) -> None:
        self.executed = executed
        self.since = now
        self.heard = now


class _Transfer:
    """A state on its way here."""

    def __init__(self, source: str, now: float) -> None:
        self.source = source
        self.began = self.since = now
        self.proof: StableProof | None = None
        self.digests: tuple[bytes, ...] = ()
        self.parts: dict[int, bytes] = {}
        self.wanted: deque[int] = deque()
        self.under_way: set[int] = set()
        self.fetched = 0

    def is_late(self, now: float, timeout_s: float) -> bool:
        """Tell whether its source is silent, or slower than it may be."""
        paced_s = timeout_s * (SILENT_TIMEOUTS + self.fetched / PARTS_IN_TIMEOUT)
        return now - self.since > timeout_s or now - self.began > paced_s


class _Served(NamedTuple):
    """A state that another replica is fetching from here."""

    proof: StableProof
    state: GroupSnapshot
    until: float


class Catchup:
    """Status reports, retransmission and state transfer."""

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
        self._kept: dict[bytes, bytes] = {}
        self._served: dict[str, _Served] = {}
        self._avoided: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._standings: dict[str, _Standing] = {}
        core.on_epoch.append(self._on_epoch)

    # --- reporting this replica's progress

    def tick(self) -> None:
        """Report this replica's progress, repeat what was not answered, leave a view in which others are stuck."""
        core = self._core
        if core.now < self._next_status:
            return
        self._next_status = core.now + core.options.status_s
        core.broadcast(ReplicaStatus(core.group.epoch, core.view, core.active, core.executed, core.stable.sequence))
        if not core.active and core.is_voter:
            self._views.announce()
        for fetcher in [name for name, served in self._served.items() if served.until < core.now]:
            del self._served[fetcher]
        for name in self._views.missing():
            core.broadcast(FetchBatch(name))
        transfer = self._transfer
        if transfer is not None and transfer.is_late(core.now, core.options.request_timeout_s):
            self._give_up(transfer.source, SILENT_TIMEOUTS)
        if core.active and core.is_voter and self._stuck() >= core.group.numbers.weak:
            self._standings.clear()
            self._views.leave(core.view + 1)

    def _stuck(self) -> int:
        """Number of replicas that have long stood still behind this one, though they say so and are answered."""
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
        """Send what the other replica lacks; fetch what this one lacks. Reports that come too often are not answered.

        Args:
            sender: the replica, as its channel proves.
            status: its report.
        """
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
        """Hand out a batch.

        Args:
            sender: the replica, as its channel proves.
            fetch: the digest that it wants.
        """
        data = self._core.log.batches.get(fetch.digest)
        if data is not None:
            self._core.send(sender, BatchContent(data))

    def on_fetch_state(self, sender: str, fetch: FetchState) -> None:
        """Hand out the last stable state, or a part of the one that the sender began to fetch.

        Args:
            sender: the replica, as its channel proves.
            fetch: index -1 begins, the others go on; a part that is not there is not answered.
        """
        core = self._core
        until = core.now + SERVED_TIMEOUTS * core.options.request_timeout_s
        if fetch.index < 0:
            if core.state is not None and (sender in self._served or len(self._served) < SERVED_MAX):
                self._served[sender] = _Served(core.stable, core.state, until)
                core.send(sender, StateManifest(core.stable, core.state.parts))
            return
        served = self._served.get(sender)
        if served is not None and fetch.sequence == served.proof.sequence and fetch.index < len(served.state.parts):
            self._served[sender] = served._replace(until=until)
            core.send(sender, StatePart(fetch.sequence, fetch.index, served.state.part(fetch.index)))

    # --- catching up

    def on_decided(self, sender: str, message: Decided) -> None:
        """Believe a decision once `weak` replicas report the same one.

        Args:
            sender: the replica, as its channel proves.
            message: its report.
        """
        core = self._core
        if (
            sender not in core.group.keys
            or message.sequence <= core.executed
            or not core.log.is_inside(message.sequence)
        ):
            return
        slot = core.log.slot(message.sequence, core.now)
        name = compute_digest(message.batch)
        slot.claims.setdefault(sender, name)
        if slot.decided is not None or count_votes(slot.claims, name) < core.group.numbers.weak:
            return
        known = name in core.log.batches
        if core.log.keep(name, message.batch) is not None:
            self._executor.decide(slot, name, b"" if known else message.batch)

    def on_link(self, link: EpochLink) -> None:
        """Learn the members that follow the known ones."""
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
        """Check the proof of a state and ask for its first parts.

        Args:
            sender: the replica; one that was not asked is ignored.
            manifest: not yet checked.
        """
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
        known = self._kept
        if core.state is not None:
            known = known | {name: core.state.part(index) for index, name in enumerate(core.state.parts)}
        transfer.parts = {index: known[name] for index, name in enumerate(manifest.parts) if name in known}
        transfer.wanted.extend(index for index in range(len(manifest.parts)) if index not in transfer.parts)
        self._go_on(transfer)

    def on_part(self, sender: str, part: StatePart) -> None:
        """Check a part of a state; adopt the state when it is complete.

        Args:
            sender: the replica; one that was not asked is ignored.
            part: not yet checked.
        """
        core = self._core
        transfer = self._transfer
        if transfer is None or transfer.source != sender or transfer.proof is None:
            return
        if part.sequence != transfer.proof.sequence or part.index not in transfer.under_way:
            return
        if compute_digest(part.data) != transfer.digests[part.index]:
            self._give_up(sender, LIED_TIMEOUTS)
            return
        transfer.under_way.discard(part.index)
        transfer.parts[part.index] = part.data
        transfer.fetched += 1
        transfer.since = core.now
        self._go_on(transfer)

    def _go_on(self, transfer: _Transfer) -> None:
        """Ask for what is missing, a few parts ahead; take the state over when nothing is."""
        core = self._core
        assert transfer.proof is not None, "its manifest came"
        while transfer.wanted and len(transfer.under_way) < PARTS_AHEAD:
            index = transfer.wanted.popleft()
            transfer.under_way.add(index)
            core.send(transfer.source, FetchState(transfer.proof.sequence, index))
        if transfer.under_way:
            return
        self._transfer = None
        self._kept.clear()
        if transfer.proof.sequence > core.executed:
            body = b"".join(transfer.parts[index] for index in range(1, len(transfer.digests)))
            core.counters.states_fetched += 1
            self._executor.adopt(transfer.proof, GroupSnapshot(transfer.parts[0], body))

    def _give_up(self, source: str, timeouts: int) -> None:
        """Ask others first for a while; keep what was proven: the next state has most of it too."""
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            self._kept = {transfer.digests[index]: data for index, data in transfer.parts.items()}
        self._avoided[source] = self._core.now + timeouts * self._core.options.request_timeout_s

    def _on_epoch(self) -> None:
        self._transfer = None
        self._kept.clear()
        self._served.clear()
        self._avoided.clear()
        self._standings.clear()
