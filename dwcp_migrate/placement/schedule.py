"""Schedule: the order of moves and their number at once, from the present to the target, feasible at each moment.

The rule here: virtual time. A migration that has begun is promised room on its destination and still holds all that
it has on its source; only its end frees the source. Limits of migrations at once hold for each host and the fleet.
Every migration that can begin does, those that take longest first. Where none can (a cycle), one goes by way of a third
host; where that does not help either, the rest is left and reported.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np

from dwcp_migrate.placement.arrays import APART, NOWHERE, State
from dwcp_migrate.placement.cost import MoveCost
from dwcp_migrate.placement.kernels.search import item_cost, item_scores, put_item, take_item
from dwcp_migrate.placement.model import Problem
from dwcp_migrate.placement.plan import Step, Unfinished


@dataclass(slots=True)
class Residue:
    """Resources that a migrating item still holds on its source."""

    item: int
    host: int
    cells: list[int]


@dataclass(slots=True)
class Schedule:
    """Steps, and the items that found no way."""

    steps: list[Step] = field(default_factory=list)
    left: list[Unfinished] = field(default_factory=list)
    seconds: float = 0.0


class Scheduler:
    """Orders the moves between two states of a problem.

    Args:
        problem: at its start; its state is changed to what the schedule reaches.
        targets: (V,) host of each item at the end.
        cost: forecasts each migration.
    """

    def __init__(self, problem: Problem, targets: "np.ndarray[tuple[int], np.dtype[np.int64]]", cost: MoveCost) -> None:
        self._problem, self._targets, self._cost = problem, targets, cost
        self._running: list[tuple[float, int, Residue]] = []
        self._busy: dict[int, tuple[int, int]] = {}
        self._done: list[tuple[float, Step, int]] = []
        self._schedule = Schedule()
        self._now = 0.0
        self._detoured: set[int] = set()
        self._seconds: dict[int, float] = {}
        self._started = 0

    def run(self) -> Schedule:
        """Make the schedule."""
        state = self._problem.state
        waiting = [
            int(item)
            for item in np.flatnonzero((state.host != self._targets) & (state.host >= 0) & (self._targets >= 0))
        ]
        waiting.sort(key=lambda item: (-self._duration(item), item))
        while waiting:
            begun = [item for item in waiting if self._begin(item, int(self._targets[item]))]
            waiting = [item for item in waiting if item not in set(begun)]
            if begun:
                continue
            if self._running:
                self._finish_next()
            elif not self._detour(waiting):
                self._leave(waiting)
                break
        while self._running:
            self._finish_next()
        self._schedule.seconds = self._now
        return self._schedule

    def _duration(self, item: int) -> float:
        """Seconds that the longest migration of an item's domains takes."""
        if item not in self._seconds:
            host = self._problem.fleet.hosts[int(self._problem.state.host[item])]
            domains = [self._problem.fleet.domains[number] for number in self._problem.items[item]]
            self._seconds[item] = max(self._cost(one, host.link_bytes_per_s).seconds for one in domains)
        return self._seconds[item]

    def _has_room(self, source: int, destination: int, count: int) -> bool:
        """Whether the limits let `count` more migrations run; a larger item than they ever let through runs alone."""
        policy = self._problem.policy
        running = sum(len(self._problem.items[residue.item]) for _, _, residue in self._running)
        outgoing, incoming = self._busy.get(source, (0, 0))[0], self._busy.get(destination, (0, 0))[1]
        return (
            (running == 0 or running + count <= policy.running_max)
            and (outgoing == 0 or outgoing + count <= policy.outgoing_max)
            and (incoming == 0 or incoming + count <= policy.incoming_max)
        )

    def _begin(self, item: int, destination: int) -> bool:
        """Begin to migrate an item, if it may."""
        problem = self._problem
        source = int(problem.state.host[item])
        if any(residue.item == item for _, _, residue in self._running):
            return False
        if not self._has_room(source, destination, len(problem.items[item])):
            return False
        if not np.isfinite(item_cost(problem.table, item, destination)):
            return False
        cells = [int(cell) for cell in problem.state.cell_of[item] if cell != NOWHERE]
        take_item(problem.table, item)
        put_item(problem.table, item, destination)
        residue = Residue(item, source, cells)
        hold_residue(problem, residue, 1)
        self._count(source, destination, len(problem.items[item]))
        end = self._now + self._write(item, source, destination)
        heapq.heappush(self._running, (end, self._started, residue))
        self._started += 1
        return True

    def _write(self, item: int, source: int, destination: int) -> float:
        """Write the steps of an item; seconds until the last of them is done."""
        problem, longest = self._problem, 0.0
        after = self._prerequisites(item, destination)
        for number in problem.items[item]:
            domain = problem.fleet.domains[number]
            rate = min(problem.fleet.hosts[h].link_bytes_per_s for h in (source, destination))
            forecast = self._cost(domain, rate, problem.hosts[source], problem.hosts[destination])
            self._schedule.steps.append(
                Step(
                    number=len(self._schedule.steps),
                    domain=domain.name,
                    source=problem.hosts[source],
                    destination=problem.hosts[destination],
                    after=after,
                    begins_s=self._now,
                    seconds=forecast.seconds,
                    downtime_s=forecast.downtime_s,
                    wire_bytes=forecast.wire_bytes,
                    forecast_by=forecast.by,
                    uuid=domain.uuid,
                )
            )
            longest = max(longest, forecast.seconds)
        return longest

    def _prerequisites(self, item: int, destination: int) -> list[int]:
        """Steps done by now that this one may depend on: the item's own, off its destination, of one rule."""
        model = self._problem.model
        rules = set(model.rules[model.rules_begin[item] : model.rules_begin[item + 1]].tolist())
        found = []
        for _, step, other in self._done:
            shared = rules & set(model.rules[model.rules_begin[other] : model.rules_begin[other + 1]].tolist())
            if other == item or step.source == self._problem.hosts[destination] or shared:
                found.append(step.number)
        return sorted(found)

    def _finish_next(self) -> None:
        """Go on to the moment at which the next migration is done."""
        self._now, _, residue = heapq.heappop(self._running)
        problem = self._problem
        hold_residue(problem, residue, -1)
        destination = int(problem.state.host[residue.item])
        self._count(residue.host, destination, -len(problem.items[residue.item]))
        names = {problem.fleet.domains[number].name for number in problem.items[residue.item]}
        for step in self._schedule.steps:
            if step.domain in names and not any(done is step for _, done, _ in self._done):
                self._done.append((self._now, step, residue.item))

    def _count(self, source: int, destination: int, count: int) -> None:
        for host, outgoing, incoming in ((source, count, 0), (destination, 0, count)):
            out, into = self._busy.get(host, (0, 0))
            self._busy[host] = (out + outgoing, into + incoming)

    def _detour(self, waiting: list[int]) -> bool:
        """Send the quickest item that can go somewhere to a third host, to break a cycle."""
        costs = np.empty(len(self._problem.hosts))
        for item in reversed(waiting):
            if item in self._detoured:
                continue
            item_scores(self._problem.table, item, costs)
            via = int(costs.argmin())
            if np.isfinite(costs[via]):
                self._detoured.add(item)
                return self._begin(item, via)
        return False

    def _leave(self, waiting: list[int]) -> None:
        problem = self._problem
        for item in waiting:
            target = problem.hosts[int(self._targets[item])]
            for number in problem.items[item]:
                domain = problem.fleet.domains[number]
                why = f"it would go to {target}, where there is no room while the others are where they are"
                host = problem.hosts[int(problem.state.host[item])]
                self._schedule.left.append(Unfinished(domain=domain.name, host=host, why=why))


def hold_residue(problem: Problem, residue: Residue, sign: int) -> None:
    """Hold the resources that an item which counts at its destination has on its source, or give them back.

    Args:
        problem: its state is changed.
        residue: the item and its source.
        sign: 1 holds, -1 gives back.
    """
    item, host = residue.item, residue.host
    model, state = problem.model, problem.state
    state.free[:, host] -= sign * model.demand[item]
    for cell in residue.cells:
        state.cell_free[cell] -= sign * model.cell_demand[item]
    for g in model.rules[model.rules_begin[item] : model.rules_begin[item + 1]]:
        there = model.zone[model.level[g], host]
        if model.kind[g] == APART and there != model.zone[model.level[g], state.host[item]]:
            state.counts[model.count_begin[g] + there] += sign
            state.placed[g] += sign


def schedule(problem: Problem, start: State, cost: MoveCost) -> Schedule:
    """Order the moves from one state of a problem to another.

    Args:
        problem: in its target state; it is left in the state that the schedule reaches.
        start: the state now.
        cost: forecasts migrations.
    """
    targets = problem.state.host.copy()
    problem.restore(start)
    return Scheduler(problem, targets, cost).run()
