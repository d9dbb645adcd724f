"""Tickets: one owner, one ticket, one slot, one use; the same answer on every replica."""

import copy
import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dwcp_migrate.consensus.pbft.core import Context
from dwcp_migrate.consensus.tickets import machine
from dwcp_migrate.consensus.tickets.machine import BEGIN_MS_MAX, Tickets
from dwcp_migrate.consensus.tickets.operations import (
    LIFETIME_MS_MAX,
    NO_SLOT,
    Assign,
    BeginTicket,
    Cancel,
    Consume,
    FailTicket,
    Forget,
    Issue,
    Operation,
    Ownership,
    ProposeTicket,
    Refusal,
    Register,
    Release,
    Result,
    ResumeTicket,
    Ticket,
    decode_result,
    encode_operation,
)
from dwcp_migrate.refusals import BY_PBFT_GROUP

D0, D1, D2 = (f"00000000-0000-4000-8000-00000000000{at}" for at in range(3))


class Group:
    """One copy of the state machine and a clock."""

    def __init__(self) -> None:
        self.tickets = Tickets()
        self.sequence = 0
        self.time_ms = 1000

    def do(self, client: str, operation: Operation) -> Result:
        """Have an operation executed; the client `op` is an operator."""
        self.sequence += 1
        context = Context(client, self.sequence, self.time_ms, client == "op")
        return decode_result(self.tickets.apply(encode_operation(operation), context))


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
    assert code in BY_PBFT_GROUP
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
        encode_operation(Issue(D0, "b", 256, 0, 1)),
        encode_operation(Issue(D0, "b", 0, 0, LIFETIME_MS_MAX + 1)),
        encode_operation(Issue(D0, "b", 0, 0, 0)),
        b"\x92\xa8register\xd9\x24" + b"\xff" * 36,
    ],
)
def test_what_is_no_operation_is_answered_not_raised(group: Group, data: bytes) -> None:
    assert decode_result(group.tickets.apply(data, Context("a", 9, 1000))) == Refusal("malformed")


def test_limits_hold_at_their_value(group: Group) -> None:
    assert isinstance(group.do("a", Issue(D0, "b", 255, 0, LIFETIME_MS_MAX)), Ticket)


def test_the_number_of_domains_has_an_end(monkeypatch: pytest.MonkeyPatch, group: Group) -> None:
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


# --- tickets that their destination begins

NEW = D2[:-1] + "9"
DAY_MS = 24 * 3600 * 1000


def issued(answer: Result) -> Ticket:
    assert isinstance(answer, Ticket), answer
    return answer


def test_one_decision_takes_a_domain_in_and_permits_its_move(group: Group) -> None:
    ticket = group.do("c", ProposeTicket(NEW, "b", 100))
    assert ticket == Ticket(NEW, "c", "b", NO_SLOT, 0, 1, 1100)
    assert group.do("b", BeginTicket(NEW, 1)) == ticket
    assert group.do("b", BeginTicket(NEW, 1)) == ticket
    assert group.do("b", ResumeTicket(NEW, 1)) == Ownership(NEW, "b", 1)
    assert group.do("b", ResumeTicket(NEW, 1)) == Refusal("no-ticket")
    assert issued(group.do("b", ProposeTicket(NEW, "c", 100))).generation == 1


def test_a_source_may_replace_a_ticket_until_it_is_begun_and_the_first_one_is_void(group: Group) -> None:
    group.do("a", ProposeTicket(D0, "b", 100))
    assert issued(group.do("a", ProposeTicket(D0, "c", 100))).token == 2
    assert group.do("b", BeginTicket(D0, 1)) == Refusal("no-ticket")
    group.do("c", BeginTicket(D0, 2))
    assert group.do("a", ProposeTicket(D0, "b", 100)) == Refusal("domain-busy", 2)
    assert group.do("a", FailTicket(D0, 2)) == Refusal("begun", 2)
    assert group.do("a", Cancel(D0, 2)) == Refusal("begun", 2)
    assert group.do("a", Forget(D0)) == Refusal("domain-busy", 2)
    assert group.do("c", FailTicket(D0, 2)) == Ownership(D0, "a", 0)
    assert issued(group.do("a", ProposeTicket(D0, "b", 100))).token == 3


