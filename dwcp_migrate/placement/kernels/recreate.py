"""Kernel: ruin and recreate, for items that full hosts keep from a better place.

The rule here: a round takes a few items off that are in each other's way, puts them back each where it is cheapest,
in random order, and keeps the result if the whole objective is no worse, or worse by less than a threshold that falls
to nothing. The best assignment met is the result. (Schrimpf et al., "Record breaking optimization results using the
ruin and recreate principle", 2000.) Chance is a linear congruential generator, so a seed always gives the same
answer.
"""

import numpy as np

from dwcp_migrate.placement.arrays import Floats, Integers, Model, State, Table, unpack
from dwcp_migrate.placement.kernel import compile_entry, compile_part
from dwcp_migrate.placement.kernels.chains import go_back
from dwcp_migrate.placement.kernels.moves import cost_at, cost_here, lowest, put, scores, take

INFINITE = np.inf
VICTIMS = 6
"""Items of one host that a round takes off at most."""

EMPTIED = 2
"""Of the kinds that a round is one of, 0 to 7: up to this one it empties whole hosts, and below, an item takes one."""

CROWD = 24
"""Items of one host that a round takes off at most when it empties the host."""

LOOKS = 8
"""Items looked at for one that another keeps out."""

BLINK = 8
"""One look in so many overlooks the cheapest host (as in "Slack induction by string removals", 2020)."""

ROUNDING = 1e-9


@compile_part
def drawn(chance: int) -> int:
    """The number after this one: a linear congruential step modulo 2^31; its upper bits look random."""
    return int((chance * 1103515245 + 12345) & 0x7FFFFFFF)


@compile_part
def _sizes(m: Model) -> Floats:
    """Of each item (V,) the largest share that it is of the largest demand for a resource."""
    size = np.zeros(m.demand.shape[0])
    for r in range(m.demand.shape[1]):
        most = 0.0
        for v in range(len(size)):
            most = max(most, m.demand[v, r])
        for v in range(len(size) if most > 0.0 else 0):
            size[v] = max(size[v], m.demand[v, r] / most)
    return size


@compile_part
def _largest_drawn(items: Integers, size: Floats, v: int, chance: int) -> int:
    """The largest of an item and some drawn: it is the large ones that need a host emptied."""
    for _ in range(LOOKS):
        chance = drawn(chance)
        w = items[(chance >> 8) % len(items)]
        if size[w] > size[v]:
            v = w
    return int(v)


@compile_part
def _choose(m: Model, s: State, h: int, taken: Integers, count: int, limit: int, chance: int) -> int:
    """Note a host's movable items in `taken`: about half of them, VICTIMS at most, or all, CROWD at most, by `limit`.

    Returns:
        How many are in it now.
    """
    most = count + limit
    v = s.first[h]
    while v >= 0 and count < most:
        chance = drawn(chance)
        if m.movable[v] != 0 and v != taken[0] and (limit == CROWD or chance >> 16 & 1):
            taken[count] = v
            count += 1
        v = s.after[v]
    return count


@compile_part
def _kept_out(m: Model, s: State, items: Integers, h: int, chance: int) -> int:
    """The host of one of LOOKS items drawn that would be cheapest on host h, but is not there; -1 if none is met."""
    for _ in range(LOOKS):
        chance = drawn(chance)
        w = items[(chance >> 8) % len(items)]
        if s.host[w] >= 0 and s.host[w] != h and lowest(m.site_cost[m.site[w]]) == h:
            return int(s.host[w])
    return -1


@compile_part
def _wanted(m: Model, s: State, v: int, chance: int) -> int:
    """The host where an item is cheapest; one drawn if it is there, and once in four times."""
    wanted = lowest(m.site_cost[m.site[v]])
    if wanted == s.host[v] or chance >> 16 & 3 == 0:
        wanted = (chance >> 8) % m.price.shape[1]
    return int(wanted)


