"""The normal path: pre-prepare, prepare, commit (Castro and Liskov, OSDI 1999, section 4.2).

Rule: in one view a replica accepts one batch for a sequence number. It writes down what it accepted before it prepares,
and what was prepared before it commits, so that no crash makes it say two things.

    primary   ---- PrePrepare(batch) ---->  backups
    backups   ---- Prepare(digest) ------>  all           accepted; the primary's proposal counts as its prepare
    all       ---- Commit(digest) ------->  all           a quorum accepted: "prepared"
                                                          a quorum committed: decided, executed in order
"""

from collections.abc import Mapping

from dwcp_migrate.consensus.pbft.batching import Batching
from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.execution import BatchExecutor
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.consensus.pbft.model.log import Content, Slot, count_votes
from dwcp_migrate.consensus.pbft.model.messages import (
    BATCH_BYTES_MAX,
    NULL_BATCH,
    NULL_DIGEST,
    Batch,
    Commit,
    Prepare,
    PrePrepare,
    encode_body,
)
from dwcp_migrate.consensus.pbft.requests import PendingRequests
from dwcp_migrate.units import KIB

PROPOSAL_BYTES_MAX = BATCH_BYTES_MAX - 64 * KIB
"""Size at which a proposal takes no further requests: one of the largest still fits."""


