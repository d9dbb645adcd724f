"""Connections between replicas, over real sockets and TLS."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pysyncobj.poller import PollPoller

from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft import peer_connections as module
from dwcp_migrate.state.raft.peer_connections import Links, PeerIdentity
from dwcp_migrate.transport.tls import make_context

TICKS = 2000


class Poller:
    """The library's poller under the names that links know."""

    def __init__(self) -> None:
        self._poller = PollPoller()

    def watch(self, descriptor: int, callback: Callable[[int, int], None], events: int) -> None:
        self._poller.subscribe(descriptor, callback, events)

    def unwatch(self, descriptor: int) -> None:
        self._poller.unsubscribe(descriptor)

    def poll(self) -> None:
        self._poller.poll(0.005)


class End:
    """A host's links, and what it heard."""

    def __init__(self, tls: Path, name: str, addresses: dict[str, tuple[str, int]]) -> None:
        self.heard: list[tuple[str, messages.Message]] = []
        self.ups: list[str] = []
        self.downs: list[str] = []
        self.reasons: list[str] = []
        self.raises: Exception | None = None
        self.poller = Poller()
        files = (tls / "ca.pem", tls / f"{name}.pem", tls / f"{name}.key")
        identity = PeerIdentity(
            name=name,
            client=lambda: make_context("client", *files),
            server=lambda: make_context("server", *files),
            identify=lambda names: next((found for found in names if found in addresses), None),
            address=addresses.get,
        )
        self.links = Links(identity, self.poller, self)

    def up(self, name: str) -> None:
        self.ups.append(name)

    def down(self, name: str) -> None:
        self.downs.append(name)

    def message(self, name: str, message: messages.Message) -> None:
        if self.raises:
            raise self.raises
        self.heard.append((name, message))

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


