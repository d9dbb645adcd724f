"""Leases and reservations: locks and shares of links, each with an end. Pure functions over the fleet.

The rule: a hold that ran out is nobody's, even if its last holder still believes in it; its token tells a late holder
from the next one. A host whose clock runs ahead can shorten holds of others, never share them. Holds that ran out are
dropped when a new name comes; a fleet that may have hosts of release 0.1.0 drops them when a table is full.
"""

from typing import TypeVar

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.model import (
    FIRST_VERSION,
    LEASES_MAX,
    RESERVATIONS_MAX,
    FleetState,
    Lease,
    LinkReservation,
    TicketOutcome,
)

Hold = TypeVar("Hold", Lease, LinkReservation)


def acquire(fleet: FleetState, by: str, body: do.Acquire) -> TicketOutcome:
    """Take a free lease with a new token, or prolong one's own and keep its token.

    Args:
        fleet: changed in place.
        by: the host that asks.
        body: name and lifetime of the lease.

    Returns:
        The token, or `held` with the holder's, or `full`.
    """
    held = fleet.leases.get(body.name)
    token = fleet.index
    if held is not None and held.expires_at > fleet.now:
        if held.holder != by:
            return TicketOutcome("held", held.token)
        token = held.token
    elif held is None and not _has_room(fleet, fleet.leases, LEASES_MAX):
        return TicketOutcome("full")
    fleet.leases[body.name] = Lease(name=body.name, holder=by, token=token, expires_at=fleet.now + body.lifetime_s)
    return TicketOutcome(token=token)


def release(fleet: FleetState, by: str, body: do.Release) -> TicketOutcome:
    """Give a lease back; one that ran out is left alone.

    Args:
        fleet: changed in place.
        by: the host that asks.
        body: name and token of the lease.

    Returns:
        Done, or `stranger` where another host holds it.
    """
    return _give_back(fleet.leases, by, body)


def reserve(fleet: FleetState, by: str, body: do.Reserve) -> TicketOutcome:
    """Take a share of a link, or change one's own; refused when the link has not that much left.

    Args:
        fleet: changed in place.
        by: the host that asks.
        body: name, link, rate and lifetime of the reservation.

    Returns:
        The token, or `held` with the holder's, or `full`, or `link`.
    """
    held = fleet.reservations.get(body.name)
    alive = held is not None and held.expires_at > fleet.now
    if held is not None and alive and held.holder != by:
        return TicketOutcome("held", held.token)
    if held is None and not _has_room(fleet, fleet.reservations, RESERVATIONS_MAX):
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
    """Sum up the reservations of a link that are alive.

    Args:
        fleet: the state.
        source: host at which the link begins.
        destination: host at which it ends; the other direction is another link.
        without: name of a reservation that is left out; empty for none.

    Returns:
        Bytes a second.
    """
    return sum(
        held.bytes_per_s
        for held in fleet.reservations.values()
        if (held.source, held.destination) == (source, destination)
        and held.expires_at > fleet.now
        and held.name != without
    )


def unreserve(fleet: FleetState, by: str, body: do.Unreserve) -> TicketOutcome:
    """Give a share back; one that ran out is left alone.

    Args:
        fleet: changed in place.
        by: the host that asks.
        body: name and token of the reservation.

    Returns:
        Done, or `stranger` where another host holds it.
    """
    return _give_back(fleet.reservations, by, body)


def _give_back(holds: dict[str, Hold], by: str, body: do.Release | do.Unreserve) -> TicketOutcome:
    held = holds.get(body.name)
    if held is None or held.token != body.token:
        return TicketOutcome(token=body.token)
    if held.holder != by:
        return TicketOutcome("stranger", held.token)
    del holds[body.name]
    return TicketOutcome(token=body.token)


def _has_room(fleet: FleetState, holds: dict[str, Hold], most: int) -> bool:
    """Drop what ran out, and tell whether another name may come. Replicas of 0.1.0 must drop at the same commands."""
    if len(holds) >= most or fleet.version > FIRST_VERSION:
        _drop_expired(holds, fleet.now)
    return len(holds) < most


def _drop_expired(holds: dict[str, Hold], now: float) -> None:
    for name in [name for name, held in holds.items() if held.expires_at <= now]:
        del holds[name]
