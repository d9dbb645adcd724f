"""A path that keeps its TLS: bytes arrive as they went, an end is told from a cut, and no length is believed."""

import random
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_migrate.dataplane.direct.tls_endpoint import PIECE_BYTES_MAX, TlsEndpoint
from dwcp_migrate.dataplane.qemu_socket import CancelledError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.units import KIB, MIB

WAIT_S = 30.0


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    create_authority(tmp_path)
    issue(tmp_path, "there.test")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "there.test.pem", tmp_path / "there.test.key")
    client = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there = listener.accept()[0]
    accepted: list[ssl.SSLSocket] = []
    handshake = threading.Thread(target=lambda: accepted.append(server.wrap_socket(there, server_side=True)))
    handshake.start()
    dialled = client.wrap_socket(here, server_hostname="there.test")
    handshake.join(WAIT_S)
    yield dialled, accepted[0]
    dialled.close()
    accepted[0].close()


def read_some(endpoint: TlsEndpoint, buffer: memoryview) -> int:
    while (count := endpoint.read_into(buffer)) is None:  # so after a session ticket
        assert endpoint.wait_readable(WAIT_S)
    return count


def read_all(endpoint: TlsEndpoint, most: int = 256 * KIB) -> bytes:
    got, buffer = bytearray(), memoryview(bytearray(most))
    while count := read_some(endpoint, buffer):
        got += buffer[:count]
    return bytes(got)


@pytest.mark.parametrize("most", [1, 1000, 256 * KIB])
def test_both_directions_at_once_arrive_as_they_went_up_to_their_ends(
    ends: tuple[ssl.SSLSocket, ssl.SSLSocket], most: int
) -> None:
    ours, theirs = (TlsEndpoint(end) for end in ends)
    rng = random.Random(1)
    size = 20_000 if most == 1 else 3 * MIB
    sent = {end: rng.randbytes(size) for end in (ours, theirs)}
    got: dict[TlsEndpoint, bytes] = {}

    def write(end: TlsEndpoint) -> None:
        rest = memoryview(sent[end])
        lengths = random.Random(2)
        while rest:
            count = lengths.choice([1, 3, 5000, 2 * MIB])
            end.write(rest[:count])
            rest = rest[count:]
        end.finish_writing()

    def read(end: TlsEndpoint) -> None:
        got[end] = read_all(end, most)

    threads = [threading.Thread(target=each, args=(end,)) for end in (ours, theirs) for each in (write, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert got[theirs] == sent[ours]
    assert got[ours] == sent[theirs]
    assert ours.read_into(memoryview(bytearray(1))) == 0  # the end stays


def test_an_end_of_tcp_without_the_end_of_the_direction_is_a_cut(ends: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    ours = TlsEndpoint(ends[0])
    ends[1].sendall(struct.pack(">I", 10) + b"half")
    ends[1].close()
    with pytest.raises(OSError, match=r"cut|EOF"):
        read_all(ours)


@pytest.mark.parametrize(("length", "is_taken"), [(PIECE_BYTES_MAX, True), (PIECE_BYTES_MAX + 1, False)])
def test_a_piece_is_taken_up_to_its_limit_and_not_past_it(
    ends: tuple[ssl.SSLSocket, ssl.SSLSocket], length: int, *, is_taken: bool
) -> None:
    ours = TlsEndpoint(ends[0])
    ends[1].sendall(struct.pack(">I", length) + b"begins")
    buffer = memoryview(bytearray(100))
    if is_taken:
        assert read_some(ours, buffer) == len(b"begins")
    else:
        with pytest.raises(ConnectionError, match=str(length)):
            read_some(ours, buffer)


def test_bytes_that_tls_has_taken_in_already_are_readable(ends: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    ends[1].sendall(struct.pack(">I", 6) + b"before" + struct.pack(">I", 0))
    assert ends[0].recv(4) == struct.pack(">I", 6)  # by the channel: the rest of the record is in OpenSSL
    ours = TlsEndpoint(ends[0])
    assert ends[0].pending()
    assert ours.wait_readable(0.0)


def test_one_that_nobody_reads_can_be_cancelled(ends: tuple[ssl.SSLSocket, ssl.SSLSocket]) -> None:
    ours = TlsEndpoint(ends[0])
    ended = threading.Event()

    def write() -> None:
        with pytest.raises(CancelledError):
            ours.write(bytes(64 * MIB))
        ended.set()

    threading.Thread(target=write).start()
    ours.cancel()
    assert ended.wait(WAIT_S)