class Pair:
    """Hosts a and b; b is dialled."""

    def __init__(self, tls: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()[:2]
        addresses = {"a.lab": ("127.0.0.1", 9), "b.lab": self.address}
        self.a, self.b = End(tls, "a.lab", addresses), End(tls, "b.lab", addresses)
        self.a.links.voters, self.b.links.voters = {"b.lab"}, {"a.lab"}
        self.a.links.is_voter = self.b.links.is_voter = True
        self.now = 100.0

    def run(self, until: Callable[[], object]) -> None:
        for _ in range(TICKS):
            if until():
                return
            self.now += 0.005
            with contextlib.suppress(BlockingIOError):
                self.b.links.adopt(self.listener.accept()[0])
            for end in (self.a, self.b):
                end.links.tick(self.now)
                end.links.flush()
                end.poller.poll()
        raise AssertionError("in vain")

    def close(self) -> None:
        self.listener.close()
        for end in (self.a, self.b):
            end.links.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    create_authority(directory)
    for name in ("a.lab", "b.lab", "stranger.lab"):
        issue(directory, name)
    return directory


@pytest.fixture
def pair(tls: Path) -> Iterator[Pair]:
    made = Pair(tls)
    yield made
    made.close()


def test_hosts_find_each_other_and_talk_both_ways(pair: Pair) -> None:
    pair.run(lambda: pair.a.ups and pair.b.ups)
    assert pair.a.links.send("b.lab", messages.Vote(term=1))
    assert pair.b.links.send("a.lab", messages.Vote(term=2))
    pair.run(lambda: pair.a.heard and pair.b.heard)
    assert pair.a.heard == [("b.lab", messages.Vote(term=2))]
    assert pair.b.heard == [("a.lab", messages.Vote(term=1))]


def test_much_at_once_arrives_whole_and_in_order(pair: Pair) -> None:
    pair.run(lambda: pair.a.ups and pair.b.ups)
    entry = messages.LogEntry(1, 1, messages.REGULAR, bytes(100_000))
    sent = [
        messages.Append(term=term, commit=1, previous_index=1, previous_term=1, entries=(entry,)) for term in range(60)
    ]
    for message in sent:
        assert pair.a.links.send("b.lab", message)
    pair.run(lambda: len(pair.b.heard) == len(sent))
    assert [message for _, message in pair.b.heard] == sent


def test_nothing_leaves_before_it_is_flushed(pair: Pair) -> None:
    pair.run(lambda: pair.a.ups and pair.b.ups)
    pair.a.links.send("b.lab", messages.Vote(term=1))
    for _ in range(5):
        pair.a.links.tick(pair.now)
        pair.a.poller.poll()
        pair.b.poller.poll()
    assert pair.b.heard == []


def test_a_peer_that_does_not_read_is_closed_at_the_limit(pair: Pair) -> None:
    pair.run(lambda: pair.a.ups and pair.b.ups)
    part = messages.RaftSnapshot(term=1, commit=1, data=bytes(messages.SNAPSHOT_PART_BYTES), first=True, last=False)
    size = len(messages.encode(part))
    fits = module.OUT_BYTES_MAX // size
    assert all(pair.a.links.send("b.lab", part) for _ in range(fits))
    assert not pair.a.links.has_room("b.lab")
    assert not pair.a.links.send("b.lab", part)
    assert pair.a.downs == ["b.lab"]
    assert not pair.a.links.send("b.lab", part)


def test_a_lost_connection_is_noticed_and_comes_back(pair: Pair) -> None:
    pair.run(lambda: pair.a.ups and pair.b.ups)
    pair.b.links.drop("a.lab")
    pair.run(lambda: pair.a.downs == ["b.lab"])
    pair.run(lambda: len(pair.a.ups) == 2 and len(pair.b.ups) == 2)


def connect(pair: Pair, context: ssl.SSLContext | None, data: bytes) -> None:
    """A stranger that dials b; blocks only once b has all it needs."""
    sock = socket.create_connection(pair.address)
    sock.setblocking(False)
    if context is None:
        sock.send(data)
        pair.run(lambda: pair.b.reasons)
        sock.close()
        return
    secure = context.wrap_socket(sock, do_handshake_on_connect=False)

    def shake() -> bool:
        try:
            secure.do_handshake()
            secure.send(data)
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        return True

    pair.a.links.voters = set()
    pair.run(shake)
    pair.run(lambda: pair.b.reasons)
    secure.close()


def client(tls: Path, name: str) -> ssl.SSLContext:
    context = make_context("client", tls / "ca.pem", tls / f"{name}.pem", tls / f"{name}.key")
    context.check_hostname = False
    return context


def test_garbage_a_stranger_and_no_certificate_are_refused(pair: Pair, tls: Path) -> None:
    connect(pair, None, b"GET / HTTP/1.1\r\n\r\n" * 20)
    assert pair.b.reasons == ["tls"]
    pair.b.reasons.clear()
    connect(pair, client(tls, "stranger.lab"), b"")
    assert pair.b.reasons == ["unknown-host"]
    pair.b.reasons.clear()
    anonymous = ssl.create_default_context(cafile=tls / "ca.pem")
    anonymous.check_hostname = False
    connect(pair, anonymous, b"")
    assert pair.b.reasons == ["tls"]
    assert pair.b.heard == []


@pytest.mark.parametrize("data", [struct.pack(">I", messages.FRAME_BYTES_MAX + 1), struct.pack(">I", 4) + b"junk"])
def test_a_good_certificate_does_not_excuse_garbage(pair: Pair, tls: Path, data: bytes) -> None:
    connect(pair, client(tls, "a.lab"), data)
    assert pair.b.reasons[0].startswith("protocol")
    assert pair.b.downs == ["a.lab"]


def test_what_fails_in_acting_on_a_message_is_not_the_links_fault(pair: Pair) -> None:
    pair.run(lambda: pair.a.ups and pair.b.ups)
    pair.b.raises = OSError("the disk")
    pair.a.links.send("b.lab", messages.Vote(term=1))
    with pytest.raises(OSError, match="the disk"):
        pair.run(lambda: False)
    assert pair.b.links.connected("a.lab")


def test_handshakes_that_do_not_end_are_ended_and_are_only_so_many(pair: Pair) -> None:
    pair.a.links.voters = set()
    silent = [socket.create_connection(pair.address) for _ in range(module.PENDING_MAX + 3)]
    pair.run(lambda: len(pair.b.links._pending) == module.PENDING_MAX)
    assert len(pair.b.links._pending) == module.PENDING_MAX
    pair.now += module.HANDSHAKE_S_MAX
    pair.run(lambda: len(pair.b.links._pending) <= 3)
    for sock in silent:
        sock.close()


def test_more_connections_than_may_wait_are_closed(pair: Pair) -> None:
    ends = [socket.socketpair() for _ in range(module.ADOPTED_MAX + 1)]
    for mine, _ in ends:
        pair.b.links.adopt(mine)
    assert ends[-1][1].recv(1) == b""
    for _, other in ends:
        other.close()
