"""Tickets: permissions to move one domain between two hosts, and its owner afterwards. Pure functions over the fleet.

The rule: a domain has at most one open ticket. Its owner changes in `_complete`, which needs that very ticket and the
generation that it was granted for, or in `hand_over`, where the owner itself gives away a domain without a ticket. So
ownership moves exactly once, however often, late or doubled the hosts speak; of two proposals for one domain the one
that comes first in the log wins.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.model import (
    ENDED_TICKETS_MAX,
    OPEN_TICKETS_MAX,
    DomainRecord,
    FleetState,
    Ticket,
    TicketOutcome,
    TicketState,
    domains_max,
)


def propose(fleet: FleetState, command: do.Command, body: do.Propose) -> TicketOutcome:
    """Grant a ticket, or refuse it; an open one for the same domain and hosts is given again.

    Args:
        fleet: changed in place.
        command: that proposes; only the source may.
        body: of the command.

    Returns:
        The ticket's token, or a refusal.
    """
    if command.by != body.source:
        return TicketOutcome("stranger")
    known = fleet.domains.get(body.uuid)
    sweep(fleet)
    open_one = fleet.open_tickets.get(body.uuid)
    if open_one is not None:
        same = (open_one.source, open_one.destination) == (body.source, body.destination)
        return TicketOutcome("" if same and open_one.state != "conflict" else "busy", open_one.token)
    code = _objection(fleet, body, known)
    if code:
        return TicketOutcome(code)
    domain = known or DomainRecord(uuid=body.uuid, name=body.name, owner=body.source, generation=fleet.index)
    fleet.domains[body.uuid] = domain
    fleet.open_tickets[body.uuid] = Ticket(
        token=fleet.index,
        uuid=body.uuid,
        source=body.source,
        destination=body.destination,
        generation=domain.generation,
        granted_at=fleet.now,
        changed_at=fleet.now,
        expires_at=fleet.now + body.lifetime_s,
        certificate=body.certificate,
    )
    return TicketOutcome(token=fleet.index)


def _objection(fleet: FleetState, body: do.Propose, known: DomainRecord | None) -> str:
    """Say why no ticket is given; the first that applies."""
    source, destination = fleet.hosts.get(body.source), fleet.hosts.get(body.destination)
    if source is None or destination is None:
        return "unknown-host"
    crosses = source.trust_domain != destination.trust_domain
    checks = {
        "same-host": source.name == destination.name,
        "not-owner": known is not None and known.owner != source.name,
        "generation": bool(body.generation) and (known is None or body.generation != known.generation),
        "draining": destination.state != "up",
        "certificate": crosses and not body.certificate,
        "full": known is None and len(fleet.domains) >= domains_max(fleet),
    }
    return next((code for code, applies in checks.items() if applies), "") or _limit(
        fleet, source.name, destination.name
    )


def _limit(fleet: FleetState, source: str, destination: str) -> str:
    tickets = fleet.open_tickets.values()
    if len(tickets) >= OPEN_TICKETS_MAX:
        return "full"
    limits = fleet.limits
    over = (
        _reached(limits.fleet, tickets)
        or _reached(limits.outgoing, (ticket for ticket in tickets if ticket.source == source))
        or _reached(limits.incoming, (ticket for ticket in tickets if ticket.destination == destination))
    )
    return "limit" if over else ""


def _reached(limit: int, tickets: Iterable[Ticket]) -> bool:
    return bool(limit) and sum(1 for _ in tickets) >= limit


def begin(fleet: FleetState, by: str, body: do.Begin) -> TicketOutcome:
    """Note that the destination accepted the link; from here on the ticket does not expire.

    Args:
        fleet: changed in place.
        by: the host that asks; only the destination may.
        body: the ticket's token.
    """
    ticket, code = _open(fleet, body.token)
    if ticket is None:
        return TicketOutcome(code)
    if by != ticket.destination:
        return TicketOutcome("stranger", ticket.token)
    if ticket.state == "granted":
        _keep(fleet, ticket, "running")
    return TicketOutcome(token=ticket.token)


def resume(fleet: FleetState, by: str, body: do.Resume) -> TicketOutcome:
    """Note that the destination runs the domain: the owner changes, the generation grows.

    Args:
        fleet: changed in place.
        by: the host that asks; only the destination may.
        body: the ticket's token.
    """
    done = fleet.ended_tickets.get(body.token)
    if done is not None and done.state == "completed" and done.destination == by:
        return TicketOutcome(token=done.token)
    ticket, code = _open(fleet, body.token)
    if ticket is None:
        return TicketOutcome(code)
    if by != ticket.destination:
        return TicketOutcome("stranger", ticket.token)
    if ticket.state == "conflict":
        return TicketOutcome("unresolved", ticket.token)
    return _complete(fleet, ticket, "")


def fail(fleet: FleetState, by: str, body: do.Fail) -> TicketOutcome:
    """Note that the migration did not happen. Once the ticket runs only the source may; before, the destination too.

    Args:
        fleet: changed in place.
        by: the host that asks.
        body: the ticket's token and a reason.
    """
    ended = fleet.ended_tickets.get(body.token)
    if ended is not None and ended.state in {"failed", "expired"}:
        return TicketOutcome(token=ended.token)
    ticket, code = _open(fleet, body.token)
    if ticket is None:
        return TicketOutcome(code)
    may = {ticket.source, ticket.destination} if ticket.state == "granted" else {ticket.source}
    if by not in may:
        return TicketOutcome("stranger", ticket.token)
    if ticket.state == "conflict":
        return TicketOutcome("unresolved", ticket.token)
    _end(fleet, ticket, "failed", body.reason)
    return TicketOutcome(token=ticket.token)


def resolve(fleet: FleetState, by: str, body: do.Resolve) -> TicketOutcome:
    """Settle a ticket by the reports of libvirt on both hosts.

    source runs  destination runs
    yes          no                 failed: it never left
    no           yes                completed: it arrived
    no           no                 failed: it is the owner's to start again
    yes          yes                conflict: kept open, so that nothing moves it
    unknown      (either)           open as before

    Args:
        fleet: changed in place.
        by: the host that asks; one of the two.
        body: the ticket's token and both reports.
    """
    ticket, code = _open(fleet, body.token)
    if ticket is None:
        return TicketOutcome(code)
    if by not in (ticket.source, ticket.destination):
        return TicketOutcome("stranger", ticket.token)
    match body.source_runs, body.destination_runs:
        case True, False:
            _end(fleet, ticket, "failed", "it runs at the source")
        case False, True:
            return _complete(fleet, ticket, "it runs at the destination")
        case False, False:
            _end(fleet, ticket, "failed", "it runs on neither host")
        case True, True:
            _keep(fleet, ticket, "conflict", "it runs on both hosts")
        case _:
            return TicketOutcome("unresolved", ticket.token)
    return TicketOutcome(token=ticket.token)


def hand_over(fleet: FleetState, by: str, body: do.HandOver) -> TicketOutcome:
    """Note that the domain runs on another host, as its owner says; an open ticket has to end first.

    Args:
        fleet: changed in place.
        by: the host that says so; only the owner may.
        body: the domain's UUID and its new owner.
    """
    domain = fleet.domains.get(body.uuid)
    if domain is None:
        return TicketOutcome("unknown-domain")
    if domain.owner != by:
        return TicketOutcome("not-owner")
    if body.destination not in fleet.hosts:
        return TicketOutcome("unknown-host")
    sweep(fleet)
    if body.uuid in fleet.open_tickets:
        return TicketOutcome("busy", fleet.open_tickets[body.uuid].token)
    if body.destination != by:
        fleet.domains[body.uuid] = replace(domain, owner=body.destination, generation=domain.generation + 1)
    return TicketOutcome()


def _complete(fleet: FleetState, ticket: Ticket, reason: str) -> TicketOutcome:
    domain = fleet.domains[ticket.uuid]
    if domain.generation != ticket.generation or domain.owner != ticket.source:
        _end(fleet, ticket, "failed", "the domain has changed hands since")
        return TicketOutcome("generation", ticket.token)
    fleet.domains[ticket.uuid] = replace(domain, owner=ticket.destination, generation=domain.generation + 1)
    _end(fleet, ticket, "completed", reason)
    return TicketOutcome(token=ticket.token)


def _open(fleet: FleetState, token: int) -> tuple[Ticket | None, str]:
    ticket = next((found for found in fleet.open_tickets.values() if found.token == token), None)
    if ticket is None:
        ended = fleet.ended_tickets.get(token)
        return None, "expired" if ended is not None and ended.state == "expired" else "unknown-ticket"
    if _is_void(fleet, ticket):
        _end(fleet, ticket, "expired", "not begun in time")
        return None, "expired"
    return ticket, ""


def _is_void(fleet: FleetState, ticket: Ticket) -> bool:
    return ticket.state == "granted" and ticket.expires_at <= fleet.now


def sweep(fleet: FleetState) -> None:
    """End the tickets that were not begun in time."""
    for ticket in [found for found in fleet.open_tickets.values() if _is_void(fleet, found)]:
        _end(fleet, ticket, "expired", "not begun in time")


def _keep(fleet: FleetState, ticket: Ticket, state: TicketState, reason: str = "") -> None:
    fleet.open_tickets[ticket.uuid] = replace(ticket, state=state, changed_at=fleet.now, reason=reason)


def end(fleet: FleetState, ticket: Ticket, reason: str) -> None:
    """End an open ticket as failed; the domain stays with its owner.

    Args:
        fleet: changed in place.
        ticket: an open one.
        reason: for people.
    """
    _end(fleet, ticket, "failed", reason)


def _end(fleet: FleetState, ticket: Ticket, state: TicketState, reason: str) -> None:
    del fleet.open_tickets[ticket.uuid]
    fleet.ended_tickets[ticket.token] = replace(ticket, state=state, changed_at=fleet.now, reason=reason)
    if len(fleet.ended_tickets) > ENDED_TICKETS_MAX:
        del fleet.ended_tickets[next(iter(fleet.ended_tickets))]