def test_a_ticket_of_the_first_release_is_begun_like_any_other(group: Group) -> None:
    group.do("a", Issue(D0, "b", 0, 0, 100))
    group.do("b", BeginTicket(D0, 1))
    assert group.do("a", Cancel(D0, 1)) == Refusal("begun", 1)
    assert group.do("b", Consume(D0, 1)) == Ownership(D0, "b", 1)
    assert isinstance(group.do("a", Issue(D1, "b", 0, 0, 100)), Ticket)  # its slot is free again


def test_a_ticket_that_nobody_begins_is_void_after_minutes_whatever_its_life(group: Group) -> None:
    group.do("a", ProposeTicket(D0, "b", DAY_MS))
    group.time_ms += BEGIN_MS_MAX
    assert group.do("b", BeginTicket(D0, 1)) == Refusal("expired", 1)
    group.do("a", ProposeTicket(D0, "b", DAY_MS))
    group.time_ms += BEGIN_MS_MAX - 1
    group.do("b", BeginTicket(D0, 2))
    group.time_ms += DAY_MS // 2
    assert group.do("a", ProposeTicket(D0, "c", 100)) == Refusal("domain-busy", 2)


def test_a_move_that_is_told_days_late_still_counts(group: Group) -> None:
    group.do("a", ProposeTicket(D0, "b", 100))
    group.do("b", BeginTicket(D0, 1))
    group.time_ms += 2 * DAY_MS
    assert group.do("b", ResumeTicket(D0, 1)) == Ownership(D0, "b", 1)


def test_a_move_that_is_never_told_is_told_by_the_next_one(group: Group) -> None:
    group.do("a", ProposeTicket(D0, "b", 100))
    group.do("b", BeginTicket(D0, 1))
    group.time_ms += 2 * DAY_MS
    assert issued(group.do("b", ProposeTicket(D0, "c", 100))).generation == 1
    assert group.tickets.ownership(D0) == Ownership(D0, "b", 1)


def test_after_its_end_a_ticket_that_was_begun_wedges_nothing(group: Group) -> None:
    """The destination burnt down in the middle; the guest ran on at its source all the time."""
    group.do("a", ProposeTicket(D0, "b", 100))
    group.do("b", BeginTicket(D0, 1))
    group.time_ms += 100
    assert issued(group.do("a", ProposeTicket(D0, "c", 100))).token == 2
    assert group.do("b", ResumeTicket(D0, 1)) == Refusal("no-ticket")
    group.time_ms += 100
    assert group.do("a", FailTicket(D0, 2)) == Ownership(D0, "a", 0)


def test_a_domain_that_left_otherwise_is_forgotten_row_and_all(group: Group) -> None:
    assert group.do("b", Forget(D0)) == Refusal("not-owner")
    assert group.do("a", Forget(D0)) == Ownership(D0, "", 0)
    assert group.tickets.ownership(D0) is None
    assert group.do("a", Forget(D0)) == Refusal("unknown-domain")
    assert issued(group.do("b", ProposeTicket(D0, "c", 100))).source == "b"


def test_an_operator_says_who_runs_a_domain_when_a_host_is_gone(group: Group) -> None:
    group.do("a", ProposeTicket(D0, "b", DAY_MS))
    group.do("b", BeginTicket(D0, 1))
    assert group.do("a", Assign(D0, "c")) == Refusal("not-operator")
    assert group.do("op", Assign(NEW, "c")) == Refusal("unknown-domain")
    assert group.do("op", Assign(D0, "c")) == Ownership(D0, "c", 1)
    assert group.do("b", ResumeTicket(D0, 1)) == Refusal("no-ticket")
    assert issued(group.do("c", ProposeTicket(D0, "a", 100))).generation == 1
    assert group.do("op", Assign(D0, "")) == Ownership(D0, "", 2)
    assert group.tickets.ownership(D0) is None


