"""Simulated annealing for machine reassignment: shifts and swaps, every hard constraint held at each step.

The rule here: the kernel knows the constraints as counters that a move changes in a few places; what it returns is
summed and checked anew by `roadef`. It is compiled where numba is, like the kernels of `placement`, and of the same
idea; the problem is another one (safety capacities, transient resources, dependencies), so it has arrays of its own.
"""

import time
from typing import Any, Final, NamedTuple

import numpy as np

from dwcp_migrate.bench.roadef import Instance, objective
from dwcp_migrate.placement.arrays import Floats, Integers
from dwcp_migrate.placement.kernel import inlined, part

SWAP_SHARE: Final = 0.4
"""Of the proposals; the others are shifts."""

REHEATS: Final = 4
"""Coolings in a run, each from half the temperature of the one before; every one starts from the best so far."""


HOT: Final = 0.02
"""Temperature at first, in the objective of a process at the start; COLD at last."""

COLD: Final = 2e-6
PROBE: Final = 20_000
"""Proposals that tell the pace."""


class Arrays(NamedTuple):
    """The instance; P processes, M machines, R resources, S services, D dependencies, B balance costs."""

    needs: Integers  # (P, R)
    service: Integers  # (P,)
    start: Integers  # (P,)
    move_cost: Integers  # (P,) weighted
    capacity: Integers  # (M, R)
    safety: Integers  # (M, R)
    way_cost: Integers  # (M, M) weighted
    area: Integers  # (M,) neighbourhood
    location: Integers  # (M,)
    transient: Integers  # (R,)
    load_weight: Integers  # (R,)
    balance: Integers  # (B, 4)
    spread: Integers  # (S,)
    needs_begin: Integers  # (S + 1,) slices of `needed`
    needed: Integers  # (D,) services that a service depends on
    needed_by_begin: Integers  # (S + 1,) slices of `needed_by`
    needed_by: Integers  # (D,) services that depend on it
    service_weight: int


class Counters(NamedTuple):
    """What moves change."""

    host: Integers  # (P,)
    used: Integers  # (M, R)
    held: Integers  # (M, R) with what moved processes hold of transient resources where they came from
    on: Integers  # (S, M) processes of a service on a machine
    at: Integers  # (S, locations)
    near: Integers  # (S, neighbourhoods)
    locations: Integers  # (S,) that a service is in
    moved: Integers  # (S,) its processes that moved
    having: Integers  # (P + 1,) services by how many of their processes moved


def arrays(instance: Instance) -> Arrays:
    """Make the arrays of an instance."""
    by: list[list[int]] = [[] for _ in instance.services]
    for number, service in enumerate(instance.services):
        for need in service.needs:
            by[need].append(number)
    machines, resources = len(instance.machines), len(instance.transient)

    def integers(values: Any, *shape: int) -> Integers:
        return np.array(values, np.int64).reshape(shape or (-1,))

    def areas(values: list[int]) -> Integers:
        return np.unique(integers(values), return_inverse=True)[1].astype(np.int64)

    return Arrays(
        needs=integers([one.needs for one in instance.processes], -1, resources),
        service=integers([one.service for one in instance.processes]),
        start=integers(instance.start),
        move_cost=integers([one.move_cost for one in instance.processes]) * instance.process_weight,
        capacity=integers([one.capacity for one in instance.machines], machines, resources),
        safety=integers([one.safety for one in instance.machines], machines, resources),
        way_cost=integers([one.move_cost for one in instance.machines], machines, machines) * instance.machine_weight,
        area=areas([one.neighbourhood for one in instance.machines]),
        location=areas([one.location for one in instance.machines]),
        transient=integers(instance.transient),
        load_weight=integers(instance.load_weight),
        balance=integers([(one.first, one.second, one.target, one.weight) for one in instance.balances], -1, 4),
        spread=integers([one.spread for one in instance.services]),
        needs_begin=np.cumsum([0, *(len(one.needs) for one in instance.services)], dtype=np.int64),
        needed=integers([need for one in instance.services for need in one.needs]),
        needed_by_begin=np.cumsum([0, *(len(one) for one in by)], dtype=np.int64),
        needed_by=integers([one for many in by for one in many]),
        service_weight=instance.service_weight,
    )


