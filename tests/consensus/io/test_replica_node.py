"""Nodes on one event loop, over real mutual TLS: decisions, restarts, and peers that misbehave."""

import asyncio
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.consensus import Member, Membership
from dwcp_migrate.consensus.io import channel as channels
from dwcp_migrate.consensus.io import replica_node as nodes_module
from dwcp_migrate.consensus.io.channel import MemberChannel, only
from dwcp_migrate.consensus.io.replica_node import NodeOptions
from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate
from dwcp_migrate.consensus.pbft.model import records as journal
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    FRAME_BYTES_MAX,
    VERSION,
    VERSION_MIN,
    Commit,
    Hello,
    Message,
    encode_frame,
    pbft_frames,
)
from dwcp_migrate.consensus.pbft.reconfiguration import ACCEPTED, NOT_ALLOWED, encode_membership
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.consensus.tickets.operations import (
    Issue,
    Refusal,
    Register,
    Ticket,
    decode_result,
    encode_operation,
)
from dwcp_migrate.consensus.tickets.verifier import CertificateVerifier, ExpectedTicket
from dwcp_migrate.errors import ConsensusError
from tests.consensus.io.fleet import DOMAIN, WAIT_S, Fleet, hello
from tests.consensus.members import CLUSTER, member, membership


async def test_four_nodes_decide_and_their_certificate_convinces_a_destination(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    async with fleet.run(), fleet.client("c0") as client:
        await client.decide(encode_operation(Register(DOMAIN)))
        decision = await client.decide(encode_operation(Issue(DOMAIN, "c1", 0, 0, 60_000)), certify=True)
        ticket = decode_result(decision.result)
        assert isinstance(ticket, Ticket)
        assert isinstance(decision.certificate, DecisionCertificate)
        expected = ExpectedTicket(DOMAIN, "c0", "c1", 0)
        group = Group(fleet.members)
        assert CertificateVerifier().admit(decision.certificate, group, expected, ticket.expires_ms - 1) == ticket


async def test_of_two_hosts_that_ask_at_once_one_gets_the_slot(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    other = DOMAIN[:-1] + "2"
    async with fleet.run(), fleet.client("c0") as c0, fleet.client("c1") as c1:
        await c0.decide(encode_operation(Register(DOMAIN)))
        await c1.decide(encode_operation(Register(other)))
        asked = (
            c0.decide(encode_operation(Issue(DOMAIN, "op", 0, 0, 60_000))),
            c1.decide(encode_operation(Issue(other, "op", 0, 0, 60_000))),
        )
        answers = [decode_result(decision.result) for decision in await asyncio.gather(*asked)]
    assert sorted(type(answer).__name__ for answer in answers) == ["Refusal", "Ticket"]
    assert Refusal("slot-busy", 1) in answers


async def test_a_group_of_one_remembers_everything_over_a_restart(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 1)
    async with fleet.run(), fleet.client("c0") as client:
        await client.decide(encode_operation(Register(DOMAIN)))
    async with fleet.run() as nodes:
        application = nodes["r0"].replica.core.application
        assert isinstance(application, Tickets)
        owned = application.ownership(DOMAIN)
        assert owned is not None
        assert owned.owner == "c0"


async def test_a_group_without_a_quorum_says_so_in_time(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    async with fleet.run() as nodes, fleet.client("c0") as client:
        for name in ("r1", "r2"):
            await nodes.pop(name).stop()
        with pytest.raises(ConsensusError, match=r"did not decide within 0\.5 s"):
            await client.decide(encode_operation(Register(DOMAIN)), timeout_s=0.5)


async def test_only_an_operator_changes_the_members(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    replicas = fleet.members.replicas
    following = Membership(CLUSTER, 1, replicas, (*fleet.members.clients, Member("c9", member("c9").key)))
    async with fleet.run() as nodes, fleet.client("c0") as c0, fleet.client("op") as operator:
        refused = await c0.decide(encode_membership(following), reconfigure=True)
        assert refused.result == NOT_ALLOWED
        accepted = await operator.decide(encode_membership(following), reconfigure=True)
        assert accepted.result == ACCEPTED
        c0.update(following)
        decision = await c0.decide(encode_operation(Register(DOMAIN)), certify=True)
        assert decision.certificate is not None
        decision.certificate.verify(Group(following).keys, 1, CLUSTER)
        assert {node.replica.membership.epoch for node in nodes.values()} <= {0, 1}


async def test_a_full_disk_stops_the_replica_from_speaking_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "DISK_RETRY_S", 0.01)
    monkeypatch.setattr(nodes_module, "HELD_MAX", 1)
    fleet = Fleet(tmp_path, 1)
    async with fleet.run() as nodes, fleet.client("c0") as client:
        journal = nodes["r0"]._journal
        tried = asyncio.Event()
        loop = asyncio.get_running_loop()

        def refuse(*_: object, **__: object) -> None:
            loop.call_soon_threadsafe(tried.set)
            raise OSError(errno.ENOSPC, "no space left")

        with monkeypatch.context() as full:
            full.setattr(journal, "append", refuse)
            waiting = [asyncio.ensure_future(client.decide(encode_operation(Register(DOMAIN)))) for _ in range(3)]
            await asyncio.wait_for(tried.wait(), WAIT_S)
            assert not any(each.done() for each in waiting)
        await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)


async def test_a_failed_sync_ends_the_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    fleet = Fleet(tmp_path, 1)
    async with fleet.run() as nodes, fleet.client("c0") as client:
        monkeypatch.setattr("os.fdatasync", fail)
        asked = client.submit(encode_operation(Register(DOMAIN)))
        error = await asyncio.wait_for(nodes["r0"].failed, WAIT_S)
        assert "cannot be synced" in str(error)
        assert not asked.done()


@pytest.mark.parametrize(
    ("quick_s", "before_s", "threads"),
    [
        (WAIT_S, 0.0, ["MainThread"] * 3),
        (WAIT_S, WAIT_S * 1.1, ["journal_0", "MainThread", "MainThread"]),
        (-1.0, 0.0, ["journal_0"] * 3),
    ],
    ids=["quick", "quick again", "slow"],
)
async def test_a_slow_disk_is_synced_in_a_thread_and_a_quick_one_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_s: float, before_s: float, threads: list[str]
) -> None:
    monkeypatch.setattr(nodes_module, "SYNC_S_QUICK", quick_s)
    fleet = Fleet(tmp_path, 1)
    async with fleet.run() as nodes, fleet.client("c0") as client:
        synced: list[str] = []
        sync = nodes["r0"]._journal.sync

        def watched() -> None:
            synced.append(threading.current_thread().name)
            sync()

        monkeypatch.setattr(nodes["r0"]._journal, "sync", watched)
        nodes["r0"]._sync_s = before_s
        for _ in threads:
            await client.decide(encode_operation(Register(DOMAIN)))
        assert synced == threads


class Unsynced(Fleet):
    """Nodes that write their journals and do not wait for the disk."""

    def options(self, name: str) -> NodeOptions:
        return msgspec.structs.replace(super().options(name), sync=False)

    def records(self, name: str) -> list[tuple[str, int]]:
        entries, _ = journal.decode((self.directory / f"{name}.journal").read_bytes())
        votes = (each for each in entries if isinstance(each, journal.Accepted | journal.Committed))
        return [(type(each).__name__, each.sequence) for each in votes]


@pytest.fixture
def unticked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unsynced:
    """Four nodes whose ticks never come."""
    monkeypatch.setattr(nodes_module, "TICK_S", 3600.0)
    return Unsynced(tmp_path, 4)


async def test_that_something_is_decided_is_written_before_what_follows_and_at_the_end(unticked: Unsynced) -> None:
    fleet = unticked
    async with fleet.run() as nodes, fleet.client("c0") as client:
        await client.decide(encode_operation(Register(DOMAIN)))
        early = [fleet.records(name) for name, node in nodes.items() if node.replica.executed]
        assert len(early) >= 2
        assert all(records == [("Accepted", 1)] for records in early)
        await client.decide(encode_operation(Register(DOMAIN)))
        executed = {name: node.replica.executed for name, node in nodes.items()}
    whole = [("Accepted", 1), ("Committed", 1), ("Accepted", 2), ("Committed", 2)]
    for name, sequence in executed.items():
        assert fleet.records(name) == whole or sequence < 2
    assert sum(sequence == 2 for sequence in executed.values()) >= 2


async def test_that_something_is_decided_is_written_by_the_next_tick(unticked: Unsynced) -> None:
    fleet = unticked
    async with fleet.run() as nodes, fleet.client("c0") as client:
        await client.decide(encode_operation(Register(DOMAIN)))
        name = next(name for name, node in nodes.items() if node.replica.executed)
        assert fleet.records(name) == [("Accepted", 1)]
        nodes[name]._tick()
        assert fleet.records(name) == [("Accepted", 1), ("Committed", 1)]


Sent = Callable[[Fleet], bytes]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("stranger", lambda fleet: hello(fleet, "stranger")),
        ("c0", lambda fleet: hello(fleet, cluster=bytes(16))),
        ("c0", lambda fleet: hello(fleet, version=VERSION_MIN - 1)),
        ("c0", lambda fleet: hello(fleet, role="replica")),
        ("c0", lambda fleet: hello(fleet, key="r1")),
        ("c0", lambda _: encode_frame(Hello(VERSION, CLUSTER, "client"))),
        ("c0", lambda fleet: hello(fleet, "c1")),
        ("c0", lambda _: encode_frame(Commit(0, 0, 1, bytes(32)))),
        ("c0", lambda fleet: hello(fleet) + encode_frame(Commit(0, 0, 1, bytes(32)))),
        ("c0", lambda fleet: hello(fleet) + (FRAME_BYTES_MAX + 1).to_bytes(4, "big")),
        ("c0", lambda fleet: hello(fleet) + b"\x00\x00\x00\x01\xc1"),
        ("c0", lambda _: b"GET / HTTP/1.1\r\n\r\n"),
    ],
    ids=[
        "no member",
        "another cluster",
        "an older version",
        "a client as a replica",
        "signed with another key",
        "not signed",
        "signed for another certificate",
        "no hello",
        "a vote from a client",
        "a frame past the limit",
        "no message",
        "another protocol",
    ],
)
async def test_who_breaks_the_rules_is_cut_off_and_nobody_else(tmp_path: Path, name: str, sent: Sent) -> None:
    fleet = Fleet(tmp_path, 1)
    async with fleet.run(), fleet.client("c0" if name != "c0" else "c1") as client:
        reader, writer = await fleet.dial(name, sent(fleet))
        try:
            while await asyncio.wait_for(reader.read(4096), WAIT_S):
                pass
        except (ConnectionError, ssl.SSLError):
            pass  # cut off without ceremony
        writer.transport.abort()
        await client.decide(encode_operation(Register(DOMAIN)))


