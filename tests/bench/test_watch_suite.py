"""A fleet's days on recorded loads, and its loads out of bulk statistics, in small."""

import numpy as np
import pytest

from bench.fleets.month import STEPS_A_DAY, Month
from bench.suites.watch.month import SETTINGS, read_inventory, weigh
from dwcp_migrate.placement.fleet import CPU_USED
from dwcp_migrate.placement.planner import plan_rebalance


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


def test_descriptions_of_libvirt_s_length_are_read_to_a_fleet_that_can_be_planned_for() -> None:
    fleet, _ = read_inventory(4, 25, np.random.default_rng(1))
    assert (len(fleet.hosts), len(fleet.domains), fleet.bars) == (4, 100, {})
    assert all(one.movable and one.demand["vcpus"] >= 1 for one in fleet.domains)
    assert {host.capacity["vcpus"] for host in fleet.hosts} == {64.0}
    assert plan_rebalance(fleet).left == []


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_thousand_hosts_and_fifty_thousand_guests_are_weighed_in_ten_seconds_of_cpu_and_planned_for() -> None:
    _, weighed_s = weigh(2000, 25)
    assert weighed_s < 10.0
    fleet, _ = read_inventory(2000, 25, np.random.default_rng(1))
    assert len(fleet.domains) == 50_000
    plan = plan_rebalance(fleet)
    assert plan.steps
    assert plan.after.broken == 0
