"""Accuracy suites of `itp`: against proven and planted optima, and online against every host tried.

    accuracy/exact       2 to 5 hosts, 2 or 3 domains each (15 at most), groups apart; level of the fullest host;
                         CP-SAT, proven
    accuracy/geo-<vms>   latency from the origin, 20 datacentres of one host at 60 %; HiGHS, proven
    accuracy/planted-<hosts>   10 domains a host cut out of it (Dirichlet), all hosts at 0.65 in the hidden assignment
    accuracy/random-moves   domains moved to random hosts wherever the kernels let them; `violations` only
    accuracy/online      one domain after another, some ending between; each against the best of all hosts by the
                         numpy twin

`gap_percent` is the mean of value / optimum - 1, `hit_percent` the share of instances within 1 % (`online`: of
placements), `placed_percent` the share of domains that found a host beside those of the optimum (all), `violations`
what `check` finds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.fleets import generate, referee
from bench.frame import Options, Row
from dwcp_migrate.placement.balance import bound, even_out, figures
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.kernels.chains import fit
from dwcp_migrate.placement.kernels.moves import scores_by_vector
from dwcp_migrate.placement.kernels.recreate import ruin_and_recreate
from dwcp_migrate.placement.kernels.search import place_items, take_item, walk
from dwcp_migrate.placement.model import Problem, build_problem
from dwcp_migrate.placement.planner import places

EXACT: Final = 200
GEO: Final = 20
SECONDS_MAX: Final = 20.0
"""For one proof; an instance without one is left out, and the row's method says how many were."""

PLANTED: Final = {10: 10, 20: 10, 50: 10, 100: 10, 200: 4, 500: 2}
"""Instances by hosts."""

LEVEL: Final = 0.65
CLOSE: Final = 0.01
FIT_STEPS: Final = 5000
ROUNDS: Final = 100_000
THRESHOLDS: Final = (0.02, 0.1, 0.3)
"""Of ruin and recreate, one pass each, in mean latencies."""

ONLINE: Final = 1000

MOVES: Final = 1_000_000
MOVES_A_CHECK: Final = 10_000
"""Between two checks of the whole fleet by `check`, which takes as long as that."""


@dataclass(slots=True)
class Score:
    """What a suite has found so far."""

    gaps: list[float] = field(default_factory=list)
    wanted: int = 0
    placed: int = 0
    broken: int = 0
    unproven: int = 0

    def rows(self, case: str, method: str) -> Iterator[Row]:
        """The suite's rows."""
        gaps = np.array(self.gaps)
        method = f"{method}; {self.unproven} without a proof left out" if self.unproven else method
        for metric, value, unit in (
            ("gap_percent", gaps.mean() * 100, "%"),
            ("hit_percent", (gaps <= CLOSE).mean() * 100, "%"),
            ("placed_percent", self.placed / self.wanted * 100, "%"),
            ("violations", float(self.broken), "1"),
        ):
            yield Row(case=f"accuracy/{case}", metric=metric, value=float(value), unit=unit, n=len(gaps), method=method)


