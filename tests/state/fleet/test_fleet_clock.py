"""The bound on a command's time: one wrong clock moves it by nothing, and never stops it."""

import pytest

from dwcp_migrate.state.fleet.fleet_clock import SAMPLE_S_MAX, SAMPLES_MAX, SKEW_S, FleetClock

NOW = 1.79e9
YEARS_70 = 70 * 365 * 86400.0


def clock(*wrong_by: float, fleet_now: float = NOW) -> FleetClock:
    made = FleetClock()
    made.anchor(fleet_now, 100.0)
    for number, error in enumerate(wrong_by):
        made.hear(f"host-{number}", NOW + error, 100.0)
    return made


@pytest.mark.parametrize("error", [YEARS_70, -YEARS_70 / 2])
def test_one_wrong_clock_of_three_moves_nothing(error: float) -> None:
    latest = clock(error, 0.0, 1.0).latest(100.0, 2)
    assert NOW + SKEW_S - 1 <= latest <= NOW + SKEW_S + 1


def test_time_passes_with_this_hosts_monotonic_clock() -> None:
    made = clock(0.0, 0.0)
    assert made.latest(110.0, 2) == NOW + 10 + SKEW_S


def test_too_few_clocks_are_not_believed_beyond_what_has_passed_here() -> None:
    made = clock(YEARS_70)
    assert made.latest(107.0, 2) == NOW + 7
    made.hear("b", NOW + 10, 110.0)
    assert made.latest(110.0, 2) == NOW + 10 + SKEW_S


def test_a_clock_that_fell_silent_counts_no_more() -> None:
    made = clock(-1000.0, 0.0, 0.0)
    made.hear("host-1", NOW + SAMPLE_S_MAX, 100.0 + SAMPLE_S_MAX)
    made.hear("host-2", NOW + SAMPLE_S_MAX, 100.0 + SAMPLE_S_MAX)
    assert made.latest(100.0 + SAMPLE_S_MAX, 2) == NOW + SAMPLE_S_MAX + SKEW_S
    assert made.latest(100.0 + SAMPLE_S_MAX + 1, 3) == NOW + SAMPLE_S_MAX + 1


def test_a_new_fleet_believes_no_clock_before_there_are_enough() -> None:
    made = clock(YEARS_70, fleet_now=0.0)
    assert made.latest(101.0, 2) == 1.0
    made.hear("b", NOW, 101.0)
    assert made.latest(101.0, 2) == NOW + SKEW_S


def test_no_more_clocks_are_kept_than_there_are_hosts() -> None:
    made = FleetClock()
    for number in range(SAMPLES_MAX + 50):
        made.hear(f"host-{number}", NOW, 100.0)
    assert len(made._samples) == SAMPLES_MAX


def test_clocks_of_hosts_that_are_gone_are_not_kept() -> None:
    made = clock(*[0.0] * 100)
    for second in range(200):
        made.hear("host-0", NOW + second, 100.0 + second)
    assert len(made._samples) == 1
