"""The paths of a link: shares, rests, trials, and what crawls."""

import pytest

from dwcp_migrate.transport.core.paths import (
    COMPARED_BYTES_MIN,
    CRAWLING,
    GROWTH,
    HEALTHY,
    JUDGE_S,
    RESCUED,
    REST_S_MAX,
    REST_S_MIN,
    PathTable,
)
from dwcp_migrate.units import MIB

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


def dial(table: PathTable, now: float, wanted: int, numbers: range) -> list[str]:
    """Dial all that is missing; returns the paths that they took."""
    taken = []
    for number in numbers[: table.missing(now, wanted)]:
        taken.append(table.next(now, wanted))
        table.dialled(now, number, taken[-1])
    return taken


def test_channels_are_spread_evenly() -> None:
    taken = dial(PathTable([A, B, C]), 0.0, 9, range(99))
    assert sorted(taken) == 3 * [A] + 3 * [B] + 3 * [C]


def test_a_share_that_is_no_whole_number_is_rounded_up() -> None:
    assert len(dial(PathTable([A, B]), 0.0, 5, range(99))) == 6


def test_one_path_gets_all_and_never_rests() -> None:
    table = PathTable([A])
    assert dial(table, 0.0, 4, range(4)) == 4 * [A]
    table.ended(1.0, 0, in_order=False)
    table.failed(1.0, A)
    assert table.missing(1.0, 4) == 1
    assert table.next(1.0, 4) == A
    assert table.crawling(9.0, {1: 0}, {}) == []


def test_a_path_that_fails_rests_twice_as_long_each_time_up_to_a_limit() -> None:
    table = PathTable([A, B])
    now, rests = 0.0, []
    for _ in range(7):
        table.failed(now, B)
        begun = now
        while table.next(now, 4) != B and now - begun <= REST_S_MAX:
            for channel in range(table.missing(now, 4)):  # the other one has its share already
                table.dialled(now, round(now * 1000) * 10 + channel, A)
            now += 0.5
        rests.append(now - begun)
    assert rests == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert (REST_S_MIN, REST_S_MAX) == (2.0, 30.0)


def test_channels_that_die_together_are_one_failure() -> None:
    table = PathTable([A, B])
    dial(table, 0.0, 8, range(8))
    for channel in range(8):
        table.ended(1.0, channel, in_order=False)
    assert table.next(1.0, 8) == A  # both rest: some path has to be tried, and an equal rest is decided by order
    dial(table, 1.0 + REST_S_MIN, 8, range(10, 20))
    assert table.missing(1.0 + REST_S_MIN, 8) == 0


def test_the_share_of_a_path_that_rests_goes_to_the_others_and_it_comes_back_on_trial() -> None:
    table = PathTable([A, B])
    assert dial(table, 0.0, 4, range(4)) == [A, B, A, B]
    for channel in (1, 3):
        table.ended(1.0, channel, in_order=False)
    assert dial(table, 1.0, 4, range(10, 20)) == [A, A]
    rested = 1.0 + REST_S_MIN
    assert dial(table, rested, 4, range(20, 30)) == [B]  # on trial: one, whatever its share
    carried = {20: round(HEALTHY * 10 * MIB), 0: 10 * MIB, 2: 10 * MIB, 10: 10 * MIB, 11: 10 * MIB}
    assert table.crawling(rested + JUDGE_S, dict.fromkeys(carried, 0), {}) == []
    assert table.crawling(rested + 2 * JUDGE_S, carried, {}) == []
    assert dial(table, rested + 2 * JUDGE_S, 4, range(30, 40)) == [B]
    assert table.surplus(4, [0, 2, 10, 11, 20, 30]) == [11, 10]


@pytest.mark.parametrize(("share", "is_slow"), [(CRAWLING, False), (CRAWLING * 0.99, True)])
def test_a_path_that_carries_next_to_nothing_beside_the_best_is_left(share: float, *, is_slow: bool) -> None:
    table = PathTable([A, B])
    dial(table, 0.0, 4, range(4))  # 0 and 2 on A, 1 and 3 on B
    assert table.crawling(JUDGE_S, dict.fromkeys(range(4), 0), {}) == []
    fast = 100 * MIB
    slow = round(fast * share)
    found = table.crawling(2 * JUDGE_S, {0: fast, 2: fast, 1: slow, 3: slow}, {})
    assert found == ([1, 3] if is_slow else [])
    for channel in found:
        table.ended(2 * JUDGE_S, channel, in_order=False)
    assert (table.next(2 * JUDGE_S, 8) == A) or not is_slow
    assert table.missing(2 * JUDGE_S, 4) == (2 if is_slow else 0)


