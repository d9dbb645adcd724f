"""What source and destination agree on, and how it is settled; the fleet's state is the model itself."""

import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.authorization import reconciler
from dwcp_migrate.agent.authorization.absent_domains import AbsentDomains
from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.authorization.permits import Judgement, MigrationAuthorizer, as_permit
from dwcp_migrate.agent.authorization.reconciler import SETTLED_S, STUCK_S
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.errors import FleetRefusedError, SessionError
from dwcp_migrate.hypervisor.base import JobStatistics
from dwcp_migrate.protocol.control import DomainName, Permit
from dwcp_migrate.state.fleet.commands import Resolve, SetHostState, SetLimits
from dwcp_migrate.state.fleet.model import Limits, Ticket
from tests.agent.authorization.world import NAMES, UUID, WEB, World, no_context, world_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES)) as made:
        yield made


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES, require=True)) as made:
        yield made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets so many seconds of the reconciler's clock go by."""
    ahead_s = [0.0]
    monkeypatch.setattr(reconciler, "steady_clock", lambda: steady_clock() + ahead_s[0])

    def later(seconds: float) -> None:
        ahead_s[0] += seconds

    return later


async def test_both_ends_agree_on_the_fleets_ticket_and_ownership_moves_at_the_end(world: World) -> None:
    permit, judged = await world.agree()
    assert (permit.uuid, permit.source, permit.destination) == (UUID, "a", "b")
    assert judged == Judgement("", "fleet")
    assert world.state == "running"
    await world.hosts["b"].permits.ended("one", "destination", "completed", certain=True)
    await world.hosts["a"].permits.ended("one", "source", "completed", certain=True)
    assert world.state == "completed"
    assert world.machine.fleet.domains[UUID].owner == "b"
    assert world.hosts["a"].permits.carried == world.hosts["b"].permits.carried == {}


async def test_a_migration_that_failed_leaves_the_domain_with_its_source(world: World) -> None:
    await world.agree()
    await world.hosts["b"].permits.ended("one", "destination", "failed", certain=True)
    assert world.state == "running"
    await world.hosts["a"].permits.ended("one", "source", "failed", certain=True)
    assert world.state == "failed"
    assert world.machine.fleet.domains[UUID].owner == "a"


async def test_the_same_domain_cannot_go_to_two_hosts_at_once(world: World) -> None:
    await world.agree("a", "b")
    world.hosts["c"].announced = [WEB]
    with pytest.raises(FleetRefusedError, match="has a ticket already"):
        await world.hosts["a"].permits.obtain("two", world.hosts["a"].peer("c"), "", [WEB])


@pytest.mark.parametrize("refusal", ["draining", "limit"])
@pytest.mark.parametrize("require", [False, True])
async def test_what_the_fleet_refuses_stops_a_migration_only_where_it_is_required(
    tmp_path: Path,
    refusal: str,
    require: bool,  # noqa: FBT001
) -> None:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES, require=require)) as world:
        await refuse(world, refusal)
        source = world.hosts["a"]
        with pytest.raises(SessionError if require else FleetRefusedError) as raised:
            await source.permits.obtain("one", source.peer("b"), "", [WEB])
    assert require or (isinstance(raised.value, FleetRefusedError) and raised.value.code == refusal)


async def refuse(world: World, refusal: str) -> None:
    """Have the fleet refuse migrations from a to b."""
    source = world.hosts["a"]
    body = SetHostState(name="b", state="draining") if refusal == "draining" else SetLimits(limits=Limits(fleet=1))
    await source.coordination.submit(body)
    if refusal == "limit":
        world.hosts["b"].announced = [DomainName("other", "other")]
        await source.permits.obtain("zero", source.peer("b"), "", [DomainName("other", "other")])
    world.hosts["b"].announced = [WEB]


async def test_without_a_quorum_both_ends_agree_by_themselves_and_say_so(world: World) -> None:
    for host in world.hosts.values():
        host.engine.has_quorum = False
    permit, judged = await world.agree()
    assert permit.token == 0
    assert judged == Judgement("", "point-to-point")
    agreement = await world.hosts["a"].permits.obtain("two", world.hosts["a"].peer("b"), "", [WEB])
    assert agreement.note.startswith("point-to-point: no majority")


async def test_where_the_fleet_is_required_want_of_a_quorum_is_a_no_on_both_ends(strict: World) -> None:
    permit, judged = await strict.agree()
    assert judged == Judgement("", "fleet")
    source, destination = strict.hosts["a"], strict.hosts["b"]
    destination.engine.has_quorum = False
    assert (await destination.permits.judge("two", destination.peer("a"), permit))[0] == "no-quorum"
    source.engine.has_quorum = False
    with pytest.raises(SessionError, match="no majority"):
        await source.permits.obtain("two", source.peer("b"), "", [WEB])


