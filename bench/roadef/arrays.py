"""Machine reassignment as arrays: those that a search does not change (`Arrays`), and `Counters`, which moves change.

P processes, M machines, S services, K rows: each resource is one, each balance cost another, and nought up to a
multiple of `LANES`. A row of a machine costs `weight` for what it is above nought:

    resource        used - safety capacity
    balance cost    target * free of the first - free of the second, so a process adds second - target * first

Thus one loop sums all costs of a machine, several rows at once. Costs of moves are weighted already. Amounts are whole
numbers in doubles: sums stay below 2**53, so they are exact in any order.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from bench.roadef.instance import Instance
from dwcp_migrate.placement.arrays import Floats

LANES: Final = 4
"""Rows that are summed at once: doubles of a 256-bit register."""

NEVER: Final = -1e15
"""Level of a row that holds nothing: far below nought."""

AWAY: Final = 0
"""Row of `room`: amounts that a process takes on a machine other than its first."""

HOME: Final = 1
"""Row of `room`: amounts that it takes on its first machine: transient resources it holds there anyhow."""


class Arrays(NamedTuple):
    """The instance. Indices are of 32 bits: half of the cache."""

    need: Floats  # (P, K) what a process adds to each row
    room: Floats  # (P, 2, K) what it takes of the capacities: AWAY, HOME
    weight: Floats  # (K,)
    beyond: Floats  # (M, K) level of an empty machine: less its safety capacity
    without: Floats  # (M, K) the same of the capacities: less capacity, more what those who move away still hold
    service: Any  # (P,)
    start: Any  # (P,)
    move_cost: Floats  # (P,)
    way_cost: Floats  # (M, M)
    area: Any  # (M,) neighbourhood
    location: Any  # (M,)
    spread: Any  # (S,)
    needs_begin: Any  # (S + 1,) slices of `needed`
    needed: Any  # services that a service depends on
    needed_by_begin: Any  # (S + 1,) slices of `needed_by`
    needed_by: Any  # services that depend on it
    open_begin: Any  # (P + 1,) slices of `open_to`
    open_to: Any  # machines that a process may ever be on
    mobile: Any  # processes that may be on more than one
    service_weight: float


class Counters(NamedTuple):
    """What moves change."""

    host: Any  # (P,)
    over: Floats  # (M, K) level of each row
    full: Floats  # (M, K) used less capacity; above nought a capacity is broken
    cost: Floats  # (M,) of its rows
    strain: Floats  # (M,) what its broken capacities weigh
    price: Floats  # (M, K) what a unit of a broken capacity weighs
    on: Any  # (S, M) processes of a service on a machine
    at: Any  # (S, locations)
    near: Any  # (S, neighbourhoods)
    locations: Any  # (S,) that a service is in
    moved: Any  # (S,) its processes that moved
    having: Any  # (P + 1,) services by how many of their processes moved
    items: Any  # (M, P) processes of a machine, the first `held` of them
    held: Any  # (M,)
    position: Any  # (P,) in `items`


def arrays(instance: Instance) -> Arrays:
    """Make the arrays of an instance."""
    resources, count = len(instance.transient), len(instance.transient) + len(instance.balances)
    rows = max(LANES, -(-count // LANES) * LANES)
    needs = np.array([one.needs for one in instance.processes], np.float64).reshape(-1, resources)
    capacity = np.array([one.capacity for one in instance.machines], np.float64).reshape(-1, resources)
    lasts = np.array(instance.transient, np.bool_)
    start = _indices(instance.start)
    need, weight = np.zeros((len(needs), rows)), np.zeros(rows)
    room = np.zeros((len(needs), 2, rows))
    beyond, without = np.full((len(capacity), rows), NEVER), np.full((len(capacity), rows), NEVER)
    need[:, :resources], weight[:resources] = needs, instance.load_weight
    room[:, AWAY, :resources], room[:, HOME, :resources] = needs, needs * ~lasts
    beyond[:, :resources] = -np.array([one.safety for one in instance.machines], np.float64).reshape(-1, resources)
    kept = np.zeros_like(capacity)
    np.add.at(kept, start, needs * lasts)
    without[:, :resources] = kept - capacity
    for row, one in enumerate(instance.balances, resources):
        need[:, row] = needs[:, one.second] - one.target * needs[:, one.first]
        beyond[:, row] = one.target * capacity[:, one.first] - capacity[:, one.second]
        weight[row] = one.weight
    needed = [sorted(set(one.needs) - {number}) for number, one in enumerate(instance.services)]
    needed_by: list[list[int]] = [[] for _ in instance.services]
    for number, others in enumerate(needed):
        for other in others:
            needed_by[other].append(number)
    open_to = [
        np.flatnonzero((away <= capacity - kept).all(axis=1) | _only(home, len(capacity)))
        for away, home in zip(needs, start, strict=True)
    ]
    ways = np.array([one.move_cost for one in instance.machines], np.float64)
    return Arrays(
        need=need,
        room=room,
        weight=weight,
        beyond=beyond,
        without=without,
        service=_indices([one.service for one in instance.processes]),
        start=start,
        move_cost=np.array([one.move_cost for one in instance.processes], np.float64) * instance.process_weight,
        way_cost=ways * instance.machine_weight,
        area=_ranks([one.neighbourhood for one in instance.machines]),
        location=_ranks([one.location for one in instance.machines]),
        spread=_indices([one.spread for one in instance.services]),
        needs_begin=_begins(needed),
        needed=_joined(needed),
        needed_by_begin=_begins(needed_by),
        needed_by=_joined(needed_by),
        open_begin=_begins(open_to),
        open_to=_joined(open_to),
        mobile=_indices([number for number, one in enumerate(open_to) if len(one) > 1]),
        service_weight=float(instance.service_weight),
    )


def _only(home: int, machines: int) -> Any:
    return np.arange(machines) == home


def _indices(values: Any) -> Any:
    return np.array(values, np.int32)


def _ranks(values: list[int]) -> Any:
    return _indices(np.unique(np.array(values), return_inverse=True)[1])


def _begins(lists: Sequence[Any]) -> Any:
    return _indices(np.cumsum([0, *(len(one) for one in lists)]))


def _joined(lists: Sequence[Any]) -> Any:
    return _indices([value for one in lists for value in one])


def counters(a: Arrays, host: Any, price: float) -> Counters:
    """Counters of an assignment (P,); a unit of a broken capacity weighs `price`."""
    services, machines, processes = len(a.spread), len(a.area), len(host)
    host = _indices(host)
    stays = (host == a.start).astype(np.int64)
    over, full = a.beyond.copy(), a.without.copy()
    np.add.at(over, host, a.need)
    np.add.at(full, host, a.room[np.arange(processes), stays])
    on = np.zeros((services, machines), np.int32)
    at = np.zeros((services, int(a.location.max()) + 1), np.int32)
    near = np.zeros((services, int(a.area.max()) + 1), np.int32)
    np.add.at(on, (a.service, host), 1)
    np.add.at(at, (a.service, a.location[host]), 1)
    np.add.at(near, (a.service, a.area[host]), 1)
    moved = np.bincount(a.service[stays == 0], minlength=services)
    items = np.full((machines, processes), -1, np.int32)
    held, position = np.zeros(machines, np.int32), np.zeros(processes, np.int32)
    for process, machine in enumerate(host):
        position[process] = held[machine]
        items[machine, held[machine]] = process
        held[machine] += 1
    return Counters(
        host=host,
        over=over,
        full=full,
        cost=(np.maximum(over, 0) * a.weight).sum(axis=1),
        strain=np.maximum(full, 0).sum(axis=1) * price,
        price=np.full_like(full, price),
        on=on,
        at=at,
        near=near,
        locations=_indices((at > 0).sum(axis=1)),
        moved=_indices(moved),
        having=_indices(np.bincount(moved, minlength=processes + 1)),
        items=items,
        held=held,
        position=position,
    )
