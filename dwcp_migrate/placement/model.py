"""From a `Fleet` to arrays, and names back from them.

The rule here: a fleet that contradicts itself is refused here; one that breaks its rules in reality is taken as it is:
a domain may run where the rules would not have it, and a search begins by healing that.

    domains ── hard `together` on one host, members on one host now ──> items
    CPU model, storage, networks, pins, latency bound               ──> eligibility classes (rows of `barrier`)
    origin, soft pins                                                ──> sites (rows of `site_cost`)
    apart, spread, together                                          ──> rules with one counter a zone
    reserve_hosts                                                    ──> the share of each host that stays free
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.amounts import usable_capacity, used_amounts
from dwcp_migrate.placement.arrays import (
    APART,
    NOWHERE,
    TOGETHER,
    Floats,
    Integers,
    Model,
    State,
    Table,
    empty_state,
    table,
)
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import LEVELS, MEMORY, RESOURCES_MAX, VCPUS, Domain, Fleet, Host, Rule, zone
from dwcp_migrate.placement.kernels.search import put_item

INFINITE: Final = math.inf


@dataclass(slots=True)
class Problem:
    """A fleet in arrays.

    Attributes:
        fleet: that it was made of.
        policy: prices of moves.
        model: see `arrays`, with `state`.
        resources: names, in the order of the arrays.
        hosts: names, likewise.
        items: indices in `fleet.domains` of the domains of each item; an arriving domain is an item once more, at the
            host that it goes to.
        item_of: item of each domain.
        capacity: (R, H) usable.
        cell_capacity: (C, 2).
        table: the argument of kernels.
    """

    fleet: Fleet
    policy: PlacementPolicy
    model: Model
    state: State
    resources: list[str]
    hosts: list[str]
    items: list[list[int]]
    item_of: list[int]
    capacity: Floats
    cell_capacity: Floats
    table: Table = field(init=False)

    def __post_init__(self) -> None:
        """Make the table."""
        self.table = table(self.model, self.state)

    def host_index(self, name: str) -> int:
        """Index of a host.

        Raises:
            PlacementError: there is none of that name.
        """
        try:
            return self.hosts.index(name)
        except ValueError:
            raise PlacementError(f"no host {name}", hint=f"one of {', '.join(self.hosts[:20])}") from None

    def domain_index(self, name: str) -> int:
        """Index of a domain.

        Raises:
            PlacementError: there is none of that name.
        """
        for index, domain in enumerate(self.fleet.domains):
            if domain.name == name:
                return index
        raise PlacementError(f"no domain {name}", hint="virsh list on the hosts shows their names")

    def item_name(self, item: int) -> str:
        """Names of an item's domains, as one word."""
        return "+".join(self.fleet.domains[index].name for index in self.items[item])

    def fork(self) -> "Problem":
        """The same problem with a state of its own."""
        return replace(self, state=self.state.copy())

    def restore(self, state: State) -> None:
        """Go back to a state that was copied."""
        for mine, theirs in zip(self.state, state, strict=True):
            mine[...] = theirs


def build_problem(fleet: Fleet, policy: PlacementPolicy | None = None, cost: MoveCost = default_cost) -> Problem:
    """Make the arrays of a fleet and put every domain where it is.

    Args:
        fleet: checked.
        policy: None takes the defaults.
        cost: forecasts, for the prices of moves.

    Raises:
        PlacementError: rules that contradict each other, or too many resources.
    """
    policy = policy or PlacementPolicy()
    resources = _resources(fleet)
    items, item_of, ghosts = _items(fleet)
    capacity = usable_capacity(fleet, resources)
    demand, load = _amounts(fleet, resources, items)
    up = np.array([host.state == "up" for host in fleet.hosts], np.bool_)
    price, inverse = _prices(fleet, resources, capacity, up)
    rules = _Rules(fleet, items, item_of, ghosts)
    barrier, klass = _classes(fleet, items)
    site_cost, site = _sites(fleet, items)
    home, move_cost, movable = _homes(fleet, items, ghosts, policy, cost)
    cells_needed, cell_demand = _cell_demands(fleet, items)
    cell_begin, cell_capacity = _cells(fleet.hosts)
    model = Model(
        demand=demand,
        load=load,
        price=price,
        inverse=inverse,
        barrier=barrier,
        klass=klass,
        site_cost=site_cost,
        site=site,
        home=home,
        move_cost=move_cost,
        movable=movable,
        zone=rules.zone,
        rules_begin=rules.rules_begin,
        rules=rules.rules,
        members_begin=rules.members_begin,
        members=rules.members,
        kind=rules.kind,
        level=rules.level,
        limit=rules.limit,
        weight=rules.weight,
        count_begin=rules.count_begin,
        cells_needed=cells_needed,
        cell_demand=cell_demand,
        cell_begin=cell_begin,
    )
    state = empty_state(model, capacity, cell_capacity)
    names = [host.name for host in fleet.hosts]
    problem = Problem(fleet, policy, model, state, resources, names, items, item_of, capacity, cell_capacity)
    for item, host in enumerate(home):
        if host >= 0:
            put_item(problem.table, item, int(host))
    return problem


