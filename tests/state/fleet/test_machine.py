"""The fleet's state machine: hosts, domains, tickets, leases, reservations, and the table of outcomes."""

import pytest
from msgspec.structs import replace

from dwcp_migrate.refusals import BY_CLUSTER_STATE
from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import (
    REQUEST_WINDOW,
    DomainRecord,
    FleetState,
    HostRecord,
    Limits,
    RuleRecord,
    Ticket,
    TicketOutcome,
)
from tests.state.fleets import UUID, World


def test_a_migration_moves_ownership_once_at_the_resume() -> None:
    world = World()
    ticket = world.propose()
    assert ticket.code == ""
    before = world.fleet.domains[UUID]
    assert world.does("b", do.Begin(token=ticket.token)).code == ""
    assert world.owner() == "a"
    assert world.does("b", do.Resume(token=ticket.token)).code == ""
    assert world.fleet.domains[UUID] == replace(before, owner="b", generation=before.generation + 1)
    assert world.does("b", do.Resume(token=ticket.token)) == TicketOutcome(token=ticket.token)
    assert world.fleet.domains[UUID].generation == before.generation + 1


def test_of_two_proposals_for_one_domain_the_first_wins() -> None:
    world = World()
    first = world.propose(destination="b")
    second = world.propose(destination="c")
    assert (first.code, second) == ("", TicketOutcome("busy", first.token))


def test_the_same_way_proposed_again_is_the_same_ticket() -> None:
    world = World()
    assert world.propose() == world.propose()
    assert len(world.fleet.open_tickets) == 1


def test_who_does_not_own_a_domain_cannot_send_it_away() -> None:
    world = World()
    world.does("a", do.PutDomain(uuid=UUID))
    assert world.propose("b", "c").code == "not-owner"
    assert world.does("b", do.PutDomain(uuid=UUID)).code == "not-owner"


def test_only_the_source_proposes() -> None:
    world = World()
    body = do.Propose(uuid=UUID, source="a", destination="b", lifetime_s=1)
    assert world.does("b", body).code == "stranger"


@pytest.mark.parametrize(("by", "code"), [("a", "stranger"), ("c", "stranger")])
def test_only_the_destination_begins_and_resumes(by: str, code: str) -> None:
    world = World()
    token = world.propose().token
    assert world.does(by, do.Begin(token=token)).code == code
    assert world.does(by, do.Resume(token=token)).code == code
    assert world.owner() == "a"


def test_once_bytes_flow_only_the_source_says_that_it_failed() -> None:
    world = World()
    token = world.propose().token
    world.does("b", do.Begin(token=token))
    assert world.does("b", do.Fail(token=token)).code == "stranger"
    assert world.does("a", do.Fail(token=token, reason="cancelled")).code == ""
    assert world.does("b", do.Resume(token=token)).code == "unknown-ticket"
    assert world.owner() == "a"
    assert world.does("a", do.Fail(token=token)).code == ""


def test_a_ticket_that_is_not_begun_in_time_is_void() -> None:
    world = World()
    token = world.propose(lifetime_s=10.0).token
    world.now += 10
    assert world.does("b", do.Begin(token=token)).code == "expired"
    assert world.does("b", do.Begin(token=token)).code == "expired"
    assert world.propose(destination="c").code == ""


def test_a_ticket_is_good_until_the_last_moment_and_does_not_expire_once_begun() -> None:
    world = World()
    token = world.propose(lifetime_s=10.0).token
    world.now += 9.99
    assert world.does("b", do.Begin(token=token)).code == ""
    world.now += 1e6
    assert world.propose(destination="c").code == "busy"
    assert world.does("b", do.Resume(token=token)).code == ""


def test_a_generation_of_the_past_is_refused() -> None:
    world = World()
    token = world.propose().token
    old = world.fleet.domains[UUID].generation
    world.does("b", do.Resume(token=token))
    assert world.propose("b", "a", generation=old).code == "generation"
    assert world.propose("b", "a", generation=old + 1).code == ""


def test_a_domain_that_was_forgotten_and_comes_back_has_a_generation_never_seen_before() -> None:
    world = World()
    token = world.propose().token
    world.does("b", do.Resume(token=token))
    before = world.fleet.domains[UUID].generation
    assert world.does("a", do.ForgetDomain(uuid=UUID)).code == "not-owner"
    assert world.does("b", do.ForgetDomain(uuid=UUID)).code == ""
    assert world.does("b", do.ForgetDomain(uuid=UUID)).code == "unknown-domain"
    world.does("a", do.PutDomain(uuid=UUID))
    assert world.fleet.domains[UUID].generation > before


