"""Kernel: ejection chains, for improvements that single moves and swaps cannot reach.

The rule here: all or nothing. Every host above a level gives up items until it is at or below; each of these is put
where it fits below the level, or else takes the place of others, mostly one or two, that are easiest to place
elsewhere, which then look for a place themselves. An item that had to look often is hard to place: it is ejected less
readily each time (after Nagata and Braeysy, "A powerful route minimization heuristic", 2009). If the last one finds
no place in time, everything is as it was.
"""

from typing import Any

import numpy as np

from dwcp_migrate.placement.arrays import EPSILON, NOWHERE, Floats, Integers, Model, State, Table, unpack
from dwcp_migrate.placement.kernel import compile_entry, compile_inlined, compile_part
from dwcp_migrate.placement.kernels.moves import put, take
from dwcp_migrate.placement.kernels.search import allowed, level, level_with, may_go

INFINITE = np.inf

EJECTED_MAX = 8
"""Items that make room for one; only a large one on a host of many small ones needs more than two."""

READY = 2.0
"""Singles that were ejected less often than this are taken before pairs are looked at."""

LEAST_PENALTY = 1.0
"""Least cost of ejecting an item: a search that finds one of it ends."""

LOAD, DEMAND, PAIR = 0, 1, 2
"""Columns kept of the largest items of a host: load and demand of one, PAIR further of the two largest together."""

SLACK = 1e-12
"""Sums of the same amounts in another order differ by less."""


@compile_part
def _size(m: Model, v: int, mean: Floats) -> float:
    """Largest share of an average host that an item uses."""
    size = 0.0
    for r in range(m.load.shape[1]):
        size = max(size, m.load[v, r] * mean[r])
    return size


@compile_part
def _unload(m: Model, s: State, h: int, target: float, queue: Integers, waiting: int) -> int:
    """Take items off a host: those that may not be there, then the smallest that is enough, else the largest."""
    v = s.first[h]
    while v >= 0:
        following = s.after[v]
        if m.movable[v] != 0 and m.barrier[m.klass[v], h] == INFINITE:
            take(m, s, v)
            queue[waiting] = v
            waiting += 1
        v = following
    while level(m, s, h) > target:
        chosen, chosen_level, enough = NOWHERE, INFINITE, False
        v = s.first[h]
        while v >= 0:
            left = level_with(m, s, h, NOWHERE, v)
            if m.movable[v] != 0:
                suits = left <= target
                if (suits and (not enough or left > chosen_level)) or (
                    not suits and not enough and left < chosen_level
                ):
                    chosen, chosen_level, enough = v, left, suits
            v = s.after[v]
        if chosen < 0:
            return -1
        take(m, s, chosen)
        queue[waiting] = chosen
        waiting += 1
    return waiting


@compile_part
def _place_below(m: Model, s: State, v: int, target: float, tight: int) -> bool:
    """Put an item where it may go and the target holds: home, else the emptiest host, or the fullest if `tight`."""
    chosen, chosen_level = NOWHERE, INFINITE
    home = m.home[v]
    if (
        home >= 0
        and m.barrier[m.klass[v], home] < INFINITE
        and level_with(m, s, home, v, NOWHERE) <= target
        and may_go(m, s, v, home, NOWHERE)
    ):
        chosen = home
    else:
        for h in range(m.inverse.shape[1]):
            reached = level_with(m, s, h, v, NOWHERE)
            key = -reached if tight != 0 else reached
            if reached <= target and key < chosen_level and may_go(m, s, v, h, NOWHERE):
                chosen, chosen_level = h, key
    if chosen < 0:
        return False
    put(m, s, v, chosen)
    return True


@compile_inlined
def _has_room(m: Model, s: State, v: int, h: int, pair: Any, target: float) -> bool:
    """Whether an item fits on a host below the target once one or two others have left."""
    w, x = pair
    for r in range(m.inverse.shape[0]):
        used = s.loaded[r, h] + m.load[v, r] - m.load[w, r]
        room = s.free[r, h] + m.demand[w, r]
        if x >= 0:
            used -= m.load[x, r]
            room += m.demand[x, r]
        if used * m.inverse[r, h] > target or room < m.demand[v, r] - EPSILON:
            return False
    return True


@compile_part
def _held(m: Model, s: State, h: int, held: Integers) -> int:
    """List the movable items of a host into `held`; their number."""
    count = 0
    w = s.first[h]
    while w >= 0:
        if m.movable[w] != 0:
            held[count] = w
            count += 1
        w = s.after[w]
    return count