async def test_where_the_fleet_is_required_nothing_else_will_do(strict: World) -> None:
    destination = strict.hosts["b"]
    alone = Permit(uuid=UUID, source="a", destination="b", expires_at=time.time() + 60)
    assert (await destination.permits.judge("one", destination.peer("a"), alone))[0] == "ticket"
    assert (await destination.permits.judge("one", destination.peer("a"), None))[0] == "ticket"
    with pytest.raises(SessionError, match="the domain is not known"):
        await strict.hosts["a"].permits.obtain("one", strict.hosts["a"].peer("b"), "", [])


async def test_a_forged_ticket_is_refused_whatever_was_changed(world: World) -> None:
    source, destination = world.hosts["a"], world.hosts["b"]
    destination.announced = [WEB]
    agreement = await source.permits.obtain("one", source.peer("b"), "", [WEB])
    assert agreement.permit is not None
    good = agreement.permit
    forged = [
        replace(good, token=good.token + 1),
        replace(good, uuid="another"),
        replace(good, generation=good.generation + 1),
        replace(good, expires_at=good.expires_at + 1),
        replace(good, certificate=b"forged"),
        replace(good, destination="c"),
        replace(good, source="c"),
    ]
    for permit in forged:
        assert (await destination.permits.judge("x", destination.peer("a"), permit))[0] == "ticket", permit
    assert (await destination.permits.judge("x", destination.peer("c"), good))[0] == "ticket"
    assert (await world.hosts["c"].permits.judge("x", world.hosts["c"].peer("a"), good))[0] == "ticket"
    assert (await destination.permits.judge("one", destination.peer("a"), good)) == Judgement("", "fleet")


async def test_a_ticket_that_was_used_is_not_good_again(world: World) -> None:
    permit, _ = await world.agree()
    destination = world.hosts["b"]
    await destination.permits.ended("one", "destination", "completed", certain=True)
    assert (await destination.permits.judge("replay", destination.peer("a"), permit))[0] == "ticket"


async def test_a_ticket_that_expired_is_no_good(world: World) -> None:
    source, destination = world.hosts["a"], world.hosts["b"]
    destination.announced = [WEB]
    agreement = await source.permits.obtain("one", source.peer("b"), "", [WEB])
    world.now += source.runtime.config.coordination.ticket_s_max
    assert (await destination.permits.judge("one", destination.peer("a"), agreement.permit))[0] == "ticket"


@pytest.mark.parametrize("skew_s", [-3600.0, -90.0, 0.0, 90.0, 3600.0])
async def test_clocks_that_differ_stop_no_agreement_of_two_ends(world: World, skew_s: float) -> None:
    destination = world.hosts["b"]
    permit = Permit(uuid=UUID, source="a", destination="b", expires_at=time.time() + 60 + skew_s)
    judged = await destination.permits.judge("one", destination.peer("a"), permit)
    assert (judged.code, judged.agreed) == ("", "point-to-point")
    assert ("clocks differ" in judged.remark) == (skew_s < -60)


@pytest.mark.parametrize(
    ("source", "destination", "remark"),
    [
        ("A", "B.", ""),
        ("a", "elsewhere", "the source calls this host 'elsewhere', its name is 'b'"),
        ("a.example.net", "b", "the source calls itself 'a.example.net', its certificate says 'a'"),
    ],
)
async def test_names_that_differ_stop_no_agreement_of_two_ends(
    world: World, source: str, destination: str, remark: str
) -> None:
    host = world.hosts["b"]
    permit = Permit(uuid=UUID, source=source, destination=destination, expires_at=time.time() + 60)
    assert await host.permits.judge("one", host.peer("a"), permit) == Judgement("", "point-to-point", remark)


@pytest.mark.parametrize(
    ("runs", "state", "owner"),
    [("a", "failed", "a"), ("b", "completed", "b"), ("", "failed", "a"), ("ab", "conflict", "a")],
)
async def test_what_a_crash_left_open_is_settled_by_libvirt_on_both_hosts(
    world: World, later: Callable[[float], None], runs: str, state: str, owner: str
) -> None:
    await world.agree()
    for host in world.hosts.values():
        host.permits.carried.clear()  # the agents were killed and are back
    for name in runs:
        world.hosts[name].runs()
    await world.hosts["b"].recovery.look()
    assert world.state == "running"
    later(SETTLED_S + 1)
    await world.hosts["b"].recovery.look()
    assert (world.state, world.machine.fleet.domains[UUID].owner) == (state, owner)