def on_trial(channels: int) -> tuple[PathTable, float]:
    """Many channels on A, and one on B, which has rested; and when the next look at them is due."""
    table = PathTable([A, B])
    table.failed(0.0, B)
    rested = REST_S_MIN
    for number in range(channels):
        table.dialled(0.0, number, A)
    assert dial(table, rested, channels, range(100, 200)) == [B]
    table.crawling(rested + JUDGE_S, dict.fromkeys([*range(channels), 100], 0), {})
    return table, rested + 2 * JUDGE_S


def test_a_path_on_trial_whose_channel_carries_as_much_as_others_gets_more_step_by_step() -> None:
    table, now = on_trial(64)
    carried = dict.fromkeys([*range(64), 100], 10 * MIB)
    assert table.crawling(now, carried, {}) == []
    assert dial(table, now, 64, range(200, 300)) == (GROWTH - 1) * [B]


def test_a_path_on_trial_that_crawls_in_one_channel_rests_again_however_little_each_of_others_carries() -> None:
    table, now = on_trial(64)
    carried = dict.fromkeys(range(64), MIB) | {100: round(HEALTHY * MIB) - 1}
    assert table.crawling(now, carried, {}) == [100]


def test_a_good_path_on_trial_that_carries_a_little_of_the_best_in_one_channel_stays() -> None:
    table, now = on_trial(64)
    carried = dict.fromkeys(range(64), 10 * MIB) | {100: 6 * MIB}
    assert CRAWLING > 6 / 640
    assert table.crawling(now, carried, {}) == []


@pytest.mark.parametrize(("rescued", "is_left"), [(RESCUED * 10 * MIB, False), (RESCUED * 10 * MIB + 1, True)])
def test_a_path_whose_bytes_others_have_to_bring_once_more_is_left(rescued: float, *, is_left: bool) -> None:
    table = PathTable([A, B])
    dial(table, 0.0, 2, range(2))
    table.crawling(JUDGE_S, {0: 0, 1: 0}, {1: 99 * MIB})  # that was before
    found = table.crawling(2 * JUDGE_S, {0: 40 * MIB, 1: 10 * MIB}, {0: 40 * MIB, 1: 99 * MIB + round(rescued)})
    assert found == ([1] if is_left else [])


def test_a_path_of_which_one_channel_of_several_dies_does_not_rest() -> None:
    table = PathTable([A, B])
    dial(table, 0.0, 4, range(4))  # 0 and 2 on A, 1 and 3 on B
    table.ended(1.0, 1, in_order=False)
    assert dial(table, 1.0, 4, range(10, 20)) == [B]
    for channel in (3, 10):
        table.ended(1.0, channel, in_order=False)
    assert B not in dial(table, 1.0, 4, range(20, 30))


@pytest.mark.parametrize(("total", "is_compared"), [(COMPARED_BYTES_MIN, True), (COMPARED_BYTES_MIN - 1, False)])
def test_paths_are_compared_once_they_carry_enough(total: int, *, is_compared: bool) -> None:
    table = PathTable([A, B])
    dial(table, 0.0, 2, range(2))
    table.crawling(JUDGE_S, {0: 0, 1: 0}, {})
    assert table.crawling(2 * JUDGE_S, {0: total, 1: 0}, {}) == ([1] if is_compared else [])


def test_a_path_is_compared_only_by_channels_that_were_there_for_all_of_the_span() -> None:
    table = PathTable([A, B])
    dial(table, 0.0, 2, range(1))
    table.crawling(JUDGE_S, {0: 0}, {})
    table.dialled(JUDGE_S, 1, B)
    assert table.crawling(2 * JUDGE_S, {0: 100 * MIB, 1: 0}, {}) == []
    assert table.crawling(2.5 * JUDGE_S, {0: 200 * MIB, 1: 0}, {}) == []  # within the span
    assert table.crawling(3 * JUDGE_S, {0: 300 * MIB, 1: 0}, {}) == [1]


def test_a_long_life_of_a_channel_makes_the_next_rest_short_again() -> None:
    table = PathTable([A, B])
    for at in (0.0, 10.0, 20.0):
        table.failed(at, B)
    table.dialled(100.0, 7, B)
    table.ended(100.0 + REST_S_MAX, 7, in_order=True)
    table.failed(200.0, B)
    for channel in range(4):
        table.dialled(200.0, channel, A)
    assert table.next(200.0 + REST_S_MIN, 4) == B
