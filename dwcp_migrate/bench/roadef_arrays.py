"""Machine reassignment as arrays: what does not change in a search (`Arrays`) and what moves change (`Counters`).

P processes, M machines, R resources, S services, B balance costs. Costs of moves are weighted already.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dwcp_migrate.bench.roadef import Instance
from dwcp_migrate.placement.arrays import Integers


class Arrays(NamedTuple):
    """The instance."""

    needs: Integers  # (P, R)
    service: Integers  # (P,)
    start: Integers  # (P,)
    move_cost: Integers  # (P,)
    capacity: Integers  # (M, R)
    safety: Integers  # (M, R)
    way_cost: Integers  # (M, M)
    area: Integers  # (M,) neighbourhood
    location: Integers  # (M,)
    transient: Integers  # (R,)
    load_weight: Integers  # (R,)
    balance: Integers  # (B, 4)
    spread: Integers  # (S,)
    needs_begin: Integers  # (S + 1,) slices of `needed`
    needed: Integers  # services that a service depends on
    needed_by_begin: Integers  # (S + 1,) slices of `needed_by`
    needed_by: Integers  # services that depend on it
    service_weight: int
    open_begin: Integers  # (P + 1,) slices of `open_to`
    open_to: Integers  # machines that a process may ever be on
    mobile: Integers  # processes that may be on more than one


class Counters(NamedTuple):
    """What moves change."""

    host: Integers  # (P,)
    over: Integers  # (M, R) used beyond safety capacity; negative below
    slack: Integers  # (M, R) capacity left, less what moved processes still hold of transient resources
    unbalanced: Integers  # (M, B) what the second resource lacks beside the first; negative if nothing
    on: Integers  # (S, M) processes of a service on a machine
    at: Integers  # (S, locations)
    near: Integers  # (S, neighbourhoods)
    locations: Integers  # (S,) that a service is in
    moved: Integers  # (S,) its processes that moved
    having: Integers  # (P + 1,) services by how many of their processes moved
    items: Integers  # (M, P) processes of a machine, the first `held` of them
    held: Integers  # (M,)
    position: Integers  # (P,) in `items`
    lacking: Integers  # (2, R) room to work in: resources, and how much of each


def arrays(instance: Instance) -> Arrays:
    """Make the arrays of an instance."""
    by: list[list[int]] = [[] for _ in instance.services]
    for number, service in enumerate(instance.services):
        for need in service.needs:
            by[need].append(number)
    machines, resources = len(instance.machines), len(instance.transient)
    needs = _integers([one.needs for one in instance.processes], -1, resources)
    capacity = _integers([one.capacity for one in instance.machines], machines, resources)
    transient, start = _integers(instance.transient), _integers(instance.start)
    open_to = list(_open_to(needs, start, capacity, transient))
    return Arrays(
        needs=needs,
        service=_integers([one.service for one in instance.processes]),
        start=start,
        move_cost=_integers([one.move_cost for one in instance.processes]) * instance.process_weight,
        capacity=capacity,
        safety=_integers([one.safety for one in instance.machines], machines, resources),
        way_cost=_integers([one.move_cost for one in instance.machines], machines, machines) * instance.machine_weight,
        area=_ranks([one.neighbourhood for one in instance.machines]),
        location=_ranks([one.location for one in instance.machines]),
        transient=transient,
        load_weight=_integers(instance.load_weight),
        balance=_integers([(one.first, one.second, one.target, one.weight) for one in instance.balances], -1, 4),
        spread=_integers([one.spread for one in instance.services]),
        needs_begin=np.cumsum([0, *(len(one.needs) for one in instance.services)], dtype=np.int64),
        needed=_integers([need for one in instance.services for need in one.needs]),
        needed_by_begin=np.cumsum([0, *(len(one) for one in by)], dtype=np.int64),
        needed_by=_integers([one for many in by for one in many]),
        service_weight=instance.service_weight,
        open_begin=np.cumsum([0, *(len(one) for one in open_to)], dtype=np.int64),
        open_to=np.concatenate(open_to),
        mobile=_integers([number for number, one in enumerate(open_to) if len(one) > 1]),
    )


def _integers(values: Any, *shape: int) -> Integers:
    return np.array(values, np.int64).reshape(shape or (-1,))


def _ranks(values: list[int]) -> Integers:
    return np.unique(_integers(values), return_inverse=True)[1].astype(np.int64)


def _open_to(needs: Integers, start: Integers, capacity: Integers, transient: Integers) -> Iterator[Integers]:
    """Machines that each process may be on: those that move away keep what they hold of transient resources."""
    lasting = np.zeros_like(capacity)
    np.add.at(lasting, start, needs * transient)
    for need, home in zip(needs, start, strict=True):
        fits = (need <= capacity - lasting).all(axis=1)
        fits[home] = True
        yield np.flatnonzero(fits).astype(np.int64)


def counters(a: Arrays, host: Integers) -> Counters:
    """Counters of an assignment."""
    services, machines, processes = len(a.spread), len(a.area), len(host)
    used = np.zeros_like(a.capacity)
    np.add.at(used, host, a.needs)
    promised = used.copy()
    away = np.flatnonzero(host != a.start)
    np.add.at(promised, a.start[away], a.needs[away] * a.transient)
    free = a.capacity - used
    unbalanced = np.stack([want * free[:, one] - free[:, other] for one, other, want, _ in a.balance] or [free[:, 0]])
    on = np.zeros((services, machines), np.int64)
    at = np.zeros((services, int(a.location.max()) + 1), np.int64)
    near = np.zeros((services, int(a.area.max()) + 1), np.int64)
    np.add.at(on, (a.service, host), 1)
    np.add.at(at, (a.service, a.location[host]), 1)
    np.add.at(near, (a.service, a.area[host]), 1)
    moved = np.bincount(a.service[away], minlength=services).astype(np.int64)
    items = np.full((machines, processes), -1, np.int64)
    held, position = np.zeros(machines, np.int64), np.zeros(processes, np.int64)
    for process, machine in enumerate(host):
        position[process] = held[machine]
        items[machine, held[machine]] = process
        held[machine] += 1
    return Counters(
        host=host.copy(),
        over=used - a.safety,
        slack=a.capacity - promised,
        unbalanced=np.ascontiguousarray(unbalanced.T),
        on=on,
        at=at,
        near=near,
        locations=(at > 0).sum(axis=1).astype(np.int64),
        moved=moved,
        having=np.bincount(moved, minlength=processes + 1).astype(np.int64),
        items=items,
        held=held,
        position=position,
        lacking=np.zeros((2, a.needs.shape[1]), np.int64),
    )