@pytest.mark.parametrize("why", ["carried", "recent", "moving", "no-libvirt", "hung", "unreachable"])
async def test_nothing_is_settled_from_silence(world: World, later: Callable[[float], None], why: str) -> None:
    await world.agree()
    source, destination = world.hosts["a"], world.hosts["b"]
    if why != "carried":
        destination.permits.carried.clear()
    source.runs(job=JobStatistics(outgoing=True) if why == "moving" else None)
    source.watcher.connected = why != "no-libvirt"
    source.watcher.hung |= {UUID} if why == "hung" else set()
    source.is_reachable = why != "unreachable"
    await destination.recovery.look()
    later(SETTLED_S - 1 if why == "recent" else SETTLED_S + 1)
    await destination.recovery.look()
    assert world.state == "running"


@pytest.mark.parametrize("years", [-70, 70])
async def test_a_wrong_clock_neither_hastens_nor_holds_up_what_is_settled(
    world: World, later: Callable[[float], None], years: int
) -> None:
    await world.agree()
    destination = world.hosts["b"]
    destination.permits.carried.clear()
    world.hosts["a"].runs()
    stamped = time.time() + years * 365 * 86400
    world.machine.fleet.open_tickets[UUID] = replace(world.tickets[0], changed_at=stamped)
    await destination.recovery.look()
    assert world.state == "running"
    later(SETTLED_S + 1)
    await destination.recovery.look()
    assert world.state == "failed"


@pytest.mark.parametrize(
    ("age", "state", "stuck"), [(-5.0, "running", []), (5.0, "running", [True]), (5.0, "conflict", [True])]
)
async def test_doctor_hears_of_tickets_that_nobody_settles(
    world: World, later: Callable[[float], None], age: float, state: Any, stuck: list[bool]
) -> None:
    await world.agree()
    world.machine.fleet.open_tickets[UUID] = replace(world.tickets[0], state=state)
    source = world.hosts["a"]
    source.permits.carried.clear()
    await source.recovery.facts()
    later(STUCK_S + age)
    facts = await source.recovery.facts()
    assert facts.is_shared
    assert [UUID in told and state in told for told in facts.stuck_tickets] == stuck


async def test_domains_that_run_here_become_known_and_those_that_went_unagreed_change_hands(world: World) -> None:
    first, second = world.hosts["a"], world.hosts["b"]
    first.runs()
    await first.recovery.look()
    assert world.machine.fleet.domains[UUID].owner == "a"
    del first.watcher.running[UUID]
    first.watcher.shut_off.add(UUID)
    await first.recovery.look()
    assert world.machine.fleet.domains[UUID].owner == "a"
    first.recovery._absent = AbsentDomains()  # the next question is due
    second.runs()
    await second.recovery.look()
    assert world.machine.fleet.domains[UUID].owner == "a"
    await first.recovery.look()
    assert world.machine.fleet.domains[UUID].owner == "b"


@pytest.mark.parametrize("why", ["", "shut-off", "unreachable", "moving", "libvirt-away"])
async def test_a_domain_that_libvirt_knows_no_more_is_forgotten_where_all_others_say_no(world: World, why: str) -> None:
    first, second = world.hosts["a"], world.hosts["b"]
    first.runs()
    await first.recovery.look()
    del first.watcher.running[UUID]
    if why == "shut-off":
        first.watcher.shut_off.add(UUID)
    second.is_reachable = why != "unreachable"
    if why == "moving":
        second.runs(job=JobStatistics(outgoing=False))
    second.watcher.connected = why != "libvirt-away"
    await first.recovery.look()
    assert (UUID in world.machine.fleet.domains) == bool(why)


async def test_a_drain_is_known_to_the_fleet(world: World) -> None:
    await world.hosts["b"].coordination.set_draining(draining=True)
    assert world.state_of("b") == "draining"
    await world.hosts["b"].coordination.set_draining(draining=False)
    assert world.state_of("b") == "up"
    world.hosts["b"].engine.has_quorum = False
    await world.hosts["b"].coordination.set_draining(draining=True)
    assert world.state_of("b") == "up"


async def test_a_drain_for_an_upgrade_ends_with_the_restart_and_an_operators_does_not(world: World) -> None:
    host = world.hosts["b"]
    await host.coordination.set_draining(draining=True)
    await host.coordination.end_earlier_drain()
    assert world.state_of("b") == "up"
    await world.hosts["a"].coordination.submit(SetHostState(name="b", state="draining"))
    await host.coordination.set_draining(draining=True)
    await host.coordination.end_earlier_drain()
    assert world.state_of("b") == "draining"


