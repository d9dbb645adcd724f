"""Exact plans: as good as can be proven, within their limits, and never silent about what they leave out."""

import itertools

import msgspec
import numpy as np
import pytest

from bench.fleets import generate
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.check import levels, violations
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Domain, Fleet, Rule
from dwcp_migrate.placement.model import build_problem
from dwcp_migrate.placement.plan import Goal, Plan, Proof, decode_plan, encode_plan
from dwcp_migrate.placement.planner import plan_drain, plan_exactly, plan_rebalance
from dwcp_migrate.placement.solver import exact
from dwcp_migrate.placement.solver.exact import SolverEffort
from tests.placement.fleets import domain, fleet, host, rng
from tests.placement.test_planner import carried_out

EFFORT = SolverEffort(20.0)
REBALANCE = Goal(purpose="rebalance")


def least_level(whole: Fleet) -> float:
    """Level of the fullest host in the best of all assignments, by trying them."""
    names = [one.name for one in whole.domains]
    best = np.inf
    for hosts in itertools.product([one.name for one in whole.hosts], repeat=len(names)):
        places = dict(zip(names, hosts, strict=True))
        if not violations(whole, places):
            best = min(best, *[max(levels(whole, places).values())])
    return float(best)


@pytest.mark.parametrize("seed", range(3))
def test_a_rebalance_comes_within_half_a_band_of_the_best_by_the_cheapest_moves(seed: int) -> None:
    draw = rng(seed)
    sizes = draw.integers(1, 6, 6)
    domains = [domain(f"x{n}", "a", vcpus=float(size), memory=1024) for n, size in enumerate(sizes)]
    whole = fleet(
        [host("a", 24), host("b", 16), host("c", 8)], domains, Rule(name="r", kind="apart", domains=["x0", "x1"])
    )
    policy = PlacementPolicy(price_per_s=1e-4)
    made = plan_exactly(whole, REBALANCE, EFFORT, policy)
    assert made.proof is not None
    best = least_level(whole)
    assert made.proof.fullest == pytest.approx(best, abs=2e-6)
    assert made.proof.fullest_gap == pytest.approx(0, abs=1e-6)
    assert made.proof.price_gap == pytest.approx(0, abs=1e-6)
    places = carried_out(whole, made, seed)
    assert violations(whole, places) == []
    assert max(levels(whole, places).values()) <= best + policy.balanced / 2 + 1e-5
    assert len(made.steps) <= len(plan_rebalance(whole, policy).steps)


def test_a_drain_moves_only_what_must_go() -> None:
    whole = generate.skewed(rng(1), 40, 8, fill=0.5)
    made = plan_exactly(whole, Goal(purpose="drain", host="hv2"), EFFORT)
    places = carried_out(whole, made, 1)
    assert not made.left
    assert "hv2" not in places.values()
    assert len(made.steps) <= len(plan_drain(whole, "hv2").steps)
    assert made.after.fullest <= made.before.fullest + 1e-9


def test_an_even_fleet_is_left_alone_by_the_solver_too() -> None:
    whole = fleet([host(name) for name in "abc"], [domain(f"x{n}", "abc"[n % 3]) for n in range(9)])
    made = plan_exactly(whole, REBALANCE, EFFORT)
    assert made.steps == []
    assert made.proof is not None
    assert (made.proof.price, made.proof.price_gap) == (0.0, 0.0)


def test_who_must_stay_stays_even_over_capacity() -> None:
    domains = [domain("big", "a", vcpus=20, movable=False), domain("x", "a"), domain("y", "b")]
    made = plan_exactly(fleet([host("a"), host("b")], domains), REBALANCE, EFFORT)
    assert {step.domain for step in made.steps} == {"x"}


def test_pairs_have_a_limit_at_and_past_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fleet([host("a"), host("b")], [domain(f"x{n}", "a") for n in range(3)])
    monkeypatch.setattr(exact, "PAIRS_MAX", 6)
    assert plan_exactly(whole, REBALANCE, EFFORT).steps
    monkeypatch.setattr(exact, "PAIRS_MAX", 5)
    with pytest.raises(PlacementError, match="6 pairs of domain and host are more than 5"):
        plan_exactly(whole, REBALANCE, EFFORT)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(name="r", kind="apart", domains=["x", "y"], hard=False),
        Rule(name="r", kind="together", domains=["x", "y"], level="rack"),
    ],
)
def test_what_is_not_modelled_is_refused(rule: Rule) -> None:
    whole = fleet([host("a"), host("b", rack="2")], [domain("x", "a"), domain("y", "a")], rule)
    with pytest.raises(PlacementError, match="hard `apart` and `spread` rules only"):
        plan_exactly(whole, REBALANCE, EFFORT)


def test_no_way_out_is_said() -> None:
    whole = fleet([host("a"), host("b", vcpus=1)], [domain("x", "a")])
    with pytest.raises(PlacementError, match="no assignment keeps all"):
        plan_exactly(whole, Goal(purpose="drain", host="a"), EFFORT)


def test_rules_about_racks_are_held() -> None:
    rule = Rule(name="r", kind="apart", domains=["x", "y"], level="rack")
    hosts = [host("a", rack="1"), host("b", rack="1"), host("c", rack="2")]
    made = plan_exactly(fleet(hosts, [domain("x", "a"), domain("y", "b")], rule), REBALANCE, EFFORT)
    assert {step.destination for step in made.steps} == {"c"}
    assert made.after.broken == 0


def test_out_of_time_the_search_s_plan_remains() -> None:
    whole = generate.skewed(rng(2), 60, 10)
    problem = build_problem(whole)
    settled = exact.solve_exactly(problem, problem.state.host.copy(), SolverEffort(1e-3))
    assert settled.price.value >= settled.price.bound
    assert len(settled.price.host) == len(problem.items)


def test_a_proof_survives_json() -> None:
    whole = fleet([host("a"), host("b")], [Domain(name=f"x{n}", host="a", demand={"vcpus": 4.0}) for n in range(2)])
    made: Plan = plan_exactly(whole, REBALANCE, EFFORT)
    assert decode_plan(encode_plan(made)).proof == made.proof
    assert Proof(fullest=0.5, fullest_min=0.4, price=0.0, price_min=0.0).fullest_gap == pytest.approx(0.2)
    assert decode_plan(encode_plan(msgspec.structs.replace(made, proof=None))).proof is None
