"""The placement suite: its cases are named as documented, and a small run of each suite scores what it must."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.fleets import generate, referee
from bench.frame import Row
from bench.suites import itp, itp_accuracy
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.balance import even_out, figures, moved
from dwcp_migrate.placement.fleet import Rule
from dwcp_migrate.placement.model import build_problem
from tests.placement.fleets import domain, fleet, host, rng

CASES = re.compile(
    r"place/\d+x\d+/(basic|complex|call)|geo/\d+/\d+/\d+|utilisation/\d+|affinity/\d+/\d+/\w+|rebalance/\d+|dynamic/\d+x\d+|accuracy/[\w-]+"
)

COMPARED = Path(itp.__file__).parents[1] / "results" / "itp-rebalancer.json"


def value(rows: list[Row], metric: str) -> float:
    return next(row.value for row in rows if row.metric == metric)


def test_each_latency_case_is_named_and_measured() -> None:
    rows = [
        itp._overhead(3),
        itp._place(10, 5, "complex", 3),
        itp._geo(3, 10, 50, 3),
        itp._utilisation(10, 3),
        itp._affinity(50, 5, "apart", 3),
        *itp._rebalance(10, 3),
        itp._dynamic(50, 20, 3),
    ]
    for row in rows:
        assert CASES.fullmatch(row.case), row.case
        assert row.value > 0, row
        assert np.isfinite(row.value)
    settled = {"ms", "moves", "max_utilisation", "gap_percent"}
    assert {row.metric for row in rows} == {"us", "ns", *settled, *(f"planned_{name}" for name in settled)}


@pytest.mark.parametrize(
    ("score", "gap"),
    [
        (lambda: itp_accuracy.exact(8), 5.0),
        (lambda: itp_accuracy.geo(50, 1), 5.0),
        (lambda: itp_accuracy.planted(20, 1), 2.0),
    ],
)
def test_each_accuracy_suite_breaks_nothing_places_all_and_comes_near(score: object, gap: float) -> None:
    rows = list(score().rows("suite", "method"))  # type: ignore[operator]
    assert value(rows, "violations") == 0
    assert value(rows, "placed_percent") == 100
    assert 0 <= value(rows, "gap_percent") <= gap


def test_a_domain_that_fills_a_host_leaves_one_where_others_gain_more() -> None:
    # Seed 10: two thirds above the optimum as long as no round emptied a host for it.
    problem = build_problem(generate.spread(rng(10), 5, 20, 100))
    assert itp_accuracy.near(problem, 20_000) <= referee.nearest(problem, 20.0).value * 1.01


def test_online_placements_are_the_best_there_are() -> None:
    rows = list(itp_accuracy.online(120))
    assert value(rows, "hit_percent") == 100
    assert value(rows, "violations") == 0


def test_random_moves_break_nothing() -> None:
    row = itp_accuracy.random_moves(2000)
    assert (row.case, row.metric, row.value) == ("accuracy/random-moves", "violations", 0)
    assert row.n >= 2000


def test_the_referee_proves_what_can_be_counted_by_hand() -> None:
    problem = build_problem(fleet([host("a"), host("b")], [domain(f"x{n}", vcpus=4, memory=1) for n in range(4)]))
    verdict = referee.fullest(problem, 10.0)
    assert verdict.proven
    assert np.isclose(verdict.value, 0.5)
    assert np.bincount(verdict.host).tolist() == [2, 2]
    near = generate.spread(rng(1), 2, 4, 3, fill=0.1)
    found = referee.nearest(build_problem(near), 10.0)
    assert found.proven
    assert found.value == 0.0
    none = referee.fullest(build_problem(fleet([host("a")], [domain("x", vcpus=99)])), 10.0)
    assert none.proven
    assert none.value == float("inf")


def test_the_referee_refuses_rules_that_it_does_not_know() -> None:
    rule = Rule(name="r", kind="apart", domains=["x", "y"], hard=False)
    problem = build_problem(fleet([host("a"), host("b", rack="2")], [domain("x"), domain("y")], rule))
    for ask in (referee.fullest, referee.nearest):
        with pytest.raises(PlacementError, match="rules only"):
            ask(problem, 1.0)


@pytest.mark.parametrize("row", json.loads(COMPARED.read_text())["rows"], ids=lambda row: f"{row['hosts']} hosts")
def test_at_no_more_moves_than_the_other_rebalancer_the_fleet_is_evener(row: dict[str, Any]) -> None:
    whole = generate.skewed(np.random.Generator(np.random.PCG64(row["seed"])), row["hosts"] * 10, row["hosts"])
    problem = build_problem(whole, itp.FREE)
    start = problem.state.copy()
    even_out(problem, start, 0.0, row["theirs"]["moves"])
    assert moved(problem, start) <= row["theirs"]["moves"]
    assert figures(problem)[2] <= row["theirs"]["deviation"]
