"""Migrations between hosts in different hands: who decides, what a destination believes, and how often."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.authorization import certificates as module
from dwcp_migrate.agent.authorization.certificates import CertificateIssuer
from dwcp_migrate.agent.authorization.permits import Judgement, as_permit
from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.config import CoordinationConfig, PbftConfig, PbftMemberConfig
from dwcp_migrate.consensus.pbft.certificate import decode_certificate, encode_certificate
from dwcp_migrate.consensus.tickets.operations import (
    FailTicket,
    Ownership,
    encode_operation,
)
from dwcp_migrate.errors import NoQuorumError, SessionError
from dwcp_migrate.protocol.control import Permit
from dwcp_migrate.state.fleet.commands import Body, Propose, PutHost
from dwcp_migrate.state.fleet.model import TicketOutcome
from tests.agent.authorization.world import UUID, WEB, World, world_of
from tests.agent.deciders import Deciders, FakeGroup
from tests.consensus.members import identity

if TYPE_CHECKING:
    from dwcp_migrate.agent.pbft.group import PbftGroup

PBFT = PbftConfig(cluster="00" * 16, timeout_s=0.05, members=(PbftMemberConfig("r0", identity("r0").public.hex()),))
SHARED = CoordinationConfig(voters=("a", "b", "c"), pbft=PBFT)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Host b is of another trust domain than a and c."""
    async with world_of(tmp_path, SHARED, Deciders()) as found:
        await part(found)
        yield found


async def part(world: World) -> None:
    """Put host b into other hands, as every host's configuration says."""
    for host in world.hosts.values():
        peers = [
            replace(peer, trust_domain="other" if peer.name == "b" else "") for peer in host.runtime.directory.all()
        ]
        host.runtime.directory = PeerDirectory(peers, host.runtime.name, lambda _: False)
    there = world.hosts["b"]
    coordination = msgspec.structs.replace(there.runtime.config.coordination, trust_domain="other")
    there.runtime.config = msgspec.structs.replace(there.runtime.config, coordination=coordination)
    await there.coordination.submit(PutHost(name="b", trust_domain="other"))


def deciders(world: World) -> Deciders:
    assert world.deciders is not None
    return world.deciders


def owner(world: World) -> Ownership | None:
    return deciders(world).tickets.ownership(UUID)


async def judged(world: World, permit: Permit) -> str:
    there = world.hosts["b"]
    return (await there.permits.judge("other", there.peer("a"), permit))[0]


async def obtained(world: World, destination: str = "b") -> Permit:
    """Host a gets its certificate; the destination has not heard of it yet."""
    here, there = world.hosts["a"], world.hosts[destination]
    there.announced = [WEB]
    permit = (await here.permits.obtain("one", here.peer(destination), "", [WEB])).permit
    assert permit is not None
    return permit


class _Silent:
    """A fleet's state without a majority: what is known is known, nothing new is agreed on."""

    async def submit(self, _body: Body, _timeout_s: float) -> TicketOutcome:
        raise NoQuorumError("no majority")


def silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in world.hosts.values():
        monkeypatch.setattr(host.engine, "submit", _Silent().submit)


async def test_across_trust_domains_the_destination_believes_the_members_and_becomes_the_owner(world: World) -> None:
    permit, answer = await world.agree()
    assert answer == Judgement("", "fleet")
    assert decode_certificate(permit.certificate).signatures.keys() == {"r0", "r1", "r2"}
    await world.hosts["b"].permits.ended("one", "destination", "completed", certain=True)
    await world.hosts["a"].permits.ended("one", "source", "completed", certain=True)
    assert owner(world) == Ownership(UUID, "b", 1)
    assert world.state == "completed"


async def test_a_forged_certificate_is_refused(world: World) -> None:
    deciders(world).signers = ["r0", "r1"]  # f + 1, and a quorum is 2 f + 1
    _, answer = await world.agree()
    assert answer == Judgement("ticket")


async def test_a_signature_of_somebody_else_is_refused(world: World) -> None:
    permit = await obtained(world)
    good = decode_certificate(permit.certificate)
    bad = msgspec.structs.replace(good, signatures={**good.signatures, "r2": good.signatures["r1"]})
    alone = msgspec.structs.replace(permit, token=0, certificate=encode_certificate(bad))
    assert await judged(world, alone) == "ticket"
    assert await judged(world, msgspec.structs.replace(alone, certificate=permit.certificate)) == ""