def counters(a: Arrays) -> Counters:
    """Counters at the start."""
    services, machines = len(a.spread), len(a.area)
    used = np.zeros_like(a.capacity)
    np.add.at(used, a.start, a.needs)
    on = np.zeros((services, machines), np.int64)
    at = np.zeros((services, int(a.location.max()) + 1), np.int64)
    near = np.zeros((services, int(a.area.max()) + 1), np.int64)
    np.add.at(on, (a.service, a.start), 1)
    np.add.at(at, (a.service, a.location[a.start]), 1)
    np.add.at(near, (a.service, a.area[a.start]), 1)
    having = np.zeros(len(a.start) + 1, np.int64)
    having[0] = services
    moved = np.zeros(services, np.int64)
    return Counters(a.start.copy(), used, used.copy(), on, at, near, (at > 0).sum(axis=1), moved, having)


@inlined
def _machine_cost(a: Arrays, c: Counters, m: int) -> int:
    cost = 0
    for r in range(a.needs.shape[1]):
        cost += a.load_weight[r] * max(0, c.used[m, r] - a.safety[m, r])
    for b in range(a.balance.shape[0]):
        first, second = a.balance[b, 0], a.balance[b, 1]
        free = a.balance[b, 2] * (a.capacity[m, first] - c.used[m, first]) - (a.capacity[m, second] - c.used[m, second])
        cost += a.balance[b, 3] * max(0, free)
    return int(cost)


@part
def _put(a: Arrays, c: Counters, p: int, m: int, sign: int) -> None:
    """Put a process on a machine (1) or take it off (-1)."""
    s, home = a.service[p], a.start[p]
    for r in range(a.needs.shape[1]):
        c.used[m, r] += sign * a.needs[p, r]
        if a.transient[r] == 0 or m != home:
            c.held[m, r] += sign * a.needs[p, r]
    c.on[s, m] += sign
    before = c.at[s, a.location[m]]
    c.at[s, a.location[m]] += sign
    if before + sign == 0:
        c.locations[s] -= 1
    elif before == 0:
        c.locations[s] += 1
    c.near[s, a.area[m]] += sign
    if m != home:
        c.having[c.moved[s]] -= 1
        c.moved[s] += sign
        c.having[c.moved[s]] += 1
    c.host[p] = m if sign > 0 else -1


@inlined
def _has_room(a: Arrays, c: Counters, p: int, m: int) -> bool:
    """Whether machine m has room for a process that is nowhere, and no other of its service."""
    if c.on[a.service[p], m] > 0:
        return False
    for r in range(a.needs.shape[1]):
        if (a.transient[r] == 0 or m != a.start[p]) and c.held[m, r] + a.needs[p, r] > a.capacity[m, r]:
            return False
    return True


@inlined
def _well_placed(a: Arrays, c: Counters, s: int, left: int, entered: int) -> bool:
    """Whether a service has its locations, its needs where it entered, and is not missed where it left."""
    if c.locations[s] < a.spread[s]:
        return False
    if c.near[s, entered] > 0:
        for k in range(a.needs_begin[s], a.needs_begin[s + 1]):
            if c.near[a.needed[k], entered] == 0:
                return False
    if c.near[s, left] == 0:
        for k in range(a.needed_by_begin[s], a.needed_by_begin[s + 1]):
            if c.near[a.needed_by[k], left] > 0:
                return False
    return True


@inlined
def _most_moved(c: Counters, most: int) -> int:
    """Largest number of moved processes of one service, which is near what it was."""
    while most + 1 < len(c.having) and c.having[most + 1] > 0:
        most += 1
    while most > 0 and c.having[most] == 0:
        most -= 1
    return most


@inlined
def _fixed(a: Arrays, p: int, m: int) -> int:
    """What the way from its start costs a process."""
    cost = a.way_cost[a.start[p], m]
    return int(cost + (a.move_cost[p] if m != a.start[p] else 0))


