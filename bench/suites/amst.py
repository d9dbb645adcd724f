"""Suite `amst`: the transport over loopback, both ends in processes of their own, mutual TLS as in production.

Rule: what is measured is `Link` as a session uses it, minus the session: random bytes (nothing to compress),
acknowledged as they come, at most `IN_FLIGHT_BYTES` not acknowledged. CPU is of both processes, all threads.
Beside it, the two ways of passing a connection through untouched: splice (no copy to user space) and a buffer.
"""

import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from bench.frame import Options, Row
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport import Link, LinkOptions, Reassembly, Segment
from dwcp_migrate.transport.core.channel_health import QUANTUM_BYTES_MAX
from dwcp_migrate.transport.core.frames import HEADER_BYTES, PREAMBLE_BYTES
from dwcp_migrate.transport.core.segment import PAYLOAD_BYTES_MAX
from dwcp_migrate.transport.io.channel import RECORD_BYTES
from dwcp_migrate.units import GIB, KIB, MIB

CHANNELS: Final = (1, 8, 32, 128, 512)
SIZES: Final = {4 * KIB: "4 KiB", 64 * KIB: "64 KiB", 1 * MIB: "1 MiB", 16 * MIB: "16 MiB"}
SEGMENT_BYTES: Final = 256 * KIB
TOTAL_BYTES: Final = 512 * MIB
IN_FLIGHT_BYTES: Final = 32 * MIB
RUNS: Final = 3
WAIT_S: Final = 60.0

_spawn = multiprocessing.get_context("spawn")


class Carried(NamedTuple):
    """One transfer."""

    setup_s: float
    first_s: float
    seconds: float
    cpu_s: float


class _Receiver:
    """The least that a session does: put in order, acknowledge, count."""

    def __init__(self) -> None:
        self.link: Link
        self.changed = threading.Condition()
        self.up = 0
        self.first_up_at = 0.0
        self.acknowledged = -1
        self.ended = False
        self._order = Reassembly[int]()

    def on_segment(self, segment: Segment) -> None:
        self._order.put(segment.sequence, segment.sequence, len(segment.payload))
        last = None
        while (item := self._order.pop()) is not None:
            last = item
        if last is not None:
            self.link.acknowledge(0, last)

    def on_acknowledged(self, connection: int, sequence: int) -> None:
        del connection
        with self.changed:
            self.acknowledged = sequence
            self.changed.notify()

    def on_channels(self, up: int) -> None:
        with self.changed:
            self.first_up_at = self.first_up_at or time.perf_counter()
            self.up = up
            self.changed.notify()

    def on_rejected(self, connection: int, sequence: int) -> None:
        """Never: nothing is rejected here."""

    def on_channel_lost(self, reason: str) -> None:
        """Shows as a slower run."""

    def on_link_lost(self) -> None:
        """Shows as a slower run."""

    def on_detached(self, connection: int, sock: socket.socket) -> None:
        """No channel is asked to leave."""

    def on_detach_failed(self, connection: int) -> None:
        """No channel is asked to leave."""

    def on_link_restored(self, milliseconds: int) -> None:
        """Shows as a slower run."""

    def on_closed(self) -> None:
        self._end()

    def on_failed(self, error: DwcpError) -> None:
        del error
        self._end()

    def _end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: condition() or self.ended, WAIT_S):
                raise TimeoutError("the transfer stands still")


def rows(options: Options) -> list[Row]:
    """Run the suite; about two minutes, `quick` a tenth of that."""
    runs = 1 if options.quick else RUNS
    total = TOTAL_BYTES // 8 if options.quick else TOTAL_BYTES
    result: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        fleet = Path(name)
        create_authority(fleet)
        issue(fleet, "source.bench")
        issue(fleet, "destination.bench")
        for channels in CHANNELS:
            carried = [_carry(fleet, channels, SEGMENT_BYTES, total) for _ in range(runs)]
            result += _link_rows(f"channels={channels}", carried, total)
            result += _setup_rows(channels, carried)
        for size, label in SIZES.items():
            amount = total // 8 if size < SEGMENT_BYTES else total
            carried = [_carry(fleet, 8, size, amount) for _ in range(runs)]
            result += _link_rows(f"segment={label}, tls, 8 channels", carried, amount)
            result.append(_copied_row(label, size))
    for size, label in SIZES.items():
        for way in ("splice", "buffer"):
            passed = [_pass_through(way, size, total) for _ in range(runs)]
            result += _pass_rows(f"segment={label}, {way}", passed, total)
    return result


