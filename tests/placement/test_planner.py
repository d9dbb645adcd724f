"""Plans: what they reach, and that every moment on the way is feasible, in whatever order steps happen to end."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from bench.fleets import generate
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement import plan
from dwcp_migrate.placement.arrays import State
from dwcp_migrate.placement.balance import Workers
from dwcp_migrate.placement.check import levels, violations
from dwcp_migrate.placement.cost import Forecast, PlacementPolicy, default_cost
from dwcp_migrate.placement.explain import explain_plan
from dwcp_migrate.placement.fleet import Domain, Fleet, Rule
from dwcp_migrate.placement.kernels.search import place_items
from dwcp_migrate.placement.model import build_problem
from dwcp_migrate.placement.plan import Plan, Step
from dwcp_migrate.placement.planner import (
    in_maintenance,
    places,
    plan_again,
    plan_drain,
    plan_migrate,
    plan_rebalance,
    rest_domains,
)
from tests.placement.fleets import domain, fleet, host, rng

SEEDS = range(3)


def at(whole: Fleet, places: dict[str, str], arriving: dict[str, str] | None = None) -> Fleet:
    """The fleet with its domains elsewhere."""
    found = [
        msgspec.structs.replace(one, host=places.get(one.name, ""), arriving=(arriving or {}).get(one.name, ""))
        for one in whole.domains
    ]
    return msgspec.structs.replace(whole, domains=found)


def carried_out(whole: Fleet, made: Plan, seed: int, policy: PlacementPolicy | None = None) -> dict[str, str]:
    """Carry a plan out with random durations, beginning any step that `after` lets begin; every moment is checked."""
    policy = policy or PlacementPolicy()
    draw = rng(seed)
    places = {one.name: one.host for one in whole.domains if one.host}
    broken = set(violations(whole, places))
    waiting, running = list(made.steps), list[Step]()
    done: set[int] = set()
    while waiting or running:
        ready = [step for step in waiting if set(step.after) <= done]
        ready = [
            step
            for step in ready
            if len(running) < policy.running_max
            and sum(one.source == step.source for one in running) < policy.outgoing_max
            and sum(one.destination == step.destination for one in running) < policy.incoming_max
        ]
        if ready and (not running or draw.random() < 0.6):
            step = ready[int(draw.integers(len(ready)))]
            assert places[step.domain] == step.source
            waiting.remove(step)
            running.append(step)
        else:
            step = running.pop(int(draw.integers(len(running))))
            places[step.domain] = step.destination
            done.add(step.number)
        arriving = {one.domain: one.destination for one in running}
        now = set(violations(at(whole, places, arriving), places))
        assert now <= broken, f"seed {seed}: {now - broken}"
        broken = now
    return places


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rebalance_is_feasible_at_each_moment_and_evens_out(seed: int) -> None:
    whole = generate.skewed(rng(seed), 100, 16)
    made = plan_rebalance(whole)
    assert made.steps
    for order in range(3):
        places = carried_out(whole, made, order)
    assert violations(whole, places) == []
    assert np.isclose(max(levels(whole, places).values()), made.after.fullest)
    assert made.after.fullest < made.before.fullest
    assert made.after.deviation < made.before.deviation
    assert made.after.broken == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_evened_out_is_left_alone(seed: int) -> None:
    whole = generate.skewed(rng(seed), 100, 16)
    made = plan_rebalance(whole)
    places = carried_out(whole, made, seed)
    assert plan_rebalance(at(whole, places)).steps == []


def test_a_plan_is_the_same_with_any_number_of_workers() -> None:
    whole = generate.planted(rng(5), 40, 10, 0.65)
    problem = build_problem(whole)
    for item in np.argsort(-problem.model.load[:, 0], kind="stable"):
        place_items(problem.table, np.array([item]))
    placed = at(whole, places(problem))
    tried = 0

    def across(work: Callable[[float], State | None], levels: Iterable[float]) -> list[State | None]:
        nonlocal tried
        wanted = list(levels)
        tried += len(wanted)
        with ThreadPoolExecutor(3) as threads:
            return list(threads.map(work, wanted))

    alone = plan_rebalance(placed, PlacementPolicy(balanced=0.0))
    assert plan_rebalance(placed, PlacementPolicy(balanced=0.0), workers=Workers(across, 3)) == alone
    assert tried > 1


def test_an_even_fleet_gives_an_empty_plan() -> None:
    whole = fleet([host(name) for name in "abc"], [domain(f"x{n}", "abc"[n % 3]) for n in range(9)])
    assert plan_rebalance(whole).steps == []
    assert plan_rebalance(fleet([], [])).steps == []
    assert plan_rebalance(fleet([host("a")], [])).steps == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drain_empties_the_host_and_breaks_nothing(seed: int) -> None:
    whole = generate.skewed(rng(seed), 120, 20, fill=0.5)
    made = plan_drain(whole, "hv2")
    assert made.steps
    drained = in_maintenance(whole, "hv2")
    for order in range(3):
        places = carried_out(drained, made, order)
    left = {one.domain for one in made.left}
    assert {name for name, place in places.items() if place == "hv2"} == left
    assert violations(whole, places) == []


def test_a_drain_that_cannot_end_says_what_stays_and_why() -> None:
    whole = fleet([host("a"), host("b", vcpus=4)], [domain("x", "a", vcpus=3), domain("y", "a", vcpus=3)])
    made = plan_drain(whole, "a")
    assert len(made.steps) == 1
    assert [(one.domain in {"x", "y"}, one.host) for one in made.left] == [(True, "a")]
    assert "b: it has 1 vcpus free, 3 are needed" in made.left[0].why


def test_a_drain_goes_where_its_domains_are_wanted_as_far_as_these_hosts_take_them() -> None:
    hosts = [host("a"), host("b"), host("c", vcpus=4), host("d")]
    whole = fleet(hosts, [domain("x", "a"), domain("y", "a", vcpus=8), domain("z", "a"), domain("w", "d")])
    wanted = {"x": "c", "y": "c", "z": "gone", "w": "b"}
    made = plan_drain(whole, "a", wanted=wanted)
    steps = {step.domain: step.destination for step in made.steps}
    assert steps.keys() == {"x", "y", "z"}, "what runs elsewhere stays"
    assert steps["x"] == "c"
    assert steps["y"] in {"b", "d"}, "c has no room for it"
    assert made.left == []
    other = plan_drain(whole, "a", wanted={"x": "d", "z": "d"})
    assert {(step.domain, step.destination) for step in other.steps} >= {("x", "d"), ("z", "d")}


def test_domains_of_a_group_leave_together() -> None:
    rule = Rule(name="r", kind="together", domains=["x", "y"])
    whole = fleet([host("a"), host("b"), host("c")], [domain("x", "a"), domain("y", "a"), domain("z", "b")], rule)
    made = plan_drain(whole, "a")
    assert {(step.domain, step.destination) for step in made.steps} == {("x", "c"), ("y", "c")}
    assert made.after.broken == 0


def test_two_that_must_trade_places_go_by_way_of_a_third() -> None:
    hosts = [host("a", vcpus=10), host("b", vcpus=10), host("c", vcpus=10)]
    rules = [
        Rule(name="x-b", kind="pin", domains=["x"], zones=["b"]),
        Rule(name="y-a", kind="pin", domains=["y"], zones=["a"]),
    ]
    pinned = fleet(hosts, [domain("x", "a", vcpus=8), domain("y", "b", vcpus=8)], *rules)
    stuck = plan_rebalance(pinned)  # the third host is closed to both
    assert stuck.steps == []
    assert {one.domain for one in stuck.left} == {"x", "y"}
    open_rules = [msgspec.structs.replace(rule, hard=False, weight=50.0) for rule in rules]
    whole = msgspec.structs.replace(pinned, rules=open_rules)
    made = plan_rebalance(whole)
    places = carried_out(whole, made, 1)
    assert places == {"x": "b", "y": "a"}
    assert len(made.steps) == 3


def test_a_step_waits_for_the_room_that_another_leaves() -> None:
    whole = fleet(
        [host("a", vcpus=10), host("b", vcpus=10), host("c", vcpus=10)],
        [domain("x", "a", vcpus=8), domain("y", "b", vcpus=8)],
        Rule(name="x-b", kind="pin", domains=["x"], zones=["b"]),
        Rule(name="y-c", kind="pin", domains=["y"], zones=["c"]),
    )
    made = plan_rebalance(whole)
    assert [(step.domain, step.after) for step in made.steps] == [("y", []), ("x", [0])]
    assert made.steps[1].begins_s == made.steps[0].seconds


def test_the_limits_of_migrations_at_once_hold_at_and_past_them() -> None:
    whole = fleet([host("a", vcpus=64), *(host(name) for name in "bcdefg")], [domain(f"x{n}", "a") for n in range(12)])
    for policy in (
        PlacementPolicy(),
        PlacementPolicy(outgoing_max=1),
        PlacementPolicy(outgoing_max=9, running_max=3),
        PlacementPolicy(outgoing_max=99, incoming_max=1, running_max=99),
    ):
        steps = plan_drain(whole, "a", policy).steps
        assert len(steps) == 12
        for moment in {step.begins_s for step in steps}:
            running = [step for step in steps if step.begins_s <= moment < step.begins_s + step.seconds]
            assert len(running) <= min(policy.running_max, policy.outgoing_max)
            for name in "bcdefg":
                assert sum(step.destination == name for step in running) <= policy.incoming_max
        assert max(
            len([s for s in steps if s.begins_s <= t < s.begins_s + s.seconds]) for t in {s.begins_s for s in steps}
        ) == min(policy.running_max, policy.outgoing_max, 6 * policy.incoming_max)


def test_a_move_must_be_worth_its_price() -> None:
    whole = fleet([host("a"), host("b")], [domain(f"x{n}", "a", vcpus=3) for n in range(4)])
    assert plan_rebalance(whole).steps
    spread = fleet(
        [host("a"), host("b"), host("c")],
        [*(domain(f"x{n}", "abc"[n % 3], vcpus=4) for n in range(6)), domain("y", "a", vcpus=0.4)],
    )
    assert plan_rebalance(spread).steps == []


def test_a_forecast_decides_which_domain_moves() -> None:
    whole = fleet([host("a"), host("b")], [domain(name, "a", vcpus=4) for name in ("quick", "slow")])

    def cost(one: Domain, bytes_per_s: float, _source: str = "", _destination: str = "") -> Forecast:
        return Forecast(seconds=1000.0 if one.name == "slow" else 1.0, downtime_s=0.1, wire_bytes=bytes_per_s)

    assert [step.domain for step in plan_rebalance(whole, cost=cost).steps] == ["quick"]


def test_the_moves_of_a_plan_have_a_limit() -> None:
    whole = generate.skewed(rng(1), 100, 16)
    assert 0 < len(plan_rebalance(whole, PlacementPolicy(moves_max=3)).steps) <= 3
    assert plan_rebalance(whole, PlacementPolicy(moves_max=0)).steps == []


def test_who_moved_lately_stays_but_leaves_a_drained_host() -> None:
    whole = fleet([host("a"), host("b")], [domain(name, "a", vcpus=4) for name in ("x", "y")])
    moved = [step.domain for step in plan_rebalance(rest_domains(whole, {"x"})).steps]
    assert moved == ["y"]
    assert len(plan_drain(whole, "a").steps) == 2


def test_a_domain_moves_where_it_is_told_or_where_it_is_best() -> None:
    whole = fleet([host("a"), host("b"), host("c", vcpus=1)], [domain("x", "a"), domain("y", "b")])
    assert [step.destination for step in plan_migrate(whole, "x").steps] == ["b"]
    assert [step.destination for step in plan_migrate(whole, "x", "b").steps] == ["b"]
    for name, where, says in (
        ("x", "c", "c does not take x: it has 1 vcpus free"),
        ("x", "a", "already"),
        ("x", "nowhere", "no host nowhere"),
        ("ghost", "", "no domain ghost"),
    ):
        with pytest.raises(PlacementError, match=says):
            plan_migrate(whole, name, where)
    full = fleet([host("a"), host("c", vcpus=1)], [domain("x", "a")])
    with pytest.raises(PlacementError, match="no other host takes x"):
        plan_migrate(full, "x")


def test_the_same_goal_in_a_changed_fleet() -> None:
    whole = fleet([host(name) for name in "abc"], [domain(f"x{n}", "a") for n in range(3)])
    made = plan_drain(whole, "a")
    half = at(whole, {"x0": "b", "x1": "a", "x2": "a"})
    dead = msgspec.structs.replace(
        half, hosts=[msgspec.structs.replace(one, state="down") if one.name == "b" else one for one in half.hosts]
    )
    again = plan_again(made, dead)
    assert {(step.domain, step.destination) for step in again.steps} == {("x1", "c"), ("x2", "c")}
    moved = plan_migrate(whole, "x0")
    assert plan_again(moved, at(whole, {"x0": moved.steps[0].destination, "x1": "a", "x2": "a"})).steps == []
    with pytest.raises(PlacementError, match="no host a"):
        plan_again(made, fleet([host("b")], []))


def test_a_plan_survives_its_file_and_nonsense_is_refused() -> None:
    made = plan_rebalance(generate.skewed(rng(1), 100, 16))
    assert plan.decode_plan(plan.encode_plan(made)) == made
    first, second = made.steps[:2]
    for steps, says in (
        ([second], "stands in place"),
        ([msgspec.structs.replace(first, after=[0])], "does not come before"),
        ([msgspec.structs.replace(first, after=[-1])], "does not come before"),
        ([msgspec.structs.replace(first, destination=first.source)], "to itself"),
    ):
        with pytest.raises(PlacementError, match=says):
            plan.decode_plan(plan.encode_plan(msgspec.structs.replace(made, steps=steps)))
    with pytest.raises(PlacementError, match="plan"):
        plan.decode_plan(b"[]")


def test_a_plan_is_explained_host_by_host() -> None:
    whole = fleet(
        [host("a"), host("b"), host("c", vcpus=1), host("d", state="down")],
        [domain("x", "a"), domain("y", "a")],
        Rule(name="part", kind="exclude", domains=["x"], zones=["d"]),
    )
    made = plan_drain(whole, "a")
    text = "\n".join(explain_plan(build_problem(in_maintenance(whole, "a")), made))
    assert "x -> b: the host would be at" in text
    assert "c: no, it has 1 vcpus free, 2 are needed" in text
    assert "d: no, it is down" in text
    assert "a: it runs there; the host is to be emptied" in text


def test_the_plain_forecast_counts_passes_over_dirty_memory() -> None:
    quiet = default_cost(domain("x", memory=1024), 125e6)
    assert np.isclose(quiet.seconds, 1024 * 2**20 / 250e6)
    busy = default_cost(domain("x", memory=1024, dirty_bytes_per_s=125e6), 125e6)
    assert quiet.seconds < busy.seconds < 2 * quiet.seconds + 1e-9
    assert busy.downtime_s <= 0.3
    endless = default_cost(domain("x", memory=1024, dirty_bytes_per_s=1e9), 125e6)
    assert endless.downtime_s > 0.3
    assert endless.wire_bytes > 10 * quiet.wire_bytes
