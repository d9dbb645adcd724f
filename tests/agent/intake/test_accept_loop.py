"""Listening where the host has an address, may get it later, or lacks a family; accepting whatever happens."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from dwcp_migrate.agent.accept_loop import AcceptLoop, open_listener
from dwcp_migrate.errors import HypervisorError
from tests.hypervisor.namespace import Namespace

PORT = 7802
LATE = ["10.66.0.1", "fd66::1"]


@pytest.fixture
def here() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    namespace.close()


def connects(here: Namespace, address: str) -> bool:
    try:
        here.call(socket.create_connection, (address, PORT), 5).close()
    except OSError:
        return False
    return True


def test_every_address_takes_connections_of_both_families(here: Namespace) -> None:
    with here.call(open_listener, "::", PORT):
        assert [connects(here, address) for address in ("127.0.0.1", "::1")] == [True, True]


def test_a_host_without_ipv6_listens_on_ipv4_alone(here: Namespace) -> None:
    for scope in ("all", "lo"):
        here.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
    with here.call(open_listener, "::", PORT):
        assert connects(here, "127.0.0.1")
    with pytest.raises(HypervisorError, match="::1 port 7802"):
        here.call(open_listener, "::1", PORT)


@pytest.mark.parametrize("address", LATE)
def test_an_address_that_comes_up_later_is_listened_on_from_then(here: Namespace, address: str) -> None:
    with here.call(open_listener, address, PORT, late=True):
        here.run("ip", "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo")
        assert connects(here, address)


def test_a_port_that_is_taken_is_refused_with_its_address(here: Namespace) -> None:
    with here.call(open_listener, "127.0.0.1", PORT), pytest.raises(HypervisorError, match=r"127\.0\.0\.1 port 7802"):
        here.call(open_listener, "127.0.0.1", PORT)


async def test_a_connection_that_cannot_be_taken_is_closed_and_counted_and_the_next_is_taken(here: Namespace) -> None:
    taken: asyncio.Queue[socket.socket] = asyncio.Queue()
    failures: list[str] = []

    def take(sock: socket.socket) -> None:
        if not failures:
            raise ValueError("a bug")
        taken.put_nowait(sock)

    loop = AcceptLoop(here.call(open_listener, "127.0.0.1", PORT), take, failures.append).start()
    with here.call(socket.create_connection, ("127.0.0.1", PORT), 5) as first:
        first.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(first, 1) == b""
    assert failures == ["error"]
    assert loop.accepting
    with here.call(socket.create_connection, ("127.0.0.1", PORT), 5):
        async with asyncio.timeout(5):
            (await taken.get()).close()
    loop.close()


async def test_one_that_was_not_begun_or_is_closed_does_not_say_that_it_accepts(here: Namespace) -> None:
    loop = AcceptLoop(here.call(open_listener, "127.0.0.1", PORT), lambda sock: sock.close(), lambda _: None)
    assert not loop.accepting
    assert loop.start().accepting
    loop.close()
    assert not loop.accepting


async def test_a_connection_at_the_very_moment_of_the_close_is_taken_or_refused_and_never_left_open(
    here: Namespace,
) -> None:
    """Between a connection's coming and the close lies each number of turns of the event loop that can matter."""
    for turns in range(4):
        taken: list[socket.socket] = []
        loop = AcceptLoop(here.call(open_listener, "127.0.0.1", PORT), taken.append, lambda _: None).start()
        await asyncio.sleep(0)
        with here.call(socket.create_connection, ("127.0.0.1", PORT), 5) as peer:
            for _ in range(turns):
                await asyncio.sleep(0)
            loop.close()
            for sock in taken:
                sock.close()
            peer.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""


async def test_without_descriptors_it_rests_and_takes_what_waited_afterwards(
    here: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: asyncio.Queue[socket.socket] = asyncio.Queue()
    failures: list[str] = []
    listener = here.call(open_listener, "127.0.0.1", PORT)
    loop = AcceptLoop(Poor(listener), taken.put_nowait, failures.append).start()
    monkeypatch.setattr("dwcp_migrate.agent.accept_loop.ACCEPT_PAUSE_S", 0.01)
    with here.call(socket.create_connection, ("127.0.0.1", PORT), 5):
        async with asyncio.timeout(5):
            (await taken.get()).close()
    assert failures == ["accept"]
    loop.close()


class Poor(socket.socket):
    """A listener for which the process has no descriptor the first time."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(fileno=listener.detach())
        self._tried = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self._tried:
            self._tried = True
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()