@part
def _change(a: Arrays, c: Counters, p: int, q: int, m: int, limit: float, most: int) -> Any:
    """Move p to machine m, and q (or -1) to where p was, if that is allowed and costs no more than `limit`.

    Returns:
        Whether it was done, what it costs, and the most moved of one service.
    """
    old = c.host[p]
    s = a.service[p]
    change = -_machine_cost(a, c, old) - _machine_cost(a, c, m) - _fixed(a, p, old) + _fixed(a, p, m)
    _put(a, c, p, old, -1)
    if q >= 0:
        change += _fixed(a, q, old) - _fixed(a, q, m)
        _put(a, c, q, m, -1)
    if _has_room(a, c, p, m):
        _put(a, c, p, m, 1)
        both = q < 0 or _has_room(a, c, q, old)
        if both and q >= 0:
            _put(a, c, q, old, 1)
        if (
            both
            and _well_placed(a, c, s, a.area[old], a.area[m])
            and (q < 0 or _well_placed(a, c, a.service[q], a.area[m], a.area[old]))
        ):
            now = _most_moved(c, most)
            change += _machine_cost(a, c, old) + _machine_cost(a, c, m) + a.service_weight * (now - most)
            if change <= limit:
                return True, change, now
        if both and q >= 0:
            _put(a, c, q, old, -1)
        _put(a, c, p, m, -1)
    if q >= 0:
        _put(a, c, q, m, 1)
    _put(a, c, p, old, 1)
    return False, 0, most


@part
def anneal(a: Arrays, c: Counters, best: Integers, settings: Floats, seed: int) -> float:
    """Anneal for a number of proposals; the best assignment met goes into `best` (P,).

    Args:
        a: the instance.
        c: counters, at the assignment to begin with.
        best: where the best goes.
        settings: proposals, temperature at first and at last, and what `best` costs less than the beginning.
        seed: of chance.

    Returns:
        What the best costs, the beginning being nought.
    """
    np.random.seed(seed)
    processes, machines = len(a.start), len(a.area)
    total, lowest, most = 0.0, settings[3], _most_moved(c, int(np.max(c.moved)))
    proposals = int(settings[0])
    cooling = np.log(settings[2] / settings[1])
    for number in range(proposals):
        heat = settings[1] * np.exp(cooling * number / proposals)
        p = np.random.randint(processes)
        q, m = -1, np.random.randint(machines)
        if np.random.random() < SWAP_SHARE:
            q = np.random.randint(processes)
            m = c.host[q]
        if m == c.host[p]:
            continue
        limit = -heat * np.log(max(np.random.random(), 1e-12))
        done, change, most = _change(a, c, p, q, m, limit, most)
        if done:
            total += change
            if total < lowest - 0.5:
                lowest = total
                best[:] = c.host
    return float(lowest)


def solve(instance: Instance, seconds: float, seed: int) -> list[int]:
    """Anneal for a time, with several coolings; the best assignment."""
    a = arrays(instance)
    best = a.start.copy()
    scratch = best.copy()
    anneal(a, counters(a), scratch, np.array([1.0, 1.0, 1.0, 0.0]), seed)  # compiled by now
    begin = time.monotonic()
    anneal(a, counters(a), scratch, np.array([float(PROBE), 1.0, 1.0, 0.0]), seed)
    pace = PROBE / max(time.monotonic() - begin, 1e-3)
    heat = max(objective(instance, instance.start) / len(instance.processes), 1.0)
    for cooling in range(REHEATS):
        left = seconds - (time.monotonic() - begin)
        proposals = pace * left / (REHEATS - cooling)
        if proposals < 1:
            break
        c = counters(a)
        for p in np.flatnonzero(best != a.start):
            _put(a, c, int(p), int(a.start[p]), -1)
        for p in np.flatnonzero(c.host < 0):
            _put(a, c, int(p), int(best[p]), 1)
        settings = np.array([proposals, heat * HOT / 2**cooling, heat * COLD, 0.0])
        anneal(a, c, best, settings, seed + cooling)
    return [int(machine) for machine in best]
