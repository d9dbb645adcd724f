"""Migration tickets as a replicated state machine: the owner of each domain, and the one migration that it may make.

Rule: a domain has one owner, a generation that grows by one with each move, and at most one ticket. The destination
begins a ticket before bytes flow. Until then its source may replace or fail it; from then on only its destination can
end it, or its expiry, so that no two tickets of a generation are ever begun. A begun ticket that expired still lets its
destination take the domain over, until the source asks for another: a late message never blocks a domain.

    Propose ->  ticket                       by the source, for a domain that it owns or that nobody does
    Begin   ->  ticket                       by the destination, before bytes flow
    Resume  ->  owner and generation + 1     by the destination, where the guest runs now; also said by its next Propose
    Fail    ->  nothing changed              by the destination; by the source as long as nothing is begun
    Forget  ->  nobody's                     by the owner: the domain left by a move that others decided
    Assign  ->  owner                        by an operator, when a host is gone for good

The clock is the group's (`Context.time_ms`). An expired ticket counts as none. Tickets are numbered as they are issued:
the number is the fencing token. The operations of release 0.1.0 keep their meaning: journals contain them.
"""

from collections import Counter as Tally
from typing import Final

import msgspec

from dwcp_migrate.consensus.pbft.core import Context
from dwcp_migrate.consensus.pbft.model.messages import encode_body
from dwcp_migrate.consensus.tickets.operations import (
    NO_SLOT,
    NOBODY,
    Assign,
    BeginTicket,
    Cancel,
    Consume,
    FailTicket,
    Forget,
    Issue,
    Ownership,
    ProposeTicket,
    Refusal,
    Register,
    Release,
    Result,
    ResumeTicket,
    Ticket,
    decode_operation,
)

DOMAINS_MAX: Final = 65536
"""Domains of a fleet; the state is 12 MiB then."""
OWNED_MAX: Final = 1024
"""Domains of one owner; past that its oldest one that is not on its way is forgotten."""
BEGIN_MS_MAX: Final = 5 * 60 * 1000
"""A ticket that is not begun by then is void."""


class _Domain(msgspec.Struct, array_like=True):
    """Known facts of a domain.

    Attributes:
        begun: its destination began the ticket.
        begin_by_ms: a ticket that is not begun is void from then on; 0 for one of `Issue`.
        touched: place in the group's order of its last ticket by `Propose`.
    """

    owner: str
    generation: int
    ticket: Ticket | None = None
    begun: bool = False
    begin_by_ms: int = 0
    touched: int = 0

    @property
    def row(self) -> tuple[object, ...]:
        """Its row in a snapshot; as in release 0.1.0 where it holds nothing that is newer."""
        row = self.owner, self.generation, self.ticket
        return row if not self.touched and not self.begun else (*row, self.begun, self.begin_by_ms, self.touched)


class _State(msgspec.Struct, array_like=True):
    domains: dict[str, _Domain]
    issued: int


_state = msgspec.msgpack.Decoder(_State)


