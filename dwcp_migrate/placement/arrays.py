"""The problem as arrays: those that do not change in a search (`Model`) and those that do (`State`).

An item is the unit of a move: a domain, or the domains that a hard rule keeps together on one host. Everything is
int64 or float64, C-contiguous; per-resource matrices have hosts along the last axis, so that one item's score on all
hosts is a few vector operations.

Objective, of the assignment `item -> host`:

    sum over hosts, resources   price * loaded^2          even utilisation: price = weight * (capacity / mean) /
                                capacity^2
  + sum over items              site_cost[site, host]     latency from the origin, soft pins
  + sum over items not at home  move_cost                 what the move costs, in the same unit
  + sum over soft rules         weight * excess           `apart`: items too many; `together`: parted pairs

With one resource of weight 1, a fleet of even utilisation u costs `hosts * u^2`; taking an item that uses the share a
of a host from one host to another whose utilisation is lower by d gains about 2a(d - a). Hard rules are infinite,
except where they are broken already: there each excess costs BROKEN, so that a search heals them first and never
makes them worse.

Letters in shapes: V items, H hosts, R resources, K eligibility classes, S sites, L levels, G rules, M memberships,
Z zone counters, C NUMA cells.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.placement import kernel
from dwcp_migrate.placement.fleet import CELLS_MAX

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Table = Any
"""Array types that kernels take: see `kernel`."""

NOWHERE: Final = -1
APART: Final = 0
TOGETHER: Final = 1

EPSILON: Final = 1e-6
"""Amounts are checked with this slack, in units of the resource: sums of floats are not exact."""

BROKEN: Final = 1e6
"""Objective of one excess over a hard rule, or of an item on a host that may not have it."""

OVERLOADED: Final = 1e3
"""Objective that an item on a host beyond its capacity is charged for each resource in excess."""


class Model(NamedTuple):
    """The problem: arrays that do not change.

    Attributes:
        demand: (V, R) promised amounts.
        load: (V, R) used amounts.
        price: (R, H) see the objective.
        inverse: (R, H) 1 / capacity, 0 where utilisation is not judged.
        barrier: (K, H) 0 where a class may go, infinite elsewhere.
        klass: (V,) row of `barrier`.
        site_cost: (S, H).
        site: (V,) row of `site_cost`.
        home: (V,) host at the start, NOWHERE for a new one.
        move_cost: (V,) of leaving home.
        movable: (V,) 0 or 1.
        zone: (L, H) zone of a host at a level.
        rules_begin: (V + 1,) slices of `rules`.
        rules: (M,) rules of each item.
        members_begin: (G + 1,) slices of `members`.
        members: (M,) items of each rule.
        kind: (G,) APART or TOGETHER.
        level: (G,) row of `zone`.
        limit: (G,) of APART.
        weight: (G,) infinite for a hard rule.
        count_begin: (G + 1,) slices of `State.counts`, one counter a zone.
        cells_needed: (V,) NUMA cells, 0 floats.
        cell_demand: (V, 2) vCPUs and MiB in each of them.
        cell_begin: (H + 1,) slices of the cells.
    """

    demand: Floats
    load: Floats
    price: Floats
    inverse: Floats
    barrier: Floats
    klass: Integers
    site_cost: Floats
    site: Integers
    home: Integers
    move_cost: Floats
    movable: Integers
    zone: Integers
    rules_begin: Integers
    rules: Integers
    members_begin: Integers
    members: Integers
    kind: Integers
    level: Integers
    limit: Integers
    weight: Floats
    count_begin: Integers
    cells_needed: Integers
    cell_demand: Floats
    cell_begin: Integers


class State(NamedTuple):
    """The assignment: arrays that change.

    Attributes:
        host: (V,) of each item, NOWHERE for none.
        free: (R, H) capacity that is not promised.
        loaded: (R, H) used.
        counts: (Z,) items of a rule in a zone.
        placed: (G,) items of a rule that have a host.
        cell_free: (C, 2).
        cell_of: (V, CELLS_MAX) cells that an item has.
        first: (H,) first item of a host's list, NOWHERE for none.
        after: (V,) next one in the list.
        before: (V,) previous one in the list.
    """

    host: Integers
    free: Floats
    loaded: Floats
    counts: Integers
    placed: Integers
    cell_free: Floats
    cell_of: Integers
    first: Integers
    after: Integers
    before: Integers

    def copy(self) -> "State":
        """A state of its own with the same content."""
        arrays: Any = [array.copy() for array in self]
        return State(*arrays)


_SIZES: Final = 11
"""Entries of the table before the addresses."""


def table(model: Model, state: State) -> Table:
    """Make the table that kernels take. The arrays must outlive it.

    Args:
        model: of the problem.
        state: its assignment.

    Raises:
        ValueError: an array is not contiguous or not of its type: kernels would read what is not there.
    """
    if not kernel.COMPILED:
        return model, state
    arrays = (*model, *state)
    kinds = [*Model.__annotations__.values(), *State.__annotations__.values()]
    for array, kind in zip(arrays, kinds, strict=True):
        wanted = np.float64 if kind is Floats else np.int64
        if array.dtype != wanted or not array.flags.c_contiguous:
            raise ValueError(f"{array.dtype} {array.shape} is no contiguous {wanted}")
    sizes = [
        *model.demand.shape,
        model.price.shape[1],
        model.barrier.shape[0],
        model.site_cost.shape[0],
        len(model.kind),
        len(model.rules),
        len(state.counts),
        len(state.cell_free),
        len(model.zone),
        state.cell_of.shape[1],
    ]
    return np.array([*sizes, *(array.ctypes.data for array in arrays)], np.int64)


if kernel.COMPILED:
    from dwcp_migrate.placement.kernel import floats, integers

    @kernel.compile_inlined
    def unpack(table: Table) -> Any:
        """Model and state of a table."""
        v, r, h, k, s, g = table[0], table[1], table[2], table[3], table[4], table[5]
        m, z, c, levels, cells = table[6], table[7], table[8], table[9], table[10]
        model = Model(
            floats(table, 11, (v, r)),
            floats(table, 12, (v, r)),
            floats(table, 13, (r, h)),
            floats(table, 14, (r, h)),
            floats(table, 15, (k, h)),
            integers(table, 16, (v,)),
            floats(table, 17, (s, h)),
            integers(table, 18, (v,)),
            integers(table, 19, (v,)),
            floats(table, 20, (v,)),
            integers(table, 21, (v,)),
            integers(table, 22, (levels, h)),
            integers(table, 23, (v + 1,)),
            integers(table, 24, (m,)),
            integers(table, 25, (g + 1,)),
            integers(table, 26, (m,)),
            integers(table, 27, (g,)),
            integers(table, 28, (g,)),
            integers(table, 29, (g,)),
            floats(table, 30, (g,)),
            integers(table, 31, (g + 1,)),
            integers(table, 32, (v,)),
            floats(table, 33, (v, 2)),
            integers(table, 34, (h + 1,)),
        )
        state = State(
            integers(table, 35, (v,)),
            floats(table, 36, (r, h)),
            floats(table, 37, (r, h)),
            integers(table, 38, (z,)),
            integers(table, 39, (g,)),
            floats(table, 40, (c, 2)),
            integers(table, 41, (v, cells)),
            integers(table, 42, (h,)),
            integers(table, 43, (v,)),
            integers(table, 44, (v,)),
        )
        return model, state

else:

    def unpack(table: Table) -> Any:
        """Model and state of a table."""
        return table


def empty_state(model: Model, capacity: Floats, cell_capacity: Floats) -> State:
    """A fleet without items.

    Args:
        model: of it.
        capacity: (R, H).
        cell_capacity: (C, 2).
    """
    items, hosts, rules = len(model.demand), model.price.shape[1], len(model.kind)
    return State(
        host=np.full(items, NOWHERE, np.int64),
        free=capacity.copy(),
        loaded=np.zeros_like(capacity),
        counts=np.zeros(int(model.count_begin[-1]), np.int64),
        placed=np.zeros(rules, np.int64),
        cell_free=cell_capacity.copy(),
        cell_of=np.full((items, CELLS_MAX), NOWHERE, np.int64),
        first=np.full(hosts, NOWHERE, np.int64),
        after=np.full(items, NOWHERE, np.int64),
        before=np.full(items, NOWHERE, np.int64),
    )
