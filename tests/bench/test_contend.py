import pytest

from bench.suites.contend import DATED, GUESTS, SLACK, best

A, B, C, D = (guest.name for guest in GUESTS)
ALONE = {A: 5.0, B: 6.0, C: 7.0, D: 9.0}


def test_the_best_order_is_shortest_first_where_the_deadline_allows_it() -> None:
    assert D == DATED
    assert best(ALONE, 27.0) == 5 + 11 + 18 + 27


def test_the_best_order_serves_the_dated_guest_no_later_than_its_deadline() -> None:
    assert best(ALONE, 26.9) == 5 + 11 + 20 + 27
    assert best(ALONE, 14.0) == 5 + 14 + 20 + 27
    assert best(ALONE, 9.0) == 9 + 14 + 20 + 27


def test_the_suite_s_deadline_can_be_kept_and_shortest_first_would_miss_it() -> None:
    deadline_s = SLACK * (ALONE[D] + ALONE[A])
    assert ALONE[D] < deadline_s < sum(ALONE.values())
    assert best(ALONE, deadline_s) > best(ALONE, 27.0)


def test_a_deadline_that_no_order_keeps_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        best(ALONE, 8.9)
