"""Migration tickets as a replicated state machine: who may move which domain where, and who owns it.

Rule: a domain has one owner, a generation that grows by one with each move, and at most one open ticket; a
destination's slot holds one ticket at most. A ticket is good once, for the generation that it names, until it
expires. Concurrent proposals meet in the group's order: the first one wins, on every replica alike, and the other is
told which ticket won.

    Register ->  owner                        a host that runs a domain says so; never takes one from another owner
    Issue    ->  ticket                       by the source, for a domain that it owns, generation as it is now
    Consume  ->  owner and generation + 1     by the destination, at its resume
    Cancel   ->  nothing changed              by source or destination: the migration failed, the domain stays
    Release  ->  nobody's                     by the owner, when the domain left by a move that others decided

The clock is the group's (`Context.time_ms`). An expired ticket counts as none: it is taken away by the next operation
that meets it. Tickets are numbered as they are issued: the number is the fencing token.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.core import Context
from dwcp_migrate.consensus.pbft.model.membership import NAME_BYTES_MAX, Name
from dwcp_migrate.consensus.pbft.model.messages import BROKEN, Counter, encode_body

DOMAINS_MAX: Final = 65536
"""Domains of a fleet; the state is 12 MiB then."""
NOBODY: Final = ""
"""Owner of a domain that was released."""
LIFETIME_MS_MAX: Final = 7 * 24 * 3600 * 1000
"""A ticket may not outlive a week: the longest migration of a large guest over a thin link takes hours."""

Uuid = Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Register(msgspec.Struct, frozen=True, array_like=True, tag="register"):
    """The client runs this domain."""

    domain: Uuid


class Issue(msgspec.Struct, frozen=True, array_like=True, tag="issue"):
    """The client wants to move its domain.

    Attributes:
        destination: host that is to take it.
        slot: of the destination, from 0; one migration each.
        generation: of the domain, as the client knows it.
        lifetime_ms: from the group's now.
    """

    domain: Uuid
    destination: Name
    slot: Annotated[int, Meta(ge=0, le=255)]
    generation: Counter
    lifetime_ms: Annotated[int, Meta(gt=0, le=LIFETIME_MS_MAX)]


class Consume(msgspec.Struct, frozen=True, array_like=True, tag="consume"):
    """The client is the destination, and the guest is about to run there."""

    domain: Uuid
    token: Counter


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """The migration did not happen."""

    domain: Uuid
    token: Counter


class Release(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """The client's domain runs there no more, and the group did not decide the move: whoever runs it may register."""

    domain: Uuid


class Ticket(msgspec.Struct, frozen=True, array_like=True, tag="ticket"):
    """Permission for one migration; its certificate is what the destination's agent verifies.

    Attributes:
        token: counts the group's tickets, from 1.
        generation: of the domain while it is on its way.
        expires_ms: on the group's clock, Unix milliseconds.
    """

    domain: Uuid
    source: Name
    destination: Name
    slot: int
    generation: Counter
    token: Counter
    expires_ms: Counter


class Ownership(msgspec.Struct, frozen=True, array_like=True, tag="ownership"):
    """Who owns a domain after the operation; `NOBODY` may."""

    domain: Uuid
    owner: Annotated[str, Meta(max_length=NAME_BYTES_MAX)]
    generation: Counter


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    """Nothing changed.

    Attributes:
        code: one of `REFUSALS`.
        token: of the ticket that stands in the way; 0 if none does.
    """

    code: str
    token: Counter = 0


REFUSALS: Final = {
    "domain-busy": "another ticket for this domain is open",
    "expired": "the ticket has expired",
    "full": "the group knows as many domains as it may",
    "generation": "the domain has moved since",
    "malformed": "the operation is none",
    "no-ticket": "there is no such ticket: it was never issued, was cancelled, or has been used",
    "not-destination": "the ticket is for another destination",
    "not-owner": "the domain belongs to another host",
    "not-party": "only source and destination may cancel a ticket",
    "same-host": "source and destination are one host",
    "slot-busy": "another ticket holds this slot of the destination",
    "unknown-domain": "nobody has registered this domain",
}
"""Code in `Refusal`, and what it says to people."""

Operation = Register | Issue | Consume | Cancel | Release
Result = Ticket | Ownership | Refusal


class _Domain(msgspec.Struct, array_like=True):
    owner: str
    generation: int
    ticket: Ticket | None = None


class _State(msgspec.Struct, array_like=True):
    domains: dict[str, _Domain]
    issued: int


_operation = msgspec.msgpack.Decoder(Operation)
_result = msgspec.msgpack.Decoder(Result)
_state = msgspec.msgpack.Decoder(_State)


def encode(operation: Operation) -> bytes:
    """Serialise an operation."""
    return encode_body(operation)


