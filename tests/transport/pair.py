"""Two links with real sockets and real TLS, and a TCP proxy between them that cuts and stalls."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dwcp_migrate.errors import (
    DwcpError,
)
from dwcp_migrate.transport import Link, LinkOptions, Reassembly, Role, Segment
from dwcp_migrate.transport.core.frames import PREAMBLE_BYTES

WAIT_S = 30.0
"""Longest wait for an event on a machine that is busy; a test that needs it has failed."""


class Recorder:
    """Receiver in miniature: orders and acknowledges what comes, and writes everything down."""

    def __init__(self) -> None:
        self.link: Link
        self.changed = threading.Condition()
        self.data: dict[int, bytearray] = {}
        self.acknowledged: dict[int, int] = {}
        self.events: list[str] = []
        self.detached: dict[int, socket.socket] = {}
        self.errors: list[DwcpError] = []
        self.reject_next = 0
        self.rejected: list[tuple[int, int]] = []
        self.acknowledging = True
        self._orders: dict[int, Reassembly[Segment]] = {}

    def wait(self, condition: Callable[[], object], seconds: float = WAIT_S) -> None:
        """Await a condition: at once when the link calls, soon when only its counters change."""
        end = time.monotonic() + seconds
        with self.changed:
            while not condition():
                assert time.monotonic() < end, f"waited {seconds} s; events: {self.events}"
                self.changed.wait(0.05)

    def wait_event(self, name: str, seconds: float = WAIT_S) -> None:
        self.wait(lambda: any(event.startswith(name) for event in self.events), seconds)

    def wait_acknowledged(self, connection: int, sequence: int, seconds: float = WAIT_S) -> None:
        self.wait(lambda: self.acknowledged.get(connection, -1) >= sequence, seconds)

    def wait_rejections(self, count: int) -> None:
        self.wait(lambda: len(self.rejected) == count)

    def _note(self, event: str) -> None:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def on_segment(self, segment: Segment) -> None:
        if self.reject_next:
            self.reject_next -= 1
            self.link.reject(segment.connection, segment.sequence)
            return
        order = self._orders.setdefault(segment.connection, Reassembly())
        order.put(segment.sequence, segment, len(segment.payload))
        with self.changed:
            while (item := order.pop()) is not None:
                self.data.setdefault(segment.connection, bytearray()).extend(item.payload)
                if self.acknowledging:
                    self.link.acknowledge(item.connection, item.sequence)
            self.changed.notify_all()

    def on_acknowledged(self, connection: int, sequence: int) -> None:
        with self.changed:
            self.acknowledged[connection] = sequence
            self.changed.notify_all()

    def on_rejected(self, connection: int, sequence: int) -> None:
        with self.changed:
            self.rejected.append((connection, sequence))
            self.changed.notify_all()

    def on_channels(self, up: int) -> None:
        self._note(f"channels {up}")

    def on_channel_lost(self, reason: str) -> None:
        self._note(f"channel-lost {reason}")

    def on_link_lost(self) -> None:
        self._note("link-lost")

    def on_link_restored(self, milliseconds: int) -> None:
        self._note(f"link-restored {milliseconds}")

    def on_detached(self, connection: int, sock: socket.socket) -> None:
        self.detached[connection] = sock
        self._note(f"detached {connection}")

    def on_detach_failed(self, connection: int) -> None:
        self._note(f"detach-failed {connection}")

    def on_closed(self) -> None:
        self._note("closed")

    def on_failed(self, error: DwcpError) -> None:
        self.errors.append(error)
        self._note("failed")


class Listener:
    """What the destination's agent does: accept, take the preamble, hand the socket to the session's link."""

    def __init__(self, take: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        self._take = take
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock = self._socket.accept()[0]
            except OSError:
                return
            sock.settimeout(WAIT_S)
            try:
                preamble = sock.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
            except OSError:
                preamble = b""
            if len(preamble) < PREAMBLE_BYTES:
                sock.close()
                continue
            self._take(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(WAIT_S)


class Proxy:
    """TCP proxy on loopback that can cut connections, refuse new ones, and stop forwarding without a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._all: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.flowing = threading.Event()
        self.flowing.set()
        self.refusing = False
        self.closed = threading.Event()
        self._stalled: set[socket.socket] = set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._socket.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._socket.accept()[0]
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
                self._all += [client, server]
            self._start(self._pump, client, server)
            self._start(self._pump, server, client)

    def _pump(self, reader: socket.socket, writer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := reader.recv(65536):
                self.flowing.wait()
                while reader in self._stalled or writer in self._stalled:
                    if self.closed.wait(0.05):
                        return
                writer.sendall(data)
            writer.shutdown(socket.SHUT_WR)

    @property
    def count(self) -> int:
        return len(self._pairs)

    def cut(self, count: int | None = None) -> None:
        """Cut the oldest `count` connections, or all."""
        with self._lock:
            number = len(self._pairs) if count is None else count
            pairs, self._pairs = self._pairs[:number], self._pairs[number:]
        for pair in pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def stall(self, count: int) -> None:
        """Let nothing more through the oldest `count` connections, without a word."""
        with self._lock:
            for pair in self._pairs[:count]:
                self._stalled.update(pair)

    def half_close(self) -> None:
        """End the direction from the dialling side of the oldest connection."""
        with self._lock:
            pair = self._pairs.pop(0)
        pair[1].shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.flowing.set()
        self.closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._threads[0].join(WAIT_S)
        self.cut()
        for thread in self._threads:
            thread.join(WAIT_S)
        for sock in self._all:
            sock.close()


def base_options(fleet: Path, name: str) -> LinkOptions:
    """Options of host a or b, whose peer is the other one."""
    return LinkOptions(
        session_id=b"0123456789abcdef",
        token=b"t" * 32,
        peer_name={"a": "b.example", "b": "a.example"}[name],
        ca=fleet / "ca.pem",
        certificate=fleet / f"{name}.example.pem",
        key=fleet / f"{name}.example.key",
        addresses=("127.0.0.1",),
        channels=4,
        loss_s_max=20.0,
    )


class Pair:
    """Two links, one dialling the other through a proxy."""

    def __init__(self, fleet: Path, **options: Any) -> None:
        self.destination = Recorder()
        destination_options = replace(base_options(fleet, "b"), **options)
        self.destination_link = self._make("destination", destination_options, self.destination)
        self.listener = Listener(self.destination_link.add_channel)
        self.proxy = Proxy(self.listener.port)
        self.source = Recorder()
        self.source_options = replace(base_options(fleet, "a"), port=self.proxy.port, **options)
        self.source_link = self._make("source", self.source_options, self.source)
        self.destination_link.start()
        self.source_link.start()

    def _make(self, role: Role, options: LinkOptions, recorder: Recorder) -> Link:
        recorder.link = Link(role, options, recorder)
        return recorder.link

    def close(self) -> None:
        self.source_link.close()
        self.destination_link.close()
        self.proxy.close()
        self.listener.close()
        for recorder in (self.source, self.destination):
            for sock in recorder.detached.values():
                sock.close()


def wait_channels(recorder: Recorder, count: int) -> None:
    recorder.wait(lambda: f"channels {count}" in recorder.events)


def payload(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def send_all(link: Link, connection: int, data: bytes, size: int) -> int:
    """Send `data` in segments of `size`; returns the last sequence."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    for sequence, piece in enumerate(pieces):
        link.send(Segment(connection, sequence, 0, len(piece), 0, memoryview(piece)))
    return len(pieces) - 1


MakePair = Callable[..., Pair]
