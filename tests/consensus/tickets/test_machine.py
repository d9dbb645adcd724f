"""Tickets: one owner, one ticket, one slot, one use; the same answer on every replica."""

import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dwcp_migrate.consensus.pbft.core import Context
from dwcp_migrate.consensus.tickets.machine import (
    LIFETIME_MS_MAX,
    REFUSALS,
    Cancel,
    Consume,
    Issue,
    Operation,
    Ownership,
    Refusal,
    Register,
    Release,
    Result,
    Ticket,
    Tickets,
    decode_result,
    encode,
)

D0, D1, D2 = (f"00000000-0000-4000-8000-00000000000{at}" for at in range(3))


class Group:
    """One copy of the state machine and a clock."""

    def __init__(self) -> None:
        self.tickets = Tickets()
        self.sequence = 0
        self.time_ms = 1000

    def do(self, client: str, operation: Operation) -> Result:
        self.sequence += 1
        return decode_result(self.tickets.apply(encode(operation), Context(client, self.sequence, self.time_ms)))


@pytest.fixture
def group() -> Group:
    group = Group()
    for client, domain in (("a", D0), ("a", D1), ("b", D2)):
        group.do(client, Register(domain))
    return group


def test_a_migration_moves_the_domain_once(group: Group) -> None:
    ticket = group.do("a", Issue(D0, "b", 0, 0, 100))
    assert ticket == Ticket(D0, "a", "b", 0, 0, 1, 1100)
    assert group.do("b", Consume(D0, 1)) == Ownership(D0, "b", 1)
    assert group.do("b", Consume(D0, 1)) == Refusal("no-ticket")
    assert group.do("b", Issue(D0, "a", 0, 1, 100)) == Ticket(D0, "b", "a", 0, 1, 2, 1100)


def test_of_two_tickets_for_one_domain_the_first_in_order_wins(group: Group) -> None:
    assert isinstance(group.do("a", Issue(D0, "b", 0, 0, 100)), Ticket)
    assert group.do("a", Issue(D0, "c", 0, 0, 100)) == Refusal("domain-busy", 1)


def test_of_two_tickets_for_one_slot_the_first_in_order_wins(group: Group) -> None:
    assert isinstance(group.do("a", Issue(D0, "c", 3, 0, 100)), Ticket)
    assert group.do("b", Issue(D2, "c", 3, 0, 100)) == Refusal("slot-busy", 1)
    assert isinstance(group.do("b", Issue(D2, "c", 4, 0, 100)), Ticket)


def test_an_expired_ticket_stands_in_nobodys_way_and_opens_nothing(group: Group) -> None:
    group.do("a", Issue(D0, "c", 0, 0, 100))
    group.time_ms = 1099
    assert group.do("b", Issue(D2, "c", 0, 0, 100)) == Refusal("slot-busy", 1)
    group.time_ms = 1100
    assert group.do("c", Consume(D0, 1)) == Refusal("expired", 1)
    assert isinstance(group.do("b", Issue(D2, "c", 0, 0, 100)), Ticket)
    assert isinstance(group.do("a", Issue(D0, "c", 1, 0, 100)), Ticket)


def test_a_ticket_of_an_earlier_generation_is_refused(group: Group) -> None:
    group.do("a", Issue(D0, "b", 0, 0, 100))
    group.do("b", Consume(D0, 1))
    assert group.do("b", Issue(D0, "a", 0, 0, 100)) == Refusal("generation")


@pytest.mark.parametrize(
    ("client", "operation", "code"),
    [
        ("b", Issue(D0, "c", 0, 0, 100), "not-owner"),
        ("a", Issue(D0, "a", 0, 0, 100), "same-host"),
        ("a", Issue(D2[:-1] + "9", "b", 0, 0, 100), "unknown-domain"),
        ("b", Register(D0), "not-owner"),
        ("b", Consume(D0, 1), "no-ticket"),
        ("c", Consume(D1, 1), "not-destination"),
        ("b", Consume(D1, 2), "no-ticket"),
        ("c", Cancel(D1, 1), "not-party"),
        ("a", Cancel(D1, 2), "no-ticket"),
    ],
)
def test_a_refusal_says_why_and_changes_nothing(group: Group, client: str, operation: Operation, code: str) -> None:
    group.do("a", Issue(D1, "b", 7, 0, 100))
    before = group.tickets.snapshot()
    answer = group.do(client, operation)
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert code in REFUSALS
    assert group.tickets.snapshot() == before


