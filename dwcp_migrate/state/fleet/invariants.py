"""Invariants of the cluster state: checked by tests after every command, by a replica after a snapshot.

The rule: an invariant here is stated once more, in other words than in the code that keeps it.
"""

from collections import Counter

from dwcp_migrate.state.fleet.model import (
    ENDED_TICKETS_MAX,
    HOSTS_MAX,
    LEASES_MAX,
    OPEN_STATES,
    OPEN_TICKETS_MAX,
    REQUEST_WINDOW,
    RESERVATIONS_MAX,
    RULES_MAX,
    FleetState,
    domains_max,
)


def violations(fleet: FleetState) -> list[str]:
    """Name every invariant that does not hold; an empty list is a sound state."""
    return [*_sizes(fleet), *_tickets(fleet), *_tokens(fleet)]


def _sizes(fleet: FleetState) -> list[str]:
    tables = {
        "hosts": (len(fleet.hosts), HOSTS_MAX),
        "domains": (len(fleet.domains), domains_max(fleet)),
        "open tickets": (len(fleet.open_tickets), OPEN_TICKETS_MAX),
        "ended tickets": (len(fleet.ended_tickets), ENDED_TICKETS_MAX),
        "leases": (len(fleet.leases), LEASES_MAX),
        "reservations": (len(fleet.reservations), RESERVATIONS_MAX),
        "rules": (len(fleet.rules), RULES_MAX),
        "outcomes": (max(map(len, fleet.outcomes.values()), default=0), REQUEST_WINDOW),
    }
    return [f"{name}: {count} of at most {most}" for name, (count, most) in tables.items() if count > most]


def _tickets(fleet: FleetState) -> list[str]:
    wrong = []
    for uuid, ticket in fleet.open_tickets.items():
        domain = fleet.domains.get(uuid)
        if ticket.uuid != uuid or ticket.state not in OPEN_STATES:
            wrong.append(f"ticket {ticket.token} is {ticket.state} among the open ones")
        if domain is None or domain.owner != ticket.source or domain.generation != ticket.generation:
            wrong.append(f"ticket {ticket.token} is open for {domain}")
    moved = Counter(
        (ticket.uuid, ticket.generation) for ticket in fleet.ended_tickets.values() if ticket.state == "completed"
    )
    wrong += [f"ownership moved {count} times: {key}" for key, count in moved.items() if count > 1]
    for ticket in fleet.ended_tickets.values():
        domain = fleet.domains.get(ticket.uuid)
        if ticket.state in OPEN_STATES:
            wrong.append(f"ticket {ticket.token} is {ticket.state} among the ended ones")
        if ticket.state == "completed" and domain is not None and domain.generation <= ticket.generation:
            wrong.append(f"ticket {ticket.token} completed, but the generation is {domain.generation}")
    return wrong


def _tokens(fleet: FleetState) -> list[str]:
    open_tokens = [ticket.token for ticket in fleet.open_tickets.values()]
    given = [
        *open_tokens,
        *fleet.ended_tickets,
        *(lease.token for lease in fleet.leases.values()),
        *(reservation.token for reservation in fleet.reservations.values()),
    ]
    wrong = [f"token {token} was given {count} times" for token, count in Counter(given).items() if count > 1]
    return wrong + [f"token {token} is of the future" for token in given if token > fleet.index]