async def test_a_replayed_certificate_is_refused_also_after_a_restart(world: World) -> None:
    permit, answer = await world.agree()
    assert answer[0] == ""
    there = world.hosts["b"]
    await there.permits.ended("one", "destination", "failed", certain=True)
    assert await judged(world, permit) == "ticket"
    again = CertificateIssuer(there.runtime, cast("PbftGroup", FakeGroup("b", world.deciders)))
    assert not await again.verify(permit)


async def test_a_certificate_of_later_members_counts_once_its_source_has_proven_them(world: World) -> None:
    deciders(world).change()
    permit, answer = await world.agree()
    assert (decode_certificate(permit.certificate).epoch, answer) == (1, Judgement("", "fleet"))
    lineage = world.hosts["b"].group.lineage
    assert lineage is not None
    assert lineage.newest.epoch == 1


async def test_a_certificate_of_members_who_were_followed_long_ago_is_refused(world: World) -> None:
    permit = await obtained(world)
    deciders(world).change()
    there = world.hosts["b"]
    await there.group.follow(there.peer("a"))
    assert await judged(world, permit) == "ticket"


async def test_disk_and_memory_of_one_migration_show_the_same_certificate(world: World) -> None:
    first, _ = await world.agree()
    here, there = world.hosts["a"], world.hosts["b"]
    second = (await here.permits.obtain("two", here.peer("b"), "", [WEB])).permit
    assert second == first
    assert await there.permits.judge("two", there.peer("a"), first) == Judgement("", "fleet")
    await there.permits.ended("two", "destination", "completed", certain=True)
    assert owner(world) == Ownership(UUID, "a", 0)
    await there.permits.ended("one", "destination", "completed", certain=True)
    assert owner(world) == Ownership(UUID, "b", 1)


async def test_a_damaged_list_of_used_tickets_lets_nothing_in(world: World) -> None:
    permit, _ = await world.agree()
    there = world.hosts["b"]
    (Path(there.runtime.config.state_directory) / "pbft" / "used").write_bytes(b"?")
    damaged = CertificateIssuer(there.runtime, cast("PbftGroup", FakeGroup("b", world.deciders)))
    assert not await damaged.verify(permit)


async def test_a_failed_migration_gives_its_ticket_back(world: World) -> None:
    await world.agree()
    await world.hosts["a"].permits.ended("one", "source", "failed", certain=True)
    await world.hosts["b"].permits.ended("one", "destination", "failed", certain=True)
    assert owner(world) == Ownership(UUID, "a", 0)
    _, answer = await world.agree()
    assert answer == Judgement("", "fleet")


def restarted(world: World, name: str = "b") -> CertificateIssuer:
    """The host's agent was killed and is back."""
    return CertificateIssuer(world.hosts[name].runtime, cast("PbftGroup", FakeGroup(name, world.deciders)))


async def nothing(_: str) -> bool | None:
    """Libvirt does not answer."""
    return None


async def test_a_move_that_was_left_unsaid_is_said_when_the_domain_moves_on(world: World) -> None:
    await world.agree()
    assert decode_certificate(await restarted(world).certify(UUID, "a"))
    assert owner(world) == Ownership(UUID, "b", 1)


@pytest.mark.parametrize(("is_here", "then"), [(True, Ownership(UUID, "b", 1)), (False, Ownership(UUID, "a", 0))])
async def test_a_migration_that_a_crash_left_open_is_settled_by_what_libvirt_says(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    is_here: bool,  # noqa: FBT001
    then: Ownership,
) -> None:
    async def runs(_: str) -> bool | None:
        return is_here

    await world.agree()
    now = 0.0
    monkeypatch.setattr(module, "steady_clock", lambda: now)
    back = restarted(world)
    await back.settle(nothing)
    await back.settle(runs)
    now = module.SETTLED_S - 0.1
    await back.settle(runs)
    assert deciders(world).is_open(UUID)
    now = module.SETTLED_S
    await back.settle(runs)
    assert (owner(world), deciders(world).is_open(UUID)) == (then, False)
    before = deciders(world).sequence
    await restarted(world).settle(runs)
    assert deciders(world).sequence == before


async def test_without_libvirt_a_domain_that_is_announced_again_was_not_taken_in_before(world: World) -> None:
    await world.agree()
    there = world.hosts["b"]
    await there.permits.ended("one", "destination", "failed", certain=False)
    await world.hosts["a"].permits.ended("one", "source", "failed", certain=False)
    there.runs()
    await there.permits.expect([WEB])
    assert deciders(world).is_open(UUID)  # it is here, after all
    there.watcher.running.clear()
    await there.permits.expect([WEB])
    assert not deciders(world).is_open(UUID)