@pytest.mark.parametrize("client", ["a", "b"])
def test_either_end_may_cancel_and_the_domain_stays(group: Group, client: str) -> None:
    group.do("a", Issue(D0, "b", 0, 0, 100))
    assert group.do(client, Cancel(D0, 1)) == Ownership(D0, "a", 0)
    assert group.do("b", Consume(D0, 1)) == Refusal("no-ticket")
    assert isinstance(group.do("a", Issue(D0, "b", 0, 0, 100)), Ticket)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x92\xa8register\xa1x",
        encode(Issue(D0, "b", 256, 0, 1)),
        encode(Issue(D0, "b", 0, 0, LIFETIME_MS_MAX + 1)),
        encode(Issue(D0, "b", 0, 0, 0)),
        b"\x92\xa8register\xd9\x24" + b"\xff" * 36,
    ],
)
def test_what_is_no_operation_is_answered_not_raised(group: Group, data: bytes) -> None:
    assert decode_result(group.tickets.apply(data, Context("a", 9, 1000))) == Refusal("malformed")


def test_limits_hold_at_their_value(group: Group) -> None:
    assert isinstance(group.do("a", Issue(D0, "b", 255, 0, LIFETIME_MS_MAX)), Ticket)


def test_the_number_of_domains_has_an_end(monkeypatch: pytest.MonkeyPatch, group: Group) -> None:
    from dwcp_migrate.consensus.tickets import machine

    monkeypatch.setattr(machine, "DOMAINS_MAX", 4)
    assert isinstance(group.do("c", Register(D2[:-1] + "8")), Ownership)
    assert group.do("c", Register(D2[:-1] + "9")) == Refusal("full")
    assert isinstance(group.do("a", Register(D0)), Ownership)


def test_a_domain_that_its_owner_released_is_whoever_runs_it(group: Group) -> None:
    domain = "00000000-0000-4000-8000-000000000009"
    assert group.do("a", Release(domain)) == Refusal("unknown-domain")
    before = group.do("a", Register(domain))
    assert isinstance(before, Ownership)
    assert group.do("b", Release(domain)) == Refusal("not-owner")
    assert group.do("a", Release(domain)) == Ownership(domain, "", before.generation + 1)
    assert group.do("a", Release(domain)) == Refusal("not-owner")
    assert group.do("b", Register(domain)) == Ownership(domain, "b", before.generation + 1)
    ticket = group.do("b", Issue(domain, "a", 0, before.generation + 1, 1000))
    assert isinstance(ticket, Ticket)
    assert group.do("b", Release(domain)) == Refusal("domain-busy", ticket.token)


def test_ownership_is_told(group: Group) -> None:
    assert group.tickets.ownership(D0) == Ownership(D0, "a", 0)
    assert group.tickets.ownership("nothing") is None


CLIENTS = st.sampled_from("abc")
DOMAINS = st.sampled_from((D0, D1, D2))


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked in whatever order: the rules hold, and a copy restored from a snapshot answers alike."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group()
        self.moves: dict[str, int] = {}

    def do(self, client: str, operation: Operation) -> Result:
        copied = Tickets()
        copied.restore(self.group.tickets.snapshot())
        twin = copy.copy(self.group)
        twin.tickets = copied
        expected = twin.do(client, operation)
        answer = self.group.do(client, operation)
        assert answer == expected
        assert copied.snapshot() == self.group.tickets.snapshot()
        return answer

    @rule(client=CLIENTS, domain=DOMAINS)
    def register(self, client: str, domain: str) -> None:
        self.do(client, Register(domain))

    @rule(client=CLIENTS, domain=DOMAINS, to=CLIENTS, slot=st.integers(0, 1), generation=st.integers(0, 2))
    def issue(self, client: str, domain: str, to: str, slot: int, generation: int) -> None:
        answer = self.do(client, Issue(domain, to, slot, generation, 50))
        if isinstance(answer, Ticket):
            assert answer.generation == self.moves.get(domain, 0)

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def consume(self, client: str, domain: str, token: int) -> None:
        answer = self.do(client, Consume(domain, token))
        if isinstance(answer, Ownership):
            self.moves[domain] = self.moves.get(domain, 0) + 1
            assert answer == Ownership(domain, client, self.moves[domain])

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def cancel(self, client: str, domain: str, token: int) -> None:
        self.do(client, Cancel(domain, token))

    @rule(ms=st.integers(1, 60))
    def wait(self, ms: int) -> None:
        self.group.time_ms += ms

    @invariant()
    def no_slot_is_held_twice(self) -> None:
        domains: dict[str, Any] = self.group.tickets._domains
        held = [(d.ticket.destination, d.ticket.slot) for d in domains.values() if d.ticket is not None]
        assert len(set(held)) == len(held)
        assert set(self.group.tickets._slots) == set(held)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True)
