"""QEMU's connections leave the link where it is outrun, byte for byte, in TLS or in clear, and say so; nowhere else."""

import random
import socket
import threading
import time
from pathlib import Path

import pytest

from dwcp_migrate.protocol.worker import Departure, Finished, SetRate
from dwcp_migrate.units import GIB, MIB
from tests.dataplane.pair import Pair, pair
from tests.dataplane.test_sessions import RESET_ON_CLOSE

BLOCK = random.Random(1).randbytes(999_983)
MOVE_S_MAX = 60.0
IN_CLEAR = Departure(in_clear=True)
IN_TLS = Departure(in_tls=True)
WAYS = pytest.mark.parametrize("way", [IN_CLEAR, IN_TLS], ids=["in-clear", "in-tls"])


class Stream:
    """Sends a block over and over until it is told to stop, and compares what comes out at the other end."""

    def __init__(self, made: Pair) -> None:
        self.source, self.destination = made.connect()
        self.source.settimeout(None)
        self.enough = threading.Event()
        self.sent_bytes = self.got_bytes = 0
        self.is_clean, self.broken = True, False
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        try:
            while not self.enough.is_set():
                self.source.sendall(BLOCK)
                self.sent_bytes += len(BLOCK)
            self.source.shutdown(socket.SHUT_WR)
        except OSError:
            self.broken = True

    def _receive(self) -> None:
        twice = memoryview(BLOCK * 2)
        try:
            while data := self.destination.recv(1 << 18):
                begin = self.got_bytes % len(BLOCK)
                self.is_clean &= data == twice[begin : begin + len(data)]
                self.got_bytes += len(data)
        except OSError:
            self.broken = True

    def finish(self) -> None:
        self.enough.set()
        for thread in self._threads:
            thread.join(60)
        assert self.is_clean
        assert self.got_bytes == self.sent_bytes


def wait_until_past_the_link(made: Pair, streams: list[Stream]) -> None:
    """Until a good part of every stream went past the link."""
    made.source.wait_event("stands-aside", MOVE_S_MAX)
    begun = [stream.sent_bytes for stream in streams]
    deadline = time.monotonic() + MOVE_S_MAX
    while any(stream.sent_bytes < before + 40 * MIB for stream, before in zip(streams, begun, strict=True)):
        assert time.monotonic() < deadline, "too slow to be past the link"
        time.sleep(0.01)


@WAYS
def test_connections_leave_the_link_in_the_midst_of_their_bytes_and_end_in_order(
    tmp_path: Path, way: Departure
) -> None:
    with pair(tmp_path, channels=0, codec="auto", departure=way) as made:
        streams = [Stream(made) for _ in range(3)]
        streams[0].destination.sendall(b"before")
        assert streams[0].source.recv(6, socket.MSG_WAITALL) == b"before"
        wait_until_past_the_link(made, streams)
        answer = BLOCK[:300_000]
        streams[0].destination.sendall(answer)
        assert streams[0].source.recv(len(answer), socket.MSG_WAITALL) == answer
        for stream in streams:
            stream.finish()
            stream.destination.sendall(b"SHUT")
            stream.destination.close()
            assert stream.source.recv(4, socket.MSG_WAITALL) == b"SHUT"
            assert stream.source.recv(1) == b""
            stream.source.close()
        ends = made.source.wait(Finished), made.destination.wait(Finished)
        raw_bytes = sum(stream.sent_bytes for stream in streams)
        for end in ends:
            assert (end.result, end.detail) == ("carried", "")
            assert end.counters.raw_bytes == raw_bytes
            assert end.counters.aside_bytes > 50 * MIB
            assert end.counters.plain_bytes == (end.counters.aside_bytes if way.in_clear else 0)
            assert end.counters.channels_lost == 0
        said = made.source.events("stands-aside")[0].detail
        assert said.startswith(
            "in clear: held up by" if way.in_clear else "each connection in TLS of its own: held up by"
        )


@WAYS
@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_reset_past_the_link_crosses_to_the_other_qemu(tmp_path: Path, end: str, way: Departure) -> None:
    with pair(tmp_path, channels=0, codec="auto", departure=way) as made:
        stream = Stream(made)
        wait_until_past_the_link(made, [stream])
        broken = stream.source if end == "source" else stream.destination
        broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        broken.shutdown(socket.SHUT_RD)
        broken.close()
        ends = made.source.wait(Finished), made.destination.wait(Finished)
        near, far = ends if end == "source" else ends[::-1]
        assert near.result == "reset"
        assert far.result in {"reset", "link-lost"}  # by the reset, or by the link that ended with it
        assert stream.broken


def test_what_was_not_agreed_on_never_leaves_the_link(tmp_path: Path) -> None:
    with pair(tmp_path, channels=0, codec="auto") as made:
        stream = Stream(made)
        made.source.wait_counters(lambda counters: counters.raw_bytes > GIB)  # others have left long before
        stream.finish()
        stream.destination.close()
        finished = made.source.wait(Finished)
        assert finished.counters.aside_bytes == finished.counters.plain_bytes == 0
        assert made.source.events("stands-aside") == []


def test_one_that_leaves_from_its_start_shows_the_parser_its_head_and_moves_the_rest(tmp_path: Path) -> None:
    from_start = Departure(in_tls=True, from_start="the last one left the link idle")
    with pair(tmp_path, channels=0, codec="auto", departure=from_start) as made:
        stream = Stream(made)
        while stream.sent_bytes < 200 * MIB:
            time.sleep(0.01)
        stream.finish()
        stream.destination.close()
        finished = made.source.wait(Finished)
        assert finished.counters.plain_bytes == 0
        assert 100 * MIB < finished.counters.aside_bytes < stream.sent_bytes
        assert made.source.events("stands-aside")[0].detail.endswith(from_start.from_start)


@WAYS
def test_bytes_past_the_link_are_held_to_a_rate_all_the_same(tmp_path: Path, way: Departure) -> None:
    with pair(tmp_path, channels=0, codec="auto", departure=way) as made:
        stream = Stream(made)
        wait_until_past_the_link(made, [stream])
        made.source.tell(SetRate(bytes_per_s=5e6))
        time.sleep(0.5)  # what the kernel's buffers hold has left
        before, began = stream.sent_bytes, time.monotonic()
        time.sleep(1.5)
        assert (stream.sent_bytes - before) / (time.monotonic() - began) < 2 * 5e6
        made.source.tell(SetRate(bytes_per_s=0.0))
        stream.finish()