def _link_rows(case: str, carried: list[Carried], total: int) -> list[Row]:
    rate = median(total / one.seconds for one in carried)
    cpu = median(one.cpu_s / (total / GIB) for one in carried)
    method = f"{total // MIB} MiB of random bytes, loopback, TLS 1.3, from first send to last acknowledgement"
    return [
        Row(case=case, metric="throughput", value=rate / 1e6, unit="MB/s", n=len(carried), method=method),
        Row(case=case, metric="cpu", value=cpu, unit="s/GiB", n=len(carried), method=f"{method}; both processes"),
    ]


def _setup_rows(channels: int, carried: list[Carried]) -> list[Row]:
    method = "from Link.start to the last channel's WELCOME: TCP, mutual TLS 1.3 with P-256, greeting"
    whole = median(one.setup_s for one in carried)
    first = median(one.first_s for one in carried)
    case, n = f"channels={channels}", len(carried)
    return [
        Row(case=case, metric="set-up", value=whole * 1e3, unit="ms", n=n, method=method),
        Row(case=case, metric="set-up of the first", value=first * 1e3, unit="ms", n=n, method=method),
        Row(case=case, metric="set-up each", value=whole / channels * 1e3, unit="ms", n=n, method=method),
    ]


def _copied_row(label: str, size: int) -> Row:
    """Copies before TLS on the sending side: a frame's head shares a record with its header, the rest is a view."""
    pieces = [min(QUANTUM_BYTES_MAX, size - at) for at in range(0, size, QUANTUM_BYTES_MAX)]
    copied = sum(min(piece, RECORD_BYTES - HEADER_BYTES) for piece in pieces)
    return Row(
        case=f"segment={label}, tls, 8 channels",
        metric="copied before TLS",
        value=copied / size,
        unit="B/B",
        n=1,
        method="computed from the frames' layout at the largest quantum",
    )


def _pass_rows(case: str, passed: list[tuple[float, float]], total: int) -> list[Row]:
    method = f"{total // MIB} MiB between two loopback TCP connections, one thread, at most so much a call"
    rate = median(total / seconds for seconds, _ in passed)
    cpu = median(cpu_s / (total / GIB) for _, cpu_s in passed)
    return [
        Row(case=case, metric="throughput", value=rate / 1e6, unit="MB/s", n=len(passed), method=method),
        Row(case=case, metric="cpu", value=cpu, unit="s/GiB", n=len(passed), method=f"{method}; the relay alone"),
    ]


# --- a transfer over a link


def _carry(fleet: Path, channels: int, size: int, total: int) -> Carried:
    """Send `total` bytes from this process to another one in segments of `size` (split where too long for one)."""
    ours, theirs = _spawn.Pipe()
    with socket.create_server(("127.0.0.1", 0), backlog=CHANNELS[-1]) as listener:
        process = _spawn.Process(target=_serve, args=(listener, fleet, channels, theirs), daemon=True)
        process.start()
        ours.recv()
        receiver = _Receiver()
        began = time.perf_counter()
        link = receiver.link = Link("source", _options(fleet, "source", channels, listener), receiver)
        link.start()
        receiver.wait(lambda: receiver.up >= channels)
        setup_s = time.perf_counter() - began
        seconds, cpu_s = _send(link, receiver, size, total, ours)
        link.close()
        process.join(WAIT_S)
    return Carried(setup_s, receiver.first_up_at - began, seconds, cpu_s)