@pytest.mark.parametrize(
    ("runs", "state", "owner"),
    [((True, False), "failed", "a"), ((False, True), "completed", "b"), ((False, False), "failed", "a")],
)
def test_libvirts_word_on_both_hosts_settles_a_ticket(runs: tuple[bool, bool], state: str, owner: str) -> None:
    world = World()
    token = world.propose().token
    world.does("b", do.Begin(token=token))
    body = do.Resolve(token=token, source_runs=runs[0], destination_runs=runs[1])
    assert world.does("c", body).code == "stranger"
    assert world.does("a", body).code == ""
    ended = world.fleet.ticket(token)
    assert ended is not None
    assert (ended.state, world.owner()) == (state, owner)


@pytest.mark.parametrize("known", [(None, None), (True, None), (None, True), (False, None), (None, False)])
def test_what_is_not_known_settles_nothing(known: tuple[bool | None, bool | None]) -> None:
    world = World()
    token = world.propose().token
    world.does("b", do.Begin(token=token))
    assert (
        world.does("b", do.Resolve(token=token, source_runs=known[0], destination_runs=known[1])).code == "unresolved"
    )
    assert world.fleet.open_tickets[UUID].state == "running"


def test_a_domain_that_runs_twice_stays_where_it_is_until_that_is_settled() -> None:
    world = World()
    token = world.propose().token
    world.does("b", do.Begin(token=token))
    world.does("a", do.Resolve(token=token, source_runs=True, destination_runs=True))
    assert world.propose(destination="c").code == "busy"
    assert world.propose().code == "busy"
    assert world.does("b", do.Resume(token=token)).code == "unresolved"
    assert world.does("a", do.Fail(token=token)).code == "unresolved"
    assert world.does("a", do.Resolve(token=token, source_runs=False, destination_runs=True)).code == ""
    assert world.owner() == "b"


def test_the_owner_may_give_away_what_went_without_a_ticket_and_nobody_else() -> None:
    world = World()
    world.does("a", do.PutDomain(uuid=UUID))
    generation = world.fleet.domains[UUID].generation
    assert world.does("b", do.HandOver(uuid=UUID, destination="b")).code == "not-owner"
    assert world.does("a", do.HandOver(uuid="other", destination="b")).code == "unknown-domain"
    assert world.does("a", do.HandOver(uuid=UUID, destination="nowhere")).code == "unknown-host"
    assert world.does("a", do.HandOver(uuid=UUID, destination="b")).code == ""
    assert (world.owner(), world.fleet.domains[UUID].generation) == ("b", generation + 1)
    token = world.propose("b", "c").token
    assert world.does("b", do.HandOver(uuid=UUID, destination="a")) == TicketOutcome("busy", token)


def test_across_trust_domains_a_certificate_has_to_come_along() -> None:
    world = World()
    world.does("b", do.PutHost(name="b", trust_domain="other"))
    assert world.propose().code == "certificate"
    token = world.propose(certificate=b"signed").token
    assert world.fleet.open_tickets[UUID].certificate == b"signed"
    assert token


def test_a_host_that_drains_gets_nothing_and_stays_draining_while_it_says_that_it_lives() -> None:
    world = World()
    world.does("a", do.SetHostState(name="b", state="draining"))
    world.does("b", do.PutHost(name="b"))
    assert world.propose().code == "draining"
    world.does("a", do.SetHostState(name="b", state="up"))
    assert world.propose().code == ""


def test_unknown_hosts_and_the_same_host_are_refused() -> None:
    world = World()
    assert world.propose("a", "a").code == "same-host"
    assert world.propose("a", "nowhere").code == "unknown-host"
    assert world.does("nowhere", do.PutDomain(uuid=UUID)).code == "unknown-host"
    assert world.does("a", do.PutHost(name="b")).code == "stranger"


@pytest.mark.parametrize("limits", [Limits(fleet=2), Limits(outgoing=2), Limits(incoming=2)])
def test_as_many_migrations_run_as_may_and_not_one_more(limits: Limits) -> None:
    world = World()
    world.does("a", do.SetLimits(limits=limits))
    tokens = [world.propose(uuid=f"u{number}").token for number in range(2)]
    assert world.propose(uuid="u2").code == "limit"
    world.does("b", do.Resume(token=tokens[0]))
    assert world.propose(uuid="u2").code == ""