async def test_a_later_version_is_spoken_with(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 1)
    async with fleet.run():
        reader, writer = await fleet.dial("c0", hello(fleet, version=VERSION + 1))
        frames = pbft_frames()
        data = await asyncio.wait_for(reader.read(4096), WAIT_S)
        assert isinstance(frames.feed(data)[0], Hello)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        writer.transport.abort()


async def test_a_member_that_lost_its_journal_is_turned_away_by_those_who_knew_it(tmp_path: Path) -> None:
    """Its disk was replaced, its key was not: it would vote anew on what it has voted on."""
    fleet = Fleet(tmp_path, 4)
    async with fleet.run() as nodes, fleet.client("c0") as client:
        await client.decide(encode_operation(Register(DOMAIN)))
        await _until(lambda: all(len(node._peers) == 3 for node in nodes.values()))
    fleet.lose_disk("r3")
    async with fleet.run() as nodes, fleet.client("c0", connections=3) as client:
        await client.decide(encode_operation(Register(DOMAIN)))
        assert all("r3" not in nodes[name]._peers for name in ("r0", "r1", "r2"))


async def test_a_client_whose_clock_went_back_goes_on_behind_what_it_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, 4)
    async with fleet.run():
        async with fleet.client("c0") as client:
            first = await client.decide(encode_operation(Register(DOMAIN)))
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() - 365 * 86400 * 10**9)
        async with fleet.client("c0") as client:
            second = await client.decide(encode_operation(Register(DOMAIN)))
    assert second.number == first.number + 1


