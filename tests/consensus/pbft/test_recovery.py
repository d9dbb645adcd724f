"""A journal that is written anew says all that the old one did: promises outlive any number of compactions."""

from dwcp_migrate.consensus import PbftReplica
from dwcp_migrate.consensus.pbft.recovery import compact
from tests.consensus.pbft.by_hand import ByHand

FIRST = b"a" * 32
SECOND = b"b" * 32


def again(replica: PbftReplica) -> PbftReplica:
    """The replica that a compacted journal gives."""
    return ByHand().start(replica.core.name, compact(replica.core))


def test_a_compacted_journal_keeps_each_batch_that_was_accepted_with_its_last_view() -> None:
    replica = ByHand().replicas["r1"]
    slot = replica.core.log.slot(3, 0.0)
    slot.see(0, FIRST)
    slot.see(1, SECOND)
    assert again(replica).core.log.slots[3].seen == {FIRST: 0, SECOND: 1}
    assert again(again(replica)).core.log.slots[3].seen == {FIRST: 0, SECOND: 1}


def test_a_compacted_journal_keeps_what_was_prepared_beside_what_was_accepted_later() -> None:
    replica = ByHand().replicas["r1"]
    slot = replica.core.log.slot(3, 0.0)
    slot.see(0, FIRST)
    slot.prepared = (0, FIRST)
    slot.see(2, SECOND)
    found = again(replica).core.log.slots[3]
    assert (found.prepared, found.seen) == ((0, FIRST), {FIRST: 0, SECOND: 2})


def test_a_compacted_journal_keeps_that_a_view_was_left() -> None:
    replica = ByHand().replicas["r1"]
    core = replica.core
    core.view, core.active, core.new_view = 2, False, None
    found = again(replica).core
    assert (found.view, found.active) == (2, False)
