"""Operators' repairs of the state: hosts and domains that are gone, tickets that nobody ends, a clock, the version.

Pure functions over the fleet. Only an operator can know whether they are right, so the command line asks back before
each. Even a mistaken repair leaves old and new holders distinguishable: generations and tokens only grow.
"""

from msgspec.structs import replace

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import tickets
from dwcp_migrate.state.fleet.model import FleetState, TicketOutcome

DONE = TicketOutcome()


def forget_host(fleet: FleetState, body: do.ForgetHost) -> TicketOutcome:
    """Forget a host with its domains, leases and reservations; tickets to or from it end.

    Args:
        fleet: changed in place.
        body: the host's name.
    """
    if body.name not in fleet.hosts:
        return TicketOutcome("unknown-host")
    for ticket in [found for found in fleet.open_tickets.values() if body.name in (found.source, found.destination)]:
        tickets.end(fleet, ticket, f"{body.name} was forgotten")
    for uuid in [uuid for uuid, domain in fleet.domains.items() if domain.owner == body.name]:
        del fleet.domains[uuid]
    for holds in (fleet.leases, fleet.reservations):
        for name in [name for name, held in holds.items() if held.holder == body.name]:
            del holds[name]
    links = fleet.limits.link_bytes_per_s
    kept = {link: rate for link, rate in links.items() if body.name not in link.split(">")}
    fleet.limits = replace(fleet.limits, link_bytes_per_s=kept)
    fleet.outcomes.pop(body.name, None)
    del fleet.hosts[body.name]
    return DONE


def drop_domain(fleet: FleetState, body: do.DropDomain) -> TicketOutcome:
    """Forget a domain that has no ticket.

    Args:
        fleet: changed in place.
        body: the domain's UUID.

    Returns:
        Done, `unknown-domain`, or `busy` with the open ticket.
    """
    if body.uuid not in fleet.domains:
        return TicketOutcome("unknown-domain")
    tickets.sweep(fleet)
    if body.uuid in fleet.open_tickets:
        return TicketOutcome("busy", fleet.open_tickets[body.uuid].token)
    del fleet.domains[body.uuid]
    return DONE


def assign(fleet: FleetState, body: do.AssignDomain) -> TicketOutcome:
    """Give a domain to a host. Its generation grows, so that earlier tickets for it are void.

    Args:
        fleet: changed in place.
        body: the domain's UUID and its new owner.
    """
    domain = fleet.domains.get(body.uuid)
    if domain is None:
        return TicketOutcome("unknown-domain")
    if body.owner not in fleet.hosts:
        return TicketOutcome("unknown-host")
    ticket = fleet.open_tickets.get(body.uuid)
    if ticket is not None:
        tickets.end(fleet, ticket, f"an operator gave the domain to {body.owner}")
    fleet.domains[body.uuid] = replace(domain, owner=body.owner, generation=domain.generation + 1)
    return DONE


def end_ticket(fleet: FleetState, body: do.EndTicket) -> TicketOutcome:
    """End an open ticket, in whatever state it is.

    Args:
        fleet: changed in place.
        body: the ticket's token and a reason.
    """
    ticket = next((found for found in fleet.open_tickets.values() if found.token == body.token), None)
    if ticket is None:
        return TicketOutcome("unknown-ticket")
    tickets.end(fleet, ticket, body.reason or "an operator ended it")
    return TicketOutcome(token=ticket.token)


def set_clock(fleet: FleetState, at: float) -> TicketOutcome:
    """Set the fleet's time back; everything that was to end in the future ends as much later than now as before.

    Args:
        fleet: changed in place.
        at: the new time, seconds since the epoch; one that is not earlier changes nothing.
    """
    ahead = fleet.now - at
    if ahead <= 0:
        return DONE

    def back(moment: float) -> float:
        return max(0.0, moment - ahead)

    fleet.now = at
    for uuid, ticket in fleet.open_tickets.items():
        fleet.open_tickets[uuid] = replace(
            ticket,
            granted_at=back(ticket.granted_at),
            changed_at=back(ticket.changed_at),
            expires_at=back(ticket.expires_at),
        )
    for name, lease in fleet.leases.items():
        fleet.leases[name] = replace(lease, expires_at=back(lease.expires_at))
    for name, held in fleet.reservations.items():
        fleet.reservations[name] = replace(held, expires_at=back(held.expires_at))
    for name, host in fleet.hosts.items():
        fleet.hosts[name] = replace(host, heard_at=min(host.heard_at, at))
    return DONE


def set_version(fleet: FleetState, body: do.SetVersion) -> TicketOutcome:
    """Raise the version that the fleet is at.

    Args:
        fleet: changed in place.
        body: the version; a lower one than the present changes nothing.
    """
    fleet.version = max(fleet.version, body.version)
    return DONE
