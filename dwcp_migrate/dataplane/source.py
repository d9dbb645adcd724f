"""The source side of an accelerated migration: QEMU's connections in, segments out.

    QEMU --> ForwardReader --> Stage (classify, serial) --> WorkPool (compress) --> Link
    QEMU <-- Connection's writer <-- return path, raw <-- Link

The channels are dialled by the link. The window of bytes in flight is the only thing that QEMU notices of the network.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import xxhash

from dwcp_migrate.dataplane.buffers import BufferPool
from dwcp_migrate.dataplane.connection import Arrival, Retained
from dwcp_migrate.dataplane.flow_control import (
    FLOOR_BYTES,
    REVERSE_BYTES_MAX,
    URGENT_BYTES,
    Gate,
    PendingBytes,
    reverse_window_bytes,
)
from dwcp_migrate.dataplane.known.stated import StatedPages
from dwcp_migrate.dataplane.malloc import KEPT_SHARE, keep_freed_memory
from dwcp_migrate.dataplane.pipeline_monitor import PipelineMonitor, PipelineSample
from dwcp_migrate.dataplane.qemu_socket import Endpoint
from dwcp_migrate.dataplane.recording.recorder import Recorder
from dwcp_migrate.dataplane.session import LinkSession, link_options
from dwcp_migrate.dataplane.source_reader import ForwardReader, PostcopyProgress, SharedPipeline, Stage
from dwcp_migrate.dataplane.worker_threads import IdleClock, WorkPool, workers_here
from dwcp_migrate.delta import Coding, PageEncoder, raw_payload
from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.protocol.session_memory import FLOORS_COUNTED_MAX
from dwcp_migrate.protocol.worker import Happened, MigrationCounters, SessionOptions, StartSource
from dwcp_migrate.qemu import RamBlocks, ReturnPath, StreamParser, events
from dwcp_migrate.qemu.events import Event, GuestUuid, Iteration, Opaque, RamTotal, Switchover
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.qemu.sniff import StreamKind
from dwcp_migrate.transport import REMARKS, URGENT, InFlightWindow, Segment
from dwcp_migrate.units import KIB

PEER_FLOOR_BYTES: Final = 256 * KIB
"""Bytes that a peer of version 0.1.0 lets each connection have in flight at any time; later ones less."""


def reverse_bytes_max(options: SessionOptions, connections: int) -> int:
    """Return the most bytes that may come on return paths before QEMU takes them: twice an honest destination's.

    Args:
        options: of the session.
        connections: of QEMU's, so far.
    """
    if not options.is_window_agreed:
        return 2 * (REVERSE_BYTES_MAX + connections * PEER_FLOOR_BYTES)
    return 2 * (reverse_window_bytes(options) + min(connections, FLOORS_COUNTED_MAX) * FLOOR_BYTES)


class _Observer:
    """Reports the events of a parser, each once."""

    def __init__(self, number: int, report: Callable[[Happened], None]) -> None:
        self._number = number
        self._report = report
        self._kind = StreamKind.UNKNOWN

    def look(self, parser: StreamParser) -> None:
        """Report what is new."""
        if parser.kind is not self._kind:
            self._kind = parser.kind
            self._happened("connection-opened", detail=self._kind.name.lower())
        for event in parser.take_events():
            self._translate(event)

    def _translate(self, event: Event) -> None:
        match event:
            case RamTotal(total_bytes=total):
                self._happened("ram-total", number=total)
            case GuestUuid(uuid=uuid):
                self._happened("uuid", detail=uuid)
            case Iteration(number=number):
                self._happened("iteration", number=number)
            case Switchover():
                self._happened("switchover")
            case events.Postcopy():
                self._happened("postcopy")
            case Opaque(reason=reason):
                self._happened("opaque", detail=reason)

    def _happened(self, event: str, *, detail: str = "", number: int = 0) -> None:
        self._report(Happened(event=event, connection=self._number, detail=detail, number=number))


class SourceSession(LinkSession):
    """One migration at the source.

    Args:
        start: the agents' agreement.
        report: takes events, from any thread.
    """

    def __init__(self, start: StartSource, report: Callable[[Happened], None]) -> None:
        super().__init__("source", link_options(start), report)
        self._start = start
        options = start.options
        keep_freed_memory(options.granted_bytes // KEPT_SHARE)
        workers = workers_here(options.workers)
        self._pool = WorkPool(workers, "encode", self.fail)
        self._pace = PipelineMonitor(
            options.codec,
            options.level,
            options.level_max,
            workers,
            may_leave=options.departure.is_allowed,
            reason_to_leave=options.departure.from_start,
        )
        self._window = InFlightWindow(options.in_flight_ms_max, options.window_bytes)
        self._gate = Gate(
            self._window, self._ahead_s, options.in_flight_ms_max / 1000, min(URGENT_BYTES, options.window_bytes)
        )
        self._stated = StatedPages(start.stated_key) if start.stated_key else None
        self._encoder = PageEncoder(options.cache_bytes, options.table_bytes, self._stated)
        stage = Stage(self._encoder, self._pool, self.link.send, self._choose, self._stated)
        self._qemu_idle = IdleClock()
        buffers = BufferPool(options.window_bytes)
        self._shared = SharedPipeline(
            self._gate, stage, buffers, self._qemu_idle, PostcopyProgress(), self._stands_aside
        )
        self._told, self._told_aside = "", False
        self._reverse = PendingBytes()
        self._was_linked = False
        self._blocks = RamBlocks()
        self._parsers: dict[int, StreamParser] = {}
        self._recorder = self._make_recorder()
        self.link.start()

    def _make_recorder(self) -> Recorder | None:
        options = self._start.options
        if not options.record_directory:
            return None
        prefix = self._start.session_id.hex()
        return Recorder(Path(options.record_directory), prefix, options.record_bytes_max, self.report)

    def add_connection(self, number: int, sock: socket.socket) -> None:
        """Carry one connection of QEMU's.

        Args:
            number: in the order in which the connections were accepted, from 0.
            sock: connected; owned from now on.
        """
        parser = StreamParser(self._blocks)
        with self._lock:
            connection = self._new_connection(number, self._gate, self._return_path_watch(parser))
            self._parsers[number] = parser
        reader = ForwardReader(
            connection.outlet,
            parser,
            self._shared,
            _Observer(number, self.report).look,
            self._recorder.connection(number) if self._recorder is not None else None,
            connection.path if self._start.options.departure.is_allowed and self._recorder is None else None,
        )
        connection.attach(Endpoint(sock), reader)

    def _return_path_watch(self, parser: StreamParser) -> Callable[[memoryview | bytes], None]:
        """Notice by the first page request that the guest runs there, where a section hides it from the parser."""
        returned = ReturnPath()

        def watch(raw: memoryview | bytes) -> None:
            if parser.kind is StreamKind.MAIN and not self._shared.postcopy.begun and returned.feed(raw):
                self._shared.postcopy.begun = True
                parser.note_page_request()

        return watch

    def on_channels(self, up: int) -> None:
        """See `LinkSession.on_channels`; the agent waits for the first channel before it hands QEMU over."""
        if up and not self._was_linked:
            self._was_linked = True
            self.report(Happened(event="link-up"))

    def on_detached(self, connection: int, sock: socket.socket) -> None:
        """See `LinkSession.on_detached`; a channel that was not asked for is not taken."""
        path = self._known(connection).path
        if path.is_asked:
            path.offer(sock)
        else:
            sock.close()
            self.fail(RemoteProtocolError("the peer detached a channel unasked"))

    def _stands_aside(self) -> bool:
        return self._pace.stands_aside and not self.is_paced

    def on_segment(self, segment: Segment) -> None:
        """Take a piece of a return path, or of the statement of the destination's store."""
        if segment.connection == REMARKS and self._stated is not None:
            self._listen(self._stated, segment)
            return
        connection = self._known(segment.connection)
        with self._lock:
            count = len(self._connections)
        try:
            self._reverse.add(segment, reverse_bytes_max(self._start.options, count))
        except LimitExceededError as error:
            self.fail(error)
            return
        if segment.raw_size and xxhash.xxh3_64_intdigest(segment.payload) != segment.checksum:
            self._reverse.rejected(segment.connection, segment.sequence)
            self.link.reject(segment.connection, segment.sequence)
        else:
            if segment.sequence == 0:  # an NBD server greets first, and its client is told apart by nothing else
                self._parsers[segment.connection].observe_reverse(bytes(segment.payload))
            connection.arrived(Arrival(segment.sequence, segment.flags, segment.payload))

    def _listen(self, stated: StatedPages, segment: Segment) -> None:
        try:
            taken = stated.take(segment)
        except RemoteProtocolError as error:
            self.fail(error)
            return
        if taken >= 0:
            self.link.acknowledge(REMARKS, taken)

    def kept_pages(self) -> Words:
        """Return the pages to keep on this host, once the session is over."""
        return self._encoder.kept_pages()

    def _acknowledge(self, connection: int, sequence: int) -> None:
        self._reverse.delivered(connection, sequence)
        super()._acknowledge(connection, sequence)

    def _choose(self) -> Coding:
        now = time.monotonic()
        coding = self._pace.choose(now, self._seen(now))
        if (decision := self._pace.decision) != self._told:
            self._told = decision
            self.report(Happened(event="coding", detail=decision))
        if self._stands_aside() and not self._told_aside:
            self._told_aside = True
            how = "in clear" if self._start.options.departure.in_clear else "each connection in TLS of its own"
            self.report(Happened(event="stands-aside", detail=f"{how}: {self._pace.reason_to_leave}"))
        return coding

    def _ahead_s(self) -> float:
        now = time.monotonic()
        return self._pace.ahead_s(now, self._seen(now))

    def _seen(self, now: float) -> PipelineSample:
        link = self.link.counters()
        self._window.rtt_s = link.rtt_s
        self._window.holds_up = self._pace.window_holds_up
        return PipelineSample(
            sent_bytes=link.sent_bytes,
            queued_bytes=link.queued_bytes,
            busy_s=self._pool.busy_s(),
            held_s=self._gate.held_s(now),
            ahead_closed_s=self._gate.ahead_closed_s,
            classifier_s=self._shared.stage.classifying_s,
            qemu_idle_s=self._qemu_idle.total_s(now),
            encryption_s=link.thread_busy_s,
            blocked_s=link.blocked_s,
            receiver_limited=link.receiver_limited,
            under_way_bytes=link.under_way_bytes,
            retained_bytes=link.retained_bytes,
            rtt_s=link.rtt_s,
        )

    def _before_repair(self, kept: Retained) -> None:
        self._shared.stage.before_repair(kept)

    def _raw_segment(self, connection: int, sequence: int, raw: memoryview) -> Segment:
        return Segment(connection, sequence, URGENT, len(raw), xxhash.xxh3_64_intdigest(raw), raw_payload(raw))

    def _gates(self) -> tuple[Gate, ...]:
        return (self._gate,)

    def _awaits_more(self) -> bool:
        """One that comes later goes back to the agent, for a session of its own."""
        return False

    def _totals(self, counters: MigrationCounters) -> None:
        with self._lock:
            connections = list(self._connections.values())
        self._shared.stage.count(counters)
        counters.unclassified_bytes += sum(connection.path.sent_bytes for connection in connections)
        counters.raw_bytes = sum(one.outlet.sent_bytes + one.path.sent_bytes for one in connections)
        counters.reverse_bytes = sum(one.written_bytes + one.path.received_bytes for one in connections)
        counters.in_flight_bytes = self._gate.in_flight_bytes
        counters.link_waiting_s = self._pace.link_waiting_s
        counters.path_waiting_s = self._pace.path_waiting_s
        counters.held_up_s = {str(stage): seconds for stage, seconds in self._pace.held_up_s.items()}

    def close(self) -> None:
        """See `LinkSession.close`."""
        if self._recorder is not None:
            self._recorder.close()
        super().close()