def decode_result(data: bytes) -> Result:
    """Read what an operation came to.

    Raises:
        msgspec.ValidationError: it is none: the group runs another application.
    """
    result: Result = _result.decode(data)
    return result


class Tickets:
    """The application: give it to a `Replica`."""

    def __init__(self) -> None:
        self._domains: dict[str, _Domain] = {}
        self._slots: dict[tuple[str, int], str] = {}
        self._issued = 0

    def apply(self, operation: bytes, context: Context) -> bytes:
        """Execute one operation; see `Application`."""
        try:
            wanted = _operation.decode(operation)
        except BROKEN:
            return encode_body(Refusal("malformed"))
        result: Result
        match wanted:
            case Register():
                result = self._register(wanted, context)
            case Issue():
                result = self._issue(wanted, context)
            case Consume():
                result = self._consume(wanted, context)
            case Cancel():
                result = self._cancel(wanted, context)
            case Release():
                result = self._release(wanted, context)
        return encode_body(result)

    def snapshot(self) -> bytes:
        """Encode the state; see `Application`."""
        return encode_body(_State({name: self._domains[name] for name in sorted(self._domains)}, self._issued))

    def restore(self, data: bytes) -> None:
        """Replace the state; see `Application`."""
        state = _state.decode(data)
        self._domains, self._issued = state.domains, state.issued
        tickets = (domain.ticket for domain in self._domains.values())
        self._slots = {(ticket.destination, ticket.slot): ticket.domain for ticket in tickets if ticket is not None}

    def ownership(self, domain: str) -> Ownership | None:
        """Tell who owns a domain, as far as this replica has executed."""
        known = self._domains.get(domain)
        return None if known is None else Ownership(domain, known.owner, known.generation)

    def _register(self, wanted: Register, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        if known is None:
            if len(self._domains) >= DOMAINS_MAX:
                return Refusal("full")
            known = self._domains[wanted.domain] = _Domain(context.client, 0)
        if known.owner not in {NOBODY, context.client}:
            return Refusal("not-owner")
        known.owner = context.client
        return Ownership(wanted.domain, known.owner, known.generation)

    def _issue(self, wanted: Issue, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        if known is None:
            return Refusal("unknown-domain")
        place = (wanted.destination, wanted.slot)
        refusal = self._hindrance(wanted, known, place, context)
        if refusal is not None:
            return refusal
        expires_ms = context.time_ms + wanted.lifetime_ms
        self._issued += 1
        known.ticket = Ticket(wanted.domain, known.owner, *place, known.generation, self._issued, expires_ms)
        self._slots[place] = wanted.domain
        return known.ticket

    def _hindrance(self, wanted: Issue, known: _Domain, place: tuple[str, int], context: Context) -> Refusal | None:
        """Say why a ticket cannot be issued, if so."""
        if known.owner != context.client:
            return Refusal("not-owner")
        if known.generation != wanted.generation:
            return Refusal("generation")
        if wanted.destination == context.client:
            return Refusal("same-host")
        held = self._open(wanted.domain, context)
        if held is not None:
            return Refusal("domain-busy", held.token)
        holder = self._open(self._slots[place], context) if place in self._slots else None
        return None if holder is None else Refusal("slot-busy", holder.token)

    def _consume(self, wanted: Consume, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        ticket = None if known is None else known.ticket
        if known is None or ticket is None or ticket.token != wanted.token:
            return Refusal("no-ticket")
        if ticket.destination != context.client:
            return Refusal("not-destination", ticket.token)
        if self._open(wanted.domain, context) is None:
            return Refusal("expired", wanted.token)
        self._close(known, ticket)
        known.owner = ticket.destination
        known.generation += 1
        return Ownership(wanted.domain, known.owner, known.generation)

    def _cancel(self, wanted: Cancel, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        ticket = None if known is None else known.ticket
        if known is None or ticket is None or ticket.token != wanted.token:
            return Refusal("no-ticket")
        if context.client not in {ticket.source, ticket.destination}:
            return Refusal("not-party", ticket.token)
        self._close(known, ticket)
        return Ownership(wanted.domain, known.owner, known.generation)

    def _release(self, wanted: Release, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        if known is None:
            return Refusal("unknown-domain")
        if known.owner != context.client:
            return Refusal("not-owner")
        held = self._open(wanted.domain, context)
        if held is not None:
            return Refusal("domain-busy", held.token)
        known.owner = NOBODY
        known.generation += 1
        return Ownership(wanted.domain, known.owner, known.generation)

    def _open(self, domain: str, context: Context) -> Ticket | None:
        """Find a domain's ticket; take it away if it has expired."""
        known = self._domains[domain]
        ticket = known.ticket
        if ticket is not None and context.time_ms >= ticket.expires_ms:
            self._close(known, ticket)
            return None
        return ticket

    def _close(self, known: _Domain, ticket: Ticket) -> None:
        known.ticket = None
        self._slots.pop((ticket.destination, ticket.slot), None)
