"""An exact program of a placement, for CP-SAT: the measure of small fleets' searches, and critical plans.

The rule here: an answer bounds its distance from the best, and rules that are not modelled are refused rather than left
out. Needs the extra `referee`.

    chosen[v, h]   item v goes to host h, where h may have it; an item that must not move stays
    room           of each host and resource, and of each zone under an `apart` or `spread` rule
    level          of the fullest host

`solve_exactly` asks twice: for the least level, then for the cheapest moves that come near it. Capacities and rules
that immovable items break already are widened to their needs: they cannot be healed here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.arrays import APART, Integers
from dwcp_migrate.placement.model import Problem

SCALE: Final = 10**6
"""CP-SAT counts in integers: levels and prices in millionths."""

AMOUNT_SCALE: Final = 1000
"""Amounts of resources in thousandths."""

PAIRS_MAX: Final = 20_000
"""Items times hosts of a plan. 100 domains on 50 hosts come within a few percent of the best in a minute; four times
that is more than a solver has begun to understand by then."""

MOVE: Final = 1e-4
"""Cost of a move beyond its price, so that one that costs nothing is not made for nothing."""


@dataclass(frozen=True, slots=True)
class SolverVerdict:
    """Verdict of the solver.

    Attributes:
        value: objective of its best assignment; infinite if it has none.
        bound: nothing is below this.
        proven: value and bound meet.
        host: (V,) its assignment, empty if it has none.
    """

    value: float
    bound: float
    proven: bool
    host: Integers


@dataclass(frozen=True, slots=True)
class SolverEffort:
    """Effort that a solver may spend.

    Attributes:
        seconds: of wall time.
        workers: threads; with one, and time enough, its answer depends on the seed alone.
        seed: of its chance.
    """

    seconds: float
    workers: int = 1
    seed: int = 1


def check_kinds(problem: Problem) -> None:
    """Check that the programs model every rule of a problem.

    Raises:
        PlacementError: a soft rule, a `together` rule that is not one item, or NUMA cells.
    """
    model = problem.model
    if (model.kind != APART).any() or np.isfinite(model.weight).any() or model.cells_needed.any():
        raise PlacementError(
            "an exact answer knows capacity, eligibility, and hard `apart` and `spread` rules only",
            hint="plan without --exact",
        )


class Program:
    """The program of a problem.

    Args:
        problem: items, hosts, and where the items are now.
        items: those to be placed.
        fixed: of them, those that stay where they are.

    Raises:
        PlacementError: OR-tools is not installed.
    """

    def __init__(self, problem: Problem, items: Iterable[int], fixed: Iterable[int] = ()) -> None:
        try:
            self._cp: Any = import_module("ortools.sat.python.cp_model")
        except ImportError as error:
            raise PlacementError("OR-tools is not installed", hint="pip install 'dwcp-migrate[referee]'") from error
        self.problem, self.items = problem, list(items)
        self._fixed = frozenset(fixed)
        self._model: Any = self._cp.CpModel()
        self._chosen: dict[tuple[int, int], Any] = {}
        self.level: Any = self._model.new_int_var(0, 10 * SCALE, "level")
        for item in self.items:
            hosts = self._open_to(item)
            for h in hosts:
                self._chosen[item, h] = self._model.new_bool_var("")
            self._model.add_exactly_one([self._chosen[item, h] for h in hosts])
        for h in range(len(problem.hosts)):
            self._hold_room(h)
        self._hold_rules()

    def _open_to(self, item: int) -> list[int]:
        if item in self._fixed:
            return [int(self.problem.state.host[item])]
        model = self.problem.model
        return [int(h) for h in np.flatnonzero(np.isfinite(model.barrier[model.klass[item]]))]

    def _hold_room(self, h: int) -> None:
        """Capacity of a host, and its level."""
        model, here = self.problem.model, [item for item in self.items if (item, h) in self._chosen]
        for r in range(model.demand.shape[1]):
            amounts = [round(float(model.demand[item, r]) * AMOUNT_SCALE) for item in here]
            stays = sum(amount for amount, item in zip(amounts, here, strict=True) if item in self._fixed)
            room = max(int(self.problem.capacity[r, h] * AMOUNT_SCALE), stays)
            self._model.add(self._sum(amounts, here, h) <= room)
            if model.inverse[r, h] > 0:
                shares = [round(float(model.load[item, r] * model.inverse[r, h]) * SCALE) for item in here]
                self._model.add(self._sum(shares, here, h) <= self.level)

    def _sum(self, factors: list[int], items: list[int], h: int) -> Any:
        return sum(factor * self._chosen[item, h] for factor, item in zip(factors, items, strict=True))

    def _hold_rules(self) -> None:
        """At most so many members of a rule in each zone."""
        model, state = self.problem.model, self.problem.state
        for g in range(len(model.kind)):
            members = model.members[model.members_begin[g] : model.members_begin[g + 1]].tolist()
            zones = model.zone[model.level[g]]
            for zone in np.unique(zones):
                hosts = np.flatnonzero(zones == zone).tolist()
                inside = [self._chosen[v, h] for v in members for h in hosts if (v, h) in self._chosen]
                stay = sum(v in self._fixed and state.host[v] in hosts for v in members)
                if len(inside) > model.limit[g]:
                    self._model.add(sum(inside) <= max(int(model.limit[g]), stay))

    def suggest(self, host: Integers) -> None:
        """Tell the solver of an assignment to begin with."""
        self._model.clear_hints()
        for (item, h), variable in self._chosen.items():
            self._model.add_hint(variable, int(host[item] == h))

    def least_level(self, effort: SolverEffort) -> SolverVerdict:
        """Find the least level that the fullest host can have."""
        self._model.minimize(self.level)
        return self._solved(effort)

    def cheapest(self, level: float, effort: SolverEffort) -> SolverVerdict:
        """Find the cheapest moves after which no host is above a level: prices of moves, and latencies.

        Args:
            level: of the fullest host, at most.
            effort: of the solver.
        """
        self._model.add(self.level <= int(np.ceil(level * SCALE)))
        terms = [round(self._cost(item, h) * SCALE) * variable for (item, h), variable in self._chosen.items()]
        self._model.minimize(sum(terms))
        return self._solved(effort)

    def price_of(self, host: Integers) -> float:
        """Price of an assignment, as `cheapest` counts it."""
        return sum(self._cost(item, int(host[item])) for item in self.items)

    def _cost(self, item: int, h: int) -> float:
        model = self.problem.model
        moved = float(model.move_cost[item]) + MOVE if h != model.home[item] else 0.0
        return float(model.site_cost[model.site[item], h]) + moved

    def _solved(self, effort: SolverEffort) -> SolverVerdict:
        cp = self._cp
        solver = cp.CpSolver()
        solver.parameters.max_time_in_seconds = effort.seconds
        solver.parameters.num_workers = effort.workers
        solver.parameters.random_seed = effort.seed
        status = solver.solve(self._model)
        bound = solver.best_objective_bound / SCALE
        if status not in {cp.OPTIMAL, cp.FEASIBLE}:
            return SolverVerdict(float("inf"), bound, status == cp.INFEASIBLE, np.zeros(0, np.int64))
        host = self.problem.state.host.copy()
        for (item, h), variable in self._chosen.items():
            if solver.value(variable):
                host[item] = h
        return SolverVerdict(solver.objective_value / SCALE, bound, status == cp.OPTIMAL, host)


@dataclass(frozen=True, slots=True)
class Settled:
    """Assignment of all items, and a bound on its distance from the best.

    Attributes:
        level: verdict on the least level of the fullest host.
        price: verdict on the cheapest moves that come within half of `Policy.balanced` of that level, or to what is
            tolerated; its assignment is the answer.
    """

    level: SolverVerdict
    price: SolverVerdict


def solve_exactly(problem: Problem, found: Integers, effort: SolverEffort, tolerated: float = 0.0) -> Settled:
    """Find the best hosts for those items of a problem that have one.

    Args:
        problem: at its start.
        found: (V,) what a search came to: where the solver begins, and what remains if it finds nothing in time.
        effort: half of it for each question.
        tolerated: level that the fullest host may keep in any case.

    Raises:
        PlacementError: more than `PAIRS_MAX`, something that is not modelled, no OR-tools, or there is no way to keep
            all rules and capacities.
    """
    check_kinds(problem)
    items = [int(item) for item in np.flatnonzero(problem.state.host >= 0)]
    if (pairs := len(items) * len(problem.hosts)) > PAIRS_MAX:
        raise PlacementError(f"{pairs} pairs of domain and host are more than {PAIRS_MAX}", hint="plan without --exact")
    program = Program(problem, items, [item for item in items if not problem.model.movable[item]])
    half = SolverEffort(effort.seconds / 2, effort.workers, effort.seed)
    program.suggest(found)
    level = program.least_level(half)
    if level.proven and not len(level.host):
        raise PlacementError("no assignment keeps all rules and capacities", hint="rules list shows the rules")
    if not len(level.host):
        level = SolverVerdict(level_of(problem, found), level.bound, proven=False, host=found)
    program.suggest(level.host)
    price = program.cheapest(max(tolerated, level.value + problem.policy.balanced / 2), half)
    if not len(price.host):
        price = SolverVerdict(program.price_of(level.host), price.bound, proven=False, host=level.host)
    return Settled(level, price)


def level_of(problem: Problem, host: Integers) -> float:
    """Return the level of the fullest host under an assignment.

    Args:
        problem: items and hosts.
        host: (V,) of each item, NOWHERE for none.
    """
    model = problem.model
    used = np.zeros((model.load.shape[1], len(problem.hosts)))
    placed = np.flatnonzero(host >= 0)
    for r in range(len(used)):
        np.add.at(used[r], host[placed], model.load[placed, r])
    return float((used * model.inverse).max(initial=0.0))