@pytest.mark.parametrize(
    ("client", "operation", "code"),
    [
        ("a", ProposeTicket(D0, "a", 100), "same-host"),
        ("b", ProposeTicket(D0, "c", 100), "not-owner"),
        ("c", BeginTicket(D1, 1), "not-destination"),
        ("b", BeginTicket(D1, 2), "no-ticket"),
        ("b", BeginTicket(NEW, 1), "no-ticket"),
        ("c", ResumeTicket(D1, 1), "not-destination"),
        ("b", ResumeTicket(D1, 2), "no-ticket"),
        ("c", FailTicket(D1, 1), "not-party"),
        ("b", FailTicket(D1, 2), "no-ticket"),
        ("a", Forget(D1), "domain-busy"),
    ],
)
def test_what_is_refused_changes_nothing(group: Group, client: str, operation: Operation, code: str) -> None:
    group.do("a", ProposeTicket(D1, "b", 100))
    before = group.tickets.snapshot()
    answer = group.do(client, operation)
    assert isinstance(answer, Refusal)
    assert answer.code == code
    assert code in BY_PBFT_GROUP
    assert group.tickets.snapshot() == before


def test_a_host_that_takes_more_than_its_share_loses_its_own_oldest(
    monkeypatch: pytest.MonkeyPatch, group: Group
) -> None:
    monkeypatch.setattr(machine, "OWNED_MAX", 2)
    names = [D2[:-1] + digit for digit in "789"]
    for name in names[:2]:
        group.do("m", ProposeTicket(name, "b", BEGIN_MS_MAX))
    assert group.do("m", ProposeTicket(names[2], "b", 100)) == Refusal("full")  # both are on their way
    group.time_ms += BEGIN_MS_MAX
    for name in names[:2]:
        group.do("m", Forget(name))
        group.do("m", Register(name))
    group.do("m", ProposeTicket(names[1], "b", 100))
    assert issued(group.do("m", ProposeTicket(names[2], "b", 100)))
    assert group.tickets.ownership(names[0]) is None
    assert group.tickets.ownership(D0) == Ownership(D0, "a", 0)
    assert issued(group.do("a", ProposeTicket(D0, "b", 100)))


FIRST_RELEASE: list[tuple[str, Operation, int]] = [
    ("a", Register(D0), 1000),
    ("a", Register(D1), 1000),
    ("b", Register(D2), 1001),
    ("c", Register(D0), 1002),
    ("a", Issue(D0, "b", 0, 0, 100), 1010),
    ("a", Issue(D0, "c", 1, 0, 100), 1011),
    ("b", Issue(D2, "c", 0, 0, 100), 1012),
    ("a", Cancel(D0, 1), 1020),
    ("a", Issue(D0, "b", 0, 0, 100), 1030),
    ("b", Consume(D0, 3), 1040),
    ("b", Register(D0), 1050),
    ("b", Release(D0), 1060),
    ("c", Register(D0), 1070),
    ("a", Issue(D1, "b", 255, 0, 50), 1080),
    ("b", Consume(D1, 4), 1130),
    ("a", Release(D1), 1140),
    ("a", Cancel(D1, 4), 1150),
    ("a", Issue(D0[:-1] + "3", "b", 0, 0, 9), 1160),
]


def test_what_release_0_1_0_decided_comes_to_the_same_bytes_here() -> None:
    """Answers and states, after each operation: a replica that replays its journal must not differ from the others."""
    tickets, said = Tickets(), hashlib.blake2b(digest_size=16)
    for sequence, (client, operation, time_ms) in enumerate(FIRST_RELEASE, 1):
        said.update(tickets.apply(encode_operation(operation), Context(client, sequence, time_ms)))
        said.update(tickets.snapshot())
    asked = hashlib.blake2b(b"".join(encode_operation(operation) for _, operation, _ in FIRST_RELEASE), digest_size=16)
    assert asked.hexdigest() == "8a00f71c6bdfed20badfffda56290d16"
    assert said.hexdigest() == "df62562e9d05774444106d70926c2cec"