def rows(options: Options) -> Iterator[Row]:
    """Measure all suites; quick ones have a tenth of the instances and no planted ones beyond 100 hosts."""
    share = 10 if options.quick else 1
    yield from exact(EXACT // share).rows(
        "exact", "seeds 1 to n: 2 to 5 hosts, 2 or 3 domains a host, a third in groups apart; fullest level, CP-SAT"
    )
    for vms in (50, 100):
        yield from geo(vms, max(GEO // share, 2)).rows(
            f"geo-{vms}", "seeds 1 to n: 20 datacentres in 5 regions, 60 % full; summed latency, HiGHS"
        )
    for hosts, count in PLANTED.items():
        if not options.quick or hosts <= 100:  # noqa: PLR2004 - seconds
            yield from planted(hosts, max(count // share, 1)).rows(
                f"planted-{hosts}",
                "seeds 1 to n: 10 domains a host, Dirichlet, a tenth in groups apart; fullest level, planted",
            )
    yield random_moves(MOVES // share)
    yield from online(ONLINE // share)


def settled(problem: Problem) -> int:
    """Place all items of a fleet, the largest first, make room where there is none, and even out; items placed."""
    model = problem.model
    size = (model.load * model.inverse.mean(axis=1)).max(axis=1)
    order = np.argsort(-size, kind="stable")
    if place_items(problem.table, order) >= 0 and fit(problem.table, order, FIT_STEPS) < 0:
        for item in order:
            place_items(problem.table, np.array([item]))
    even_out(problem, problem.state.copy(), bound(problem), 10**9)
    return int((problem.state.host >= 0).sum())


def exact(count: int) -> Score:
    """Level of the fullest host on tiny fleets."""
    score = Score()
    for seed in range(1, count + 1):
        rng = _rng(seed)
        fleet = generate.planted(rng, int(rng.integers(2, 6)), int(rng.integers(2, 4)), LEVEL, apart=0.3)
        problem = build_problem(fleet)
        verdict = referee.fullest(problem, SECONDS_MAX)
        if not verdict.proven:
            score.unproven += 1
            continue
        _settle(score, fleet, problem, verdict.value)
    return score


def planted(hosts: int, count: int) -> Score:
    """Level of the fullest host where the optimum is known by construction."""
    score = Score()
    for seed in range(1, count + 1):
        fleet = generate.planted(_rng(seed), hosts, 10, LEVEL)
        _settle(score, fleet, build_problem(fleet), LEVEL)
    return score


def _settle(score: Score, fleet: Fleet, problem: Problem, optimum: float) -> None:
    score.wanted += len(problem.items)
    score.placed += settled(problem)
    score.gaps.append(max(0.0, figures(problem)[0] / optimum - 1))
    score.broken += len(violations(fleet, places(problem)))


def geo(vms: int, count: int) -> Score:
    """Summed latency within capacity."""
    score = Score()
    for seed in range(1, count + 1):
        fleet = generate.spread(_rng(seed), 5, 20, vms)
        problem = build_problem(fleet)
        verdict = referee.nearest(problem, SECONDS_MAX)
        if not verdict.proven:
            score.unproven += 1
            continue
        cost = near(problem, ROUNDS)
        score.wanted += vms
        score.placed += int((problem.state.host >= 0).sum())
        score.gaps.append(cost / verdict.value - 1)
        score.broken += len(violations(fleet, places(problem)))
    return score


def near(problem: Problem, rounds: int) -> float:
    """Place all items of an empty fleet, the largest first, then ruin and recreate; summed latency."""
    model, items = problem.model, np.arange(len(problem.items))
    place_items(problem.table, np.argsort(-model.demand[:, 0], kind="stable"))
    for seed, share in enumerate(THRESHOLDS, 1):
        ruin_and_recreate(problem.table, items, rounds, float(model.site_cost.mean()) * share, seed)
    return float(model.site_cost[model.site, problem.state.host].sum())


def random_moves(count: int) -> Row:
    """Random moves; the fleet itself says after each batch whether a hard rule or a capacity is broken."""
    problem, draw, made, broken = build_problem(generate.skewed(_rng(1), 400, 40)), _rng(2), 0, 0
    while made < count:
        items = draw.integers(len(problem.items), size=MOVES_A_CHECK)
        targets = draw.integers(len(problem.hosts), size=MOVES_A_CHECK)
        made += walk(problem.table, items, targets)
        broken += len(violations(problem.fleet, places(problem)))
    method = "seed 1: 400 domains on 40 hosts, CPU models, storage, networks, groups apart; moves made"
    return Row(case="accuracy/random-moves", metric="violations", value=float(broken), unit="1", n=made, method=method)


def online(count: int) -> Iterator[Row]:
    """One placement after another, each against all hosts tried by the twin."""
    fleet = generate.mixed(_rng(1), count, max(count // 10, 10))
    problem = build_problem(fleet, PlacementPolicy())
    draw, costs, score = _rng(2), np.empty(len(problem.hosts)), Score()
    for item in range(count):
        scores_by_vector(problem.model, problem.state, item, costs)
        score.wanted += bool(np.isfinite(costs.min()))
        if place_items(problem.table, np.array([item])) >= 0:
            continue
        chosen = costs[problem.state.host[item]]
        score.placed += 1
        score.gaps.append(float(chosen / costs.min() - 1) if costs.min() > 0 else 0.0)
        if draw.random() < 1 / 3:
            take_item(problem.table, int(draw.choice(np.flatnonzero(problem.state.host >= 0))))
    score.broken = len(violations(fleet, places(problem)))
    yield from score.rows(
        "online",
        "one after another, a third ending between, rules of `complex`; against the best of all hosts by the twin",
    )


def _rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
