"""Parts of all kernels: the cost of an item on a host and on all hosts, and its moves.

The rule here: costs are marginal: the addition of an item on a host, everything else being where it is, the item itself
taken away. So the gain of a move is the cost where it is minus the cost where it would be, and sums of gains are
differences of the objective (`arrays`). `scores` has a vectorised twin for interpreters without a compiler; tests hold
both against each other.
"""

from typing import Any

import numpy as np

from dwcp_migrate.placement import kernel
from dwcp_migrate.placement.arrays import (
    APART,
    BROKEN,
    EPSILON,
    NOWHERE,
    OVERLOADED,
    Floats,
    Integers,
    Model,
    State,
)

INFINITE = np.inf


@kernel.compile_inlined
def excess(m: Model, s: State, g: int, v: int, h: int) -> int:
    """Count the items too many (`apart`) or in other zones (`together`) of a rule if an item were on a host.

    Args:
        m: the problem.
        s: its state.
        g: rule.
        v: item.
        h: host.
    """
    zone = m.zone[m.level[g], h]
    there = s.counts[m.count_begin[g] + zone]
    here = s.host[v]
    if here >= 0 and m.zone[m.level[g], here] == zone:
        there -= 1
    if m.kind[g] == APART:
        return 1 if there >= m.limit[g] else 0
    others = s.placed[g] - (1 if here >= 0 else 0)
    return int(others - there)


@kernel.compile_inlined
def rule_cost(m: Model, s: State, g: int, v: int, h: int) -> float:
    """Return the cost of a rule for an item on a host; a hard one bars it, unless the move heals a breach.

    Args:
        m: the problem.
        s: its state.
        g: rule.
        v: item.
        h: host.
    """
    too_many = excess(m, s, g, v, h)
    if too_many == 0:
        return 0.0
    if np.isfinite(m.weight[g]):
        return float(m.weight[g] * too_many)
    here = s.host[v]
    if here >= 0 and m.kind[g] != APART and too_many < excess(m, s, g, v, here):
        return BROKEN * too_many
    return INFINITE


@kernel.compile_part
def fits_cells(m: Model, s: State, v: int, h: int) -> bool:
    """Tell whether enough NUMA cells of a host have room for one share of an item each.

    Args:
        m: the problem.
        s: its state.
        v: item.
        h: host.
    """
    found = 0
    for c in range(m.cell_begin[h], m.cell_begin[h + 1]):
        if s.cell_free[c, 0] >= m.cell_demand[v, 0] - EPSILON and s.cell_free[c, 1] >= m.cell_demand[v, 1] - EPSILON:
            found += 1
    return bool(found >= m.cells_needed[v])


@kernel.compile_inlined
def balance_at(m: Model, s: State, v: int, h: int) -> float:
    """Return the part of `cost_at` that is about even utilisation: a lower bound of it that is quick to have.

    Args:
        m: the problem.
        s: its state.
        v: item.
        h: host.
    """
    cost = 0.0
    for r in range(m.demand.shape[1]):
        used = m.load[v, r]
        cost += m.price[r, h] * used * (2.0 * s.loaded[r, h] + used)
    return cost


@kernel.compile_inlined
def cost_at(m: Model, s: State, v: int, h: int) -> float:
    """Return the cost of an item on a host; infinite where it may not go.

    Args:
        m: the problem.
        s: its state.
        v: item, not on this host now.
        h: host.
    """
    cost = m.barrier[m.klass[v], h] + m.site_cost[m.site[v], h]
    if m.home[v] != h:
        cost += m.move_cost[v]
    for r in range(m.demand.shape[1]):
        if s.free[r, h] < m.demand[v, r] - EPSILON:
            return INFINITE
        used = m.load[v, r]
        cost += m.price[r, h] * used * (2.0 * s.loaded[r, h] + used)
    for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
        cost += rule_cost(m, s, m.rules[k], v, h)
    if m.cells_needed[v] > 0 and not fits_cells(m, s, v, h):
        return INFINITE
    return float(cost)


