"""Simulated annealing for machine reassignment: shifts, swaps and ejections, every hard constraint held at each step.

The rule here: the kernel knows the constraints as counters that a move changes in a few places; what it returns is
summed and checked anew by `roadef`. It is compiled where numba is, like the kernels of `placement`, and of the same
idea; the problem is another one (safety capacities, transient resources, dependencies), so it has arrays of its own.

Nineteen of twenty moves drawn blindly break a capacity. So a process is only offered machines that can ever have it,
and where it does not fit the first process there, from a random one on, whose leaving makes room goes

    shift    p -> t                 nobody
    swap     p -> t, q -> m         to where p was
    eject    p -> t, q -> w         to any machine

Room is asked for before cost, cost before locations and dependencies, which are looked up once the move is made. Two
cores anneal with different seeds and go on from the better result at each reheating.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from dwcp_migrate.bench.roadef import Instance, objective
from dwcp_migrate.bench.roadef_arrays import Arrays, Counters, arrays, counters
from dwcp_migrate.placement.arrays import Floats, Integers
from dwcp_migrate.placement.kernel import inlined, part

SHIFTS: Final = 0.5
"""Share of the proposals that are shifts; SWAPS, EJECTIONS the rest."""

SWAPS: Final = 0.3

PHASES: Final = ((0.7, 6e-3, 1e-5), (0.2, 2e-4, 1e-6), (0.1, 1e-6, 0.0))
"""Share of the time, and temperature at first and at last in objectives of the start. Above the first nothing is
gained; half of what is reached comes between 2e-3 and 2e-4."""

COLD: Final = 0.3
"""Least temperature: a move costs 1 at least."""

BLOCK: Final = 4096
"""Proposals at one temperature."""

SLICE: Final = 64
"""Blocks between two looks at the clock: some tens of milliseconds."""

NOBODY: Final = -1


@inlined
def fixed(a: Arrays, p: int, m: int) -> int:
    """What the way from its start costs a process."""
    return int(a.way_cost[a.start[p], m] + (a.move_cost[p] if m != a.start[p] else 0))


@inlined
def has_room(a: Arrays, c: Counters, m: int, p: int, q: int) -> bool:
    """Whether machine m has room for process p once q (or NOBODY) has left it."""
    need, slack, here = a.needs[p], c.slack[m], a.start[p] == m
    if q < 0:
        for r in range(len(need)):
            if need[r] > slack[r] and not (here and a.transient[r] != 0):
                return False
        return True
    freed, there = a.needs[q], a.start[q] == m
    for r in range(len(need)):
        lasts = a.transient[r] != 0
        more = (0 if lasts and here else need[r]) - (0 if lasts and there else freed[r])
        if more > slack[r]:
            return False
    return True


@inlined
def enters(a: Arrays, c: Counters, m: int, p: int, q: int) -> bool:
    """Whether p may enter m once q (or NOBODY) has left it: room, and no other of its service."""
    if c.on[a.service[p], m] > 0 and not (q >= 0 and a.service[q] == a.service[p]):
        return False
    return bool(has_room(a, c, m, p, q))


@inlined
def change(a: Arrays, c: Counters, m: int, p: int, q: int) -> int:
    """What machine m costs more when p enters it and q leaves it; either may be NOBODY."""
    cost = 0
    for r in range(a.needs.shape[1]):
        more = 0
        if p >= 0:
            more += a.needs[p, r]
        if q >= 0:
            more -= a.needs[q, r]
        over = c.over[m, r]
        cost += a.load_weight[r] * (max(0, over + more) - max(0, over))
    for b in range(a.balance.shape[0]):
        first, second, want = a.balance[b, 0], a.balance[b, 1], a.balance[b, 2]
        more = 0
        if p >= 0:
            more -= want * a.needs[p, first] - a.needs[p, second]
        if q >= 0:
            more += want * a.needs[q, first] - a.needs[q, second]
        lacks = c.unbalanced[m, b]
        cost += a.balance[b, 3] * (max(0, lacks + more) - max(0, lacks))
    return int(cost)


@part
def put(a: Arrays, c: Counters, p: int, m: int, sign: int) -> None:
    """Put a process on a machine (1) or take it off (-1)."""
    s, home = a.service[p], a.start[p]
    for r in range(a.needs.shape[1]):
        c.over[m, r] += sign * a.needs[p, r]
        if a.transient[r] == 0 or m != home:
            c.slack[m, r] -= sign * a.needs[p, r]
    for b in range(a.balance.shape[0]):
        first, second, want = a.balance[b, 0], a.balance[b, 1], a.balance[b, 2]
        c.unbalanced[m, b] -= sign * (want * a.needs[p, first] - a.needs[p, second])
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
    if sign > 0:
        c.host[p], c.position[p] = m, c.held[m]
        c.items[m, c.held[m]] = p
        c.held[m] += 1
    else:
        c.held[m] -= 1
        last = c.items[m, c.held[m]]
        c.items[m, c.position[p]] = last
        c.position[last] = c.position[p]


@inlined
def well_placed(a: Arrays, c: Counters, s: int, left: int, entered: int) -> bool:
    """Whether a service has its locations, its needs where it entered, and is not missed where it left."""
    if c.locations[s] < a.spread[s]:
        return False
    if left == entered:
        return True
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
def most_moved(c: Counters, most: int) -> int:
    """Largest number of moved processes of one service; a move changes it by two at most."""
    most = min(most + 2, len(c.having) - 1)
    while most > 0 and c.having[most] == 0:
        most -= 1
    return most


@part
def moved(a: Arrays, c: Counters, pair: Any, targets: Any, limit: float, most: int) -> Any:
    """Move a process, and a second one or NOBODY, if locations, dependencies and `limit` allow it.

    Returns:
        Whether it was done, and the most moved of one service.
    """
    p, q = pair
    m, t = c.host[p], c.host[q] if q >= 0 else NOBODY
    put(a, c, p, m, -1)
    if q >= 0:
        put(a, c, q, t, -1)
        put(a, c, q, targets[1], 1)
    put(a, c, p, targets[0], 1)
    now = most_moved(c, most)
    if (
        a.service_weight * (now - most) <= limit
        and well_placed(a, c, a.service[p], a.area[m], a.area[targets[0]])
        and (q < 0 or well_placed(a, c, a.service[q], a.area[t], a.area[targets[1]]))
    ):
        return True, now
    put(a, c, p, targets[0], -1)
    if q >= 0:
        put(a, c, q, targets[1], -1)
        put(a, c, q, t, 1)
    put(a, c, p, m, 1)
    return False, most


@inlined
def who_leaves(a: Arrays, c: Counters, p: int, t: int) -> int:
    """A process of machine t, the first from a random one on, whose leaving lets p in; NOBODY if there is none."""
    need, slack, here, lacking = a.needs[p], c.slack[t], a.start[p] == t, 0
    for r in range(len(need)):
        lack = -slack[r] if here and a.transient[r] != 0 else need[r] - slack[r]
        if lack > 0:
            c.lacking[0, lacking], c.lacking[1, lacking] = r, lack
            lacking += 1
    service, parted = a.service[p], c.on[a.service[p], t] > 0
    number = c.held[t]
    k = int(np.random.random() * number)
    for _ in range(number):
        q = c.items[t, k]
        k = k + 1 if k + 1 < number else 0
        suits = not parted or a.service[q] == service
        for j in range(lacking):
            r = c.lacking[0, j]
            suits = suits and a.needs[q, r] >= c.lacking[1, j] and (a.transient[r] == 0 or a.start[q] != t)
            if not suits:
                break
        if suits:
            return int(q)
    return NOBODY


@part
def block(a: Arrays, c: Counters, best: Integers, sums: Floats, heat: float, most: int) -> int:
    """Anneal for a block of proposals at one temperature.

    Args:
        a: the instance.
        c: counters.
        best: (P,) takes the best assignment met.
        sums: what the assignment costs now, and what `best` does, the beginning being nought.
        heat: temperature.
        most: moved processes of one service.

    Returns:
        The same after it.
    """
    for _ in range(BLOCK):
        p = a.mobile[int(np.random.random() * len(a.mobile))]
        m = c.host[p]
        begin = a.open_begin[p]
        t = a.open_to[begin + int(np.random.random() * (a.open_begin[p + 1] - begin))]
        kind = np.random.random()
        q, w = NOBODY, m
        if t == m:
            continue
        if kind < SHIFTS:
            if not enters(a, c, t, p, NOBODY):
                continue
            cost = change(a, c, t, p, NOBODY) + change(a, c, m, NOBODY, p)
        else:
            q = who_leaves(a, c, p, t)
            if q < 0:
                continue
            if kind < SHIFTS + SWAPS:
                if not enters(a, c, m, q, p):
                    continue
                cost = change(a, c, t, p, q) + change(a, c, m, q, p)
            else:
                begin = a.open_begin[q]
                w = a.open_to[begin + int(np.random.random() * (a.open_begin[q + 1] - begin))]
                if w == m or w == t or not enters(a, c, w, q, NOBODY):
                    continue
                cost = change(a, c, t, p, q) + change(a, c, w, q, NOBODY) + change(a, c, m, NOBODY, p)
            cost += fixed(a, q, w) - fixed(a, q, t)
        cost += fixed(a, p, t) - fixed(a, p, m)
        limit = 0.0 if cost <= 0 else -heat * np.log(1.0 - np.random.random())
        if cost > limit:
            continue
        done, now = moved(a, c, (p, q), (t, w), limit - cost, most)
        if done:
            sums[0] += cost + a.service_weight * (now - most)
            most = now
            if sums[0] < sums[1] - 0.5:
                sums[1] = sums[0]
                best[:] = c.host
    return int(most)


@part
def blocks(a: Arrays, c: Counters, best: Integers, sums: Floats, heats: Floats, seed: int) -> None:
    """Anneal for a block at each temperature of `heats`; see `block`."""
    np.random.seed(seed)
    most = int(np.max(c.moved))
    for n in range(len(heats)):
        most = block(a, c, best, sums, heats[n], most)


def anneal(a: Arrays, begin: Integers, heats: tuple[float, float], until: tuple[float, float], seed: int) -> Any:
    """Anneal from an assignment, cooling with the clock.

    Args:
        a: the instance.
        begin: (P,) assignment.
        heats: temperature at first and at last.
        until: monotonic seconds of begin and end.
        seed: of chance.

    Returns:
        What it gained, and the best assignment (P,).
    """
    c, best, sums, number = counters(a, begin), begin.copy(), np.zeros(2), 0
    while (passed := (time.monotonic() - until[0]) / (until[1] - until[0])) < 1:
        heat = heats[0] * (heats[1] / heats[0]) ** max(passed, 0.0)
        blocks(a, c, best, sums, np.full(SLICE, heat), seed * 1_000_003 + number)
        number += 1
    return float(sums[1]), best


def solve(instance: Instance, seconds: float, seed: int, cores: int = 2) -> list[int]:
    """Anneal for a time on some cores; the best assignment."""
    a = arrays(instance)
    best = a.start.copy()
    if not len(a.mobile):
        return [int(machine) for machine in best]
    scale = float(max(objective(instance, instance.start), 1))
    blocks(a, counters(a, best), best.copy(), np.zeros(2), np.zeros(1), seed)  # compiled by now
    begin = time.monotonic()
    with ThreadPoolExecutor(cores) as threads:
        for number, (share, hot, cold) in enumerate(PHASES):
            end = begin + share * seconds
            heats = max(hot * scale, COLD), max(cold * scale, COLD)
            runs = [
                threads.submit(anneal, a, best, heats, (begin, end), seed + 1000 * number + core)
                for core in range(cores)
            ]
            _, best = min((run.result() for run in runs), key=lambda found: found[0])
            begin = end
    return [int(machine) for machine in best]