def test_tickets_that_expired_do_not_count_against_the_limit() -> None:
    world = World()
    world.does("a", do.SetLimits(limits=Limits(fleet=1)))
    world.propose(uuid="u0", lifetime_s=1.0)
    assert world.propose(uuid="u1").code == "limit"
    world.now += 1
    assert world.propose(uuid="u1").code == ""


def test_a_host_with_domains_or_open_tickets_is_not_removed() -> None:
    world = World()
    token = world.propose().token
    assert world.does("c", do.RemoveHost(name="b")).code == "busy"
    assert world.does("c", do.RemoveHost(name="a")).code == "owns-domains"
    world.does("b", do.Resume(token=token))
    assert world.does("c", do.RemoveHost(name="a")).code == ""
    assert world.does("c", do.RemoveHost(name="a")).code == "unknown-host"


def test_a_lease_is_one_holders_until_it_ends_and_the_next_has_a_larger_token() -> None:
    world = World()
    first = world.does("a", do.Acquire(name="lock", lifetime_s=10))
    assert world.does("b", do.Acquire(name="lock", lifetime_s=10)) == TicketOutcome("held", first.token)
    assert world.does("a", do.Acquire(name="lock", lifetime_s=10)) == first
    assert world.does("b", do.Release(name="lock", token=first.token)).code == "stranger"
    world.now += 10
    second = world.does("b", do.Acquire(name="lock", lifetime_s=10))
    assert second.token > first.token
    world.does("a", do.Release(name="lock", token=first.token))
    assert world.fleet.leases["lock"].holder == "b"
    world.does("b", do.Release(name="lock", token=second.token))
    assert "lock" not in world.fleet.leases


def test_a_link_is_reserved_up_to_its_rate_and_not_a_byte_beyond() -> None:
    world = World()
    world.does("a", do.SetLimits(limits=Limits(link_bytes_per_s={"a>b": 100})))

    def reserve(name: str, rate: int, by: str = "a") -> TicketOutcome:
        return world.does(by, do.Reserve(name=name, source="a", destination="b", bytes_per_s=rate, lifetime_s=10))

    first = reserve("one", 60)
    assert reserve("two", 41).code == "link"
    assert reserve("two", 40).code == ""
    assert reserve("one", 61).code == "link"
    assert reserve("one", 50) == first
    assert reserve("one", 50, by="b").code == "held"
    assert world.does("b", do.Unreserve(name="one", token=first.token)).code == "stranger"
    world.does("a", do.Unreserve(name="one", token=first.token))
    assert reserve("three", 60).code == ""
    world.now += 10
    assert reserve("four", 100).code == ""


def test_rules_are_kept_replaced_and_dropped() -> None:
    world = World()
    world.does("a", do.PutRule(rule=RuleRecord(name="r", kind="apart", domains=["u1", "u2"])))
    world.does("a", do.PutRule(rule=RuleRecord(name="r", kind="together", domains=["u1", "u2"])))
    assert world.fleet.rules["r"].kind == "together"
    world.does("a", do.DropRule(name="r"))
    assert world.does("a", do.DropRule(name="r")).code == ""
    assert world.fleet.rules == {}


def test_a_request_seen_again_changes_nothing_and_gets_the_same_outcome() -> None:
    world = World()
    body = do.Acquire(name="lock", lifetime_s=1)
    first = world.does("a", body, "same")
    world.now += 1
    state = model.encode(world.fleet)
    assert world.does("a", body, "same") == first
    assert model.encode(world.fleet) == state
    assert world.does("b", body, "same").token > first.token


def test_the_last_requests_of_each_host_are_remembered_and_no_more() -> None:
    world = World("a", "b")
    first = world.does("a", do.Acquire(name="lock", lifetime_s=1), "first")
    for number in range(REQUEST_WINDOW - 1):
        world.does("a", do.DropRule(name="x"), f"n{number}")
    world.does("b", do.DropRule(name="x"))
    world.now += 1
    assert world.does("a", do.Acquire(name="lock", lifetime_s=1), "first") == first
    world.does("a", do.DropRule(name="x"), "one more")
    assert world.does("a", do.Acquire(name="lock", lifetime_s=1), "first").token > first.token