async def test_a_host_of_another_authority_does_not_get_in(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    fleet, foreign = Fleet(tmp_path / "ours", 1), Fleet(tmp_path / "theirs", 1)
    foreign.ports = fleet.ports
    async with fleet.run():
        with pytest.raises(ssl.SSLError):
            await foreign.dial("c0", hello(foreign))


class Stuck:
    """What a channel sees of a peer that takes nothing."""

    def __init__(self) -> None:
        self.unsent_bytes = 0
        self.names = ["r0"]
        self.sent: list[bytes] = []

    def start(self, *_: object) -> None: ...

    def send(self, data: bytes) -> None:
        self.sent.append(data)


class Nobody:
    """An owner that wants nothing."""

    def made(self, channel: MemberChannel) -> None: ...

    def opened(self, channel: MemberChannel) -> None: ...

    def received(self, channel: MemberChannel, messages: list[Message]) -> None: ...

    def closed(self, channel: MemberChannel) -> None: ...


async def test_what_a_peer_does_not_take_is_dropped_past_the_limit() -> None:
    said = Hello(VERSION, CLUSTER, "client")
    channel = MemberChannel(Nobody(), lambda _: said, only("r0"))
    stuck = Stuck()
    channel.start(stuck)  # type: ignore[arg-type]
    stuck.unsent_bytes = channels.UNSENT_BYTES_MAX
    channel.put(b"a")
    channel.put(b"b")
    channel.flush()
    assert stuck.sent == [encode_frame(said), b"ab"]
    stuck.unsent_bytes += 1
    channel.put(b"c")
    channel.flush()
    assert stuck.sent == [encode_frame(said), b"ab"]
    assert channel.dropped == 1


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for what a node does by itself; it has no event for it."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(nodes_module.TICK_S)


async def test_members_come_and_go_while_nodes_and_clients_run(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 5)
    everybody = fleet.ports
    fleet.members, fleet.names = membership(4), fleet.names[:4]
    fleet.ports = {name: everybody[name] for name in fleet.names}
    async with fleet.run() as nodes, fleet.client("op") as operator:
        following = membership(["r0", "r1", "r2", "r4"], epoch=1)
        await operator.decide(encode_membership(following), reconfigure=True)
        fleet.ports = {name: port for name, port in everybody.items() if name != "r3"}
        nodes["r4"] = fleet.node("r4")
        nodes["r4"]._options = fleet.options("r4")
        await nodes["r4"].start()
        for name in ("r0", "r1", "r2"):
            nodes[name].reach(fleet.options(name).addresses)
        operator.update(following)
        operator.reach(fleet.options("op").addresses)
        await nodes.pop("r3").stop()
        await nodes.pop("r1").stop()  # the three that are left all have to agree, the new one too
        decision = await operator.decide(encode_operation(Register(DOMAIN)), certify=True, timeout_s=WAIT_S)
        assert decision.certificate is not None
        assert decision.certificate.signatures.keys() == {"r0", "r2", "r4"}
        await _until(lambda: operator.connected == ["r0", "r2", "r4"])
        assert set(nodes["r0"]._peers) == {"r2", "r4"}


async def test_a_link_that_came_another_way_than_from_a_replica_is_followed(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    async with fleet.run() as nodes, fleet.client("op") as operator:
        following = membership(4, epoch=1)
        away = nodes.pop("r3")
        await away.stop()
        await operator.decide(encode_membership(following), reconfigure=True)
        await _until(lambda: 0 in nodes["r0"].replica.core.links)
        link = nodes["r0"].replica.core.links[0]
        for name in ("r0", "r1", "r2"):
            await nodes.pop(name).stop()
        nodes["r3"] = fleet.node("r3")
        await nodes["r3"].start()
        forged = msgspec.structs.replace(link, proof=msgspec.structs.replace(link.proof, signatures={}))
        nodes["r3"].learn(forged)
        assert nodes["r3"].replica.core.links == {}
        nodes["r3"].learn(link)
        assert nodes["r3"].replica.core.links == {0: link}


async def test_a_client_hears_that_replicas_are_in_a_later_epoch(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    heard = asyncio.Event()
    client = fleet.client("c0", on_later_epoch=heard.set)
    async with fleet.run(), client as c0, fleet.client("op") as operator:
        await c0.decide(encode_operation(Register(DOMAIN)))
        assert not heard.is_set()
        await operator.decide(encode_membership(membership(4, epoch=1)), reconfigure=True)
        asked = c0.submit(encode_operation(Register(DOMAIN)), certify=True)
        await asyncio.wait_for(heard.wait(), WAIT_S)
        c0.update(membership(4, epoch=1))
        decision = await asyncio.wait_for(asked, WAIT_S)
        assert decision.certificate is not None
        assert decision.certificate.epoch == 1


async def test_an_adopted_connection_whose_handshake_never_began_is_closed_at_the_end(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 4)
    async with fleet.run() as nodes:
        ours, theirs = socket.socketpair()
        with theirs:
            nodes["r3"].adopt(ours)
            await nodes.pop("r3").stop()  # it dials nobody, so that nothing else is waited for
            assert ours.fileno() < 0
            assert theirs.recv(1) == b""