def _resources(fleet: Fleet) -> list[str]:
    """Names that a domain asks for or that are balanced, in a stable order."""
    found = dict.fromkeys(fleet.balance)
    for domain in fleet.domains:
        found |= dict.fromkeys(domain.demand)
    if len(found) > RESOURCES_MAX:
        raise PlacementError(f"fleet: {len(found)} resources are more than {RESOURCES_MAX}")
    return list(found)


def _items(fleet: Fleet) -> tuple[list[list[int]], list[int], list[int]]:
    """Join domains that must stay together on one host; names the items that are arriving domains' second places."""
    index = {domain.name: number for number, domain in enumerate(fleet.domains)}
    parent = list(range(len(fleet.domains)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for rule in fleet.rules:
        members = [index[name] for name in rule.domains]
        if rule.kind == "together" and rule.hard and rule.level == "host" and _joined(fleet, members):
            for member in members[1:]:
                parent[root(member)] = root(members[0])
    groups: dict[int, list[int]] = {}
    for number in range(len(fleet.domains)):
        groups.setdefault(root(number), []).append(number)
    items = list(groups.values())
    item_of = [0] * len(fleet.domains)
    for item, group in enumerate(items):
        for number in group:
            item_of[number] = item
    ghosts = [number for number, domain in enumerate(fleet.domains) if domain.arriving]
    return [*items, *([number] for number in ghosts)], item_of, ghosts


def _joined(fleet: Fleet, members: Iterable[int]) -> bool:
    """Whether they can move as one: all in one place, or none placed, and none in flight."""
    domains = [fleet.domains[member] for member in members]
    return len({domain.host for domain in domains}) == 1 and not any(domain.arriving for domain in domains)


def _amounts(fleet: Fleet, resources: list[str], items: list[list[int]]) -> tuple[Floats, Floats]:
    demand, load = np.zeros((len(items), len(resources))), np.zeros((len(items), len(resources)))
    column = {name: r for r, name in enumerate(resources)}
    for item, group in enumerate(items):
        for number in group:
            domain = fleet.domains[number]
            for name, amount in domain.demand.items():
                demand[item, column[name]] += amount
            for name, amount in used_amounts(domain, fleet.quantile).items():
                if name in column:
                    load[item, column[name]] += amount
    return demand, load


def _prices(
    fleet: Fleet, resources: list[str], capacity: Floats, up: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
) -> tuple[Floats, Floats]:
    weight = np.array([fleet.balance.get(name, 0.0) for name in resources])[:, None]
    judged = (capacity > 0) & up & (weight > 0)
    inverse = np.where(judged, 1 / np.where(capacity > 0, capacity, 1), 0.0)
    count = np.maximum(judged.sum(axis=1, keepdims=True), 1)
    mean = np.where(judged, capacity, 0).sum(axis=1, keepdims=True) / count
    relative = np.divide(capacity, mean, out=np.zeros_like(capacity), where=mean > 0)
    return np.ascontiguousarray(weight * relative * inverse**2), np.ascontiguousarray(inverse)


def _classes(fleet: Fleet, items: list[list[int]]) -> tuple[Floats, Integers]:
    """Rows of where items may go, equal ones once."""
    bound: dict[str, list[Rule]] = {}
    for rule in fleet.rules:
        if rule.kind in {"pin", "exclude"} and rule.hard:
            for name in rule.domains:
                bound.setdefault(name, []).append(rule)
    closed = {host.name for host in fleet.hosts if host.closed}
    rows: dict[tuple[object, ...], int] = {}
    barrier: list[Floats] = []
    klass = np.zeros(len(items), np.int64)
    for item, group in enumerate(items):
        domains = [fleet.domains[number] for number in group]
        keys = [
            (one.cpu_model, *sorted(one.storage), 0, *sorted(one.networks), 1, one.origin, one.latency_ms_max,
             *sorted(one.bars), 2, *closed.intersection((one.host, one.arriving)),
             tuple(rule.name for rule in bound.get(one.name, ())))
            for one in domains
        ]  # fmt: skip
        key = tuple(keys)
        if key not in rows:
            rows[key] = len(barrier)
            allowed = [
                all(may_run(fleet, one, host, bound.get(one.name, ())) for one in domains) for host in fleet.hosts
            ]
            barrier.append(np.where(allowed, 0.0, INFINITE))
        klass[item] = rows[key]
    return np.array(barrier).reshape(len(barrier), len(fleet.hosts)), klass


def may_run(fleet: Fleet, domain: Domain, host: Host, bound: Iterable[Rule] = ()) -> bool:
    """Tell whether a host may have a domain at all, whatever else is on it.

    Args:
        fleet: of both.
        domain: to place.
        host: to judge.
        bound: rules that bind the domain to a place.
    """
    return refusal(fleet, domain, host, bound) == ""


def refusal(fleet: Fleet, domain: Domain, host: Host, bound: Iterable[Rule] = ()) -> str:
    """Return the reason for which a host may not have a domain, whatever else is on it.

    Args:
        fleet: of both.
        domain: to place.
        host: to judge.
        bound: rules that bind the domain to a place.

    Returns:
        Words for people; empty when it may.
    """
    return (
        _closed_words(domain, host) or _lacking_words(fleet, domain, host) or _bound_words(fleet, domain, host, bound)
    )


def _closed_words(domain: Domain, host: Host) -> str:
    """Reason for which a host takes no domain, in words."""
    if host.state != "up":
        said = f": {host.note}" if host.note else ""
        return f"it is {'in maintenance' if host.state == 'maintenance' else 'down'}{said}"
    return host.closed if host.name not in {domain.host, domain.arriving} else ""


def _lacking_words(fleet: Fleet, domain: Domain, host: Host) -> str:
    """Requirements of a domain that a host does not meet, in words."""
    for name in domain.bars:
        if why := fleet.bars.get(name, {}).get(host.name):
            return why
    if domain.cpu_model and host.cpu_models and domain.cpu_model not in host.cpu_models:
        return f"its CPU does not offer {domain.cpu_model}"
    if missing := set(domain.storage) - set(host.storage):
        return f"it does not reach storage {', '.join(sorted(missing))}"
    if missing := set(domain.networks) - set(host.networks):
        return f"it does not reach network {', '.join(sorted(missing))}"
    return ""


def _bound_words(fleet: Fleet, domain: Domain, host: Host, bound: Iterable[Rule]) -> str:
    """The bound or rule that keeps a domain from a host's place, in words."""
    if domain.latency_ms_max and domain.origin:
        away = latency(fleet, domain.origin, host.datacentre)
        if away > domain.latency_ms_max:
            return f"it is {away:g} ms from {domain.origin}, more than {domain.latency_ms_max:g}"
    for rule in bound:
        if (zone(host, rule.level) in rule.zones) != (rule.kind == "pin"):
            return f"rule {rule.name} {'pins it elsewhere' if rule.kind == 'pin' else 'excludes it'}"
    return ""


def latency(fleet: Fleet, one: str, other: str) -> float:
    """Return the milliseconds between two datacentres.

    Args:
        fleet: whose distances count.
        one: name.
        other: name.
    """
    if one == other:
        return 0.0
    for begin, end in ((one, other), (other, one)):
        found = fleet.latency_ms.get(begin, {}).get(end)
        if found is not None:
            return found
    return fleet.far_ms


def _sites(fleet: Fleet, items: list[list[int]]) -> tuple[Floats, Integers]:
    """Rows of the cost of each place: latency and soft pins."""
    soft: dict[str, list[Rule]] = {}
    for rule in fleet.rules:
        if rule.kind in {"pin", "exclude"} and not rule.hard:
            for name in rule.domains:
                soft.setdefault(name, []).append(rule)
    rows: dict[tuple[object, ...], int] = {}
    costs: list[Floats] = []
    site = np.zeros(len(items), np.int64)
    for item, group in enumerate(items):
        domains = [fleet.domains[number] for number in group]
        key = tuple((one.origin, *(rule.name for rule in soft.get(one.name, ()))) for one in domains)
        if key not in rows:
            rows[key] = len(costs)
            costs.append(
                np.array(
                    [
                        sum(_site_cost(fleet, one, host, soft.get(one.name, ())) for one in domains)
                        for host in fleet.hosts
                    ]
                )
            )
        site[item] = rows[key]
    return np.array(costs, np.float64).reshape(len(costs), len(fleet.hosts)), site


def _site_cost(fleet: Fleet, domain: Domain, host: Host, soft: Iterable[Rule]) -> float:
    cost = fleet.latency_weight * latency(fleet, domain.origin, host.datacentre) if domain.origin else 0.0
    for rule in soft:
        if (zone(host, rule.level) in rule.zones) != (rule.kind == "pin"):
            cost += rule.weight
    return cost


def _homes(
    fleet: Fleet, items: list[list[int]], ghosts: list[int], policy: PlacementPolicy, cost: MoveCost
) -> tuple[Integers, Floats, Integers]:
    """Present hosts of items, prices of moving them, and whether they may be moved."""
    index = {host.name: h for h, host in enumerate(fleet.hosts)}
    down = {host.name for host in fleet.hosts if host.state == "down"}
    home = np.full(len(items), NOWHERE, np.int64)
    move_cost = np.zeros(len(items))
    movable = np.ones(len(items), np.int64)
    for item, group in enumerate(items):
        domains = [fleet.domains[number] for number in group]
        where = domains[0].host
        if item >= len(items) - len(ghosts):
            home[item], movable[item] = index[domains[0].arriving], 0
        elif where and where not in down:
            home[item] = index[where]
            link = fleet.hosts[index[where]].link_bytes_per_s
            move_cost[item] = sum(policy.price(cost(one, link, where)) for one in domains)
            movable[item] = all(one.movable and not one.arriving for one in domains)
    return home, move_cost, movable


def _cell_demands(fleet: Fleet, items: list[list[int]]) -> tuple[Integers, Floats]:
    needed = np.zeros(len(items), np.int64)
    share = np.zeros((len(items), 2))
    for item, group in enumerate(items):
        for number in group:
            domain = fleet.domains[number]
            if domain.cells:
                needed[item] += domain.cells
                amounts = [domain.demand.get(name, 0.0) / domain.cells for name in (VCPUS, MEMORY)]
                share[item] = np.maximum(share[item], amounts)
    return needed, share


def _cells(hosts: Sequence[Host]) -> tuple[Integers, Floats]:
    begin = np.cumsum([0, *(len(host.cells) for host in hosts)], dtype=np.int64)
    cells = [(cell.vcpus * host.overcommit.get(VCPUS, 1.0), cell.memory_mib) for host in hosts for cell in host.cells]
    return begin, np.array(cells, np.float64).reshape(len(cells), 2)


class _Rules:
    """Counted rules as arrays: see `Model` for the shapes."""

    def __init__(self, fleet: Fleet, items: list[list[int]], item_of: list[int], ghosts: list[int]) -> None:
        zones = [
            {name: z for z, name in enumerate(dict.fromkeys(zone(host, level) for host in fleet.hosts))}
            for level in LEVELS
        ]
        self.zone = np.array(
            [[zones[row][zone(host, level)] for host in fleet.hosts] for row, level in enumerate(LEVELS)], np.int64
        ).reshape(len(LEVELS), len(fleet.hosts))
        index = {domain.name: number for number, domain in enumerate(fleet.domains)}
        second = {number: len(items) - len(ghosts) + place for place, number in enumerate(ghosts)}
        kept: list[tuple[Rule, list[int]]] = []
        for rule in fleet.rules:
            numbers = [index[name] for name in rule.domains]
            members = [item_of[number] for number in numbers]
            if rule.kind in {"apart", "spread"}:
                _refuse_joined(rule, members)
            members = list(dict.fromkeys(members))
            members += [second[number] for number in numbers if number in second]
            if rule.kind in {"apart", "spread", "together"} and len(members) > 1:
                kept.append((rule, members))
        self._fill(
            kept,
            [len(one) for one in zones],
            [len({zone(host, level) for host in fleet.hosts if host.state == "up"}) for level in LEVELS],
            len(items),
        )

    def _fill(self, kept: list[tuple[Rule, list[int]]], zones: list[int], zones_up: list[int], items: int) -> None:
        levels = [LEVELS.index(rule.level) for rule, _ in kept]
        self.kind = np.array([TOGETHER if rule.kind == "together" else APART for rule, _ in kept], np.int64)
        self.level = np.array(levels, np.int64)
        self.limit = np.array(
            [
                math.ceil(len(members) / max(zones_up[level], 1)) if rule.kind == "spread" else rule.limit
                for (rule, members), level in zip(kept, levels, strict=True)
            ],
            np.int64,
        )
        self.weight = np.array([INFINITE if rule.hard else rule.weight for rule, _ in kept], np.float64)
        self.count_begin = np.cumsum([0, *(zones[level] for level in levels)], dtype=np.int64)
        self.members_begin = np.cumsum([0, *(len(members) for _, members in kept)], dtype=np.int64)
        self.members = np.array([member for _, members in kept for member in members], np.int64)
        of: list[list[int]] = [[] for _ in range(items)]
        for g, (_, members) in enumerate(kept):
            for member in members:
                of[member].append(g)
        self.rules_begin = np.cumsum([0, *(len(rules) for rules in of)], dtype=np.int64)
        self.rules = np.array([g for rules in of for g in rules], np.int64)


def _refuse_joined(rule: Rule, members: Sequence[int]) -> None:
    if rule.hard and rule.kind == "apart" and rule.limit == 1 and len(set(members)) < len(members):
        raise PlacementError(
            f"fleet: rule {rule.name} parts domains that another rule keeps together on one host",
            hint="rules list shows both; rules remove takes one away",
        )
