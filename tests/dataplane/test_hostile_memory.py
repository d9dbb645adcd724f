"""What a peer with a valid certificate can make this side keep: each kind costs less than `COST_MAX`."""

import os
import socket
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import xxhash

from dwcp_migrate.dataplane.destination import DestinationSession
from dwcp_migrate.dataplane.flow_control import FLOOR_BYTES, REVERSE_BYTES_MAX, PendingBytes
from dwcp_migrate.dataplane.session import link_options
from dwcp_migrate.dataplane.source import SourceSession, reverse_bytes_max
from dwcp_migrate.delta.payload import HEAD, PAGES, PAGES_HEAD, STATE
from dwcp_migrate.errors import LimitExceededError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.protocol.session_memory import FLOOR_BYTES as SMALLEST_GRANT
from dwcp_migrate.protocol.session_memory import divide_grant
from dwcp_migrate.protocol.worker import Happened, SessionOptions, StartDestination, StartSource
from dwcp_migrate.transport import OPEN, URGENT, Segment
from dwcp_migrate.transport.core.frames import Frame, FrameKind
from dwcp_migrate.transport.core.receive_queue import AHEAD_MAX, Inbox
from dwcp_migrate.transport.core.segment import CONNECTIONS_MAX, PAYLOAD_BYTES_MAX
from dwcp_migrate.units import MIB

COST_MAX = 64 * MIB


@pytest.fixture
def options(tmp_path: Path) -> SessionOptions:
    create_authority(tmp_path)
    issue(tmp_path, "a.test")
    return SessionOptions(
        ca=str(tmp_path / "ca.pem"),
        certificate=str(tmp_path / "a.test.pem"),
        key=str(tmp_path / "a.test.key"),
        cache_bytes=MIB,
        channels=1,
        channels_max=1,
        congestion_control="",
        connect_timeout_s=1.0,
        loss_s_max=30.0,
        in_flight_ms_max=50,
        workers=1,
        codec="zstd",
        level=1,
        level_max=1,
    )


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that accepts and never speaks, nor reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def cost() -> int:
    return tracemalloc.get_traced_memory()[1]


def destination_start(options: SessionOptions, target: tuple[str, int]) -> StartDestination:
    return StartDestination(
        session_id=os.urandom(16),
        token=os.urandom(32),
        peer_name="b.test",
        target_address=target[0],
        target_port=target[1],
        options=options,
    )


def destination_of(options: SessionOptions, silent: socket.socket) -> DestinationSession:
    return DestinationSession(destination_start(options, silent.getsockname()), lambda _: None)


@pytest.mark.usefixtures("traced")
def test_segments_that_claim_one_byte_and_bring_megabytes_end_the_session(
    options: SessionOptions, silent: socket.socket
) -> None:
    session = destination_of(options, silent)
    for sequence in range(200):
        payload = unreadable(turn=(1 << 40) + sequence, size=PAYLOAD_BYTES_MAX)
        session.on_segment(Segment(0, sequence, OPEN if sequence == 0 else 0, 1, 0, payload))
        if session.finished():
            break
        settled(session)
    finished = session.finished()
    assert finished is not None
    assert "wait for QEMU" in finished.detail
    assert cost() < COST_MAX
    session.close()


def settled(session: DestinationSession) -> None:
    """Return once the session has looked at all that came."""
    done = threading.Event()
    session._pool.submit(done.set)
    assert done.wait(20)


def unreadable(turn: int, size: int) -> bytes:
    """A payload whose turn in the page cache's order never comes, with a body that does not decompress."""
    head = HEAD.pack(PAGES, 1, STATE, 0, 1) + PAGES_HEAD.pack(turn, 0, 0, 0, 0, 0)
    return head + bytes(size - len(head))


class Forged(SourceSession):
    """A source whose segments did not come by its link, which therefore cannot acknowledge them."""

    def _acknowledge(self, connection: int, sequence: int) -> None:
        self._reverse.delivered(connection, sequence)


