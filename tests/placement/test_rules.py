"""Each kind of rule, hard and soft, at each level: what it bars, and in which words."""

import math

import numpy as np
import pytest

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.explain import reasons
from dwcp_migrate.placement.fleet import Cell, Domain, Fleet, Host, Rule
from dwcp_migrate.placement.kernels.search import item_cost, item_scores
from dwcp_migrate.placement.model import Problem, build_problem
from dwcp_migrate.placement.online import Placer
from tests.placement.fleets import domain, fleet, host

RACKS = [host("a", rack="1"), host("b", rack="1"), host("c", rack="2")]


def open_to(whole: Fleet, name: str) -> set[str]:
    problem = build_problem(whole)
    item = problem.item_of[problem.domain_index(name)]
    scores = np.empty(len(problem.hosts))
    item_scores(problem.table, item, scores)
    return {problem.hosts[h] for h in np.flatnonzero(np.isfinite(scores))}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(name="r", kind="apart", domains=["x", "y"]), {"b", "c"}),
        (Rule(name="r", kind="apart", domains=["x", "y"], level="rack"), {"c"}),
        (Rule(name="r", kind="apart", domains=["x", "y"], limit=2), {"a", "b", "c"}),
        (Rule(name="r", kind="apart", domains=["x", "y"], hard=False), {"a", "b", "c"}),
        (Rule(name="r", kind="spread", domains=["x", "y"], level="rack"), {"c"}),
        (Rule(name="r", kind="together", domains=["x", "y"]), {"a"}),
        (Rule(name="r", kind="together", domains=["x", "y"], level="rack"), {"a", "b"}),
        (Rule(name="r", kind="pin", domains=["y"], zones=["b", "c"]), {"b", "c"}),
        (Rule(name="r", kind="pin", domains=["y"], level="rack", zones=["2"]), {"c"}),
        (Rule(name="r", kind="exclude", domains=["y"], level="rack", zones=["2"]), {"a", "b"}),
    ],
)
def test_a_hard_rule_bars_exactly_what_it_says(rule: Rule, expected: set[str]) -> None:
    whole = fleet(RACKS, [domain("x", "a"), domain("y")], rule)
    assert open_to(whole, "y") == expected
    for name in ("a", "b", "c"):
        assert (violations(whole, {"x": "a", "y": name}) == []) == (name in expected)


def test_a_soft_rule_costs_its_weight() -> None:
    for rule in (
        Rule(name="r", kind="apart", domains=["x", "y"], hard=False, weight=7.0),
        Rule(name="r", kind="exclude", domains=["y"], zones=["a"], hard=False, weight=7.0),
    ):
        ruled, free = (build_problem(fleet(RACKS, [domain("x", "a"), domain("y")], *some)) for some in ([rule], []))
        assert math.isclose(item_cost(ruled.table, 1, 0) - item_cost(free.table, 1, 0), 7.0)
        assert math.isclose(item_cost(ruled.table, 1, 2), item_cost(free.table, 1, 2))


def test_a_soft_together_costs_each_parted_pair() -> None:
    rule = Rule(name="r", kind="together", domains=["x", "y", "z"], hard=False, weight=2.0)
    problem = build_problem(fleet(RACKS, [domain("x", "a"), domain("y", "b"), domain("z")], rule))
    assert math.isclose(
        item_cost(problem.table, 2, 2) - item_cost(problem.table, 2, 0), 2.0 * 2 - 2.0 + _balance(problem, 2, 0)
    )


def _balance(problem: Problem, item: int, h: int) -> float:
    """How much less an empty host costs than host h for evenness."""
    model, state = problem.model, problem.state
    return -float((model.price[:, h] * 2 * state.loaded[:, h] * model.load[item]).sum())


