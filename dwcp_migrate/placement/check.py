"""Independent check of an assignment: broken rules and quality, recomputed from the fleet itself.

The rule here: nothing is shared with the kernels. This is the oracle that every search is held against, and the last
word before a plan is handed out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from dwcp_migrate.placement.amounts import usable_capacity, used_amounts
from dwcp_migrate.placement.arrays import EPSILON
from dwcp_migrate.placement.fleet import Domain, Fleet, Host, Rule, zone
from dwcp_migrate.placement.model import refusal


def violations(fleet: Fleet, places: Mapping[str, str]) -> list[str]:
    """Say which hard rules an assignment breaks, in words.

    Args:
        fleet: of which hosts, domains and rules count.
        places: host of each domain; a domain that is not in it has none. Where it is arriving counts too.
    """
    hosts = {host.name: host for host in fleet.hosts}
    found = [*_overfull(fleet, places)]
    bound: dict[str, list[Rule]] = {}
    for rule in fleet.rules:
        if rule.hard and rule.kind in {"pin", "exclude"}:
            for name in rule.domains:
                bound.setdefault(name, []).append(rule)
    for domain in fleet.domains:
        place = places.get(domain.name)
        if place and (why := refusal(fleet, domain, hosts[place], bound.get(domain.name, ()))):
            found.append(f"{domain.name} may not be on {place}: {why}")
    everywhere = {domain.name: _everywhere(domain, places) for domain in fleet.domains}
    for rule in fleet.rules:
        if rule.hard and rule.kind in {"apart", "spread", "together"}:
            found += _counted(fleet, rule, everywhere, hosts)
    return found


def _overfull(fleet: Fleet, places: Mapping[str, str]) -> list[str]:
    resources = list(dict.fromkeys(name for domain in fleet.domains for name in domain.demand))
    room = usable_capacity(fleet, resources)
    used: Counter[tuple[str, str]] = Counter()
    for domain in fleet.domains:
        for place in _everywhere(domain, places):
            for name, amount in domain.demand.items():
                used[place, name] += amount  # type: ignore[assignment]
    found = []
    for h, host in enumerate(fleet.hosts):
        for r, name in enumerate(resources):
            if used[host.name, name] > room[r, h] + EPSILON:
                found.append(f"{host.name}: {used[host.name, name]:g} {name} promised of {room[r, h]:g}")
    return found


def _everywhere(domain: Domain, places: Mapping[str, str]) -> list[str]:
    """The host of a domain, and the one that it is arriving at."""
    return [place for place in (places.get(domain.name, ""), domain.arriving) if place]


def _counted(fleet: Fleet, rule: Rule, everywhere: Mapping[str, list[str]], hosts: Mapping[str, Host]) -> list[str]:
    zones = Counter(zone(hosts[place], rule.level) for name in rule.domains for place in everywhere[name])
    if rule.kind == "together":
        return [f"rule {rule.name}: parted over {', '.join(sorted(zones))}"] if len(zones) > 1 else []
    limit = rule.limit
    if rule.kind == "spread":
        up = {zone(host, rule.level) for host in fleet.hosts if host.state == "up"}
        limit = math.ceil(len(rule.domains) / max(len(up), 1))
    return [
        f"rule {rule.name}: {count} in {rule.level} {name}, {limit} allowed"
        for name, count in sorted(zones.items())
        if count > limit
    ]


def levels(fleet: Fleet, places: Mapping[str, str]) -> dict[str, float]:
    """Compute the largest utilisation of any balanced resource, by host that is up.

    Args:
        fleet: of which hosts and domains count.
        places: host of each domain; a domain that is not in it has none.
    """
    resources = [name for name, weight in fleet.balance.items() if weight > 0]
    room = usable_capacity(fleet, resources)
    used = [[0.0] * len(fleet.hosts) for _ in resources]
    index = {host.name: h for h, host in enumerate(fleet.hosts)}
    for domain in fleet.domains:
        amounts = used_amounts(domain, fleet.quantile)
        for place in _everywhere(domain, places):
            for r, name in enumerate(resources):
                used[r][index[place]] += amounts.get(name, 0.0)
    return {
        host.name: float(max((used[r][h] / room[r, h] for r in range(len(resources)) if room[r, h] > 0), default=0.0))
        for h, host in enumerate(fleet.hosts)
        if host.state == "up"
    }


def level_bound(fleet: Fleet, placed: Sequence[str]) -> float:
    """Compute the level that no assignment can have all hosts below: all demand over all capacity.

    Args:
        fleet: of which hosts and domains count.
        placed: names of the domains that have to have a place.
    """
    resources = [name for name, weight in fleet.balance.items() if weight > 0]
    room = usable_capacity(fleet, resources)
    up = [h for h, host in enumerate(fleet.hosts) if host.state == "up"]
    kept = set(placed)
    bound = 0.0
    for r, name in enumerate(resources):
        total = sum(used_amounts(one, fleet.quantile).get(name, 0.0) for one in fleet.domains if one.name in kept)
        capacity = float(room[r, up].sum())
        bound = max(bound, total / capacity if capacity else 0.0)
    return bound
