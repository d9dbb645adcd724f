"""Kernels against their numpy twins, against the fleet itself, and interpreted against compiled."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.fleets import generate
from dwcp_migrate.placement import kernel
from dwcp_migrate.placement.arrays import NOWHERE, table
from dwcp_migrate.placement.check import level_bound, levels, violations
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Fleet, Rule
from dwcp_migrate.placement.kernels import chains
from dwcp_migrate.placement.kernels.chains import repack_hosts
from dwcp_migrate.placement.kernels.moves import lowest_by_vector, scores_by_vector
from dwcp_migrate.placement.kernels.search import (
    descend_steepest,
    item_cost,
    item_scores,
    place_items,
    put_item,
    relieve_fullest,
    take_item,
    utilisation,
    walk,
)
from dwcp_migrate.placement.model import Problem, build_problem
from dwcp_migrate.placement.planner import places
from tests.placement.fleets import rng

SEEDS = range(4)


def complex_fleet(seed: int, domains: int = 120, hosts: int = 20) -> Fleet:
    """All kinds of rules at once, satisfied at the start but for what the skew left unplaced."""
    fleet = generate.skewed(rng(seed), domains, hosts)
    names = [one.name for one in fleet.domains]
    more = [
        Rule(name="soft", kind="apart", domains=names[:6], hard=False, weight=0.05, level="rack"),
        Rule(name="near", kind="together", domains=names[6:9], hard=False, weight=0.02, level="datacentre"),
    ]
    return Fleet(hosts=fleet.hosts, domains=fleet.domains, rules=[*fleet.rules, *more])


def objective(problem: Problem) -> float:
    """The objective from its definition, soft rules and prices included."""
    model, host = problem.model, problem.state.host
    total = float((model.price * problem.state.loaded**2).sum())
    for item, h in enumerate(host):
        if h >= 0:
            total += model.site_cost[model.site[item], h] + (model.move_cost[item] if h != model.home[item] else 0.0)
    for g in range(len(model.kind)):
        members = model.members[model.members_begin[g] : model.members_begin[g + 1]]
        zones = [int(model.zone[model.level[g], host[v]]) for v in members if host[v] >= 0]
        counts = np.unique(zones, return_counts=True)[1] if zones else np.zeros(0)
        if np.isfinite(model.weight[g]):
            if model.kind[g] == 0:
                total += model.weight[g] * np.maximum(counts - model.limit[g], 0).sum()
            else:
                total += model.weight[g] * (len(zones) ** 2 - (counts**2).sum()) / 2
    return total


def consistent(problem: Problem) -> bool:
    """Whether what the state counts is what the assignment says."""
    fresh = build_problem(problem.fleet, problem.policy)
    for item, h in enumerate(problem.state.host):
        if fresh.state.host[item] >= 0:
            take_item(fresh.table, item)
        if h >= 0:
            put_item(fresh.table, item, int(h))
    same = ("host", "counts", "placed")
    return all(np.array_equal(getattr(fresh.state, name), getattr(problem.state, name)) for name in same) and all(
        np.allclose(getattr(fresh.state, name), getattr(problem.state, name))
        for name in ("free", "loaded", "cell_free")
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_are_those_of_the_numpy_twin(seed: int) -> None:
    problem = build_problem(complex_fleet(seed))
    one, other = np.empty(len(problem.hosts)), np.empty(len(problem.hosts))
    for item in range(len(problem.items)):
        item_scores(problem.table, item, one)
        scores_by_vector(problem.model, problem.state, item, other)
        assert np.allclose(one, other, equal_nan=True)
        assert lowest_by_vector(one) == int(one.argmin())
        for h in range(0, len(one), 7):
            if h != problem.state.host[item]:
                assert np.isclose(item_cost(problem.table, item, h), one[h])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_gain_is_the_difference_of_the_objective(seed: int) -> None:
    problem = build_problem(complex_fleet(seed))
    draw = rng(seed + 100)
    moved = 0
    while moved < 50:
        item, h = int(draw.integers(len(problem.items))), int(draw.integers(len(problem.hosts)))
        here = int(problem.state.host[item])
        there = item_cost(problem.table, item, h)
        if h == here or not np.isfinite(there):
            continue
        before, expected = objective(problem), there - item_cost(problem.table, item, here)
        take_item(problem.table, item)
        put_item(problem.table, item, h)
        assert np.isclose(objective(problem) - before, expected)
        moved += 1


def test_a_batch_is_placed_whole_or_not_at_all() -> None:
    fleet = generate.mixed(rng(1), 60, 4)
    problem = build_problem(fleet)
    empty = problem.state.copy()
    stopped = place_items(problem.table, np.arange(60))
    if stopped == NOWHERE:
        assert violations(fleet, places(problem)) == []
    many = build_problem(generate.mixed(rng(1), 4000, 4))
    before = many.state.copy()
    failed = place_items(many.table, np.arange(4000))
    assert failed > 0
    assert np.array_equal(many.state.host, before.host)
    assert np.allclose(many.state.free, before.free)
    problem.restore(empty)
    assert place_items(problem.table, np.arange(0)) == NOWHERE


@pytest.mark.parametrize("seed", SEEDS)
def test_descending_ends_where_no_move_gains(seed: int) -> None:
    problem = build_problem(complex_fleet(seed), PlacementPolicy(price_per_s=0.0))
    before = objective(problem)
    moves = descend_steepest(problem.table, 10_000, 1e-3)
    assert 0 < moves < 10_000
    assert objective(problem) <= before - moves * 1e-3 + 1e-9
    scores = np.empty(len(problem.hosts))
    for item in range(len(problem.items)):
        item_scores(problem.table, item, scores)
        assert item_cost(problem.table, item, int(problem.state.host[item])) - scores.min() <= 1e-3 + 1e-9
    assert consistent(problem)
    assert violations(problem.fleet, places(problem)) == []
    assert descend_steepest(problem.table, 10_000, 1e-3) == 0


def test_descending_makes_the_steepest_move_each_time() -> None:
    problem = build_problem(complex_fleet(9, 60, 10), PlacementPolicy(price_per_s=0.0))
    oracle = build_problem(problem.fleet, problem.policy)
    scores = np.empty(len(problem.hosts))
    for moves in range(1, 12):
        gains = []
        for item in range(len(oracle.items)):
            scores_by_vector(oracle.model, oracle.state, item, scores)
            gains.append(
                (item_cost(oracle.table, item, int(oracle.state.host[item])) - scores.min(), item, scores.argmin())
            )
        gain, item, target = max(gains, key=lambda one: (one[0], -one[1]))
        take_item(oracle.table, item)
        put_item(oracle.table, item, int(target))
        problem.restore(build_problem(problem.fleet, problem.policy).state)
        assert descend_steepest(problem.table, moves, 1e-9) == moves
        assert np.isclose(objective(problem), objective(oracle)), (moves, gain)


@pytest.mark.parametrize("seed", SEEDS)
def test_relieving_never_fills_the_fullest_host_further(seed: int) -> None:
    problem = build_problem(complex_fleet(seed))
    tops = [max(levels(problem.fleet, places(problem)).values())]
    while relieve_fullest(problem.table, 2, 0.0):
        tops.append(max(levels(problem.fleet, places(problem)).values()))
    assert tops == sorted(tops, reverse=True)
    assert tops[-1] < tops[0]
    assert violations(problem.fleet, places(problem)) == []
    assert consistent(problem)


@pytest.mark.parametrize("seed", SEEDS)
def test_chains_reach_a_level_or_change_nothing(seed: int) -> None:
    problem = build_problem(complex_fleet(seed))
    bound = level_bound(problem.fleet, [one.name for one in problem.fleet.domains])
    before = problem.state.host.copy()
    assert repack_hosts(problem.table, bound * 0.99, 500, 0) == -1
    assert np.array_equal(problem.state.host, before)
    assert consistent(problem)
    assert repack_hosts(problem.table, bound * 1.1, 5000, 0) > 0
    assert max(levels(problem.fleet, places(problem)).values()) <= bound * 1.1 + 1e-9
    assert violations(problem.fleet, places(problem)) == []
    assert consistent(problem)


@pytest.mark.parametrize("pair", [0, chains.PAIR])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_that_chains_pass_over_makes_room_for_nobody(seed: int, pair: int) -> None:
    problem = build_problem(complex_fleet(seed))
    m, s = problem.model, problem.state
    largest = np.empty((2 * chains.PAIR, *m.inverse.shape))
    for h in range(len(problem.hosts)):
        chains._note_largest(m, s, h, largest)
    passed_over = 0
    target = level_bound(problem.fleet, [one.name for one in problem.fleet.domains]) * 1.02
    for v in range(len(problem.items)):
        for h in range(len(problem.hosts)):
            held = [w for w in np.flatnonzero(s.host == h) if m.movable[w]]
            groups = itertools.combinations(held, 2) if pair else ((w,) for w in held)
            makes_room = False
            for gone in groups:
                used = s.loaded[:, h] + m.load[v] - m.load[list(gone)].sum(axis=0)
                room = s.free[:, h] + m.demand[list(gone)].sum(axis=0)
                makes_room |= bool((used * m.inverse[:, h] <= target).all() and (room >= m.demand[v]).all())
            hopeful = bool(chains._hopeful(m, s, v, h, target, largest, pair))
            assert hopeful or not makes_room, (v, h)
            passed_over += not hopeful
    assert passed_over > 0


def test_a_chain_ends_at_its_limit() -> None:
    problem = build_problem(complex_fleet(1))
    bound = level_bound(problem.fleet, [one.name for one in problem.fleet.domains])
    needed = repack_hosts(problem.table, bound * 1.1, 5000, 0)
    problem.restore(build_problem(problem.fleet).state)
    assert repack_hosts(problem.table, bound * 1.1, needed, 0) == needed
    problem.restore(build_problem(problem.fleet).state)
    assert repack_hosts(problem.table, bound * 1.1, needed - 1, 0) == -1


def random_moves(seed: int, count: int, checks: int) -> None:
    """Random moves where rules let them; the fleet itself says after each batch that none is broken."""
    problem = build_problem(complex_fleet(seed, 400, 40))
    draw = rng(seed)
    made = 0
    while made < count:
        size = count // checks
        items, targets = draw.integers(len(problem.items), size=size), draw.integers(len(problem.hosts), size=size)
        made += walk(problem.table, items, targets)
        assert violations(problem.fleet, places(problem)) == [], f"seed {seed}, {made} moves"
    assert consistent(problem)


def test_random_moves_break_no_hard_rule() -> None:
    random_moves(seed=1, count=20_000, checks=40)


@pytest.mark.long
def test_a_million_random_moves_break_no_hard_rule() -> None:
    random_moves(seed=2, count=1_000_000, checks=1000)


def test_utilisation_is_that_of_the_fleet() -> None:
    problem = build_problem(complex_fleet(1))
    out = np.zeros(4)
    utilisation(problem.table, out)
    found = np.array(list(levels(problem.fleet, places(problem)).values()))
    assert np.allclose(out, [found.mean(), found.std(), found.max(), (found > 0.8).mean()])


def test_arrays_that_kernels_cannot_read_are_refused() -> None:
    problem = build_problem(complex_fleet(1))
    with pytest.raises(ValueError, match="contiguous"):
        table(problem.model, problem.state._replace(free=problem.state.free.astype(np.float32)))


PROGRAM = """
import json, sys
if sys.argv[1] == "interpreted":
    sys.modules["numba"] = None