def _send(link: Link, receiver: _Receiver, size: int, total: int, peer: Connection) -> tuple[float, float]:
    piece = min(size, PAYLOAD_BYTES_MAX)
    buffer = memoryview(os.urandom(max(size, piece)))
    views = [buffer[at : at + piece] for at in range(0, size, piece)]
    ahead = max(IN_FLIGHT_BYTES // piece, 2)
    peer.send(None)
    cpu_before = time.process_time() + float(peer.recv())
    began = time.perf_counter()
    count = total // piece
    for sequence in range(count):
        if sequence - receiver.acknowledged > ahead:
            receiver.wait(lambda sequence=sequence: sequence - receiver.acknowledged <= ahead // 2)  # type: ignore[misc]
        view = views[sequence % len(views)]
        link.send(Segment(0, sequence, 0, len(view), 0, view))
    receiver.wait(lambda: receiver.acknowledged == count - 1)
    seconds = time.perf_counter() - began
    peer.send(None)
    return seconds, time.process_time() + float(peer.recv()) - cpu_before


def _serve(listener: socket.socket, fleet: Path, channels: int, pipe: Connection) -> None:
    """The destination's process."""
    receiver = _Receiver()
    link = receiver.link = Link("destination", _options(fleet, "destination", channels, listener), receiver)
    link.start()
    threading.Thread(target=_accept, args=(listener, link, channels), daemon=True).start()
    pipe.send(None)
    for _ in range(2):
        pipe.recv()
        pipe.send(time.process_time())
    receiver.wait(lambda: False)
    link.close()


def _accept(listener: socket.socket, link: Link, channels: int) -> None:
    for _ in range(channels):
        sock = listener.accept()[0]
        sock.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
        link.add_channel(sock)


def _options(fleet: Path, name: str, channels: int, listener: socket.socket) -> LinkOptions:
    return LinkOptions(
        session_id=bytes(16),
        token=bytes(32),
        peer_name={"source": "destination.bench", "destination": "source.bench"}[name],
        ca=fleet / "ca.pem",
        certificate=fleet / f"{name}.bench.pem",
        key=fleet / f"{name}.bench.key",
        addresses=("127.0.0.1",),
        port=listener.getsockname()[1],
        channels=channels,
        channels_max=max(channels, 64),
        loss_s_max=WAIT_S,
    )


# --- pass-through


def _pass_through(way: str, size: int, total: int) -> tuple[float, float]:
    """Relay `total` bytes from a feeding process to a draining one; returns seconds and CPU seconds of the relay."""
    with _connected(_feed, size, total) as source, _connected(_drain, size, total) as destination:
        source.recv(1, socket.MSG_PEEK)
        began, cpu_before = time.perf_counter(), time.process_time()
        if way == "splice":
            _splice(source, destination, size)
        else:
            _copy(source, destination, size)
        destination.shutdown(socket.SHUT_WR)
        destination.recv(1)
        return time.perf_counter() - began, time.process_time() - cpu_before


def _splice(source: socket.socket, destination: socket.socket, size: int) -> None:
    reader, writer = os.pipe()
    try:
        while count := os.splice(source.fileno(), writer, size):
            while count:
                count -= os.splice(reader, destination.fileno(), count)
    finally:
        os.close(reader)
        os.close(writer)


def _copy(source: socket.socket, destination: socket.socket, size: int) -> None:
    buffer = memoryview(bytearray(size))
    while count := source.recv_into(buffer):
        destination.sendall(buffer[:count])


@contextmanager
def _connected(target: Callable[[int, int, int], None], size: int, total: int) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = _spawn.Process(target=target, args=(listener.getsockname()[1], size, total), daemon=True)
        process.start()
        with listener.accept()[0] as sock:
            yield sock
        process.join(WAIT_S)


def _feed(port: int, size: int, total: int) -> None:
    data = os.urandom(size)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        for _ in range(total // size):
            sock.sendall(data)


def _drain(port: int, size: int, total: int) -> None:
    del total
    buffer = bytearray(max(size, 64 * KIB))
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while sock.recv_into(buffer):
            pass