@kernel.compile_inlined
def cost_here(m: Model, s: State, v: int) -> float:
    """Return the cost of an item on its host; each breach there costs BROKEN.

    Args:
        m: the problem.
        s: its state.
        v: item, which has a host.
    """
    h = s.host[v]
    cost = m.site_cost[m.site[v], h]
    if not np.isfinite(m.barrier[m.klass[v], h]):
        cost += BROKEN
    if m.home[v] != h:
        cost += m.move_cost[v]
    for r in range(m.demand.shape[1]):
        used = m.load[v, r]
        cost += m.price[r, h] * used * (2.0 * s.loaded[r, h] - used)
        if s.free[r, h] < -EPSILON and m.demand[v, r] > 0.0:
            cost += OVERLOADED
    for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
        g = m.rules[k]
        too_many = excess(m, s, g, v, h)
        if too_many > 0:
            cost += too_many * (m.weight[g] if np.isfinite(m.weight[g]) else BROKEN)
    return float(cost)


def _put(m: Model, s: State, v: int, h: int) -> None:
    """Put an item that is nowhere on a host; the caller knows that it may go there."""
    s.host[v] = h
    for r in range(m.demand.shape[1]):
        s.free[r, h] -= m.demand[v, r]
        s.loaded[r, h] += m.load[v, r]
    for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
        g = m.rules[k]
        s.counts[m.count_begin[g] + m.zone[m.level[g], h]] += 1
        s.placed[g] += 1
    head = s.first[h]
    s.after[v], s.before[v] = head, NOWHERE
    if head >= 0:
        s.before[head] = v
    s.first[h] = v
    for n in range(m.cells_needed[v]):
        best = NOWHERE
        for c in range(m.cell_begin[h], m.cell_begin[h + 1]):
            fits = (
                s.cell_free[c, 0] >= m.cell_demand[v, 0] - EPSILON
                and s.cell_free[c, 1] >= m.cell_demand[v, 1] - EPSILON
            )
            for k in range(n):
                fits = fits and s.cell_of[v, k] != c
            if fits and (best < 0 or s.cell_free[c, 1] > s.cell_free[best, 1]):
                best = c
        s.cell_of[v, n] = best
        if best >= 0:
            s.cell_free[best, 0] -= m.cell_demand[v, 0]
            s.cell_free[best, 1] -= m.cell_demand[v, 1]


put = kernel.compile_part(_put)
put_inlined = kernel.compile_inlined(_put)
"""For a loop of nothing else: a call would cost as much as its work."""


@kernel.compile_part
def take(m: Model, s: State, v: int) -> None:
    """Take an item off its host.

    Args:
        m: the problem.
        s: its state, which is changed.
        v: item, which has a host.
    """
    h = s.host[v]
    for r in range(m.demand.shape[1]):
        s.free[r, h] += m.demand[v, r]
        s.loaded[r, h] -= m.load[v, r]
    for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
        g = m.rules[k]
        s.counts[m.count_begin[g] + m.zone[m.level[g], h]] -= 1
        s.placed[g] -= 1
    left, right = s.before[v], s.after[v]
    if left >= 0:
        s.after[left] = right
    else:
        s.first[h] = right
    if right >= 0:
        s.before[right] = left
    s.after[v] = s.before[v] = NOWHERE
    for n in range(m.cells_needed[v]):
        c = s.cell_of[v, n]
        if c >= 0:
            s.cell_free[c, 0] += m.cell_demand[v, 0]
            s.cell_free[c, 1] += m.cell_demand[v, 1]
        s.cell_of[v, n] = NOWHERE
    s.host[v] = NOWHERE