@compile_part
def _choose_whole(m: Model, s: State, items: Integers, wanted: int, taken: Integers, chance: int) -> int:
    """Note behind taken[0] all of the host that it wants, and all of one with somebody whom it keeps out; how many."""
    count = _choose(m, s, wanted, taken, 1, CROWD, chance)
    other = _kept_out(m, s, items, s.host[taken[0]], chance)
    if other >= 0 and other != wanted:
        count = _choose(m, s, other, taken, count, CROWD, chance)
    return count


@compile_part
def _shuffle(taken: Integers, first: int, count: int, chance: int) -> None:
    """Put those from `first` on into an order of chance."""
    for n in range(count - 1, first, -1):
        chance = drawn(chance)
        other = first + (chance >> 8) % (n + 1 - first)
        taken[n], taken[other] = taken[other], taken[n]


@compile_part
def _put_back(m: Model, s: State, taken: Integers, first: int, count: int, costs: Floats, chance: int) -> float:
    """Put items where each is cheapest, in order, until one fits nowhere; returns their cost there, infinite then."""
    total = 0.0
    for n in range(first, count):
        scores(m, s, taken[n], costs)
        h = lowest(costs)
        chance = drawn(chance)
        if (chance >> 8) % BLINK == 0 and costs[h] < INFINITE:
            cheapest, costs[h] = costs[h], INFINITE
            second = lowest(costs)
            costs[h] = cheapest
            h = second if costs[second] < INFINITE else h
        total += costs[h]
        if total == INFINITE:
            return INFINITE
        put(m, s, taken[n], h)
    return total


@compile_entry("int64(table, int64[::1], int64, float64, int64)")
def ruin_and_recreate(table: Table, items: Integers, rounds: int, threshold: float, seed: int) -> int:
    """Improve the objective for a number of rounds.

    Args:
        table: of the problem.
        items: those that rounds begin with, in turn by chance.
        rounds: how many.
        threshold: what a round may lose at first.
        seed: of chance.

    Returns:
        How many rounds improved on the best so far.
    """
    m, s = unpack(table)
    best, total, best_total, better = s.host.copy(), 0.0, 0.0, 0
    taken, came = np.empty(2 * CROWD + 1, np.int64), np.empty(2 * CROWD + 1, np.int64)
    hosts = m.price.shape[1]
    costs, size = np.empty(hosts), _sizes(m)
    chance = drawn(seed)
    for number in range(rounds if len(items) else 0):
        chance = drawn(chance)
        v = items[(chance >> 8) % len(items)]
        chance = drawn(chance)
        kind = chance >> 28
        if kind <= EMPTIED:
            v = _largest_drawn(items, size, v, chance)
        if m.movable[v] == 0 or s.host[v] < 0:
            continue
        chance = drawn(chance)
        other = (chance >> 8) % hosts
        chance = drawn(chance)
        taken[0] = v
        wanted = _wanted(m, s, v, chance)
        if kind <= EMPTIED:
            count = _choose_whole(m, s, items, wanted, taken, chance)
        else:
            count = _choose(m, s, wanted, taken, 1, VICTIMS, chance)
            if chance >> 20 & 1 and other != wanted:
                count = _choose(m, s, other, taken, count, VICTIMS, chance + 1)
        change = 0.0
        for n in range(count):
            came[n] = s.host[taken[n]]
            change -= cost_here(m, s, taken[n])
            take(m, s, taken[n])
        pairs, sources, first = taken.copy(), came.copy(), 0
        if kind < EMPTIED and cost_at(m, s, v, wanted) < INFINITE:
            change, first = change + cost_at(m, s, v, wanted), 1
            put(m, s, v, wanted)
        if chance >> 21 & 1:
            _shuffle(taken, first, count, chance)
        change += _put_back(m, s, taken, first, count, costs, chance)
        allowed = threshold * (1.0 - number / rounds)
        if change <= allowed:
            total += change
            if total < best_total - ROUNDING:
                best_total, better = total, better + 1
                best[:] = s.host
            continue
        for n in range(count):
            if s.host[pairs[n]] >= 0:
                take(m, s, pairs[n])
        for n in range(count):
            put(m, s, pairs[n], sources[n])
    go_back(m, s, best)
    return better
