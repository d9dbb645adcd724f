"""The exhaustive search of tiny fleets: it finds what chains miss, keeps rules, and keeps to its budget."""

import pytest

from bench.fleets import generate
from bench.suites.itp_accuracy import LEVEL, settled
from dwcp_migrate.placement.balance import bound, even_out, figures
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.model import Problem, build_problem
from dwcp_migrate.placement.planner import places
from dwcp_migrate.placement.solver.tiny import TINY_HOSTS, TINY_ITEMS, is_tiny, lowest_state
from tests.placement.fleets import domain, fleet, host, rng


def stuck() -> Problem:
    """Six guests of 3, 3, 2, 2, 2, 2 on two hosts of ten, 6 against 8: only two for one at once help."""
    sizes = {"a": [3.0, 3.0], "b": [2.0, 2.0, 2.0, 2.0]}
    there = [domain(f"{at}{n}", at, one, one) for at, found in sizes.items() for n, one in enumerate(found)]
    return build_problem(fleet([host(name, 10, 10) for name in sizes], there))


def test_the_least_level_is_found_and_the_state_is_left_as_it_was() -> None:
    problem = stuck()
    before = problem.state.host.copy()
    found = lowest_state(problem, 0.8, 0.7)
    assert found is not None
    assert (problem.state.host == before).all()
    problem.restore(found)
    assert figures(problem)[0] == pytest.approx(0.7)


def test_a_budget_of_nothing_finds_nothing_and_one_below_the_least_level_neither() -> None:
    problem = stuck()
    assert lowest_state(problem, 0.8, 0.7, 0) is None
    assert lowest_state(problem, 0.7, 0.5) is None


@pytest.mark.parametrize("seed", [43, 54, 79, 99, 144, 185])
def test_a_tiny_fleet_is_evened_out_to_the_optimum_that_chains_alone_missed(seed: int) -> None:
    random = rng(seed)
    whole = generate.planted(random, int(random.integers(2, 6)), int(random.integers(2, 4)), LEVEL, apart=0.3)
    problem = build_problem(whole)
    assert settled(problem) == len(problem.items)
    assert figures(problem)[0] <= LEVEL * 1.01
    assert violations(whole, places(problem)) == []


def test_who_may_not_move_stays_and_moves_have_a_limit() -> None:
    problem = stuck()
    start = problem.state.copy()
    even_out(problem, start, bound(problem), 2)
    assert int((problem.state.host != start.host).sum()) <= 2
    sizes = [domain(f"x{n}", "a", 3, movable=n > 1) for n in range(4)]
    kept = build_problem(fleet([host("a"), host("b")], sizes))
    found = lowest_state(kept, figures(kept)[0], bound(kept))
    assert found is not None
    assert (found.host[:2] == kept.state.host[:2]).all()


def test_a_fleet_past_either_limit_is_not_searched() -> None:
    few = fleet([host(f"h{n}") for n in range(TINY_HOSTS)], [domain(f"x{n}", "h0") for n in range(TINY_ITEMS)])
    assert is_tiny(build_problem(few))
    more_hosts = fleet([host(f"h{n}") for n in range(TINY_HOSTS + 1)], few.domains)
    more_domains = fleet(few.hosts, [*few.domains, domain("y", "h0")])
    assert not is_tiny(build_problem(more_hosts))
    assert not is_tiny(build_problem(more_domains))
