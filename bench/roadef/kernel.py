"""Kernel of the annealing for machine reassignment: shifts and swaps, priced in a few loops over the rows of a machine.

The rule here: capacities and dependencies may be broken on the way, at a price; that no two processes of a service
share a machine, and that a service has its locations, holds at each step. `sums` tells what is broken now, and only an
assignment that breaks nothing becomes the best. All parts stand in this one file: numba keeps what it compiled until
that file changes.

    shift    p -> t
    swap     p -> t, q -> where p was

A share of the proposals has t where p was at the start: what it holds there it holds anyhow.

Cheap questions come first: is one of its service there, what do both machines cost then, dependencies, locations.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np

from bench.roadef.arrays import Arrays, Counters
from dwcp_migrate.placement import kernel
from dwcp_migrate.placement.arrays import Floats

NOW, BEST, BROKEN, MISSED, MOST, ACCEPTED = range(6)
"""Slots of `sums`: objective now, of the best; machines over a capacity; dependencies missed; most moved processes of
one service; moves made."""

SLOTS: Final = 6

NOBODY: Final = -1

HOPELESS: Final = 20.0
"""Temperatures above which a move is not looked at any further: chance would take one of 500 million."""

HIGH_WORD: Final = np.uint64(32)
DRAWS: Final = tuple(np.uint64(shift) for shift in (13, 7, 17))
"""Shifts of Marsaglia's xorshift generator with 64 bits."""

WORD: Final = 4294967296.0

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(*, inlined: bool) -> Callable[[F], F]:
    """Compile with sums in any order, which lets rows be added several at once; exact, as the amounts are whole."""

    def made(function: F) -> F:
        if kernel.numba is None:
            return function
        free = {"reassoc", "nsz", "contract", "nnan", "ninf"}
        compiled: F = kernel.numba.njit(
            cache=True, nogil=True, error_model="numpy", fastmath=free, forceinline=inlined
        )(function)
        return compiled

    return made


part = _compiled(inlined=False)
inlined = _compiled(inlined=True)


@inlined
def word(chance: Any) -> Any:
    """Next 64 bits of chance (1,)."""
    x = chance[0]
    x ^= x << DRAWS[0]
    x ^= x >> DRAWS[1]
    x ^= x << DRAWS[2]
    chance[0] = x
    return x


@inlined
def drawn(chance: Any, count: int) -> Any:
    """A number below `count`, which has 32 bits."""
    return np.int64(((word(chance) >> HIGH_WORD) * np.uint64(count)) >> HIGH_WORD)


@inlined
def fraction(chance: Any) -> Any:
    """A number above nought, one at most."""
    return (np.float64(word(chance) >> HIGH_WORD) + 1.0) / WORD


@inlined
def with_one(a: Arrays, c: Counters, m: int, p: int, sign: float) -> Any:
    """Cost and strain of machine m once p enters (1) or leaves (-1)."""
    cost, strain, here = 0.0, 0.0, 1 if a.start[p] == m else 0
    for k in range(a.need.shape[1]):
        cost += a.weight[k] * max(0.0, c.over[m, k] + sign * a.need[p, k])
        strain += c.price[m, k] * max(0.0, c.full[m, k] + sign * a.room[p, here, k])
    return cost, strain


@inlined
def with_two(a: Arrays, c: Counters, m: int, p: int, q: int) -> Any:
    """Cost and strain of machine m once p enters and q leaves."""
    cost, strain = 0.0, 0.0
    here, there = 1 if a.start[p] == m else 0, 1 if a.start[q] == m else 0
    for k in range(a.need.shape[1]):
        cost += a.weight[k] * max(0.0, c.over[m, k] + a.need[p, k] - a.need[q, k])
        strain += c.price[m, k] * max(0.0, c.full[m, k] + a.room[p, here, k] - a.room[q, there, k])
    return cost, strain


@inlined
def missed_more(a: Arrays, c: Counters, s: int, left: int, entered: int) -> int:
    """Dependencies that are missed more when a process of service s goes from one neighbourhood to another."""
    more = 0
    if c.near[s, left] == 1:
        for k in range(a.needs_begin[s], a.needs_begin[s + 1]):
            if c.near[a.needed[k], left] == 0:
                more -= 1
        for k in range(a.needed_by_begin[s], a.needed_by_begin[s + 1]):
            if c.near[a.needed_by[k], left] > 0:
                more += 1
    if c.near[s, entered] == 0:
        for k in range(a.needs_begin[s], a.needs_begin[s + 1]):
            if c.near[a.needed[k], entered] == 0:
                more += 1
        for k in range(a.needed_by_begin[s], a.needed_by_begin[s + 1]):
            if c.near[a.needed_by[k], entered] > 0:
                more -= 1
    return more


@inlined
def spread_enough(a: Arrays, c: Counters, s: int, m: int, t: int) -> Any:
    """Whether service s has its locations once one of its processes goes from m to t."""
    x, y = a.location[m], a.location[t]
    change = (1 if c.at[s, y] == 0 else 0) - (1 if c.at[s, x] == 1 else 0)
    return x == y or c.locations[s] + change >= a.spread[s]


@inlined
def way(a: Arrays, p: int, m: int) -> Any:
    """What the move from its start to m costs a process."""
    home = a.start[p]
    return a.way_cost[home, m] + (a.move_cost[p] if m != home else 0.0)