@pytest.mark.parametrize(
    ("table", "most", "body"),
    [
        ("leases", model.LEASES_MAX, lambda n: do.Acquire(name=f"l{n}", lifetime_s=1e3)),
        ("rules", model.RULES_MAX, lambda n: do.PutRule(rule=RuleRecord(name=f"r{n}", kind="apart"))),
        (
            "reservations",
            model.RESERVATIONS_MAX,
            lambda n: do.Reserve(name=f"v{n}", source="a", destination="b", bytes_per_s=1, lifetime_s=1e3),
        ),
    ],
)
def test_a_table_takes_as_much_as_its_limit(table: str, most: int, body: object) -> None:
    fleet = FleetState()
    for number in range(most + 1):
        made = body(number)  # type: ignore[operator]
        outcome = apply(fleet, do.Command(request=f"r{number}", by="a", at=0, body=made))
        assert outcome.code == ("" if number < most else "full")
    assert len(getattr(fleet, table)) == most


def test_hosts_domains_and_open_tickets_have_their_limits() -> None:
    world = World("a", "b")
    fleet = world.fleet
    fleet.hosts |= {f"h{number}": HostRecord(name=f"h{number}") for number in range(model.HOSTS_MAX - 3)}
    assert world.does("last", do.PutHost(name="last")).code == ""
    assert world.does("late", do.PutHost(name="late")).code == "full"
    assert world.does("a", do.PutHost(name="a")).code == ""
    fleet.domains |= {
        f"d{number}": DomainRecord(uuid=f"d{number}", owner="a") for number in range(model.DOMAINS_MAX[1] - 1)
    }
    assert world.does("a", do.PutDomain(uuid="last")).code == ""
    assert world.does("a", do.PutDomain(uuid="late")).code == "full"
    assert world.propose(uuid="late").code == "full"
    world.does("a", do.SetLimits(limits=Limits(outgoing=0, incoming=0)))
    for number in range(model.OPEN_TICKETS_MAX - 1):
        one = Ticket(
            token=-1 - number,
            uuid=f"d{number}",
            source="a",
            destination="b",
            generation=1,
            granted_at=0,
            expires_at=1e9,
        )
        fleet.open_tickets[one.uuid] = one
    assert world.propose(uuid="last").code == ""
    assert world.propose(uuid=f"d{model.OPEN_TICKETS_MAX}").code == "full"


def test_the_outcomes_of_strangers_make_room_for_each_other() -> None:
    fleet = FleetState()
    for number in range(model.HOSTS_MAX + 2):
        apply(fleet, do.Command(request="r", by=f"s{number}", at=0, body=do.DropRule(name="x")))
    assert len(fleet.outcomes) == model.HOSTS_MAX
    assert f"s{model.HOSTS_MAX + 1}" in fleet.outcomes


def test_expired_leases_and_reservations_make_room() -> None:
    fleet = FleetState()
    for number in range(model.LEASES_MAX):
        apply(fleet, do.Command(request=f"l{number}", by="a", at=0, body=do.Acquire(name=f"{number}", lifetime_s=1)))
    late = do.Command(request="late", by="a", at=1, body=do.Acquire(name="late", lifetime_s=1))
    assert apply(fleet, late).code == ""
    assert len(fleet.leases) == 1


def test_ended_tickets_are_kept_up_to_their_limit() -> None:
    world = World()
    for number in range(model.ENDED_TICKETS_MAX + 1):
        world.does("a", do.Fail(token=world.propose(uuid=f"u{number}").token))
    assert len(world.fleet.ended_tickets) == model.ENDED_TICKETS_MAX


def test_every_refusal_has_its_words() -> None:
    import ast
    from pathlib import Path

    directory = Path(model.__file__).parent
    codes = set()
    for name in ("machine", "tickets", "leases"):
        for node in ast.walk(ast.parse((directory / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TicketOutcome" and node.args:
                codes |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and arg.value}
    assert codes <= BY_CLUSTER_STATE.keys()
    assert len(codes) > 8


def test_a_snapshot_holds_everything() -> None:
    world = World()
    world.does("b", do.Resume(token=world.propose().token))
    world.propose("b", "c")
    world.does("a", do.Acquire(name="lock", lifetime_s=1))
    assert model.decode(model.encode(world.fleet)) == world.fleet


def test_a_snapshot_of_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match=f"version {model.VERSION + 1}"):
        model.decode(model.encode(FleetState(version=model.VERSION + 1)))
