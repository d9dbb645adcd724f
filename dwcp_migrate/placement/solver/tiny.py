"""Exhaustive search of tiny fleets: the level that chains of moves missed, within a budget of nodes.

The rule here: depth first, the largest item first, each on the host that it comes from or else on the emptiest. A
branch ends where an item fits nowhere, or where the hosts that can still take one have less room than the rest needs.
The budget counts nodes, not time, so that a plan is the same on every machine. A node takes some 30 microseconds.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from dwcp_migrate.placement.arrays import EPSILON, OVERLOADED, State
from dwcp_migrate.placement.kernels.search import item_cost, put_item, take_item
from dwcp_migrate.placement.model import Problem

TINY_ITEMS: Final = 16
TINY_HOSTS: Final = 6
NODES_MAX: Final = 3000
"""For all levels that are tried together: a tenth of a second."""

STEP: Final = 2e-3
"""Share of a level that is not worth another search."""


def is_tiny(problem: Problem) -> bool:
    """Tell whether a fleet is small enough to be searched."""
    return len(problem.items) <= TINY_ITEMS and len(problem.hosts) <= TINY_HOSTS


def lowest_state(problem: Problem, top: float, lowest: float, nodes_max: int = NODES_MAX) -> State | None:
    """Find an assignment whose fullest host is emptier.

    Args:
        problem: tiny; its state is as before when this returns.
        top: level of its fullest host now.
        lowest: level that nothing is below, or that is low enough.
        nodes_max: budget.

    Returns:
        The best assignment found; None where the budget showed none that is lower by `STEP`.
    """
    start, found = problem.state.copy(), None
    search = _Search(problem, nodes_max)
    aim = lowest * (1 + STEP / 2)
    while search.nodes > 0 and top - lowest > STEP * lowest:
        reached = search.reaches(aim)
        if reached:
            found, top = problem.state.copy(), aim
        else:
            lowest = aim
        problem.restore(start)
        aim = (top + lowest) / 2
    return found


class _Search:
    """The items that may move, and the hosts that are up."""

    def __init__(self, problem: Problem, nodes: int) -> None:
        model, state = problem.model, problem.state
        self.nodes = nodes
        self._problem = problem
        self._hosts = [h for h, host in enumerate(problem.fleet.hosts) if host.state == "up"]
        judged = [r for r in range(model.inverse.shape[0]) if model.inverse[r, self._hosts].any()]
        self._inverse = {h: model.inverse[judged, h].tolist() for h in self._hosts}
        movable = [v for v in range(len(state.host)) if model.movable[v] and state.host[v] >= 0]
        size = (model.load[:, judged] * model.inverse[judged].mean(axis=1)).max(axis=1) if judged else np.zeros(0)
        self._items = sorted(movable, key=lambda v: (-size[v], v)) if judged else []
        self._load = [model.load[v, judged].tolist() for v in self._items]
        self._home = [int(state.host[v]) for v in self._items]
        rest = np.array(self._load)[::-1].cumsum(axis=0)[::-1] if self._load else np.zeros((0, 0))
        self._rest: list[list[float]] = rest.tolist()
        self._judged = judged
        self._levels: dict[int, list[float]] = {}
        self._aim = 0.0

    def reaches(self, aim: float) -> bool:
        """Place all movable items anew with every host at a level at most; the state is left as far as that came."""
        state, model = self._problem.state, self._problem.model
        for item in self._items:
            take_item(self._problem.table, item)
        self._aim = aim + EPSILON
        self._levels = {
            h: (state.loaded[self._judged, h] * model.inverse[self._judged, h]).tolist() for h in self._hosts
        }
        held = all(level <= self._aim for levels in self._levels.values() for level in levels)
        return bool(self._items) and held and self._place(0)

    def _place(self, depth: int) -> bool:
        if depth == len(self._items):
            return True
        if self.nodes <= 0 or not self._has_room(depth):
            return False
        item, table = self._items[depth], self._problem.table
        for host, levels in self._choices(depth):
            if item_cost(table, item, host) >= OVERLOADED / 2:
                continue
            self.nodes -= 1
            put_item(table, item, host)
            before, self._levels[host] = self._levels[host], levels
            if self._place(depth + 1):
                return True
            self._levels[host] = before
            take_item(table, item)
        return False

    def _choices(self, depth: int) -> Iterator[tuple[int, list[float]]]:
        """Hosts on which an item leaves the aim, and their levels with it; of equal empty hosts one."""
        found, seen = [], set()
        for host in self._hosts:
            levels = self._with(depth, host)
            if max(levels) > self._aim:
                continue
            is_home = host == self._home[depth]
            kind = (*levels, *self._inverse[host]) if self._problem.state.first[host] < 0 and not is_home else (host,)
            if kind not in seen:
                seen.add(kind)
                found.append((not is_home, max(levels), host, levels))
        return iter([(host, levels) for _, _, host, levels in sorted(found)])

    def _with(self, depth: int, host: int) -> list[float]:
        parts = zip(self._levels[host], self._load[depth], self._inverse[host], strict=True)
        return [level + load * inverse for level, load, inverse in parts]

    def _has_room(self, depth: int) -> bool:
        """Whether the hosts that can take one of the items left have room for all of them."""
        room = [0.0] * len(self._judged)
        for host in self._hosts:
            if any(max(self._with(item, host)) <= self._aim for item in range(depth, len(self._items))):
                for r, (level, inverse) in enumerate(zip(self._levels[host], self._inverse[host], strict=True)):
                    room[r] += (self._aim - level) / inverse if inverse > 0 else np.inf
        return all(has >= need * (1 - EPSILON) for has, need in zip(room, self._rest[depth], strict=True))