async def test_what_is_owed_outlives_the_agent(world: World) -> None:
    await world.agree()
    deciders(world).is_up = False
    await world.hosts["b"].permits.ended("one", "destination", "completed", certain=True)
    deciders(world).is_up = True
    await restarted(world).settle(nothing)
    assert owner(world) == Ownership(UUID, "b", 1)


async def test_once_the_destination_has_begun_the_source_gets_no_second_certificate(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that lies about what runs on it: it would have two destinations let the same domain in."""
    monkeypatch.setattr(module, "BUSY_S", 0.001)
    _, answer = await world.agree()
    assert answer == Judgement("", "fleet")
    liar = restarted(world, "a")
    with pytest.raises(SessionError, match="another ticket for this domain is open"):
        await liar.certify(UUID, "c")
    deciders(world).decide("a", encode_operation(FailTicket(UUID, 1)), certify=False)
    with pytest.raises(SessionError, match="another ticket"):
        await liar.certify(UUID, "c")


async def test_a_certificate_that_was_replaced_before_it_was_begun_lets_nothing_in(world: World) -> None:
    first = await obtained(world)
    second = decode_certificate(await restarted(world, "a").certify(UUID, "b"))
    assert await judged(world, msgspec.structs.replace(first, token=0)) == "ticket"
    later = msgspec.structs.replace(first, token=0, certificate=encode_certificate(second))
    assert await judged(world, later) == ""


async def test_without_a_quorum_nothing_is_begun_and_nothing_let_in(world: World) -> None:
    permit = await obtained(world)
    deciders(world).is_up = False
    assert await judged(world, permit) == "no-quorum"


async def test_a_source_in_other_hands_brings_a_certificate_or_is_refused(world: World) -> None:
    there = world.hosts["b"]
    bare = Permit(uuid=UUID, source="a", destination="b", expires_at=time.time() + 60)
    assert await there.permits.judge("x", there.peer("a"), None) == Judgement("ticket")
    assert await judged(world, bare) == "ticket"


async def test_what_a_source_says_of_its_own_trust_domain_does_not_count(world: World) -> None:
    """It declares the destination's, and gets a ticket without a certificate out of the fleet's log."""
    here = world.hosts["a"]
    await here.coordination.submit(PutHost(name="a", trust_domain="other"))
    outcome = await here.coordination.submit(Propose(uuid=UUID, source="a", destination="b", lifetime_s=60.0))
    ticket = await here.coordination.look(lambda fleet: fleet.ticket(outcome.token))
    assert ticket is not None
    assert await judged(world, as_permit(ticket)) == "ticket"


async def test_where_nothing_is_required_a_source_without_a_certificate_is_let_in_and_that_is_said(
    tmp_path: Path,
) -> None:
    configured = msgspec.structs.replace(SHARED, require=False)
    async with world_of(tmp_path, configured, Deciders()) as world:
        await part(world)
        there = world.hosts["b"]
        bare = Permit(uuid=UUID, source="a", destination="b", expires_at=time.time() + 60)
        code, agreed, remark = await there.permits.judge("x", there.peer("a"), bare)
        assert (code, agreed) == ("", "point-to-point")
        assert "no certificate" in remark


async def test_inside_a_trust_domain_no_migration_depends_on_a_majority(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence(world, monkeypatch)
    deciders(world).is_up = False
    _, answer = await world.agree("a", "c")
    assert answer == Judgement("", "point-to-point")


async def test_where_the_policy_is_pbft_a_migration_without_a_certificate_is_refused(tmp_path: Path) -> None:
    configured = msgspec.structs.replace(SHARED, pbft=msgspec.structs.replace(PBFT, mode="pbft"))
    async with world_of(tmp_path, configured, Deciders()) as world:
        there = world.hosts["c"]
        bare = Permit(uuid=UUID, source="a", destination="c", expires_at=time.time() + 60)
        assert await there.permits.judge("x", there.peer("a"), bare) == Judgement(
            "ticket", "point-to-point", "it has no certificate, and this host's configuration asks for one"
        )


async def test_what_the_group_was_not_told_it_is_told_later_and_once(world: World) -> None:
    await world.agree()
    group, here, there = deciders(world), world.hosts["a"], world.hosts["b"]
    group.is_up = False
    await here.permits.ended("one", "source", "failed", certain=True)
    await there.permits.ended("one", "destination", "failed", certain=True)
    await here.permits.settle(nothing)
    group.is_up = True
    before = group.sequence
    await here.permits.settle(nothing)
    await there.permits.settle(nothing)
    assert group.sequence == before + 2
    await there.permits.settle(nothing)
    assert group.sequence == before + 2
    _, answer = await world.agree()
    assert answer == Judgement("", "fleet")


async def test_inside_a_trust_domain_raft_decides_and_the_group_lets_go(world: World) -> None:
    await world.agree()
    for name in ("a", "b"):
        await world.hosts[name].permits.ended("one", "source" if name == "a" else "destination", "failed", certain=True)
    permit, answer = await world.agree("a", "c")
    assert (permit.certificate, answer) == (b"", Judgement("", "fleet"))
    await world.hosts["a"].permits.ended("one", "source", "completed", certain=True)
    assert owner(world) is None
    (latest, *_) = world.hosts["a"].certifying.view().choices
    assert (latest.engine, latest.destination) == ("raft", "c")


@pytest.mark.parametrize("require", [False, True])
async def test_without_a_group_that_decides_it_goes_point_to_point_or_not_at_all(
    tmp_path: Path,
    require: bool,  # noqa: FBT001
) -> None:
    configured = msgspec.structs.replace(SHARED, require=require)
    async with world_of(tmp_path, configured, Deciders()) as world:
        await part(world)
        deciders(world).is_up = False
        if require:
            with pytest.raises(SessionError, match="did not decide"):
                await world.agree()
            with pytest.raises(SessionError, match="no PBFT quorum"):
                await world.agree()
            return
        here = world.hosts["a"]
        _, answer = await world.agree()
        assert answer[:2] == ("", "point-to-point")
        agreement = await here.permits.obtain("two", here.peer("b"), "", [WEB])
        assert agreement.note.startswith("point-to-point: no PBFT quorum, and the trust domains of source (none) and")
        (event,) = here.certifying.view().events
        assert (event.engine, event.usable) == ("pbft", False)


async def test_the_group_stands_in_for_a_fleet_without_a_majority(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence(world, monkeypatch)
    permit, answer = await world.agree("a", "c")
    assert (permit.token, answer) == (0, Judgement("", "certificate"))
    latest, first = world.hosts["a"].certifying.view().choices
    assert (first.engine, latest.engine, latest.reason, latest.fallback) == ("raft", "pbft", "no Raft quorum", True)


async def test_where_the_policy_demands_it_every_migration_needs_a_certificate(tmp_path: Path) -> None:
    configured = msgspec.structs.replace(SHARED, pbft=msgspec.structs.replace(PBFT, mode="pbft"))
    async with world_of(tmp_path, configured, Deciders()) as world:
        permit, answer = await world.agree("a", "c")
        assert (bool(permit.certificate), answer) == (True, Judgement("", "fleet"))


async def test_a_certificate_is_marked_as_used_on_the_disk_before_its_migration_is_let_in(
    world: World,
) -> None:
    """And a disk that takes its time keeps the event loop waiting for nothing."""
    there, permit = world.hosts["b"], await obtained(world)
    freed = threading.Event()
    there.runtime.disk.begin(lambda: _hold(freed))
    judging = asyncio.create_task(there.certifying.verify(permit))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not judging.done()
    freed.set()
    assert await judging
    assert (Path(there.runtime.config.state_directory) / "pbft" / "used").exists()


def _hold(freed: threading.Event) -> None:
    assert freed.wait(20)


async def test_a_destination_that_says_nothing_gets_no_guest_on_a_certificate_that_it_has_not_begun(
    world: World,
) -> None:
    await obtained(world)
    here = world.hosts["a"]
    with pytest.raises(SessionError, match="it did not answer"):
        here.permits.allow_unaccelerated("one", here.peer("b"), "it did not answer", is_answered=False)
    here.permits.allow_unaccelerated("one", here.peer("b"), "it has no memory to spare", is_answered=True)
    with pytest.raises(SessionError):  # without a certificate no answer will do
        here.permits.allow_unaccelerated("two", here.peer("b"), "it has no memory to spare", is_answered=True)
    here.permits.allow_unaccelerated("two", here.peer("c"), "it did not answer", is_answered=False)
