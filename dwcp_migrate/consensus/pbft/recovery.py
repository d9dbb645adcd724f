"""Recovery: the records that describe a replica for its journal, and the replica that is rebuilt from them.

Rule: replaying the journal gives the replica that wrote it, up to the last message that it sent. Records are in the
order in which things happened; an epoch begins where its operation is decided, so compaction keeps that order too.
"""

from collections.abc import Iterable, Iterator

from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.epochs import Epochs
from dwcp_migrate.consensus.pbft.execution import BatchExecutor
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.log import Slot
from dwcp_migrate.consensus.pbft.model.snapshot import decode_snapshot
from dwcp_migrate.consensus.pbft.view_change import ViewChanges


def compact(core: Core) -> list[records.Entry]:
    """List the records that describe a replica's present state, without its history."""
    entries: list[records.Entry] = []
    entries += [records.Linked(core.links[epoch]) for epoch in sorted(core.links)]
    if core.state is not None:
        entries.append(records.Stable(core.stable, core.state.encode()))
    if core.new_view is not None and core.active:
        entries.append(records.Entered(core.new_view))
    elif not core.active:
        entries.append(records.ViewLeft(core.view))
    written: set[bytes] = set()
    for sequence in sorted(core.log.slots):
        entries += _records(core, core.log.slots[sequence], written)
    return entries


def _records(core: Core, slot: Slot, written: set[bytes]) -> Iterator[records.Entry]:
    def data(name: bytes) -> bytes:
        if name in written:
            return b""
        written.add(name)
        return core.log.batches.get(name, b"")

    for name, view in sorted(slot.seen.items(), key=lambda item: item[1]):
        yield records.Accepted(view, slot.sequence, name, data(name))
    if slot.prepared[0] >= 0:
        yield records.WasPrepared(slot.prepared[0], slot.sequence, slot.prepared[1])
    if slot.decided is not None:
        yield records.Committed(slot.sequence, slot.decided, data(slot.decided))


def replay(
    core: Core, epochs: Epochs, executor: BatchExecutor, views: ViewChanges, entries: Iterable[records.Entry]
) -> None:
    """Bring a fresh replica to where its journal says that it was.

    Args:
        core: of a fresh replica.
        epochs: its chain of memberships.
        executor: runs what is decided.
        views: take up the view that the replica was in.
        entries: of the journal, in their order.

    Raises:
        ConsensusError: the journal contradicts itself.
    """
    core.recovering = True
    for entry in entries:
        match entry:
            case records.Linked(link):
                epochs.learn(link)
            case records.Stable(proof, state):
                executor.adopt(proof, decode_snapshot(state))
            case records.ViewLeft(view):
                core.view, core.active, core.new_view = view, False, None
            case records.Entered(proof):
                core.view, core.active, core.new_view = proof.view, True, proof
            case records.Accepted(view, sequence, name, batch):
                _accepted(core, view, sequence, name, batch)
            case records.WasPrepared(view, sequence, name):
                if core.log.is_inside(sequence):
                    core.log.slot(sequence, core.now).prepared = (view, name)
            case records.Committed(sequence, name, batch):
                _committed(core, executor, sequence, name, batch)
    _resume(core, views)
    core.recovering = False
    views.resume()


def _accepted(core: Core, view: int, sequence: int, name: bytes, batch: bytes) -> None:
    if core.log.is_inside(sequence):
        if batch:
            core.log.keep(name, batch)
        core.log.slot(sequence, core.now).see(view, name)


def _committed(core: Core, executor: BatchExecutor, sequence: int, name: bytes, batch: bytes) -> None:
    if not core.log.is_inside(sequence):
        return
    if batch:
        core.log.keep(name, batch)
    slot = core.log.slot(sequence, core.now)
    if core.log.content(name) is not None and sequence > core.executed:
        executor.decide(slot, name)


def _resume(core: Core, views: ViewChanges) -> None:
    """Take up the votes of the view that the replica was in; peers repeat theirs."""
    if core.new_view is not None:
        choice = views.examine(core.new_view)
        if choice is not None:
            core.carried = choice.digests
            core.carried_last = max(choice.digests, default=choice.stable.sequence)
    if not core.active:
        return
    for slot in core.log.slots.values():
        for name, view in slot.seen.items():
            content = core.log.content(name)
            if view != core.view or content is None:
                continue
            slot.digest, slot.content = name, content
            if not core.is_primary:
                slot.prepares[core.name] = name
            if slot.prepared == (core.view, name):
                slot.sent_commit = True
                slot.commits[core.name] = name