@inlined
def move(a: Arrays, c: Counters, p: int, t: int) -> None:
    """Bring a process to machine t: everything but `cost` and `strain`."""
    m, s, home = c.host[p], a.service[p], a.start[p]
    left, entered = 1 if m == home else 0, 1 if t == home else 0
    for k in range(a.need.shape[1]):
        c.over[m, k] -= a.need[p, k]
        c.full[m, k] -= a.room[p, left, k]
        c.over[t, k] += a.need[p, k]
        c.full[t, k] += a.room[p, entered, k]
    c.on[s, m] -= 1
    c.on[s, t] += 1
    x, y = a.location[m], a.location[t]
    if x != y:
        c.at[s, x] -= 1
        if c.at[s, x] == 0:
            c.locations[s] -= 1
        if c.at[s, y] == 0:
            c.locations[s] += 1
        c.at[s, y] += 1
    c.near[s, a.area[m]] -= 1
    c.near[s, a.area[t]] += 1
    c.having[c.moved[s]] -= 1
    c.moved[s] += (1 if t != home else 0) - (1 if m != home else 0)
    c.having[c.moved[s]] += 1
    c.held[m] -= 1
    last = c.items[m, c.held[m]]
    c.items[m, c.position[p]] = last
    c.position[last] = c.position[p]
    c.host[p], c.position[p] = t, c.held[t]
    c.items[t, c.held[t]] = p
    c.held[t] += 1


@inlined
def most_moved(c: Counters, most: Any) -> Any:
    """Largest number of moved processes of one service; a move changes it by two at most."""
    most = min(most + 2, len(c.having) - 1)
    while most > 0 and c.having[most] == 0:
        most -= 1
    return most


@inlined
def broken(c: Counters, m: int, t: int) -> int:
    """How many of two machines are over a capacity."""
    return (1 if c.strain[m] > 0.0 else 0) + (1 if c.strain[t] > 0.0 else 0)


@part
def reprice(c: Counters, up: float, down: float, least: float) -> int:
    """Raise the price of each capacity that is broken, lower the others'.

    Returns:
        How many machines are over a capacity.
    """
    count = 0
    for m in range(c.full.shape[0]):
        strain = 0.0
        for k in range(c.full.shape[1]):
            if c.full[m, k] > 0.0:
                c.price[m, k] *= up
                strain += c.price[m, k] * c.full[m, k]
            else:
                c.price[m, k] = max(least, c.price[m, k] * down)
        c.strain[m] = strain
        count += 1 if strain > 0.0 else 0
    return count


@part
def block(a: Arrays, c: Counters, best: Any, sums: Floats, chance: Any, options: Any) -> None:
    """Anneal for a number of proposals at one temperature.

    Args:
        a: the instance.
        c: counters.
        best: (P,) takes the best assignment met.
        sums: (SLOTS,) goes on with.
        chance: (1,) state of the generator.
        options: temperature, price of a missed dependency, share of swaps, of proposals that go home, their number.
    """
    heat, missing, swaps, homeward, number = options
    now, least, fresh = sums[NOW], sums[BEST], False
    over, missed, most = np.int64(sums[BROKEN]), np.int64(sums[MISSED]), np.int64(sums[MOST])
    for _ in range(number):
        p = a.mobile[drawn(chance, len(a.mobile))]
        m, s = c.host[p], a.service[p]
        if homeward > 0.0 and fraction(chance) <= homeward:
            t = a.start[p]
        else:
            begin = a.open_begin[p]
            t = a.open_to[begin + drawn(chance, a.open_begin[p + 1] - begin)]
        if t == m:
            continue
        q, u = NOBODY, s
        if c.held[t] > 0 and fraction(chance) <= swaps:
            q = c.items[t, drawn(chance, c.held[t])]
            u = a.service[q]
            if u != s and c.on[s, t] + c.on[u, m] > 0:
                continue
            cost_m, strain_m = with_two(a, c, m, q, p)
            cost_t, strain_t = with_two(a, c, t, p, q)
            cost = way(a, p, t) - way(a, p, m) + way(a, q, m) - way(a, q, t)
        else:
            if c.on[s, t] > 0:
                continue
            cost_m, strain_m = with_one(a, c, m, p, -1.0)
            cost_t, strain_t = with_one(a, c, t, p, 1.0)
            cost = way(a, p, t) - way(a, p, m)
        cost += cost_m + cost_t - c.cost[m] - c.cost[t]
        worse = cost + strain_m + strain_t - c.strain[m] - c.strain[t]
        if worse > HOPELESS * heat:
            continue
        more, x, y = 0, a.area[m], a.area[t]
        if x != y and (q < 0 or u != s):
            more = missed_more(a, c, s, x, y)
            if q >= 0:
                c.near[s, x] -= 1
                c.near[s, y] += 1
                more += missed_more(a, c, u, y, x)
                c.near[s, x] += 1
                c.near[s, y] -= 1
            worse += missing * more
        if worse > 0.0 and worse > -heat * np.log(fraction(chance)):
            continue
        if (q < 0 or u != s) and not spread_enough(a, c, s, m, t):
            continue
        if q >= 0 and u != s and not spread_enough(a, c, u, t, m):
            continue
        if fresh:
            best[:] = c.host
            fresh = False
        over -= broken(c, m, t)
        move(a, c, p, t)
        if q >= 0:
            move(a, c, q, m)
        c.cost[m], c.cost[t], c.strain[m], c.strain[t] = cost_m, cost_t, strain_m, strain_t
        over += broken(c, m, t)
        missed += more
        after = most_moved(c, most)
        now += cost + a.service_weight * (after - most)
        most = after
        sums[ACCEPTED] += 1
        if now < least - 0.5 and over == 0 and missed == 0:
            least, fresh = now, True
    if fresh:
        best[:] = c.host
    sums[NOW], sums[BEST], sums[BROKEN], sums[MISSED], sums[MOST] = now, least, over, missed, most
