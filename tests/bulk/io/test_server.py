"""The answering side: who may ask, what, how much, and what waits."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dwcp_migrate.bulk.core.manifest import ChunkList, describe_object, digest_chunk
from dwcp_migrate.bulk.core.messages import (
    ANSWER_HEAD_BYTES,
    LACKS,
    OK,
    RUN_BYTES_MAX,
    UNKNOWN,
    GetChunks,
    GetList,
    encode_request,
)
from dwcp_migrate.bulk.io.connection import BulkConnection
from dwcp_migrate.bulk.io.held import HeldObject
from dwcp_migrate.bulk.io.server import CONNECTIONS_EACH_MAX, CONNECTIONS_MAX, HOLD_S_MAX, START_S_MAX
from dwcp_migrate.errors import PeerUnreachableError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.tls import make_context
from tests.bulk.io.hosts import Fleet, Host, content

MakeHost = Callable[[str], Host]
MEAN = 512 * 1024


def connect(server: Host, name: str, fleet: Fleet) -> BulkConnection:
    client = Host.dialling_of(fleet, name)
    return BulkConnection(server.as_peer(has_all=True), client)


def ask(connection: BulkConnection, version: bytes, first: int, count: int) -> tuple[int, bytes]:
    connection.send(GetChunks(version, first, count))
    memory = bytearray(RUN_BYTES_MAX)
    code, length = connection.receive(memoryview(memory))
    return code, bytes(memory[:length])


def part_of(host: Host, data: bytes, lengths: list[int]) -> HeldObject:
    """An object of which nothing is there yet, offered."""
    ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
    chunks = ChunkList(
        lengths, [digest_chunk(data[end - length : end]) for length, end in zip(lengths, ends, strict=True)]
    )
    held = HeldObject(describe_object("part", MEAN, chunks), chunks, host.path, is_whole=False)
    host.objects.add(held)
    return held


def test_run_of_chunks_is_answered_up_to_the_limit_and_not_past_it(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    data = bytes(2 * RUN_BYTES_MAX)
    held = part_of(server, data, [RUN_BYTES_MAX // 2] * 4)
    held.put(0, 4, memoryview(data))
    version = held.manifest.list_digest
    connection = connect(server, "h1", fleet)
    assert ask(connection, version, 1, 2) == (OK, data[:RUN_BYTES_MAX])
    with pytest.raises(PeerUnreachableError):
        ask(connection, version, 0, 3)
    connection.end()
    assert server.rejected == ["protocol"]


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 0), (2, 1), (1, 2), (1 << 62, 1 << 62)])
def test_chunks_that_the_object_does_not_have_end_the_connection(
    fleet: Fleet, host: MakeHost, first: int, count: int
) -> None:
    server = host("origin")
    held = part_of(server, b"ab", [1, 1])
    connection = connect(server, "h1", fleet)
    with pytest.raises(PeerUnreachableError):
        ask(connection, held.manifest.list_digest, first, count)
    connection.end()


def test_question_for_a_chunk_that_is_about_to_come_is_answered_when_it_is_there(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    held = part_of(server, b"ab", [1, 1])
    connection = connect(server, "h1", fleet)
    assert ask(connection, held.manifest.list_digest, 0, 1) == (LACKS, b"")
    timer = threading.Timer(HOLD_S_MAX / 5, held.put, (0, 1, memoryview(b"a")))
    timer.start()
    assert ask(connection, held.manifest.list_digest, 0, 1) == (OK, b"a")
    timer.join()
    connection.end()


def test_object_that_nobody_knows_is_said_to_be_unknown_after_a_while(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    connection = connect(server, "h1", fleet)
    began = time.monotonic()
    assert ask(connection, bytes(32), 0, 1) == (UNKNOWN, b"")
    assert START_S_MAX <= time.monotonic() - began < START_S_MAX + 5
    connection.end()


def test_object_that_is_given_up_ends_the_wait_for_it(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    held = part_of(server, b"ab", [1, 1])
    connection = connect(server, "h1", fleet)
    connection.send(GetChunks(held.manifest.list_digest, 0, 1))
    server.objects.remove(held)
    assert connection.receive(memoryview(bytearray(1)))[0] in {LACKS, UNKNOWN}
    connection.end()


def test_file_that_became_shorter_is_not_served(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    manifest = server.publish(content(100_000))
    server.path.write_bytes(b"short")
    connection = connect(server, "h1", fleet)
    with pytest.raises(PeerUnreachableError):
        ask(connection, manifest.list_digest, 0, 1)
    connection.end()


def test_bytes_that_are_no_question_end_the_connection(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    raw = socket.create_connection(("127.0.0.1", server.port))
    with fleet.context("client", "h1").wrap_socket(raw, server_hostname="origin") as secure:
        secure.sendall(b"\xff" * 64)
        assert secure.recv(1) == b""
    assert server.rejected == ["protocol"]


def test_host_of_the_authority_that_is_not_of_the_fleet_is_not_served(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    issue(fleet.directory, "stranger.example")
    connection = connect(server, "stranger.example", fleet)
    with pytest.raises(PeerUnreachableError):
        connection.get_list(bytes(32), 100)
    connection.end()
    assert server.rejected == ["unknown-peer"]


def test_certificate_of_another_authority_is_refused(fleet: Fleet, host: MakeHost, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    create_authority(other)
    issue(other, "h1")
    context = make_context("client", fleet.directory / "ca.pem", other / "h1.pem", other / "h1.key")
    server = host("origin")
    raw = socket.create_connection(("127.0.0.1", server.port))
    with context.wrap_socket(raw, server_hostname="origin") as secure, suppress(ssl.SSLError, OSError):
        secure.sendall(encode_request(GetList(bytes(32))))
        assert secure.recv(ANSWER_HEAD_BYTES) == b""
    assert server.rejected == ["tls"]


def test_connections_of_one_host_are_taken_up_to_the_limit_and_not_past_it(fleet: Fleet, host: MakeHost) -> None:
    server = host("origin")
    manifest = server.publish(content(1000))
    with ExitStack() as stack:
        for _ in range(CONNECTIONS_EACH_MAX):
            connection = connect(server, "h1", fleet)
            stack.callback(connection.end)
            assert connection.get_list(manifest.list_digest, manifest.list_bytes)
        further = connect(server, "h1", fleet)
        stack.callback(further.end)
        with pytest.raises(PeerUnreachableError):
            further.get_list(manifest.list_digest, manifest.list_bytes)
        assert server.rejected == ["full"]
        another = connect(server, "h2", fleet)
        stack.callback(another.end)
        assert another.get_list(manifest.list_digest, manifest.list_bytes)


def test_connections_of_all_are_taken_up_to_the_limit_and_not_past_it(host: MakeHost) -> None:
    server = host("origin")
    with ExitStack() as stack:
        for _ in range(CONNECTIONS_MAX):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with socket.create_connection(("127.0.0.1", server.port)) as further:
            assert further.recv(1) == b""
        assert server.rejected[0] == "full"
