"""Wrong bytes are never written: the segment comes again raw, and both caches start anew."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dwcp_migrate.dataplane.destination import DestinationSession
from dwcp_migrate.dataplane.source import SourceSession
from dwcp_migrate.delta import Decompressor, PageDecoder, PreparedSegment, state_sequence
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.protocol.worker import Happened, SessionOptions, StartDestination, StartSource
from dwcp_migrate.transport.core.frames import PREAMBLE_BYTES
from dwcp_migrate.units import MIB
from tests.dataplane.streams import precopy


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong at the destination, by state sequence.

    Attributes:
        wrong: a byte of what is rebuilt flips, in the cache too.
        unreadable: the payload names a codec that does not exist.
        forgotten: the cache is lost before the segment's turn.
    """

    wrong: frozenset[int] = frozenset()
    unreadable: frozenset[int] = frozenset()
    forgotten: frozenset[int] = frozenset()


class LyingDecoder(PageDecoder):
    """A decoder with faults."""

    def __init__(self, cache_bytes: int, faults: Faults) -> None:
        super().__init__(cache_bytes)
        self._faults = faults

    def prepare(self, payload: bytes | memoryview, raw_bytes: int, decompressor: Decompressor) -> PreparedSegment:
        if state_sequence(memoryview(payload)) in self._faults.unreadable:
            damaged = bytearray(payload)
            damaged[1] = 7
            payload = bytes(damaged)
        return super().prepare(payload, raw_bytes, decompressor)

    def apply(self, prepared: PreparedSegment) -> memoryview:
        if prepared.state_sequence in self._faults.forgotten:
            self._filled[:] = False
        raw = super().apply(prepared)
        if prepared.state_sequence not in self._faults.wrong:
            return raw
        self._pages ^= 1
        wrong = bytearray(raw)
        wrong[len(raw) // 2] ^= 1
        return memoryview(wrong)


def options(directory: Path, name: str) -> SessionOptions:
    return SessionOptions(
        ca=str(directory / "ca.pem"),
        certificate=str(directory / f"{name}.pem"),
        key=str(directory / f"{name}.key"),
        cache_bytes=32 * MIB,
        channels=3,
        channels_max=8,
        congestion_control="",
        connect_timeout_s=1.0,
        loss_s_max=10.0,
        in_flight_ms_max=50,
        workers=2,
        codec="zstd",
        level=1,
        level_max=1,
    )


@contextmanager
def sessions(directory: Path, faults: Faults) -> Iterator[tuple[SourceSession, DestinationSession, socket.socket]]:
    """Both sides in this process; yields them and the listener in QEMU's place."""
    create_authority(directory)
    for name in ("a.test", "b.test"):
        issue(directory, name)
    session_id, token = os.urandom(16), os.urandom(32)
    events: list[Happened] = []
    with socket.create_server(("127.0.0.1", 0)) as qemu, socket.create_server(("127.0.0.1", 0)) as link_port:
        address, port = qemu.getsockname()
        destination = DestinationSession(
            StartDestination(
                session_id=session_id,
                token=token,
                peer_name="a.test",
                target_address=address,
                target_port=port,
                options=options(directory, "b.test"),
            ),
            events.append,
        )
        destination._rebuild._decoder = LyingDecoder(32 * MIB, faults)
        destination._rebuild._early_bytes_max = 0  # what is delivered before its turn is checked before, too

        def route() -> None:
            for _ in range(3):
                sock, _ = link_port.accept()
                sock.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
                destination.add_channel(sock)

        router = threading.Thread(target=route)
        router.start()
        address, port = link_port.getsockname()
        source = SourceSession(
            StartSource(
                session_id=session_id,
                token=token,
                peer_name="b.test",
                peer_address=address,
                peer_port=port,
                options=options(directory, "a.test"),
            ),
            events.append,
        )
        yield source, destination, qemu
        router.join()
        source.abort("the test is over")
        destination.abort("the test is over")
        source.close()
        destination.close()


@pytest.mark.parametrize(
    ("faults", "repairs"),
    [
        (Faults(wrong=frozenset({1, 4, 6})), 3),
        (Faults(unreadable=frozenset({0, 4, 6})), 3),
        (Faults(forgotten=frozenset({5})), 1),
    ],
    ids=["wrong", "unreadable", "forgotten"],
)
def test_segments_rebuilt_wrong_are_repaired_and_the_stream_stays_identical(
    tmp_path: Path, faults: Faults, repairs: int
) -> None:
    with (
        sessions(tmp_path, faults) as (source, destination, qemu),
        socket.create_server(("127.0.0.1", 0)) as agent,
    ):
        ours = socket.create_connection(agent.getsockname())
        accepted, _ = agent.accept()
        source.add_connection(0, accepted)
        theirs, _ = qemu.accept()
        theirs.settimeout(60)
        stream = b"".join(precopy(11, 5000, passes=3))
        sender = threading.Thread(target=lambda: ours.sendall(stream), daemon=True)
        sender.start()
        digest, left = hashlib.sha256(), len(stream)
        while left:
            data = theirs.recv(1 << 20)
            assert data, f"the stream ended {left} bytes early"
            digest.update(data)
            left -= len(data)
        sender.join()
        assert digest.digest() == hashlib.sha256(stream).digest()
        counters = source.counters()
        assert counters.repaired_segments >= repairs
        assert counters.pages["delta"] > 0, "after the reset pages are delta encoded again"
        assert destination.counters().raw_bytes == len(stream)
        ours.close()
        theirs.close()
