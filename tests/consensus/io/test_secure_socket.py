"""TLS over a socket of our own: bytes arrive whole however they are cut; the end of a connection is told once."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dwcp_migrate.consensus.io import secure_socket
from dwcp_migrate.consensus.io.secure_socket import READ_BYTES, SecureSocket, secure
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.tls import make_context
from dwcp_migrate.units import MIB

WAIT_S = 20.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    create_authority(path)
    issue(path, "a")
    issue(path, "b")
    return path


def context(directory: Path, side: str, name: str) -> ssl.SSLContext:
    files = (directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key")
    return make_context("server" if side == "server" else "client", *files)


def wire() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialled = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    for end in (dialled, accepted):
        end.setblocking(False)
    return dialled, accepted


class End:
    """Gathers what one end hears."""

    def __init__(self, secured: SecureSocket) -> None:
        self.secured = secured
        self.data = bytearray()
        self.times_lost = 0
        self._changed = asyncio.Event()
        secured.start(self._received, self._lost)

    def _received(self, data: memoryview) -> None:
        self.data += data
        self._changed.set()

    def _lost(self) -> None:
        self.times_lost += 1
        self._changed.set()

    async def until(self, size: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.data) < size:
                self._changed.clear()
                await self._changed.wait()

    async def until_lost(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while not self.times_lost:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[tuple[End, End]]:
    """Connect `b`, who dialled, and `a`."""
    dialled, accepted = wire()
    b, a = await asyncio.gather(
        secure(dialled, lambda: context(directory, "client", "b"), "a"),
        secure(accepted, lambda: context(directory, "server", "a"), None),
    )
    ends = End(b), End(a)
    try:
        yield ends
    finally:
        for end in ends:
            end.secured.close()


async def test_both_know_each_other_and_bytes_pass_both_ways(directory: Path) -> None:
    async with pair(directory) as (b, a):
        assert (b.secured.names, a.secured.names) == (["a"], ["b"])
        b.secured.send(b"to a")
        a.secured.send(b"to b")
        await a.until(4)
        await b.until(4)
        assert (bytes(a.data), bytes(b.data)) == (b"to a", b"to b")


async def test_small_writes_are_not_kept_back(directory: Path) -> None:
    async with pair(directory) as ends:
        for end in ends:
            assert end.secured._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("size", [1, 16384, 16385, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 5 * MIB])
async def test_any_size_arrives_whole_and_in_order(directory: Path, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    async with pair(directory) as (b, a):
        b.secured.send(data)
        b.secured.send(b"end")
        await a.until(size + 3)
        assert bytes(a.data) == data + b"end"
        assert b.secured.unsent_bytes == 0


async def test_what_the_peer_does_not_take_waits_for_it(directory: Path) -> None:
    data = bytes(1000) * 1000
    async with pair(directory) as (b, a):
        a.secured._loop.remove_reader(a.secured._sock)
        while not b.secured.unsent_bytes:
            b.secured.send(data)
        waiting = b.secured.unsent_bytes
        b.secured.send(data)
        assert b.secured.unsent_bytes > waiting + len(data)
        a.secured._loop.add_reader(a.secured._sock, a.secured._read)
        b.secured.send(b"!")
        async with asyncio.timeout(WAIT_S):
            while not a.data.endswith(b"!"):
                await a.until(len(a.data) + 1)
        assert b.secured.unsent_bytes == 0


async def test_records_may_come_byte_by_byte_and_with_the_end_of_the_handshake(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    raw, accepted = wire()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context(directory, "client", "b").wrap_bio(incoming, outgoing, server_hostname="a")
    task = asyncio.ensure_future(secure(accepted, lambda: context(directory, "server", "a"), None))
    while True:
        try:
            peer.do_handshake()
            break
        except ssl.SSLWantReadError:
            await loop.sock_sendall(raw, outgoing.read())
            incoming.write(await loop.sock_recv(raw, READ_BYTES))
    peer.write(b"first")
    await loop.sock_sendall(raw, outgoing.read())
    end = End(await asyncio.wait_for(task, WAIT_S))
    await end.until(5)
    peer.write(b"second")
    for byte in outgoing.read():
        await loop.sock_sendall(raw, bytes([byte]))
    await end.until(11)
    assert bytes(end.data) == b"firstsecond"
    await loop.sock_sendall(raw, b"\x17\x03\x03\x00\x05wrong")
    await end.until_lost()
    assert (bytes(end.data), end.times_lost) == (b"firstsecond", 1)
    raw.close()


@pytest.mark.parametrize("way", ["reset", "hung up", "closed here"])
async def test_the_end_of_a_connection_is_told_once(directory: Path, way: str) -> None:
    async with pair(directory) as (b, a):
        if way == "closed here":
            a.secured.close()
        elif way == "reset":
            b.secured._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
            b.secured.close()
        else:
            b.secured.close()
        await a.until_lost()
        a.secured.close()
        a.secured.send(b"nobody hears this")
        await asyncio.sleep(0)
        assert a.times_lost == 1


async def test_after_a_close_nothing_more_is_passed_on(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_socket, "READ_BYTES", 100)
    async with pair(directory) as (b, a):
        heard: list[int] = []

        def hear(data: memoryview) -> None:
            heard.append(len(data))
            a.secured.close()

        a.secured._received = hear
        b.secured.send(bytes(1000))
        await a.until_lost()
        assert heard == [100]


async def test_who_cannot_prove_a_name_is_refused_and_the_socket_closed(directory: Path, tmp_path: Path) -> None:
    create_authority(tmp_path)
    issue(tmp_path, "a")
    dialled, accepted = wire()
    refused = await asyncio.gather(
        secure(dialled, lambda: context(directory, "client", "b"), "a"),
        secure(accepted, lambda: context(tmp_path, "server", "a"), None),
        return_exceptions=True,
    )
    assert all(isinstance(each, ssl.SSLError) for each in refused)
    assert (dialled.fileno(), accepted.fileno()) == (-1, -1)


async def test_who_hangs_up_during_the_handshake_is_given_up(directory: Path) -> None:
    dialled, accepted = wire()
    dialled.close()
    with pytest.raises(OSError, match=r"hung up|reset"):
        await secure(accepted, lambda: context(directory, "server", "a"), None)
    assert accepted.fileno() == -1
