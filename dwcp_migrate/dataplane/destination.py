"""The destination side of an accelerated migration: segments in, the byte-identical stream into the waiting QEMU.

    Link --> WorkPool (decompress) --> Rebuild (apply, verify, in order) --> Connection's writer --> QEMU
    Link <-- ReverseReader, raw and urgent <-- QEMU's return path

Connections are dialled in the order in which the source accepted them, one at a time: QEMU before 8.0 tells the main
channel from the others by nothing else.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from dwcp_migrate.dataplane.connection import Arrival, Connection, Retained
from dwcp_migrate.dataplane.decode_pipeline import EARLY_BYTES_MAX, Rebuild
from dwcp_migrate.dataplane.flow_control import FLOOR_BYTES, FixedWindow, Gate, PendingBytes, reverse_window_bytes
from dwcp_migrate.dataplane.known.stating import StateOfStore
from dwcp_migrate.dataplane.known.warming import discarding_socket
from dwcp_migrate.dataplane.malloc import KEPT_SHARE, keep_freed_memory
from dwcp_migrate.dataplane.qemu_socket import Endpoint
from dwcp_migrate.dataplane.return_reader import ReverseReader, raw_segment
from dwcp_migrate.dataplane.session import LinkSession, link_options
from dwcp_migrate.dataplane.worker_threads import WorkPool, workers_here
from dwcp_migrate.delta import PageDecoder
from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.hypervisor.listening import listening_addresses
from dwcp_migrate.protocol.session_memory import incoming_bytes_max
from dwcp_migrate.protocol.worker import Happened, MigrationCounters, SessionOptions, StartDestination
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.transport import OPEN, REMARKS, Segment
from dwcp_migrate.units import MIB

DIAL_S: Final = 5.0
"""QEMU listens on this very host: longer than this it is not there."""

PENDING_BYTES_MAX: Final = 256 * MIB
"""Bytes from a peer of version 0.1 that are not in QEMU yet: its windows (64 MiB, and a little for each connection)
stay far below. Of later ones the window that both agreed on bounds it."""


def pending_bytes_max(options: SessionOptions, connections: int) -> int:
    """Return the most bytes that may have come and not be in QEMU yet.

    Args:
        options: of the session.
        connections: of QEMU's, so far.
    """
    if not options.is_window_agreed:
        return PENDING_BYTES_MAX
    return incoming_bytes_max(options.window_bytes, connections, FLOOR_BYTES)


class DestinationSession(LinkSession):
    """One migration at the destination.

    Args:
        start: the agents' agreement; the target is checked by the agent.
        report: takes events, from any thread.
    """

    def __init__(self, start: StartDestination, report: Callable[[Happened], None]) -> None:
        super().__init__("destination", link_options(start), report)
        self._start = start
        self._target = start.target_address
        options = start.options
        keep_freed_memory(options.granted_bytes // KEPT_SHARE)
        self._pool = WorkPool(workers_here(options.workers), "decode", self.fail)
        self._store: StateOfStore | None = None
        if start.states and options.store is not None:
            self._store = StateOfStore(options.store, self.link.send, report)
        self._decoder = PageDecoder(options.cache_bytes, self._store.fetch if self._store else None)
        self._rebuild = Rebuild(
            self._decoder, self._pool, self._deliver, self._reject, min(EARLY_BYTES_MAX, options.window_bytes)
        )
        self._gate = Gate(FixedWindow(reverse_window_bytes(options)))
        self._pending = PendingBytes()
        self._to_dial: dict[int, Connection] = {}
        self._dials: SimpleQueue[Connection | None] = SimpleQueue()
        self._next_dial = 0
        self._source_ended = False
        threading.Thread(target=self._dial_in_order, name="dial", daemon=True).start()
        self.link.start()

    def add_channel(self, sock: socket.socket) -> None:
        """Take a channel that the agent accepted; its preamble is consumed, TLS is still to come."""
        self.link.add_channel(sock)

    def on_segment(self, segment: Segment) -> None:
        """Take a piece of a forward direction, in any order."""
        connection = self._connection(segment)
        if not segment.raw_size:
            connection.arrived(Arrival(segment.sequence, segment.flags, b""))
            return
        try:
            self._pending.add(segment, pending_bytes_max(self._start.options, len(self._connections)))
        except LimitExceededError as error:
            self.fail(error)
            return
        self._rebuild.take(segment)

    def on_detached(self, connection: int, sock: socket.socket) -> None:
        """See `LinkSession.on_detached`; the connection's first segment may be still under way."""
        if not self._start.options.departure.is_allowed:
            sock.close()
            self.fail(RemoteProtocolError("the peer went past the link, which was not agreed on"))
            return
        with self._lock:
            known = self._connections.get(connection) or self._new_connection(connection, self._gate, None)
        known.path.offer(sock)

    def _connection(self, segment: Segment) -> Connection:
        """The segment's connection, made when its first segment comes, which need not be its OPEN."""
        number = segment.connection
        with self._lock:
            connection = self._connections.get(number) or self._new_connection(number, self._gate, None)
            if segment.flags & OPEN:
                self._to_dial[number] = connection
            while (ready := self._to_dial.pop(self._next_dial, None)) is not None:
                self._next_dial += 1
                self._dials.put(ready)
        return connection

    def _dial_in_order(self) -> None:
        while (connection := self._dials.get()) is not None:
            self._dial(connection)

    def _dial(self, connection: Connection) -> None:
        try:
            sock = self._connect()
        except OSError as error:
            detail = f"cannot reach QEMU at {self._target}, port {self._start.target_port}: {error}"
            self.report(Happened(event="connection-closed", connection=connection.number, detail=detail))
            connection.break_off(tell=True)
            return
        self.report(Happened(event="connection-opened", connection=connection.number))
        connection.attach(Endpoint(sock), ReverseReader(connection.outlet, connection.path, self._gate, self.link.send))

    def _connect(self) -> socket.socket:
        """Connect to QEMU where it was dialled; where it does not listen there, at this host's address where it does.

        libvirt and QEMU would have tried the next address of the name; the redirect took theirs at once.
        """
        if self._start.discards:
            return discarding_socket()
        port = self._start.target_port
        try:
            return socket.create_connection((self._target, port), timeout=DIAL_S)
        except OSError as first:
            for address in listening_addresses(port):
                with contextlib.suppress(OSError):
                    sock = socket.create_connection((address, port), timeout=DIAL_S)
                    self.report(Happened(event="onward", detail=f"not at {self._target}, at {address} ({first})"))
                    self._target = address
                    return sock
            raise

    def _deliver(self, segment: Segment, raw: memoryview) -> None:
        self._known(segment.connection).arrived(Arrival(segment.sequence, segment.flags, raw))

    def _acknowledge(self, connection: int, sequence: int) -> None:
        self._pending.delivered(connection, sequence)
        super()._acknowledge(connection, sequence)

    def _reject(self, segment: Segment) -> None:
        self._pending.rejected(segment.connection, segment.sequence)
        self.report(Happened(event="repaired", connection=segment.connection, number=segment.sequence))
        self.link.reject(segment.connection, segment.sequence)

    def _before_repair(self, kept: Retained) -> None:
        """The reverse direction has no state."""

    def _raw_segment(self, connection: int, sequence: int, raw: memoryview) -> Segment:
        return raw_segment(connection, sequence, raw)

    def on_acknowledged(self, connection: int, sequence: int) -> None:
        """See `LinkSession.on_acknowledged`."""
        if connection == REMARKS and self._store is not None:
            self._store.acknowledged(sequence)
        else:
            super().on_acknowledged(connection, sequence)

    def kept_pages(self) -> Words:
        """Return the pages to keep on this host, once the session is over."""
        return self._decoder.kept_pages()

    def close(self) -> None:
        """See `LinkSession.close`."""
        if self._store is not None:
            self._store.close()
        super().close()

    def on_closed(self) -> None:
        """See `LinkSession.on_closed`."""
        self._source_ended = True

    def _gates(self) -> tuple[Gate, ...]:
        return (self._gate,)

    def _awaits_more(self) -> bool:
        return not self._source_ended

    def _end(self, result: str, detail: str) -> None:
        self._dials.put(None)
        super()._end(result, detail)

    def _totals(self, counters: MigrationCounters) -> None:
        counters.stated_pages = self._store.stated_pages if self._store is not None else 0
        with self._lock:
            connections = list(self._connections.values())
        past_bytes = sum(connection.path.received_bytes for connection in connections)
        counters.raw_bytes = self._pending.delivered_bytes + past_bytes
        counters.in_flight_bytes = self._pending.total_bytes
        counters.reverse_bytes = sum(one.outlet.sent_bytes + one.path.sent_bytes for one in connections)
