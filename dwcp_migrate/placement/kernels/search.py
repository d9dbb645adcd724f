"""Kernels: place a batch, descend to a local optimum, relieve the fullest host, walk at random.

The rule here: a kernel leaves every hard rule that held as it found it, and each move that it makes gains strictly.
Orders are fixed: the same arrays give the same answer, compiled or interpreted.

    descend    steepest move first. Each item's best target and gain are cached. A move a -> b makes b dearer: a
               cached target b is only an upper bound now and is looked at again when it comes up first. It makes a
               cheaper: one comparison an item. Items that were on a or b, or that a rule ties to the moved item, are
               adjusted or looked up anew.
    relieve    from the fullest host (largest utilisation of any resource) one move, or else one swap, that brings
               both hosts below its level, by more than its price; until there is none. The fullest utilisation
               never grows.
"""

from typing import Any

import numpy as np

from dwcp_migrate.placement.arrays import EPSILON, NOWHERE, Integers, Model, State, Table, unpack
from dwcp_migrate.placement.kernel import compile_entry, compile_inlined, compile_part
from dwcp_migrate.placement.kernels.moves import (
    balance_at,
    cost_at,
    cost_here,
    fits_cells,
    lowest,
    put,
    put_inlined,
    rule_cost,
    scores,
    take,
)

INFINITE = np.inf

BLOCK = 64
"""Items whose highest gain is kept together: the highest of ten thousand is looked for a hundred thousand times."""

LEVEL_GAIN = 1e-9
"""The least by which the fullest host must get emptier."""


@compile_entry("void(table, int64, int64)")
def put_item(table: Table, v: int, h: int) -> None:
    """Put an item that is nowhere on a host, also if that breaks a rule.

    Args:
        table: of the problem.
        v: item.
        h: host.
    """
    m, s = unpack(table)
    put(m, s, v, h)


@compile_entry("void(table, int64)")
def take_item(table: Table, v: int) -> None:
    """Take an item off its host.

    Args:
        table: of the problem.
        v: item, which has a host.
    """
    m, s = unpack(table)
    take(m, s, v)


@compile_entry("float64(table, int64, int64)")
def item_cost(table: Table, v: int, h: int) -> float:
    """Return the cost of an item on a host; infinite where it may not go.

    Args:
        table: of the problem.
        v: item.
        h: host.
    """
    m, s = unpack(table)
    if s.host[v] == h:
        return float(cost_here(m, s, v))
    return float(cost_at(m, s, v, h))


@compile_entry("void(table, int64, float64[::1])")
def item_scores(table: Table, v: int, out: Any) -> None:
    """Compute the costs of an item on every host; infinite where it may not go and where it is.

    Args:
        table: of the problem.
        v: item.
        out: (H,), gets the costs.
    """
    m, s = unpack(table)
    scores(m, s, v, out)


@compile_entry("int64(table, int64[::1])")
def place_items(table: Table, items: Integers) -> int:
    """Put items that are nowhere on their best hosts, in the given order, all or none.

    Args:
        table: of the problem.
        items: (n,) indices.

    Returns:
        -1, or the position in `items` of the first that fits nowhere; then none is placed.
    """
    m, s = unpack(table)
    costs = np.empty(m.price.shape[1])
    for position in range(len(items)):
        v = items[position]
        scores(m, s, v, costs)
        h = lowest(costs)
        if costs[h] == INFINITE:
            for done in range(position):
                take(m, s, items[done])
            return position
        put_inlined(m, s, v, h)
    return NOWHERE


@compile_inlined
def _look(m: Model, s: State, v: int, here: Any, best: Any, gain: Any, costs: Any) -> None:
    """Find an item's best target."""
    scores(m, s, v, costs)
    here[v] = cost_here(m, s, v)
    best[v] = lowest(costs)
    gain[v] = here[v] - costs[best[v]]


@compile_inlined
def _note_peak(gain: Any, peaks: Any, block: int) -> None:
    """Keep the highest gain of a block of items."""
    peak = -INFINITE
    for v in range(block * BLOCK, min(block * BLOCK + BLOCK, len(gain))):
        peak = max(peak, gain[v])
    peaks[block] = peak


@compile_inlined
def _highest(gain: Any, peaks: Any) -> int:
    """The item that gains most, the first of equals."""
    block = 0
    for b in range(1, len(peaks)):
        if peaks[b] > peaks[block]:
            block = b
    v = block * BLOCK
    while gain[v] != peaks[block]:
        v += 1
    return v


