"""Quorum arithmetic, held against the sets themselves."""

from itertools import combinations

import pytest

from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX, quorum_of


@pytest.mark.parametrize("size", range(1, 9))
def test_two_quorums_share_a_replica_that_tells_the_truth(size: int) -> None:
    numbers = quorum_of(size)
    quorums = [set(each) for each in combinations(range(size), numbers.quorum)]
    assert min(len(a & b) for a in quorums for b in quorums) > numbers.faulty


@pytest.mark.parametrize("size", range(1, REPLICAS_MAX + 1))
def test_the_honest_replicas_alone_are_a_quorum_and_no_smaller_one_is_safe(size: int) -> None:
    numbers = quorum_of(size)
    assert size - numbers.faulty >= numbers.quorum
    assert 2 * (numbers.quorum - 1) - size <= numbers.faulty
    assert numbers.weak == numbers.faulty + 1


def test_three_f_plus_one_gives_the_numbers_of_the_paper() -> None:
    assert [quorum_of(3 * f + 1)[1:] for f in range(4)] == [(f, 2 * f + 1, f + 1) for f in range(4)]


@pytest.mark.parametrize("size", [0, -1, REPLICAS_MAX + 1])
def test_sizes_past_the_limits_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="can agree"):
        quorum_of(size)