@kernel.compile_inlined
def scores_by_loop(m: Model, s: State, v: int, out: Floats) -> None:
    """Compute the cost of an item on every host; infinite where it may not go, and where it is.

    Args:
        m: the problem.
        s: its state.
        v: item.
        out: (H,), gets the costs.
    """
    hosts = out.shape[0]
    barrier, site = m.barrier[m.klass[v]], m.site_cost[m.site[v]]
    cost = m.move_cost[v]
    for h in range(hosts):
        out[h] = barrier[h] + site[h] + cost
    if m.home[v] >= 0:
        out[m.home[v]] -= cost
    for r in range(m.demand.shape[1]):
        used, needed = m.load[v, r], m.demand[v, r] - EPSILON
        price, loaded, free = m.price[r], s.loaded[r], s.free[r]
        for h in range(hosts):
            more = out[h] + price[h] * used * (2.0 * loaded[h] + used)
            out[h] = more if free[h] >= needed else INFINITE
    for k in range(m.rules_begin[v], m.rules_begin[v + 1]):
        for h in range(hosts):
            if out[h] < INFINITE:
                out[h] += rule_cost(m, s, m.rules[k], v, h)
    if m.cells_needed[v] > 0:
        for h in range(hosts):
            if out[h] < INFINITE and not fits_cells(m, s, v, h):
                out[h] = INFINITE
    if s.host[v] >= 0:
        out[s.host[v]] = INFINITE


@kernel.compile_inlined
def lowest_by_loop(values: Floats) -> int:
    """Return the index of the lowest value, the first of equals."""
    best = 0
    for h in range(1, values.shape[0]):
        if values[h] < values[best]:
            best = h
    return best


def scores_by_vector(m: Model, s: State, v: int, out: Floats) -> None:
    """Compute the same as `scores_by_loop`, in numpy.

    Args:
        m: the problem.
        s: its state.
        v: item.
        out: (H,), gets the costs.
    """
    out[:] = m.barrier[m.klass[v]] + m.site_cost[m.site[v]]
    out += np.where(np.arange(len(out)) == m.home[v], 0.0, m.move_cost[v])
    used = m.load[v][:, None]
    out += (m.price * used * (2.0 * s.loaded + used)).sum(axis=0)
    out[(s.free < m.demand[v][:, None] - EPSILON).any(axis=0)] = INFINITE
    for g in m.rules[m.rules_begin[v] : m.rules_begin[v + 1]]:
        out += _rule_costs(m, s, int(g), v)
    if m.cells_needed[v]:
        fits = (s.cell_free >= m.cell_demand[v] - EPSILON).all(axis=1)
        owner = np.repeat(np.arange(len(out)), np.diff(m.cell_begin))
        out[np.bincount(owner, fits, len(out)) < m.cells_needed[v]] = INFINITE
    if s.host[v] >= 0:
        out[s.host[v]] = INFINITE


def _rule_costs(m: Model, s: State, g: int, v: int) -> Floats:
    zone = m.zone[m.level[g]]
    own = s.host[v] >= 0
    there: Integers = s.counts[m.count_begin[g] + zone] - ((zone == zone[s.host[v]]) if own else 0)
    parted: Integers = s.placed[g] - int(own) - there
    too_many = (there >= m.limit[g]).astype(np.int64) if m.kind[g] == APART else parted
    if np.isfinite(m.weight[g]):
        soft: Floats = m.weight[g] * too_many
        return soft
    healed = own and m.kind[g] != APART
    allowed = too_many < too_many[s.host[v]] if healed else np.zeros(len(zone), np.bool_)
    return np.where(too_many == 0, 0.0, np.where(allowed, BROKEN * too_many, INFINITE))


def lowest_by_vector(values: Floats) -> int:
    """The twin of `lowest_by_loop`."""
    return int(values.argmin())


scores: Any = scores_by_loop if kernel.COMPILED else scores_by_vector
lowest: Any = lowest_by_loop if kernel.COMPILED else lowest_by_vector
