"""A fleet in virtual time, driven by the code that drives a real one.

The rule here: nothing is decided here. Arrivals are placed by the online kernel, evening out is `balance`'s,
migrations take as long as the forecast says and hold room on both ends. Chance comes from the generator that is
handed in, so a run can be had again.

    arrive, depart     domains come and go (exponential times)
    tick               loads follow the day, figures are taken, the rebalancer looks
    arrived            a migration ends, its source is free
    fail, repair       a host dies; its domains start elsewhere, the largest first, or wait for room
"""

import heapq
import math
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from dwcp_migrate.placement.arrays import NOWHERE
from dwcp_migrate.placement.balance import bound, figures
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import VCPUS, Fleet
from dwcp_migrate.placement.kernels.search import item_cost, place_items, put_item, relieve_fullest, take_item
from dwcp_migrate.placement.model import Problem, build_problem
from dwcp_migrate.placement.schedule import Residue, hold_residue

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What happens.

    Attributes:
        hours: of virtual time.
        initial: domains that are there at the start; the fleet's others arrive evenly over the time.
        life_h: mean life of a domain; 0 is for ever.
        swing: share of the vCPUs promised that the use rises and falls by over the day, around a half.
        failures: hosts that fail, evenly over the time, each for `repair_h`.
        repair_h: until a failed host is back.
        tick_s: between two looks of the rebalancer.
        hold_ticks: so many looks in a row must find the fleet uneven before anything moves.
        balance: whether the rebalancer runs.
    """

    hours: float = 24.0
    initial: int = 0
    life_h: float = 0.0
    swing: float = 0.3
    failures: int = 0
    repair_h: float = 2.0
    tick_s: float = 300.0
    hold_ticks: int = 3
    balance: bool = True


class Report(msgspec.Struct, kw_only=True):
    """What came of it.

    Attributes:
        placed: domains that found a host at once.
        refused: that did not, and went.
        restarted: that a failed host took down and that run again.
        waiting: that a failed host took down and that still look for room.
        moves: migrations begun.
        failed_moves: migrations that a failing host ended.
        returns: domains that moved back to where they came from within the cool-down.
        ticks: looks.
        fullest: mean over time of the fullest host's level.
        deviation: mean over time of the levels' standard deviation.
        overloaded_host_hours: hosts' time beyond a level of 1.
    """

    placed: int = 0
    refused: int = 0
    restarted: int = 0
    waiting: int = 0
    moves: int = 0
    failed_moves: int = 0
    returns: int = 0
    ticks: int = 0
    fullest: float = 0.0
    deviation: float = 0.0
    overloaded_host_hours: float = 0.0


@dataclass(slots=True)
class _Host:
    """What a failed host had, to be given back."""

    barrier: Any
    inverse: Any
    price: Any


@dataclass(slots=True)
class Simulation:
    """One run.

    Attributes:
        fleet: hosts, rules, and all domains that will ever be, none placed.
        scenario: what happens to them.
        rng: all chance.
    """

    fleet: Fleet
    scenario: Scenario
    rng: np.random.Generator
    policy: PlacementPolicy = field(default_factory=PlacementPolicy)
    cost: MoveCost = default_cost
    report: Report = field(default_factory=Report)
    problem: Problem = field(init=False)
    now: float = 0.0
    _events: list[tuple[float, int, str, int]] = field(default_factory=list)
    _count: int = 0
    _flying: dict[int, Residue] = field(default_factory=dict)
    _moved: dict[int, tuple[float, int]] = field(default_factory=dict)
    _waiting: list[int] = field(default_factory=list)
    _dead: dict[int, _Host] = field(default_factory=dict)
    _uneven: int = 0
    _phase: Any = None

    def __post_init__(self) -> None:
        """Draw the events."""
        self.problem = build_problem(self.fleet, self.policy, self.cost)
        items = len(self.problem.items)
        self._phase = self.rng.random(items)
        end = self.scenario.hours * HOUR_S
        for item in range(items):
            at = 0.0 if item < self.scenario.initial else float(self.rng.random()) * end
            self._at(at, "arrive", item)
        for host in self.rng.permutation(len(self.fleet.hosts))[: self.scenario.failures]:
            self._at(float(self.rng.random()) * end, "fail", int(host))
        for tick in range(int(end / self.scenario.tick_s)):
            self._at((tick + 1) * self.scenario.tick_s, "tick", tick)

    def run(self) -> Report:
        """Let it happen."""
        happen = {
            "arrive": self._arrive,
            "depart": self._depart,
            "tick": self._tick,
            "arrived": self._arrived,
            "fail": self._fail,
            "repair": self._repair,
        }
        end = self.scenario.hours * HOUR_S
        while self._events and self._events[0][0] <= end:
            self.now, _, kind, subject = heapq.heappop(self._events)
            happen[kind](subject)
        self.report.waiting = len(self._waiting)
        self.report.fullest /= max(self.report.ticks, 1)
        self.report.deviation /= max(self.report.ticks, 1)
        return self.report

    def _at(self, at: float, kind: str, subject: int) -> None:
        heapq.heappush(self._events, (at, self._count, kind, subject))
        self._count += 1

    def _arrive(self, item: int) -> None:
        if place_items(self.problem.table, np.array([item], np.int64)) != NOWHERE:
            self.report.refused += 1
            return
        self.report.placed += 1
        self._settle(item)
        if self.scenario.life_h:
            self._at(self.now + float(self.rng.exponential(self.scenario.life_h)) * HOUR_S, "depart", item)

    def _settle(self, item: int) -> None:
        """An item runs: the price of moving it counts from here."""
        model = self.problem.model
        host = int(self.problem.state.host[item])
        model.home[item] = host
        link = self.fleet.hosts[host].link_bytes_per_s
        domains = [self.fleet.domains[number] for number in self.problem.items[item]]
        model.move_cost[item] = sum(self.policy.price(self.cost(one, link)) for one in domains)

    def _depart(self, item: int) -> None:
        if item in self._flying:
            self._end_flight(item)
        if item in self._waiting:
            self._waiting.remove(item)
        if self.problem.state.host[item] >= 0:
            take_item(self.problem.table, item)

    def _tick(self, _number: int) -> None:
        self._follow_the_day()
        self._retry()
        top, _, deviation = figures(self.problem)
        levels = (self.problem.state.loaded * self.problem.model.inverse).max(axis=0, initial=0.0)
        self.report.ticks += 1
        self.report.fullest += top
        self.report.deviation += deviation
        self.report.overloaded_host_hours += float((levels > 1).sum()) * self.scenario.tick_s / HOUR_S
        uneven = top > bound(self.problem) + self.policy.balanced
        self._uneven = self._uneven + 1 if uneven else 0
        if self.scenario.balance and self._uneven >= self.scenario.hold_ticks:
            self._even_out()

    def _follow_the_day(self) -> None:
        """Set the use of vCPUs to that of the hour."""
        model, state = self.problem.model, self.problem.state
        if VCPUS not in self.problem.resources:
            return
        r = self.problem.resources.index(VCPUS)
        angle = 2 * math.pi * (self.now / DAY_S + self._phase * 0.5)
        model.load[:, r] = model.demand[:, r] * (0.5 + self.scenario.swing * np.sin(angle))
        placed = state.host >= 0
        state.loaded[r] = np.bincount(state.host[placed], model.load[placed, r], len(self.problem.hosts))

    def _even_out(self) -> None:
        """Begin as many migrations off the fullest hosts as may still run."""
        problem, policy = self.problem, self.policy
        model = problem.model
        resting = [item for item, (at, _) in self._moved.items() if self.now - at < policy.cool_down_s]
        still = list({*resting, *self._flying})
        model.movable[still] = 0
        start = problem.state.copy()
        room = policy.running_max - len(self._flying)
        relieve_fullest(problem.table, max(room, 0), bound(problem) + policy.balanced / 2)
        wanted = problem.state.host.copy()
        problem.restore(start)
        model.movable[still] = 1
        for item in np.flatnonzero(wanted != start.host):
            if room <= 0:
                break
            if np.isfinite(item_cost(problem.table, int(item), int(wanted[item]))):
                self._fly(int(item), int(wanted[item]))
                room -= 1

    def _fly(self, item: int, target: int) -> None:
        problem = self.problem
        source = int(problem.state.host[item])
        cells = [int(cell) for cell in problem.state.cell_of[item] if cell != NOWHERE]
        take_item(problem.table, item)
        put_item(problem.table, item, target)
        residue = Residue(item, source, cells)
        hold_residue(problem, residue, 1)
        self._flying[item] = residue
        self.report.moves += 1
        last = self._moved.get(item)
        if last is not None and last[1] == target and self.now - last[0] < self.policy.cool_down_s:
            self.report.returns += 1
        self._moved[item] = (self.now, source)
        domains = [self.fleet.domains[number] for number in problem.items[item]]
        link = self.fleet.hosts[source].link_bytes_per_s
        self._at(self.now + max(self.cost(one, link).seconds for one in domains), "arrived", item)

    def _arrived(self, item: int) -> None:
        residue = self._flying.get(item)
        if residue is not None and self.problem.state.host[item] >= 0:
            self._end_flight(item)
            self._settle(item)

    def _end_flight(self, item: int) -> None:
        hold_residue(self.problem, self._flying.pop(item), -1)

    def _fail(self, host: int) -> None:
        """Let a host die with its domains; those that migrate to it stay where they are."""
        problem, model = self.problem, self.problem.model
        self._dead[host] = _Host(
            model.barrier[:, host].copy(), model.inverse[:, host].copy(), model.price[:, host].copy()
        )
        for item, residue in list(self._flying.items()):
            target = int(problem.state.host[item])
            if host not in {residue.host, target}:
                continue
            self._end_flight(item)
            self.report.failed_moves += 1
            take_item(problem.table, item)
            put_item(problem.table, item, residue.host)
        model.barrier[:, host], model.inverse[:, host], model.price[:, host] = np.inf, 0.0, 0.0
        lost = [int(item) for item in np.flatnonzero(problem.state.host == host)]
        for item in lost:
            take_item(problem.table, item)
        size = model.demand.sum(axis=1)
        self._waiting += sorted(lost, key=lambda item: (-size[item], item))
        self._retry()
        self._at(self.now + self.scenario.repair_h * HOUR_S, "repair", host)

    def _retry(self) -> None:
        """Start the domains of a failed host again, where there is room."""
        still = []
        for item in self._waiting:
            if place_items(self.problem.table, np.array([item], np.int64)) == NOWHERE:
                self.report.restarted += 1
                self._settle(item)
            else:
                still.append(item)
        self._waiting = still

    def _repair(self, host: int) -> None:
        had, model = self._dead.pop(host), self.problem.model
        model.barrier[:, host], model.inverse[:, host], model.price[:, host] = had.barrier, had.inverse, had.price