class Tickets:
    """The application: give it to a `PbftReplica`."""

    def __init__(self) -> None:
        self._domains: dict[str, _Domain] = {}
        self._owned: Tally[str] = Tally()
        self._slots: dict[tuple[str, int], str] = {}
        self._issued = 0

    def apply(self, operation: bytes, context: Context) -> bytes:
        """See `Application`; an operation that cannot be read is refused as `malformed`."""
        wanted = decode_operation(operation)
        if wanted is None:
            return encode_body(Refusal("malformed"))
        result: Result
        match wanted:
            case ProposeTicket():
                result = self._propose(wanted, context)
            case BeginTicket():
                result = self._begin(wanted, context)
            case ResumeTicket() | Consume():
                result = self._resume(wanted, context)
            case FailTicket() | Cancel():
                result = self._fail(wanted, context)
            case Forget() | Release():
                result = self._forget(wanted, context)
            case Assign():
                result = self._assign(wanted, context)
            case Register():
                result = self._register(wanted, context)
            case Issue():
                result = self._issue(wanted, context)
        return encode_body(result)

    def snapshot(self) -> bytes:
        """Encode the state; see `Application`."""
        return encode_body(({name: self._domains[name].row for name in sorted(self._domains)}, self._issued))

    def restore(self, data: bytes) -> None:
        """Replace the state; see `Application`."""
        state = _state.decode(data)
        self._domains, self._issued = state.domains, state.issued
        self._owned = Tally(domain.owner for domain in self._domains.values())
        tickets = (domain.ticket for domain in self._domains.values())
        self._slots = {
            (ticket.destination, ticket.slot): ticket.domain
            for ticket in tickets
            if ticket is not None and ticket.slot != NO_SLOT
        }

    def ownership(self, domain: str) -> Ownership | None:
        """Find the owner of a domain, as far as this replica has executed."""
        known = self._domains.get(domain)
        return None if known is None else Ownership(domain, known.owner, known.generation)

    # --- tickets

    def _propose(self, wanted: ProposeTicket, context: Context) -> Result:
        if wanted.destination == context.client:
            return Refusal("same-host")
        known = self._domains.get(wanted.domain)
        if known is not None and known.begun and self._is_destination(known, context.client):
            self._move(wanted.domain, known)  # the guest runs here: its last move was not reported yet
        if known is None:
            known = self._take_in(wanted.domain, context.client)
            if known is None:
                return Refusal("full")
        if known.owner not in {NOBODY, context.client}:
            return Refusal("not-owner")
        held = self._open(wanted.domain, context)
        if held is not None and known.begun:
            return Refusal("domain-busy", held.token)
        self._close(known)
        self._set_owner(known, context.client)
        expires_ms = context.time_ms + wanted.lifetime_ms
        ticket = self._ticket(known, wanted.domain, wanted.destination, NO_SLOT, expires_ms)
        known.begin_by_ms = min(expires_ms, context.time_ms + BEGIN_MS_MAX)
        known.touched = context.sequence
        return ticket

    def _begin(self, wanted: BeginTicket, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        ticket = None if known is None else known.ticket
        if known is None or ticket is None or ticket.token != wanted.token:
            return Refusal("no-ticket")
        if ticket.destination != context.client:
            return Refusal("not-destination", ticket.token)
        if self._open(wanted.domain, context) is None:
            return Refusal("expired", wanted.token)
        known.begun = True
        return ticket

    def _resume(self, wanted: ResumeTicket | Consume, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        ticket = None if known is None else known.ticket
        if known is None or ticket is None or ticket.token != wanted.token:
            return Refusal("no-ticket")
        if ticket.destination != context.client:
            return Refusal("not-destination", ticket.token)
        if not known.begun and self._open(wanted.domain, context) is None:
            return Refusal("expired", wanted.token)
        return self._move(wanted.domain, known)

    def _fail(self, wanted: FailTicket | Cancel, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        ticket = None if known is None else known.ticket
        if known is None or ticket is None or ticket.token != wanted.token:
            return Refusal("no-ticket")
        if context.client not in {ticket.source, ticket.destination}:
            return Refusal("not-party", ticket.token)
        if known.begun and context.client == ticket.source and self._open(wanted.domain, context) is not None:
            return Refusal("begun", ticket.token)
        self._close(known)
        return Ownership(wanted.domain, known.owner, known.generation)

    def _forget(self, wanted: Forget | Release, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        if known is None:
            return Refusal("unknown-domain")
        if known.owner != context.client:
            return Refusal("not-owner")
        held = self._open(wanted.domain, context)
        if held is not None:
            return Refusal("domain-busy", held.token)
        if isinstance(wanted, Forget):
            self._drop(wanted.domain, known)
            return Ownership(wanted.domain, NOBODY, known.generation)
        self._close(known)
        self._set_owner(known, NOBODY)
        known.generation += 1
        return Ownership(wanted.domain, known.owner, known.generation)

    def _assign(self, wanted: Assign, context: Context) -> Result:
        if not context.is_operator:
            return Refusal("not-operator")
        known = self._domains.get(wanted.domain)
        if known is None:
            return Refusal("unknown-domain")
        self._close(known)
        known.generation += 1
        if wanted.owner == NOBODY:
            self._drop(wanted.domain, known)
        else:
            self._set_owner(known, wanted.owner)
        return Ownership(wanted.domain, wanted.owner, known.generation)

    def _register(self, wanted: Register, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        if known is None:
            known = self._take_in(wanted.domain, context.client)
            if known is None:
                return Refusal("full")
        if known.owner not in {NOBODY, context.client}:
            return Refusal("not-owner")
        self._set_owner(known, context.client)
        return Ownership(wanted.domain, known.owner, known.generation)

    def _issue(self, wanted: Issue, context: Context) -> Result:
        known = self._domains.get(wanted.domain)
        if known is None:
            return Refusal("unknown-domain")
        place = (wanted.destination, wanted.slot)
        refusal = self._hindrance(wanted, known, place, context)
        if refusal is not None:
            return refusal
        self._close(known)
        self._slots[place] = wanted.domain
        return self._ticket(known, wanted.domain, *place, context.time_ms + wanted.lifetime_ms)

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

    # --- rows

    def _ticket(self, known: _Domain, domain: str, destination: str, slot: int, expires_ms: int) -> Ticket:
        self._issued += 1
        ticket = Ticket(domain, known.owner, destination, slot, known.generation, self._issued, expires_ms)
        known.ticket = ticket
        return ticket

    def _take_in(self, domain: str, owner: str) -> _Domain | None:
        """Make a row, at the cost of the owner's oldest one if need be; None if there is no room."""
        if self._owned[owner] >= OWNED_MAX:
            idle = [(row.touched, name) for name, row in self._domains.items() if row.owner == owner and not row.ticket]
            if not idle:
                return None
            self._drop(min(idle)[1], self._domains[min(idle)[1]])
        if len(self._domains) >= DOMAINS_MAX:
            return None
        known = self._domains[domain] = _Domain(owner, 0)
        self._owned[owner] += 1
        return known

    def _drop(self, domain: str, known: _Domain) -> None:
        self._close(known)
        self._set_owner(known, NOBODY)
        del self._domains[domain]
        self._owned[NOBODY] -= 1

    def _set_owner(self, known: _Domain, owner: str) -> None:
        self._owned[known.owner] -= 1
        self._owned[owner] += 1
        known.owner = owner

    def _is_destination(self, known: _Domain, client: str) -> bool:
        return known.ticket is not None and known.ticket.destination == client

    def _move(self, domain: str, known: _Domain) -> Ownership:
        """Give a domain to its ticket's destination."""
        assert known.ticket is not None, "callers checked it"
        self._set_owner(known, known.ticket.destination)
        self._close(known)
        known.generation += 1
        return Ownership(domain, known.owner, known.generation)

    def _open(self, domain: str, context: Context) -> Ticket | None:
        """Find a domain's ticket; an expired one counts as none, and is taken away unless it was begun."""
        known = self._domains[domain]
        ticket = known.ticket
        if ticket is None:
            return None
        is_late = not known.begun and known.begin_by_ms and context.time_ms >= known.begin_by_ms
        if context.time_ms < ticket.expires_ms and not is_late:
            return ticket
        if not known.begun:
            self._close(known)
        return None

    def _close(self, known: _Domain) -> None:
        ticket, known.ticket = known.ticket, None
        known.begun, known.begin_by_ms = False, 0
        if ticket is not None and ticket.slot != NO_SLOT:
            self._slots.pop((ticket.destination, ticket.slot), None)