@pytest.mark.parametrize(
    ("of_domain", "of_host", "says"),
    [
        ({"cpu_model": "v4"}, {"cpu_models": ["v3"]}, "CPU does not offer v4"),
        ({"storage": ["ceph"]}, {"storage": ["nfs"]}, "storage ceph"),
        ({"networks": ["dmz"]}, {}, "network dmz"),
        ({"origin": "x", "latency_ms_max": 5.0}, {"datacentre": "y"}, "7 ms from x"),
        ({}, {"state": "maintenance"}, "in maintenance"),
        ({}, {"state": "down"}, "down"),
        ({"vcpus": 17}, {}, "16 vcpus free, 17 are needed"),
        ({"cells": 2}, {"cells": [Cell(vcpus=16, memory_mib=65536)]}, "NUMA cells"),
    ],
)
def test_what_bars_a_host_is_said(of_domain: dict[str, object], of_host: dict[str, object], says: str) -> None:
    whole = fleet([host("a", **of_host)], [domain("x", **of_domain)], latency_ms={"x": {"y": 7.0}})  # type: ignore[arg-type]
    assert open_to(whole, "x") == set()
    assert says in reasons(build_problem(whole), 0)["a"]


def test_a_counted_device_is_a_resource() -> None:
    gpu = Domain(name="x", demand={"gpu_a100": 2})
    whole = Fleet(hosts=[host("a"), host("b")], domains=[gpu])
    assert open_to(whole, "x") == set()
    with_gpu = Fleet(hosts=[host("a"), Host(name="b", capacity={"gpu_a100": 2})], domains=[gpu])
    assert open_to(with_gpu, "x") == {"b"}


def test_overcommit_and_reserve_change_what_is_usable() -> None:
    whole = fleet([host("a", overcommit={"vcpus": 4.0}, reserve={"memory_mib": 65536 - 4096})], [domain("x", vcpus=64)])
    assert open_to(whole, "x") == {"a"}
    assert open_to(fleet(whole.hosts, [domain("x", vcpus=65)]), "x") == set()
    assert open_to(fleet(whole.hosts, [domain("x", memory=4097)]), "x") == set()


def test_the_reserve_of_hosts_leaves_room_for_the_largest_to_fail() -> None:
    hosts = [host(name) for name in "abcd"]
    assert open_to(fleet(hosts, [domain("x", vcpus=12)], reserve_hosts=1), "x") == set("abcd")
    assert open_to(fleet(hosts, [domain("x", vcpus=12.01)], reserve_hosts=1), "x") == set()


def test_cells_are_taken_and_given_back() -> None:
    cells = [Cell(vcpus=8, memory_mib=32768), Cell(vcpus=8, memory_mib=32768)]
    problem = build_problem(
        fleet([host("a", cells=cells)], [domain(f"x{n}", vcpus=10, memory=8192, cells=2) for n in range(2)])
    )
    placer = Placer(problem)
    held = placer.place(["x0"])
    with pytest.raises(PlacementError, match="no host takes x1"):
        placer.place(["x1"])
    placer.release(held)
    assert placer.place(["x1"]).hosts == ("a",)


def test_domains_that_must_share_a_host_move_as_one() -> None:
    rule = Rule(name="r", kind="together", domains=["x", "y"])
    problem = build_problem(fleet(RACKS, [domain("x", "a"), domain("y", "a")], rule))
    assert problem.items == [[0, 1]]
    parted = build_problem(fleet(RACKS, [domain("x", "a"), domain("y", "b")], rule))
    assert parted.items == [[0], [1]]


def test_rules_that_contradict_each_other_are_refused() -> None:
    rules = [Rule(name=kind, kind=kind, domains=["x", "y"]) for kind in ("together", "apart")]
    with pytest.raises(PlacementError, match="keeps together"):
        build_problem(fleet(RACKS, [domain("x"), domain("y")], *rules))


def test_an_arriving_domain_counts_on_both_hosts() -> None:
    whole = fleet([host("a"), host("b")], [domain("x", "a", vcpus=10, arriving="b"), domain("y", vcpus=10)])
    assert open_to(whole, "y") == set()
    assert violations(whole, {"x": "a", "y": "b"}) != []


def test_the_quantile_of_a_series_stands_for_the_load() -> None:
    series = {"vcpus": [float(value) for value in range(101)]}
    problem = build_problem(fleet([host("a", vcpus=200)], [domain("x", "a", series=series)], quantile=0.9))
    assert math.isclose(problem.state.loaded[problem.resources.index("vcpus"), 0], 90.0)