@compile_part
def _note_largest(m: Model, s: State, h: int, largest: Floats) -> None:
    """Keep what the largest movable item of a host holds of each resource, and the two largest, in `largest`."""
    for r in range(m.inverse.shape[0]):
        for k in range(largest.shape[0]):
            largest[k, r, h] = 0.0
    w = s.first[h]
    while w >= 0:
        for r in range(m.inverse.shape[0] if m.movable[w] != 0 else 0):
            for k, amount in ((LOAD, m.load[w, r]), (DEMAND, m.demand[w, r])):
                one = largest[k, r, h]
                other = largest[k + PAIR, r, h] - one
                largest[k, r, h] = max(one, amount)
                largest[k + PAIR, r, h] = max(one, amount) + max(other, min(one, amount))
        w = s.after[w]


@compile_inlined
def _hopeful(m: Model, s: State, v: int, h: int, target: float, largest: Floats, pair: int) -> bool:
    """Whether an item could fit on a host below the target if the largest (0) or the two largest (PAIR) left it."""
    for r in range(m.inverse.shape[0]):
        used = s.loaded[r, h] + m.load[v, r] - largest[LOAD + pair, r, h]
        room = s.free[r, h] + largest[DEMAND + pair, r, h]
        if used * m.inverse[r, h] > target + SLACK or room < m.demand[v, r] - EPSILON - SLACK * m.demand[v, r]:
            return False
    return True


@compile_part
def _single(m: Model, s: State, v: int, target: float, penalty: Floats, largest: Floats) -> Any:
    """The host, and the item on it to eject, that costs least; NOWHERE if none makes room."""
    host, item, lowest = NOWHERE, NOWHERE, INFINITE
    for h in range(m.inverse.shape[1]):
        if not _hopeful(m, s, v, h, target, largest, 0) or not allowed(m, s, v, h):
            continue
        w = s.first[h]
        while w >= 0:
            if m.movable[w] != 0 and penalty[w] < lowest and _has_room(m, s, v, h, (w, NOWHERE), target):
                host, item, lowest = h, w, penalty[w]
            w = s.after[w]
        if lowest <= LEAST_PENALTY:
            break
    return host, item, lowest


@compile_part
def _pair(m: Model, s: State, v: int, target: float, penalty: Floats, largest: Floats, limit: float) -> Any:
    """The host, and the two items on it to eject, that cost least together and less than `limit`."""
    host, one, other, lowest = NOWHERE, NOWHERE, NOWHERE, limit
    held = np.empty(len(s.host), np.int64)
    for h in range(m.inverse.shape[1]):
        if not _hopeful(m, s, v, h, target, largest, PAIR) or not allowed(m, s, v, h):
            continue
        for i in range(_held(m, s, h, held)):
            for j in range(i):
                cost = penalty[held[i]] + penalty[held[j]]
                if cost < lowest and _has_room(m, s, v, h, (held[i], held[j]), target):
                    host, one, other, lowest = h, held[i], held[j], cost
        if lowest <= 2 * LEAST_PENALTY:
            break
    return host, one, other, lowest


@compile_part
def _several(m: Model, s: State, v: int, h: int, target: float, gone: Integers) -> int:
    """Choose items of a host to eject, most helpful first, until item v fits: noted in `gone`; their number, or -1."""
    held, used, room = np.empty(len(s.host), np.int64), np.empty(m.inverse.shape[0]), np.empty(m.inverse.shape[0])
    for r in range(len(used)):
        used[r], room[r] = s.loaded[r, h] + m.load[v, r], s.free[r, h] - m.demand[v, r]
    count, out = _held(m, s, h, held), 0
    while True:
        worst, over = -1, 0.0
        for r in range(len(used)):
            beyond = max(used[r] * m.inverse[r, h] - target, -(room[r] + EPSILON) * m.inverse[r, h])
            if beyond > over:
                worst, over = r, beyond
        if worst < 0:
            return out
        best = -1
        for n in range(count):
            if best < 0 or m.load[held[n], worst] > m.load[held[best], worst]:
                best = n
        if best < 0 or out == len(gone):
            return -1
        w = held[best]
        gone[out] = w
        out += 1
        count -= 1
        held[best] = held[count]
        for r in range(len(used)):
            used[r] -= m.load[w, r]
            room[r] += m.demand[w, r]


