"""A fleet's days on recorded loads, and its loads out of bulk statistics, in small."""

import numpy as np

from bench.fleets.month import STEPS_A_DAY, Month
from bench.suites.watch.month import SETTINGS, weigh
from dwcp_migrate.orchestration.measured_load import CPU_USED


def test_a_fleet_s_loads_are_known_within_their_share_of_ten_seconds() -> None:
    fleet, seconds = weigh(40, 25)
    assert len([one for one in fleet.domains if one.load.get(CPU_USED, 0) > 0]) == 1000
    assert (
        seconds < 5 * 10.0 * 1000 / 50_000
    )  # a fiftieth of the fleet, and five times its share: others use the machine


def test_a_day_on_recorded_loads_is_cooler_when_relieved_and_breaks_no_rule() -> None:
    day = Month(np.random.default_rng(14), 20, 500, 1)
    told: list[int] = []
    alone, relieved = day.run(None), day.run(SETTINGS, day_ends=lambda days, _: told.append(days))
    assert relieved.moves > 0
    assert relieved.hot_s < alone.hot_s
    assert (relieved.broken, relieved.early, told) == (0, 0, [1])


def test_guests_use_what_was_recorded_of_machines_scaled_to_the_fleet_and_their_vcpus_at_most() -> None:
    day = Month(np.random.default_rng(3), 40, 1000, 1)
    used = day.used()
    assert used.shape == (STEPS_A_DAY, 1000)
    assert (used <= day.vcpus).all()
    assert 0.4 < used.sum(axis=1).mean() / (40 * 32) < 0.55