async def test_an_engine_that_cannot_start_leaves_an_agent_without_it(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig()) as world:
        runtime = world.hosts["a"].runtime
        (tmp_path / "a" / "alone").mkdir(parents=True)
        (tmp_path / "a" / "alone" / "snapshot").write_bytes(b"damaged")
        broken = ClusterStateClient(runtime, no_context, lambda _: None)
        await broken.start()
        assert "damaged" in broken.latest.error
        agreement = await MigrationAuthorizer(runtime, broken, world.hosts["a"].certifying).obtain(
            "one", world.hosts["a"].peer("b"), "", [WEB]
        )
        assert agreement.note.startswith("point-to-point")
        here, there = socket.socketpair()
        broken.adopt(here)
        assert there.recv(1) == b""
        there.close()
        await broken.close()


def test_a_ticket_says_all_that_both_ends_compare() -> None:
    shown = set(Permit.__struct_fields__)
    assert shown < set(Ticket.__struct_fields__)
    ticket = Ticket(
        token=7, uuid="u", source="a", destination="b", generation=3, granted_at=1, expires_at=2, certificate=b"c"
    )
    assert all(getattr(as_permit(ticket), name) == getattr(ticket, name) for name in shown)


async def test_a_resolution_needs_a_side_of_the_ticket(world: World) -> None:
    await world.agree()
    body = Resolve(token=world.tickets[0].token, source_runs=True, destination_runs=False)
    assert (await world.hosts["c"].coordination.submit(body)).code == "stranger"


LEAVING = tuple(DomainName(f"0123abcd-0000-1111-2222-00000000000{number}", f"web{number}") for number in range(4))


async def test_of_several_that_leave_at_once_two_ends_agree_on_none_that_may_be_another(tmp_path: Path) -> None:
    """Libvirt lists the job of the first only, and every one of the four connections would be taken for it."""
    async with world_of(tmp_path, CoordinationConfig()) as world:
        source, destination = world.hosts["a"], world.hosts["b"]
        destination.announced = list(LEAVING)
        for identity in ("one", "two"):
            agreement = await source.permits.obtain(identity, source.peer("b"), "", LEAVING[:1])
            assert agreement.permit is None
            assert await destination.permits.judge(identity, destination.peer("a"), None) == Judgement("")
        destination.announced = [LEAVING[0]]
        agreement = await source.permits.obtain("three", source.peer("b"), "", LEAVING[:1])
        assert agreement.permit is not None
        assert agreement.permit.uuid == LEAVING[0].uuid


async def test_a_domain_whose_memory_is_carried_already_is_not_agreed_on_again(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig()) as world:
        source, destination = world.hosts["a"], world.hosts["b"]
        source.runtime.ledger.put(carries(LEAVING[0]))
        destination.announced = list(LEAVING[:2])
        agreement = await source.permits.obtain("two", source.peer("b"), "", LEAVING[:2])
        assert agreement.permit is not None
        assert agreement.permit.uuid == LEAVING[1].uuid


async def test_a_fleet_gives_each_of_those_that_leave_at_once_a_ticket_of_its_own(world: World) -> None:
    source, destination = world.hosts["a"], world.hosts["b"]
    destination.announced = [*LEAVING, DomainName(UUID, "elsewhere")]
    for name in LEAVING:
        source.runs(name.uuid)
    given = set()
    for name in LEAVING:
        agreement = await source.permits.obtain(name.name, source.peer("b"), "", LEAVING[:1])
        assert agreement.permit is not None
        given.add(agreement.permit.uuid)
    assert given == {name.uuid for name in LEAVING}


def carries(domain: DomainName) -> Migration:
    return Migration(
        id="ab" * 16,
        role="source",
        state="precopy",
        peer="b",
        address="10.0.0.2",
        port=49152,
        domain=domain.name,
        uuid=domain.uuid,
        started_at=1.0,
    )


async def test_where_the_fleet_is_required_its_ticket_is_enough_for_a_destination_that_says_nothing(
    strict: World,
) -> None:
    await strict.agree()
    here = strict.hosts["a"]
    here.permits.allow_unaccelerated("one", here.peer("b"), "it did not answer", is_answered=False)
    with pytest.raises(SessionError, match=r"coordination\.require"):
        here.permits.allow_unaccelerated("two", here.peer("b"), "it did not answer", is_answered=False)