@compile_part
def _cheapest_several(m: Model, s: State, v: int, target: float, penalty: Floats) -> int:
    """The host on which ejecting several items for item v costs least; NOWHERE if that makes room nowhere."""
    host, lowest, gone = NOWHERE, INFINITE, np.empty(EJECTED_MAX, np.int64)
    for h in range(m.inverse.shape[1]):
        if not allowed(m, s, v, h):
            continue
        count, cost = _several(m, s, v, h, target, gone), 0.0
        for n in range(count):
            cost += penalty[gone[n]]
        if count >= 0 and cost < lowest:
            host, lowest = h, cost
    return host


@compile_part
def _settle(m: Model, s: State, queue: Integers, waiting: int, target: float, steps_max: int, seed: int) -> int:
    """Find places for the waiting items, the largest first; returns the number of steps, or -1."""
    penalty, mean = np.ones(len(s.host)), np.zeros(m.inverse.shape[0])
    for v in range(len(penalty) if seed > 0 else 0):
        penalty[v] += (v * 7919 + seed * 104729) % 1009 / 1009.0
    for r in range(m.inverse.shape[0]):
        mean[r] = np.mean(m.inverse[r])
    largest = np.empty((2 * PAIR, m.inverse.shape[0], m.inverse.shape[1]))
    for h in range(m.inverse.shape[1]):
        _note_largest(m, s, h, largest)
    steps, gone = 0, np.empty(EJECTED_MAX, np.int64)
    while waiting > 0:
        if steps == steps_max:
            return -1
        steps += 1
        chosen = 0
        for n in range(1, waiting):
            if _size(m, queue[n], mean) > _size(m, queue[chosen], mean):
                chosen = n
        v = queue[chosen]
        queue[chosen] = queue[waiting - 1]
        waiting -= 1
        if _place_below(m, s, v, target, seed & 1):
            _note_largest(m, s, s.host[v], largest)
            continue
        penalty[v] += 1.0
        h, one, lowest = _single(m, s, v, target, penalty, largest)
        other = NOWHERE
        if lowest > READY:
            t, first, second, both = _pair(m, s, v, target, penalty, largest, lowest)
            if both < lowest:
                h, one, other = t, first, second
        gone[0], gone[1] = one, other
        count = 1 if other < 0 else 2
        if h < 0:
            h = _cheapest_several(m, s, v, target, penalty)
            if h < 0:
                return -1
            count = _several(m, s, v, h, target, gone)
        for n in range(count):
            take(m, s, gone[n])
            queue[waiting] = gone[n]
            waiting += 1
        put(m, s, v, h)
        _note_largest(m, s, h, largest)
    return steps


@compile_part
def go_back(m: Model, s: State, before: Integers) -> None:
    """Put everything where it was.

    Args:
        m: the problem.
        s: its state, which is changed.
        before: (V,) host of each item, NOWHERE for none.
    """
    for v in range(len(before)):
        if s.host[v] >= 0 and s.host[v] != before[v]:
            take(m, s, v)
    for v in range(len(before)):
        if before[v] >= 0 and s.host[v] < 0:
            put(m, s, v, before[v])


@compile_entry("int64(table, float64, int64, int64)")
def repack_hosts(table: Table, target: float, steps_max: int, seed: int) -> int:
    """Bring every host to a level, by ejection chains of `steps_max` steps in all.

    Args:
        table: of the problem.
        target: level.
        steps_max: limit.
        seed: another one is another try: it decides whom chains eject first, odd ones fill hosts up instead of evenly.

    Returns:
        Steps that it took, or -1: no way was found, and everything is as it was.
    """
    m, s = unpack(table)
    before, queue = s.host.copy(), np.empty(len(s.host), np.int64)
    waiting, steps = 0, -1
    for h in range(m.inverse.shape[1]):
        if waiting >= 0:
            waiting = _unload(m, s, h, target, queue, waiting)
    if waiting >= 0:
        steps = _settle(m, s, queue, waiting, target, steps_max, seed)
    if steps < 0:
        go_back(m, s, before)
    return steps


@compile_entry("int64(table, int64[::1], int64)")
def fit(table: Table, items: Integers, steps_max: int) -> int:
    """Place items that are nowhere where the others must make room, by ejection chains of `steps_max` steps in all.

    Args:
        table: of the problem.
        items: (n,) indices of the items to place.
        steps_max: limit.

    Returns:
        Steps that it took, or -1: no way was found, and everything is as it was.
    """
    m, s = unpack(table)
    before, queue = s.host.copy(), np.empty(len(s.host), np.int64)
    for n in range(len(items)):
        queue[n] = items[n]
    steps = _settle(m, s, queue, len(items), INFINITE, steps_max, 0)
    if steps < 0:
        go_back(m, s, before)
    return steps
