"""The fleet in virtual time: rules hold, capacity holds, and it comes to rest."""

import numpy as np
import pytest

from bench.fleets import generate
from bench.fleets.simulate import Report, Scenario, Simulation
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.planner import places
from tests.placement.fleets import domain, fleet, host, rng


def run(
    whole: Fleet, scenario: Scenario, seed: int = 1, policy: PlacementPolicy | None = None
) -> tuple[Simulation, Report]:
    simulation = Simulation(whole, scenario, rng(seed), policy or PlacementPolicy())
    return simulation, simulation.run()


@pytest.mark.parametrize("seed", range(2))
def test_a_day_breaks_no_rule(seed: int) -> None:
    whole = generate.mixed(rng(seed), 240, 24)
    simulation, report = run(whole, Scenario(initial=120, life_h=20.0, failures=2), seed)
    assert report.placed > 200
    assert violations(whole, places(simulation.problem)) == []
    assert report.returns == 0
    assert (simulation.problem.state.free >= -1e-6).all()


def test_the_same_seed_gives_the_same_day() -> None:
    whole = generate.mixed(rng(1), 100, 12)
    assert run(whole, Scenario(initial=50, failures=1))[1] == run(whole, Scenario(initial=50, failures=1))[1]


def test_a_steady_fleet_comes_to_rest() -> None:
    whole = generate.mixed(rng(2), 200, 20)
    quiet = Scenario(initial=200, swing=0.0, hours=6)
    longer = Scenario(initial=200, swing=0.0, hours=18)
    assert run(whole, quiet)[1].moves == run(whole, longer)[1].moves


def test_balancing_makes_the_fleet_evener() -> None:
    whole = generate.mixed(rng(3), 300, 20)
    moving, still = (run(whole, Scenario(initial=300, life_h=10.0, balance=one))[1] for one in (True, False))
    assert moving.moves > 0
    assert still.moves == 0
    assert moving.fullest < still.fullest


def test_a_failed_host_s_domains_start_elsewhere_where_room_is_kept() -> None:
    hosts = [host(name) for name in "abcd"]
    whole = fleet(hosts, [domain(f"x{n}", vcpus=3) for n in range(16)], reserve_hosts=1)
    simulation, report = run(whole, Scenario(initial=16, failures=1, repair_h=100.0, swing=0.0))
    assert report.restarted + report.waiting >= 3
    assert report.waiting <= 4  # what the reserve holds back is not promised again
    assert violations(whole, places(simulation.problem)) == []


def test_without_room_they_wait_for_the_repair() -> None:
    whole = fleet([host("a"), host("b")], [domain(f"x{n}", vcpus=4) for n in range(8)])
    _, report = run(whole, Scenario(initial=8, failures=1, repair_h=0.5, hours=48, swing=0.0))
    assert (report.placed, report.restarted, report.waiting) == (8, 4, 0)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_thousand_hosts_and_fifty_thousand_domains() -> None:
    whole = generate.sized(generate.mixed(rng(1), 50_000, 2_000), 0.6)
    simulation, report = run(whole, Scenario(initial=45_000, hours=4, failures=4, tick_s=900.0))
    assert report.placed == 50_000
    assert report.restarted > 0
    assert violations(whole, places(simulation.problem)) == []
    assert np.isfinite(report.fullest)
