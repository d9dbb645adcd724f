"""Constraints of the cluster state applied to a fleet: rules, labels, migrations under way, limits. No IO.

The rule here: migrations that others have begun take capacity already. A domain with an open ticket counts on both its
hosts and stays out of plans; a host that drains takes no domains, and keeps its own unless a plan is to empty it.
"""

from collections.abc import Sequence

import msgspec

from dwcp_migrate.api.cluster import InFlightMigration, PlacementConstraints
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import MEMORY, VCPUS, Domain, Fleet, Host, Rule, check_fleet
from dwcp_migrate.state.fleet.model import HostRecord as Known
from dwcp_migrate.units import MIB


def rules_of(constraints: PlacementConstraints) -> list[Rule]:
    """The fleet's rules as placement has them, without those that name no domains."""
    return [rule for rule in constraints.rules if rule.domains]


def constrain_fleet(fleet: Fleet, constraints: PlacementConstraints) -> Fleet:
    """Apply the cluster state's rules, limits and migrations under way to a fleet.

    Args:
        fleet: as its libvirtds or a file say.
        constraints: of the cluster state; rules about domains that are not in the fleet are left out.

    Raises:
        PlacementError: a rule names a zone that is not there.
    """
    flights = {one.domain: one for one in constraints.flights if one.domain}
    hosts = {host.name for host in fleet.hosts}
    domains = [_flying(one, flights.get(one.name), hosts) for one in fleet.domains]
    there = {one.name for one in domains}
    rules = [
        msgspec.structs.replace(rule, domains=kept)
        for rule in rules_of(constraints)
        if (kept := [name for name in rule.domains if name in there])
    ]
    known = {one.name: one for one in constraints.hosts}
    described = [_described(host, known.get(host.name)) for host in fleet.hosts]
    found = msgspec.structs.replace(
        fleet, hosts=described, domains=domains, rules=[*rules, *_closed(domains, constraints, hosts)]
    )
    check_fleet(found)
    return found


def _described(host: Host, known: Known | None) -> Host:
    """A host with its own report: its place where the settings name none, its capacity lowered to what it offers."""
    if known is None:
        return host
    offered = {VCPUS: float(known.capacity.cpus), MEMORY: known.capacity.memory_bytes / MIB}
    capacity = {
        resource: min(amount, offered[resource]) if offered.get(resource) else amount
        for resource, amount in host.capacity.items()
    }
    labels = known.labels
    return msgspec.structs.replace(
        host,
        capacity=capacity,
        rack=host.rack or labels.get("rack", ""),
        datacentre=host.datacentre or labels.get("datacentre", ""),
        region=host.region or labels.get("region", ""),
    )


def fleet_for_placement(fleet: Fleet, constraints: PlacementConstraints) -> Fleet:
    """Close hosts that drain, for placing new domains, which moves none.

    Args:
        fleet: as it is.
        constraints: of the cluster state.
    """
    hosts = [
        msgspec.structs.replace(host, state="maintenance") if host.name in constraints.draining else host
        for host in fleet.hosts
    ]
    return msgspec.structs.replace(fleet, hosts=hosts)


def _flying(domain: Domain, flight: InFlightMigration | None, hosts: set[str]) -> Domain:
    """A domain with an open ticket; one that libvirt says has arrived only stays where it is."""
    if flight is None:
        return domain
    begun = flight.source == domain.host != flight.destination and flight.destination in hosts
    arriving = domain.arriving or (flight.destination if begun else "")
    return msgspec.structs.replace(domain, arriving=arriving, movable=False)


def _closed(domains: Sequence[Domain], constraints: PlacementConstraints, hosts: set[str]) -> list[Rule]:
    """A rule for each host that drains: nothing goes there that is not there, or on its way."""
    rules = []
    for name in constraints.draining:
        others = [one.name for one in domains if name not in {one.host, one.arriving}]
        if name in hosts and others:
            rules.append(Rule(name=f"{name} drains", kind="exclude", domains=others, zones=[name]))
    return rules


def limit_policy(policy: PlacementPolicy, constraints: PlacementConstraints) -> PlacementPolicy:
    """Lower a policy to the fleet's limits, less the migrations that are under way.

    Args:
        policy: of the settings.
        constraints: of the cluster state; a limit of 0 is none.

    Returns:
        A policy that lets at least one migration run.
    """
    limits = constraints.limits
    left = max(1, limits.fleet - len(constraints.flights)) if limits.fleet else policy.running_max
    return msgspec.structs.replace(
        policy,
        running_max=min(policy.running_max, left),
        outgoing_max=min(policy.outgoing_max, limits.outgoing or policy.outgoing_max),
        incoming_max=min(policy.incoming_max, limits.incoming or policy.incoming_max),
    )