class NormalCase:
    """Takes slots from proposal to decision."""

    def __init__(self, core: Core, requests: PendingRequests, executor: BatchExecutor) -> None:
        self._core = core
        self._requests = requests
        self._executor = executor
        self._batching = Batching(core.options.pipeline, core.options.batch_max)
        self.proposed = 0
        self._barrier = 0

    # --- the primary

    def propose(self) -> None:
        """Propose what waits, if this replica is primary and its turn has come."""
        core = self._core
        queue = self._requests.queue
        while queue and core.is_primary and core.pending is None:
            under_way = self.proposed - core.executed
            size = self._batching.size(len(queue), max(0, under_way))
            sequence = max(self.proposed, core.executed) + 1
            if not size or not core.log.is_inside(sequence) or core.executed < self._barrier:
                return
            if next(iter(queue.values()))[1].reconfigure and under_way > 0:
                return
            self._propose(sequence, size)

    def _propose(self, sequence: int, size: int) -> None:
        core = self._core
        taken = self._requests.take(size, PROPOSAL_BYTES_MAX)
        time_ms = max(core.time_ms, core.wall_ms)
        data = encode_body(Batch(time_ms, tuple(request for request, _ in taken)))
        content = Content(time_ms, tuple(taken), taken[0][1].reconfigure)
        name = compute_digest(data)
        core.log.batches[name] = data
        self._batching.proposed(len(taken))
        self.proposed = sequence
        slot = core.log.slot(sequence, core.now)
        self._accept(slot, name, content, data)
        core.broadcast(PrePrepare(core.group.epoch, core.view, sequence, data))
        self._advance(slot)

    # --- all

    def on_pre_prepare(self, sender: str, message: PrePrepare) -> None:
        """Judge the primary's proposal.

        Args:
            sender: the replica, as its channel proves.
            message: of the current view.
        """
        core = self._core
        sequence = message.sequence
        if sender != core.primary or not core.is_voter or not core.log.is_inside(sequence):
            return
        slot = core.log.slot(sequence, core.now)
        if slot.digest is not None:
            return
        name = compute_digest(message.batch)
        known = name in core.log.batches
        if sequence <= core.carried_last:
            if core.carried.get(sequence) == name:
                self.carry(sequence, name, message.batch)
            return
        content = core.log.keep(name, message.batch)
        if content is None or not self._is_acceptable(content, sequence):
            core.counters.refused += 1
            if not known:
                core.log.batches.pop(name, None)
            return
        self._accept(slot, name, content, b"" if known else message.batch)
        self._prepare(slot, name)

    def _is_acceptable(self, content: Content, sequence: int) -> bool:
        """Hold a proposal's content against what an honest primary proposes."""
        core = self._core
        skew = abs(content.time_ms - core.wall_ms)
        if skew > core.options.clock_skew_ms and content.time_ms != core.time_ms:
            return False
        if core.pending is not None or core.executed < self._barrier:
            return False
        if content.reconfigures and not self._is_next(sequence):
            return False
        requests = self._requests
        return bool(content.requests) and all(requests.is_genuine(request, body) for request, body in content.requests)

    def _is_next(self, sequence: int) -> bool:
        """Tell whether nothing lies between what is executed and `sequence`, and nothing is accepted behind it."""
        core = self._core
        later = (slot for number, slot in core.log.slots.items() if number > sequence)
        return sequence == core.executed + 1 and all(slot.digest is None for slot in later)

    def carry(self, sequence: int, name: bytes, data: bytes | None) -> None:
        """Accept a batch that the new view carries on. It is not judged again: enough replicas vouched for it.

        Args:
            sequence: its place.
            name: its digest.
            data: the encoded batch; None if the log has it.
        """
        core = self._core
        if not core.log.is_inside(sequence):
            return
        slot = core.log.slot(sequence, core.now)
        known = name in core.log.batches
        content = core.log.content(name) if data is None else core.log.keep(name, data)
        if content is None or slot.digest is not None:
            return
        self._accept(slot, name, content, b"" if known or data is None else data)
        if not core.is_primary:
            self._prepare(slot, name)
        else:
            self._advance(slot)

    def _accept(self, slot: Slot, name: bytes, content: Content, data: bytes) -> None:
        core = self._core
        slot.accept(core.view, name, content, core.now)
        core.write(records.Accepted(core.view, slot.sequence, name, data))
        if content.reconfigures:
            self._barrier = slot.sequence

    def _prepare(self, slot: Slot, name: bytes) -> None:
        core = self._core
        if core.is_voter:  # a replica without a vote takes over what a new view carries on, and is silent
            slot.prepares[core.name] = name
            core.broadcast(Prepare(core.group.epoch, core.view, slot.sequence, name))
        self._advance(slot)

    def on_prepare(self, sender: str, message: Prepare) -> None:
        """Count a backup's prepare.

        Args:
            sender: the replica, as its channel proves.
            message: of the current view.
        """
        core = self._core
        if sender == core.primary or sender not in core.group.keys or not core.log.is_inside(message.sequence):
            return
        slot = core.log.slot(message.sequence, core.now)
        if slot.prepares.setdefault(sender, message.digest) == slot.digest and not slot.sent_commit:
            self._advance(slot)

    def on_commit(self, sender: str, message: Commit) -> None:
        """Count a replica's commit.

        Args:
            sender: the replica, as its channel proves.
            message: of the current view.
        """
        core = self._core
        if sender not in core.group.keys or not core.log.is_inside(message.sequence):
            return
        slot = core.log.slot(message.sequence, core.now)
        if slot.commits.setdefault(sender, message.digest) == slot.digest and slot.decided is None:
            self._advance(slot)

    def _advance(self, slot: Slot) -> None:
        """Commit what is prepared, decide what is committed."""
        core = self._core
        name = slot.digest
        if name is None:
            return
        quorum = core.group.numbers.quorum
        if not slot.sent_commit and core.is_voter and count_votes(slot.prepares, name) >= quorum - 1:
            slot.sent_commit = True
            slot.prepared = (core.view, name)
            core.write(records.WasPrepared(core.view, slot.sequence, name))
            slot.commits[core.name] = name
            core.broadcast(Commit(core.group.epoch, core.view, slot.sequence, name))
        if slot.decided is None and count_votes(slot.commits, name) >= quorum:
            self._executor.decide(slot, name)

    # --- a new view, and those who lag

    def enter_view(self, fetched: Mapping[bytes, bytes]) -> None:
        """Begin the view with what it carries on.

        Args:
            fetched: batches by digest that are not in the log; empty ones are known to all.
        """
        core = self._core
        self._barrier = 0
        self.proposed = max(core.carried_last, core.executed)
        for sequence in sorted(core.log.slots):
            core.log.slots[sequence].enter_view(core.now)
        for sequence, name in core.carried.items():
            self.carry(sequence, name, NULL_BATCH if name == NULL_DIGEST else fetched.get(name))

    def missing(self) -> list[tuple[int, bytes]]:
        """List the batches that the view carries on and this replica lacks, by sequence number and digest."""
        core = self._core
        carried = core.carried.items()
        return [(n, name) for n, name in carried if name not in core.log.batches and core.log.is_inside(n)]

    def is_stuck(self, timeout_s: float) -> bool:
        """Tell whether the next slot was accepted and is not decided in time."""
        core = self._core
        slot = core.log.slots.get(core.executed + 1)
        return slot is not None and slot.digest is not None and core.now - slot.since > timeout_s

    def send_again(self, to: str, slot: Slot) -> None:
        """Repeat what this replica said about a slot in this view.

        Args:
            to: name of the replica that lags.
            slot: of the log; nothing is sent if no batch was accepted there.
        """
        core = self._core
        if slot.digest is None:
            return
        epoch, view = core.group.epoch, core.view
        if core.is_primary:
            core.send(to, PrePrepare(epoch, view, slot.sequence, core.log.batches[slot.digest]))
        else:
            core.send(to, Prepare(epoch, view, slot.sequence, slot.digest))
        if slot.sent_commit:
            core.send(to, Commit(epoch, view, slot.sequence, slot.digest))