@compile_entry("int64(table, int64, float64)")
def descend_steepest(table: Table, moves_max: int, gain_min: float) -> int:
    """Make the move that gains most, until none gains more than `gain_min`; returns the number of moves.

    Args:
        table: of the problem.
        moves_max: limit.
        gain_min: in units of the objective.
    """
    m, s = unpack(table)
    items = len(s.host)
    here, gain = np.zeros(items), np.full(items, -INFINITE)
    best, stale = np.full(items, NOWHERE), np.zeros(items, np.int64)
    costs = np.empty(m.price.shape[1])
    for v in range(items):
        if m.movable[v] != 0 and s.host[v] >= 0:
            _look(m, s, v, here, best, gain, costs)
    peaks = np.empty((items + BLOCK - 1) // BLOCK)
    for block in range(len(peaks)):
        _note_peak(gain, peaks, block)
    moves = 0
    while moves < moves_max and items > 0:
        v = _highest(gain, peaks)
        if not gain[v] > gain_min:
            break
        if stale[v] != 0:
            _look(m, s, v, here, best, gain, costs)
            stale[v] = 0
            _note_peak(gain, peaks, v // BLOCK)
            continue
        a, b = s.host[v], best[v]
        take(m, s, v)
        put(m, s, v, b)
        moves += 1
        for w in range(items):
            if gain[w] == -INFINITE and best[w] < 0:
                continue
            if s.host[w] == a or s.host[w] == b:
                before = here[w]
                here[w] = cost_here(m, s, w)
                gain[w] += here[w] - before
            if best[w] == b:
                stale[w] = 1
            if s.host[w] != a and here[w] - balance_at(m, s, w, a) > gain[w]:
                cost = cost_at(m, s, w, a)
                if here[w] - cost > gain[w]:
                    gain[w], best[w], stale[w] = here[w] - cost, a, 0
        _look(m, s, v, here, best, gain, costs)
        stale[v] = 0
        for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
            g = m.rules[k]
            for j in range(m.members_begin[g], m.members_begin[g + 1]):
                w = m.members[j]
                if m.movable[w] != 0 and s.host[w] >= 0:
                    _look(m, s, w, here, best, gain, costs)
                    stale[w] = 0
        for block in range(len(peaks)):
            _note_peak(gain, peaks, block)
    return moves


@compile_inlined
def level(m: Model, s: State, h: int) -> float:
    """Return the largest utilisation of any judged resource of a host.

    Args:
        m: the problem.
        s: its state.
        h: host.
    """
    top = 0.0
    for r in range(m.inverse.shape[0]):
        top = max(top, s.loaded[r, h] * m.inverse[r, h])
    return top


@compile_inlined
def level_with(m: Model, s: State, h: int, added: int, removed: int) -> float:
    """Return the level of a host with one item more and one item less.

    Args:
        m: the problem.
        s: its state.
        h: host.
        added: item; NOWHERE for none.
        removed: item; NOWHERE for none.
    """
    top = 0.0
    for r in range(m.inverse.shape[0]):
        used = s.loaded[r, h]
        if added >= 0:
            used += m.load[added, r]
        if removed >= 0:
            used -= m.load[removed, r]
        top = max(top, used * m.inverse[r, h])
    return top


@compile_inlined
def allowed(m: Model, s: State, v: int, h: int) -> bool:
    """Tell whether rules and NUMA cells let an item go to a host; `may_go` checks the room too.

    Args:
        m: the problem.
        s: its state.
        v: item.
        h: host.
    """
    if m.barrier[m.klass[v], h] == INFINITE:
        return False
    for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
        if rule_cost(m, s, m.rules[k], v, h) == INFINITE:
            return False
    return bool(m.cells_needed[v] == 0 or fits_cells(m, s, v, h))


@compile_inlined
def may_go(m: Model, s: State, v: int, h: int, removed: int) -> bool:
    """Tell whether an item may go to a host once another has left it; hard rules only.

    Rules and cells count `removed` as still there: a swap of two that one rule parts is missed.

    Args:
        m: the problem.
        s: its state.
        v: item.
        h: host.
        removed: item that leaves; NOWHERE for none.
    """
    for r in range(m.demand.shape[1]):
        room = s.free[r, h] + (m.demand[removed, r] if removed >= 0 else 0.0)
        if room < m.demand[v, r] - EPSILON:
            return False
    return bool(allowed(m, s, v, h))


@compile_part
def _fullest(m: Model, s: State) -> int:
    full, top = 0, -1.0
    for h in range(m.inverse.shape[1]):
        of_h = level(m, s, h)
        if of_h > top:
            full, top = h, of_h
    return full


@compile_part
def price_of(m: Model, s: State, v: int, h: int) -> float:
    """Return the price of moving an item to a host beyond its cost so far: the way home earns it back.

    Args:
        m: the problem.
        s: its state.
        v: item, which has a host.
        h: host.
    """
    price = m.move_cost[v] if m.home[v] != h else 0.0
    return float(price - (m.move_cost[v] if m.home[v] != s.host[v] else 0.0))


@compile_inlined
def _levels_with(m: Model, s: State, v: int, least: float, out: Any) -> None:
    """Level of every host with item v added, at least `least`, into `out` (H,): loops that a compiler vectorises."""
    for t in range(out.shape[0]):
        out[t] = least
    for r in range(m.inverse.shape[0]):
        added, loaded, inverse = m.load[v, r], s.loaded[r], m.inverse[r]
        for t in range(out.shape[0]):
            out[t] = max(out[t], (loaded[t] + added) * inverse[t])


@compile_part
def _best_move(m: Model, s: State, h: int, top: float, reached: Any) -> Any:
    """The move off host h that leaves the lowest level on both hosts, its price added: item and target, or NOWHERE."""
    limit = top - LEVEL_GAIN
    item, target, lowest_sum = NOWHERE, NOWHERE, limit
    v = s.first[h]
    while v >= 0:
        left = level_with(m, s, h, NOWHERE, v)
        if m.movable[v] != 0 and left < limit:
            _levels_with(m, s, v, left, reached)
            dearest = m.move_cost[v] if m.home[v] == h else 0.0
            for t in range(reached.shape[0]):
                if reached[t] < limit and t != h and (reached[t] + dearest < lowest_sum or t == m.home[v]):
                    priced = reached[t] + price_of(m, s, v, t)
                    if priced < lowest_sum and may_go(m, s, v, t, NOWHERE):
                        item, target, lowest_sum = v, t, priced
        v = s.after[v]
    return item, target


@compile_part
def _best_swap(m: Model, s: State, h: int, top: float) -> Any:
    """The swap of an item of host h that leaves the lowest level on both hosts, prices added: two items, or NOWHERE."""
    one, other, lowest_sum = NOWHERE, NOWHERE, top - LEVEL_GAIN
    v = s.first[h]
    while v >= 0:
        for t in range(m.inverse.shape[1]):
            if m.movable[v] == 0 or t == h or m.barrier[m.klass[v], t] == INFINITE:
                continue
            w = s.first[t]
            while w >= 0:
                reached = max(level_with(m, s, h, w, v), level_with(m, s, t, v, w))
                if m.movable[w] != 0 and reached < top - LEVEL_GAIN:
                    reached += price_of(m, s, v, t) + price_of(m, s, w, h)
                    if reached < lowest_sum and may_go(m, s, v, t, w) and may_go(m, s, w, h, v):
                        one, other, lowest_sum = v, w, reached
                w = s.after[w]
        v = s.after[v]
    return one, other


@compile_entry("int64(table, int64, float64)")
def relieve_fullest(table: Table, moves_max: int, target: float) -> int:
    """Make the fullest host emptier until its level is `target`, no move or swap helps, or `moves_max` moves were made.

    Args:
        table: of the problem.
        moves_max: limit; a swap counts as two.
        target: level.

    Returns:
        How many items changed host.
    """
    m, s = unpack(table)
    reached = np.empty(m.inverse.shape[1])
    moves = 0
    while moves < moves_max:
        h = _fullest(m, s)
        top = level(m, s, h)
        if top <= target:
            break
        v, t = _best_move(m, s, h, top, reached)
        if v >= 0:
            take(m, s, v)
            put(m, s, v, t)
            moves += 1
            continue
        v, w = _best_swap(m, s, h, top)
        if v < 0 or moves + 2 > moves_max:
            break
        t = s.host[w]
        take(m, s, v)
        take(m, s, w)
        put(m, s, v, t)
        put(m, s, w, h)
        moves += 2
    return moves


@compile_entry("int64(table, int64[::1], int64[::1])")
def walk(table: Table, items: Integers, targets: Integers) -> int:
    """Move items to targets where hard rules let them, one after another.

    Args:
        table: of the problem.
        items: (n,) indices.
        targets: (n,) host of each.

    Returns:
        How many moves were made.
    """
    m, s = unpack(table)
    moves = 0
    for n in range(len(items)):
        v, h = items[n], targets[n]
        if s.host[v] < 0 or s.host[v] == h or m.movable[v] == 0:
            continue
        if cost_at(m, s, v, h) < INFINITE:
            take(m, s, v)
            put(m, s, v, h)
            moves += 1
    return moves


@compile_entry("void(table, float64[::1])")
def utilisation(table: Table, out: Any) -> None:
    """Compute mean, standard deviation, maximum and share of hosts beyond 0.8 of the hosts' levels.

    Args:
        table: of the problem.
        out: (4,), gets the figures.
    """
    m, s = unpack(table)
    hosts = m.inverse.shape[1]
    levels = np.zeros(hosts)
    for r in range(m.inverse.shape[0]):
        inverse, loaded = m.inverse[r], s.loaded[r]
        for h in range(hosts):
            levels[h] = max(levels[h], loaded[h] * inverse[h])
    total = squares = top = beyond = 0.0
    for h in range(hosts):
        total += levels[h]
        squares += levels[h] * levels[h]
        top = max(top, levels[h])
        beyond += 1.0 if levels[h] > 0.8 else 0.0  # noqa: PLR2004 - where operators begin to look
    mean = total / hosts
    out[0], out[1], out[2], out[3] = mean, np.sqrt(max(0.0, squares / hosts - mean * mean)), top, beyond / hosts
