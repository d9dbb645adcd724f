"""Batching: at once when idle, together when busy, and the size follows the load."""

from dwcp_migrate.consensus.pbft.batching import Batching


def test_an_idle_group_proposes_at_once() -> None:
    assert Batching(2, 256).size(1, 0) == 1
    assert Batching(2, 256).size(300, 0) == 256
    assert Batching(2, 256).size(0, 0) == 0


def test_a_full_pipeline_waits() -> None:
    assert Batching(1, 256).size(100, 1) == 0
    assert Batching(2, 256).size(100, 2) == 0


def test_a_second_proposal_waits_until_as_much_has_gathered_as_usual() -> None:
    batching = Batching(2, 256)
    for _ in range(30):
        batching.proposed(20)
    assert batching.size(10, 1) == 0
    assert batching.size(20, 1) == 20
    assert batching.size(1, 0) == 1


def test_the_usual_size_follows_the_load_both_ways() -> None:
    batching = Batching(2, 256)
    for _ in range(10):
        batching.proposed(64)
    assert batching.size(40, 1) == 0
    for _ in range(10):
        batching.proposed(2)
    assert batching.size(40, 1) == 40


def test_no_batching_is_a_size_of_one() -> None:
    batching = Batching(2, 1)
    assert batching.size(9, 0) == 1
    batching.proposed(1)
    assert batching.size(9, 1) == 1


def test_the_largest_batch_is_never_waited_past() -> None:
    batching = Batching(2, 4)
    for _ in range(50):
        batching.proposed(100)
    assert batching.size(4, 1) == 4
