"""Leases and reservations: what is held for a time. Pure functions over the fleet.

The rule: a hold that ran out is nobody's, whoever still believes in it; its token tells a late holder from the next.
A host whose clock runs ahead can shorten holds of others, never share them.
"""

from typing import TypeVar

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.model import (
    LEASES_MAX,
    RESERVATIONS_MAX,
    FleetState,
    Lease,
    LinkReservation,
    TicketOutcome,
)

Hold = TypeVar("Hold", Lease, LinkReservation)


def acquire(fleet: FleetState, by: str, body: do.Acquire) -> TicketOutcome:
    """Take a free lease with a new token, or prolong one's own and keep its token."""
    held = fleet.leases.get(body.name)
    token = fleet.index
    if held is not None and held.expires_at > fleet.now:
        if held.holder != by:
            return TicketOutcome("held", held.token)
        token = held.token
    elif held is None and len(fleet.leases) >= LEASES_MAX:
        _drop_expired(fleet.leases, fleet.now)
        if len(fleet.leases) >= LEASES_MAX:
            return TicketOutcome("full")
    fleet.leases[body.name] = Lease(name=body.name, holder=by, token=token, expires_at=fleet.now + body.lifetime_s)
    return TicketOutcome(token=token)


def release(fleet: FleetState, by: str, body: do.Release) -> TicketOutcome:
    """Give it back; one that ran out or is another's is left alone."""
    return _give_back(fleet.leases, by, body)


def reserve(fleet: FleetState, by: str, body: do.Reserve) -> TicketOutcome:
    """Take a share of a link, or change one's own; refused when the link has not that much left."""
    held = fleet.reservations.get(body.name)
    alive = held is not None and held.expires_at > fleet.now
    if held is not None and alive and held.holder != by:
        return TicketOutcome("held", held.token)
    if held is None and len(fleet.reservations) >= RESERVATIONS_MAX:
        _drop_expired(fleet.reservations, fleet.now)
        if len(fleet.reservations) >= RESERVATIONS_MAX:
            return TicketOutcome("full")
    most = fleet.limits.link_bytes_per_s.get(f"{body.source}>{body.destination}", 0)
    if most and reserved(fleet, body.source, body.destination, without=body.name) + body.bytes_per_s > most:
        return TicketOutcome("link")
    token = held.token if held is not None and alive else fleet.index
    fleet.reservations[body.name] = LinkReservation(
        name=body.name,
        source=body.source,
        destination=body.destination,
        holder=by,
        bytes_per_s=body.bytes_per_s,
        token=token,
        expires_at=fleet.now + body.lifetime_s,
    )
    return TicketOutcome(token=token)


def reserved(fleet: FleetState, source: str, destination: str, without: str = "") -> int:
    """Say how many bytes/s of a link are reserved now, leaving out the reservation `without`."""
    return sum(
        held.bytes_per_s
        for held in fleet.reservations.values()
        if (held.source, held.destination) == (source, destination)
        and held.expires_at > fleet.now
        and held.name != without
    )


def unreserve(fleet: FleetState, by: str, body: do.Unreserve) -> TicketOutcome:
    """Give a share back; one that ran out or is another's is left alone."""
    return _give_back(fleet.reservations, by, body)


def _give_back(holds: dict[str, Hold], by: str, body: do.Release | do.Unreserve) -> TicketOutcome:
    held = holds.get(body.name)
    if held is None or held.token != body.token:
        return TicketOutcome(token=body.token)
    if held.holder != by:
        return TicketOutcome("stranger", held.token)
    del holds[body.name]
    return TicketOutcome(token=body.token)


def _drop_expired(holds: dict[str, Hold], now: float) -> None:
    for name in [name for name, held in holds.items() if held.expires_at <= now]:
        del holds[name]
