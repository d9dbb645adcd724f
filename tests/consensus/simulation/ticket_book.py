"""The real tickets as the simulated group's application, and clients that move guests with them."""

import hashlib
import random
from typing import TYPE_CHECKING

from dwcp_migrate.consensus import Context
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.consensus.tickets.operations import (
    BeginTicket,
    FailTicket,
    Forget,
    Operation,
    Ownership,
    ProposeTicket,
    ResumeTicket,
    Ticket,
    decode_operation,
    decode_result,
    encode_operation,
)

if TYPE_CHECKING:
    from tests.consensus.simulation.world import World

DOMAINS = tuple(f"00000000-0000-4000-8000-{number:012d}" for number in range(3))
MOVERS = ("c0", "c1")
"""Clients that ask."""
LIFETIME_MS = 3_600_000
"""Longer than any scenario: no ticket expires, whatever the clocks do."""


class TicketBook:
    """The application; it holds for itself that no two tickets of one domain are begun at once."""

    def __init__(self) -> None:
        self._tickets = Tickets()
        self._begun: dict[str, tuple[int, str]] = {}
        self.fresh: list[tuple[str, bytes]] = []

    @property
    def value(self) -> bytes:
        """What two replicas that executed the same have in common."""
        return hashlib.blake2b(self._tickets.snapshot(), digest_size=16).digest()

    def apply(self, operation: bytes, context: Context) -> bytes:
        self.fresh.append((context.client, operation))
        result = self._tickets.apply(operation, context)
        wanted, found = decode_operation(operation), decode_result(result)
        match wanted, found:
            case BeginTicket(), Ticket():
                assert context.client == found.destination, f"{context.client} began a ticket to {found.destination}"
                token, _ = self._begun.setdefault(found.domain, (found.token, found.destination))
                assert token == found.token, f"tickets {token} and {found.token} of one domain are begun"
            case ProposeTicket(), Ticket() if found.domain in self._begun:
                token, destination = self._begun.pop(found.domain)
                assert context.client == destination, f"{context.client} replaced ticket {token}, which is begun"
            case ((ResumeTicket() | FailTicket() | Forget()), Ownership()):
                self._begun.pop(found.domain, None)
        return result

    def snapshot(self) -> bytes:
        return self._tickets.snapshot()

    def restore(self, data: bytes) -> None:
        self._tickets.restore(data)
        self._begun.clear()


def next_operation(world: "World", name: str, rng: random.Random) -> bytes:
    """What a client asks for next: mostly something about a ticket that somebody was given lately."""
    given = []
    for client in world.clients.values():
        results = [decode_result(decision.result) for decision in client.decisions[-4:] if client.name != "op"]
        given += [result for result in results if isinstance(result, Ticket)]
    operation: Operation
    if given and rng.random() < 0.7:
        ticket = rng.choice(given)
        kind = rng.choice((BeginTicket, BeginTicket, ResumeTicket, ResumeTicket, FailTicket))
        operation = kind(ticket.domain, ticket.token)
    elif rng.random() < 0.1:
        operation = Forget(rng.choice(DOMAINS))
    else:
        others = [other for other in MOVERS if other != name]
        operation = ProposeTicket(rng.choice(DOMAINS), rng.choice(others), LIFETIME_MS)
    return encode_operation(operation)
