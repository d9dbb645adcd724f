"""Operators' repairs: hosts and domains that are gone, tickets that nobody ends, a clock, the version."""

import pytest

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import DOMAINS_MAX, FleetState, Limits
from tests.state.fleets import UUID, World


@pytest.fixture
def world() -> World:
    return World()


def test_a_forgotten_host_takes_all_that_is_its_own_along(world: World) -> None:
    token = world.propose("a", "b").token
    world.does("b", do.Begin(token=token))
    world.does("b", do.PutDomain(uuid="of-b"))
    world.does("b", do.Acquire(name="lease", lifetime_s=60))
    world.does("b", do.Reserve(name="share", source="b", destination="c", bytes_per_s=1, lifetime_s=60))
    world.does("a", do.SetLimits(limits=Limits(link_bytes_per_s={"a>b": 1, "a>c": 2})))
    assert world.does("a", do.RemoveHost(name="b")).code == "owns-domains"
    assert world.does("a", do.ForgetHost(name="b")).code == ""
    fleet = world.fleet
    assert sorted(fleet.hosts) == ["a", "c"]
    assert list(fleet.domains) == [UUID]
    assert (fleet.open_tickets, fleet.leases, fleet.reservations) == ({}, {}, {})
    assert fleet.limits.link_bytes_per_s == {"a>c": 2}
    assert "b" not in fleet.outcomes
    assert fleet.ended_tickets[token].state == "failed"
    assert world.does("a", do.ForgetHost(name="b")).code == "unknown-host"


def test_an_assigned_domain_leaves_its_old_owner_and_ticket_with_nothing(world: World) -> None:
    token = world.propose("a", "b").token
    world.does("b", do.Begin(token=token))
    before = world.fleet.domains[UUID].generation
    assert world.does("c", do.AssignDomain(uuid=UUID, owner="c")).code == ""
    assert (world.owner(), world.fleet.domains[UUID].generation) == ("c", before + 1)
    assert world.does("b", do.Resume(token=token)).code == "unknown-ticket"
    assert world.propose("a", "b").code == "not-owner"
    assert world.does("c", do.AssignDomain(uuid=UUID, owner="nobody")).code == "unknown-host"
    assert world.does("c", do.AssignDomain(uuid="none", owner="a")).code == "unknown-domain"


def test_a_ticket_in_conflict_is_ended_by_an_operator_only(world: World) -> None:
    token = world.propose("a", "b").token
    world.does("b", do.Begin(token=token))
    world.does("a", do.Resolve(token=token, source_runs=True, destination_runs=True))
    assert world.does("a", do.Fail(token=token)).code == "unresolved"
    assert world.does("c", do.EndTicket(token=token)).token == token
    assert world.fleet.ended_tickets[token].state == "failed"
    assert world.owner() == "a"
    assert world.does("c", do.EndTicket(token=token)).code == "unknown-ticket"


def test_a_domain_that_is_gone_is_dropped_whoever_owned_it(world: World) -> None:
    world.does("a", do.PutDomain(uuid="gone"))
    assert world.does("b", do.ForgetDomain(uuid="gone")).code == "not-owner"
    assert world.does("b", do.DropDomain(uuid="gone")).code == ""
    assert world.does("b", do.DropDomain(uuid="gone")).code == "unknown-domain"
    token = world.propose("a", "b").token
    assert world.does("b", do.DropDomain(uuid=UUID)).token == token


def test_a_clock_that_was_70_years_ahead_is_set_back_and_what_runs_keeps_what_it_had_left(world: World) -> None:
    real, ahead = world.now, 70 * 365 * 86400.0
    world.now = real + ahead
    world.does("c", do.PutHost(name="c"))
    token = world.propose("a", "b", lifetime_s=60.0).token
    world.does("a", do.Acquire(name="lease", lifetime_s=30.0))
    world.now = real + 1
    assert world.propose("a", "c").code == "busy"
    assert world.does("b", do.SetClock()).code == ""
    assert world.fleet.now == real + 1
    ticket = world.fleet.ticket(token)
    assert ticket is not None
    assert ticket.expires_at == pytest.approx(real + 61)
    assert world.fleet.leases["lease"].expires_at == pytest.approx(real + 31)
    assert all(host.heard_at <= real + 1 for host in world.fleet.hosts.values())
    world.now = real + 62
    assert world.propose("a", "c").code == ""
    assert world.does("b", do.Acquire(name="lease", lifetime_s=30.0)).code == ""


def test_a_clock_is_not_set_forward(world: World) -> None:
    world.does("a", do.PutHost(name="a"))
    before = model.encode(world.fleet)
    later = world.now + 100
    world.now = later
    world.does("a", do.SetClock())
    assert world.fleet.now == later
    assert len(model.encode(world.fleet)) >= len(before)


def test_a_raised_fleet_knows_more_domains(world: World) -> None:
    fleet = world.fleet
    for number in range(DOMAINS_MAX[1]):
        uuid = f"u{number}"
        fleet.domains[uuid] = model.DomainRecord(uuid=uuid, owner="a")
    assert world.does("a", do.PutDomain(uuid="one-more")).code == "full"
    assert world.does("a", do.SetVersion(version=2)).code == ""
    assert world.does("a", do.PutDomain(uuid="one-more")).code == ""


def test_a_year_of_churn_leaves_tables_and_snapshot_as_small_as_the_fleet() -> None:
    """Hosts and guests come and go; what is gone is in no table, and takes no time.

    The year is drawn small: 20 hosts replaced 100 times, 200 guests 50 times over; tables are bounded alike.
    """
    fleet, number = FleetState(), 0

    def does(by: str, body: do.Body) -> None:
        nonlocal number
        number += 1
        outcome = apply(fleet, do.Command(request=f"r{number}", by=by, at=float(number), body=body))
        assert outcome.code == "", (body, outcome)

    sizes = []
    for generation in range(100):
        hosts = [f"hv{generation}-{host}" for host in range(20)]
        for host in hosts:
            does(host, do.PutHost(name=host))
            for guest in range(10):
                does(host, do.PutDomain(uuid=f"{host}-{guest}"))
            does(host, do.Acquire(name=f"lease-{host}", lifetime_s=10))
        for host in hosts:
            for guest in range(5):
                does(host, do.ForgetDomain(uuid=f"{host}-{guest}"))
        for host in hosts:
            does("operator", do.ForgetHost(name=host))
        sizes.append(len(model.encode(fleet)))
    assert (fleet.hosts, fleet.domains, fleet.leases) == ({}, {}, {})
    assert list(fleet.outcomes) == ["operator"]
    assert max(sizes[20:]) <= sizes[20] + 600