CLIENTS = st.sampled_from("abc")
DOMAINS = st.sampled_from((D0, D1, D2))


class AnyOrder(RuleBasedStateMachine):
    """Whatever is asked in whatever order: the rules hold, and a copy restored from a snapshot answers alike."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group()
        self.moves: dict[str, int] = {}
        self.begun: dict[str, Ticket] = {}

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

    @rule(client=CLIENTS, domain=DOMAINS, to=CLIENTS)
    def propose(self, client: str, domain: str, to: str) -> None:
        before = self.group.tickets.ownership(domain)
        answer = self.do(client, ProposeTicket(domain, to, 50))
        if isinstance(answer, Ticket):
            begun = self.begun.pop(domain, None)
            if begun is not None and begun.source != client:  # its destination says with it that it runs there
                assert (begun.destination, answer.generation) == (client, begun.generation + 1)
            elif begun is not None:
                assert self.group.time_ms >= begun.expires_ms
            assert before is None or before.generation <= answer.generation
            self.moves[domain] = answer.generation

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def begin(self, client: str, domain: str, token: int) -> None:
        answer = self.do(client, BeginTicket(domain, token))
        if isinstance(answer, Ticket):
            known = self.begun.setdefault(domain, answer)
            assert known == answer, "two tickets of a domain are begun"

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def fail(self, client: str, domain: str, token: int) -> None:
        answer = self.do(client, FailTicket(domain, token))
        if isinstance(answer, Ownership):
            begun = self.begun.pop(domain, None)
            assert begun is None or begun.destination == client or self.group.time_ms >= begun.expires_ms

    @rule(client=CLIENTS, domain=DOMAINS)
    def forget(self, client: str, domain: str) -> None:
        if isinstance(self.do(client, Forget(domain)), Ownership):
            begun = self.begun.pop(domain, None)
            assert begun is None or self.group.time_ms >= begun.expires_ms
            self.moves.pop(domain, None)

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def resume(self, client: str, domain: str, token: int) -> None:
        answer = self.do(client, ResumeTicket(domain, token))
        if isinstance(answer, Ownership):
            self.moves[domain] = self.moves.get(domain, 0) + 1
            assert answer == Ownership(domain, client, self.moves[domain])
            self.begun.pop(domain, None)

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def consume(self, client: str, domain: str, token: int) -> None:
        answer = self.do(client, Consume(domain, token))
        if isinstance(answer, Ownership):
            self.moves[domain] = self.moves.get(domain, 0) + 1
            assert answer == Ownership(domain, client, self.moves[domain])
            self.begun.pop(domain, None)

    @rule(client=CLIENTS, domain=DOMAINS, token=st.integers(1, 6))
    def cancel(self, client: str, domain: str, token: int) -> None:
        if isinstance(self.do(client, Cancel(domain, token)), Ownership):
            self.begun.pop(domain, None)

    @rule(ms=st.integers(1, 60))
    def wait(self, ms: int) -> None:
        self.group.time_ms += ms

    @invariant()
    def no_slot_is_held_twice(self) -> None:
        domains: dict[str, Any] = self.group.tickets._domains
        tickets = [d.ticket for d in domains.values() if d.ticket is not None and d.ticket.slot != NO_SLOT]
        held = [(ticket.destination, ticket.slot) for ticket in tickets]
        assert len(set(held)) == len(held)
        assert set(self.group.tickets._slots) == set(held)

    @invariant()
    def rows_are_counted_by_owner(self) -> None:
        domains: dict[str, Any] = self.group.tickets._domains
        assert self.group.tickets._owned == Counter(row.owner for row in domains.values())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