@pytest.mark.usefixtures("traced")
def test_answers_that_the_sources_qemu_does_not_read_end_the_session_at_their_bound(
    options: SessionOptions, silent: socket.socket
) -> None:
    address, port = silent.getsockname()
    start = StartSource(
        session_id=os.urandom(16),
        token=os.urandom(32),
        peer_name="b.test",
        peer_address=address,
        peer_port=port,
        options=options,
    )
    said: list[Happened] = []
    session = Forged(start, said.append)
    ours, qemu = socket.socketpair()
    session.add_connection(0, ours)
    answer = bytes(1 * MIB)
    checksum = xxhash.xxh3_64_intdigest(answer)
    for sequence in range(400):
        session.on_segment(Segment(0, sequence, URGENT, len(answer), checksum, bytes(bytearray(answer))))
        if session.finished():
            break
    finished = session.finished()
    assert finished is not None
    assert "wait for QEMU" in finished.detail
    assert cost() < COST_MAX
    session.close()
    qemu.close()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("grant", [SMALLEST_GRANT, 512 * MIB])
def test_segments_of_which_pieces_are_missing_cost_less_than_the_grant(options: SessionOptions, grant: int) -> None:
    link = link_options(destination_start(small(options, grant), ("127.0.0.1", 1)))
    inbox = Inbox(link.partial_bytes_max)
    pieces = (
        Frame(FrameKind.SEGMENT, number % 8, 1 + number // 8, payload=b"x", total=PAYLOAD_BYTES_MAX, raw_size=1)
        for number in range(400)
    )
    with pytest.raises(LimitExceededError, match="incomplete segments"):
        list(map(inbox.receive, pieces))
    assert cost() < min(grant, COST_MAX)


@pytest.mark.usefixtures("traced")
def test_what_waits_for_qemu_costs_less_than_the_smallest_grant(options: SessionOptions, silent: socket.socket) -> None:
    session = destination_of(small(options, SMALLEST_GRANT), silent)
    for sequence in range(200):
        payload = unreadable(turn=(1 << 40) + sequence, size=PAYLOAD_BYTES_MAX)
        session.on_segment(Segment(0, sequence, OPEN if sequence == 0 else 0, 1, 0, payload))
        if session.finished():
            break
        settled(session)
    finished = session.finished()
    assert finished is not None
    assert "wait for QEMU" in finished.detail
    assert cost() < SMALLEST_GRANT
    session.close()


def small(options: SessionOptions, grant: int) -> SessionOptions:
    """The same with what a grant leaves room for."""
    memory = divide_grant(grant, 0, has_table=False)
    return msgspec.structs.replace(
        options, granted_bytes=memory.granted_bytes, cache_bytes=memory.cache_bytes, window_bytes=memory.window_bytes
    )


@pytest.mark.usefixtures("traced")
def test_segments_out_of_turn_are_bounded_over_all_connections_together() -> None:
    inbox = Inbox()
    for number in range(AHEAD_MAX):
        inbox.receive(Frame(FrameKind.SEGMENT, number % CONNECTIONS_MAX, 1 + number // CONNECTIONS_MAX))
    with pytest.raises(LimitExceededError):
        inbox.receive(Frame(FrameKind.SEGMENT, 0, 1 + AHEAD_MAX // CONNECTIONS_MAX))
    assert inbox.receive(Frame(FrameKind.SEGMENT, 0, 0)) is not None  # the one that is waited for always fits
    assert cost() < COST_MAX


def test_the_account_counts_the_larger_of_payload_and_raw_bytes_until_delivery() -> None:
    pending = PendingBytes()
    pending.add(Segment(0, 0, 0, 1, 0, bytes(100)), 300)
    pending.add(Segment(0, 1, 0, 200, 0, bytes(10)), 300)
    assert pending.total_bytes == 300
    with pytest.raises(LimitExceededError):
        pending.add(Segment(0, 2, 0, 1, 0, b"x"), 300)
    pending.rejected(0, 2)
    pending.delivered(0, 1)
    pending.delivered(0, 1)  # once is enough
    assert (pending.total_bytes, pending.delivered_bytes) == (100, 200)


def test_the_account_loses_no_delivery_of_connections_that_deliver_at_once() -> None:
    pending, each, together = PendingBytes(), 5000, threading.Barrier(8)

    def deliver(connection: int) -> None:
        together.wait()
        for sequence in range(each):
            pending.delivered(connection, sequence)

    for connection in range(8):
        for sequence in range(each):
            pending.add(Segment(connection, sequence, 0, 1, 0, b"x"), 8 * each)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns in the middle of everything
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(deliver, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert (pending.total_bytes, pending.delivered_bytes) == (0, 8 * each)


def test_an_honest_destination_stays_below_the_sources_bound(options: SessionOptions) -> None:
    assert reverse_bytes_max(options, 3) > REVERSE_BYTES_MAX + 3 * FLOOR_BYTES