import numpy as np
from dwcp_migrate.placement import kernel
assert kernel.COMPILED == (sys.argv[1] == "compiled")
from dwcp_migrate.placement import planner
from dwcp_migrate.placement.kernels.chains import repack_hosts
from dwcp_migrate.placement.model import build_problem
from dwcp_migrate.placement.kernels.search import descend_steepest, place_items, relieve_fullest
from tests.placement.fleets import rng
from tests.placement.test_kernels import complex_fleet
from bench.fleets import generate
found = []
problem = build_problem(complex_fleet(3, 60, 12))
for step in (
    lambda t: descend_steepest(t, 20, 1e-3),
    lambda t: relieve_fullest(t, 40, 0.0),
    lambda t: repack_hosts(t, 0.68, 300, 0),
):
    found.append([int(step(problem.table)), problem.state.host.tolist()])
batch = build_problem(generate.mixed(rng(1), 30, 6))
found.append([int(place_items(batch.table, np.arange(30))), batch.state.host.tolist()])
plan = planner.plan_rebalance(complex_fleet(4, 40, 8))
found.append([[step.domain, step.destination] for step in plan.steps])
print(json.dumps(found))
"""


@pytest.mark.parametrize(("disabled", "executable"), [("1", True), ("0", False)])
def test_where_nothing_may_be_compiled_kernels_are_interpreted(disabled: str, executable: bool) -> None:  # noqa: FBT001
    refused = "" if executable else "def no(*_, **__): raise PermissionError\nmmap.mmap = no\n"
    program = f"import mmap\n{refused}from dwcp_migrate.placement import kernel\nassert not kernel.COMPILED"
    surroundings = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=surroundings, timeout=100
    )
    assert done.returncode == 0, done.stderr


def test_without_a_compiler_the_answers_are_the_same() -> None:
    def answers(how: str) -> Any:
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False, cwd=root, timeout=250
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert answers("compiled") == answers("interpreted")


def test_each_version_of_the_kernels_is_kept_by_itself_where_it_may_be_written(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "kernels").mkdir(parents=True)
    for name in kernel.SOURCES:
        (package / name).write_text(name)
    first = kernel.cache_directory(package, tmp_path)
    assert first is not None
    assert first.is_relative_to(package)
    (package / "kernels/moves.py").write_text("other")
    second = kernel.cache_directory(package, tmp_path)
    assert second != first
    (package / "__pycache__").rename(package / "gone")
    (package / "__pycache__").touch()  # a file: no directory can be made in it, not even by root
    third = kernel.cache_directory(package, tmp_path)
    assert third is not None
    assert third.is_relative_to(tmp_path / ".cache")
    assert kernel.cache_directory(package, package / "kernels/moves.py") is None
