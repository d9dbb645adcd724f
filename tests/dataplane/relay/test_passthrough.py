"""Pass-through carries bytes, half-close and reset, and ends with its last connection."""

import contextlib
import multiprocessing
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from dwcp_migrate.dataplane.relay.passthrough import RelaySession
from dwcp_migrate.protocol.worker import Finished, Happened


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    return client, accepted


class Relayed:
    """QEMU's end, the far end, and the session between them."""

    def __init__(self) -> None:
        self.events: list[Happened] = []
        self._closed = threading.Event()
        self.session = RelaySession(self._report)
        self.qemu, inner = tcp_pair()
        onward, self.far = tcp_pair()
        self.session.add_connection(0, inner, onward)

    def _report(self, event: Happened) -> None:
        self.events.append(event)
        if event.event == "connection-closed":
            self._closed.set()

    def finished(self) -> Finished:
        assert self._closed.wait(10)
        while (finished := self.session.finished()) is None:
            pass
        return finished


@pytest.fixture
def relayed() -> Iterator[Relayed]:
    pair = Relayed()
    yield pair
    pair.qemu.close()
    pair.far.close()


def receive_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def test_bytes_cross_both_ways_and_half_close_leaves_the_other_direction_open(relayed: Relayed) -> None:
    data = os.urandom(8 << 20)

    def send() -> None:
        relayed.qemu.sendall(data)
        relayed.qemu.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    assert receive_all(relayed.far) == data
    sender.join()
    relayed.far.sendall(b"return path")
    relayed.far.close()
    assert receive_all(relayed.qemu) == b"return path"
    finished = relayed.finished()
    assert finished.result == "carried"
    assert finished.counters.raw_bytes == len(data)
    assert finished.counters.reverse_bytes == len(b"return path")


def test_a_reset_crosses_to_the_other_side(relayed: Relayed) -> None:
    relayed.qemu.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    relayed.qemu.close()
    with pytest.raises(ConnectionResetError):
        relayed.far.recv(1)
    assert relayed.finished().result == "reset"


def test_an_abort_resets_both_ends(relayed: Relayed) -> None:
    relayed.session.abort("the operator said so")
    for end in (relayed.qemu, relayed.far):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    finished = relayed.finished()
    assert (finished.result, finished.detail) == ("aborted", "the operator said so")


CONNECTIONS = 256
DATA = bytes(range(256)) * 1024
NOBODY = 65534


def _relay_many() -> None:
    """Relay more connections than the pipes of an unprivileged user have room for at 1 MiB each."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if os.getuid() == 0:
        os.setuid(NOBODY)
    with ExitStack() as ends:
        pairs = [Relayed() for _ in range(CONNECTIONS)]
        for each in pairs:
            ends.enter_context(each.qemu)
            ends.enter_context(each.far)
        for each in pairs:
            sender = threading.Thread(target=each.qemu.sendall, args=(DATA,))
            sender.start()
            assert each.far.recv(len(DATA), socket.MSG_WAITALL) == DATA
            sender.join()


def test_an_unprivileged_process_relays_every_channel_of_the_largest_multifd() -> None:
    process = multiprocessing.get_context("fork").Process(target=_relay_many)
    process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("left", [0, 2])
def test_a_relay_that_finds_no_descriptor_breaks_that_connection_alone(relayed: Relayed, left: int) -> None:
    relayed.qemu.sendall(b"begins")
    assert relayed.far.recv(100) == b"begins"
    relayed.far.sendall(b"answers")
    assert relayed.qemu.recv(100) == b"answers"
    (qemu, inner), (onward, far) = tcp_pair(), tcp_pair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filling: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                filling.append(os.dup(0))
        for _ in range(left):  # both ends find what they need, the pipes do not
            os.close(filling.pop())
        relayed.session.add_connection(1, inner, onward)
        for end in (qemu, far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
            end.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)
    relayed.qemu.sendall(b"goes on")
    assert relayed.far.recv(100) == b"goes on"
