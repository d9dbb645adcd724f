"""Common part of both sides of an accelerated migration: connections, the link's callbacks, the end.

The session ends when every connection has ended (`carried`, or `reset` if QEMU broke one), when the link stays lost
(`link-lost`), on the agent's order (`aborted`) or by a fault of ours (`failed`). Whatever the end, no socket of
QEMU's stays open behind it: QEMU then does what it does when a TCP connection ends or breaks.

The source alone decides that no further connection comes; the destination stays until it says so (CLOSE), or until it
cannot say it any more. Otherwise a connection that QEMU opens as the last one ends would meet a closed link.
"""

import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dwcp_migrate.dataplane.connection import Connection, Outlet, Retained
from dwcp_migrate.dataplane.direct.path import DirectPath
from dwcp_migrate.dataplane.flow_control import FLOOR_BYTES, URGENT_BYTES, Gate
from dwcp_migrate.errors import DwcpError, LinkLostError, RemoteProtocolError, SessionError
from dwcp_migrate.protocol.session_memory import FLOORS_COUNTED_MAX
from dwcp_migrate.protocol.worker import (
    Finished,
    Happened,
    MigrationCounters,
    SessionOptions,
    StartDestination,
    StartSource,
)
from dwcp_migrate.transport import PARTIAL_BYTES_MAX, Link, LinkOptions, RateLimiter, Role, Segment

ABORT_S_MAX: Final = 1.0
"""Time in which an aborted session tries to tell the other side before it goes."""

CLOSE_S_MAX: Final = 2.0
"""Time that the threads of QEMU's sockets have to leave them."""


def link_options(start: StartSource | StartDestination) -> LinkOptions:
    """The link's part of the agents' agreement."""
    options: SessionOptions = start.options
    return LinkOptions(
        session_id=start.session_id,
        token=start.token,
        peer_name=start.peer_name,
        ca=Path(options.ca),
        certificate=Path(options.certificate),
        key=Path(options.key),
        addresses=(start.link_addresses or (start.peer_address,)) if isinstance(start, StartSource) else (),
        port=start.peer_port if isinstance(start, StartSource) else 0,
        channels=options.channels,
        channels_max=options.channels_max,
        congestion_control=options.congestion_control,
        connect_timeout_s=options.connect_timeout_s,
        loss_s_max=options.loss_s_max,
        partial_bytes_max=_partial_bytes_max(options),
        detaches_in_tls=not options.departure.in_clear,
    )


def _partial_bytes_max(options: SessionOptions) -> int:
    """Most that segments of which pieces are missing may take: no more than an honest peer has in flight at all."""
    if not options.is_window_agreed:
        return PARTIAL_BYTES_MAX
    urgent = min(URGENT_BYTES, options.window_bytes)
    return options.window_bytes + urgent + FLOORS_COUNTED_MAX * FLOOR_BYTES


class LinkSession(ABC):
    """Base of the two sides; also the link's receiver (see `transport.LinkReceiver`).

    Args:
        report: takes what happened, from any thread.

    Raises:
        ConfigError: the TLS files cannot be used.
    """

    def __init__(self, role: Role, options: LinkOptions, report: Callable[[Happened], None]) -> None:
        self.report = report
        self._lock = threading.Lock()
        self._connections: dict[int, Connection] = {}
        self._open: set[int] = set()
        self._was_reset = False
        self._repaired = 0
        self._link_down = False
        self._past_link = RateLimiter()
        self._result: tuple[str, str] | None = None
        self._idle = threading.Condition(self._lock)
        self.link = Link(role, options, self)

    @abstractmethod
    def _gates(self) -> tuple[Gate, ...]:
        """Gates to close at the end."""

    @abstractmethod
    def _totals(self, counters: MigrationCounters) -> None:
        """Fill in the counters of this side."""

    def _new_connection(
        self, number: int, gate: Gate, watch: Callable[[memoryview | bytes], None] | None
    ) -> Connection:
        """Make and register a connection, see `Connection`. Call with the lock held."""
        outlet = Outlet(number, self.link.send, gate)
        path = DirectPath(lambda: self.link.detach(number), self._hold_s)
        connection = Connection(outlet, path, self._acknowledge, self._connection_closed, watch)
        self._connections[number] = connection
        self._open.add(number)
        return connection

    def _hold_s(self, count: int) -> float:
        """Charge bytes that went past the link; returns the seconds that the next ones have to wait."""
        with self._lock:
            self._past_link.took(count)
            return self._past_link.wait_s(time.monotonic())

    def _known(self, number: int) -> Connection:
        """A connection of this session, open or ended: late segments of an ended one are still acknowledged.

        Raises:
            RemoteProtocolError: there never was one of that number.
        """
        with self._lock:
            connection = self._connections.get(number)
        if connection is None:
            raise RemoteProtocolError(f"connection {number} was never opened")
        return connection

    def _acknowledge(self, connection: int, sequence: int) -> None:
        self.link.acknowledge(connection, sequence)

    def _connection_closed(self, connection: Connection, was_reset: bool) -> None:  # noqa: FBT001 - a callback
        self.report(Happened(event="connection-closed", connection=connection.number))
        with self._lock:
            self._open.discard(connection.number)
            self._was_reset |= was_reset
            self._idle.notify_all()

    @abstractmethod
    def on_segment(self, segment: Segment) -> None:
        """A segment came, in any order."""

    def on_acknowledged(self, connection: int, sequence: int) -> None:
        """See `LinkReceiver`."""
        known = self._known(connection)
        known.outlet.acknowledged(sequence)
        known.check_closed()

    def on_rejected(self, connection: int, sequence: int) -> None:
        """See `LinkReceiver`: the segment is sent again as it is."""
        kept = self._known(connection).outlet.find(sequence)
        if kept is None:
            self.fail(SessionError(f"segment {sequence} of connection {connection} was rejected after its delivery"))
            return
        self._before_repair(kept)
        replacement = self._raw_segment(connection, sequence, kept.raw)
        if replacement.checksum != kept.checksum:
            self.fail(SessionError(f"segment {sequence} of connection {connection} changed in this host's memory"))
            return
        self._repaired += 1
        self.report(Happened(event="repaired", connection=connection, number=sequence))
        self.link.replace(replacement)

    @abstractmethod
    def _before_repair(self, kept: Retained) -> None:
        """Let the encoder know that the other side's state may be wrong since this segment."""

    @abstractmethod
    def _raw_segment(self, connection: int, sequence: int, raw: memoryview) -> Segment:
        """A segment that carries the bytes without any use of state."""

    def on_channels(self, up: int) -> None:  # noqa: B027 - `counters` tells it when somebody asks
        """See `LinkReceiver`."""

    def on_channel_lost(self, reason: str) -> None:
        """See `LinkReceiver`; its segments are being sent again on others."""
        self.report(Happened(event="channel-lost", detail=reason))

    def on_link_lost(self) -> None:
        """See `LinkReceiver`."""
        self._link_down = True
        self.report(Happened(event="link-lost"))

    def on_link_restored(self, milliseconds: int) -> None:
        """See `LinkReceiver`."""
        self._link_down = False
        self.report(Happened(event="link-restored", number=milliseconds))

    @abstractmethod
    def on_detached(self, connection: int, sock: socket.socket) -> None:
        """See `LinkReceiver`: the channel becomes the plain path of the connection."""

    def on_detach_failed(self, connection: int) -> None:
        """See `LinkReceiver`."""
        with self._lock:
            known = self._connections.get(connection)
        if known is not None:
            known.path.fail()

    def on_closed(self) -> None:  # noqa: B027 - nothing to do is the source's answer
        """See `LinkReceiver`; everything was acknowledged, so our connections are ending too."""

    def on_failed(self, error: DwcpError) -> None:
        """See `LinkReceiver`."""
        self.fail(error)

    @property
    def is_paced(self) -> bool:
        """Tell whether bulk is held to a rate."""
        return self._past_link.bytes_per_s > 0

    def pace(self, bytes_per_s: float) -> None:
        """Hold bulk to a rate, of the link and of each plain path; 0 for none."""
        self.link.pace(bytes_per_s)
        with self._lock:
            self._past_link.set(time.monotonic(), bytes_per_s)

    def fail(self, error: BaseException) -> None:
        """End the session for a fault: every connection of QEMU's is reset."""
        result = "link-lost" if isinstance(error, LinkLostError) else "failed"
        self._end(result, f"{type(error).__name__}: {error}")
        self._break_off_all(tell=False)

    def abort(self, reason: str) -> None:
        """Reset every connection on both sides and end."""
        self._end("aborted", reason)
        self._break_off_all(tell=True)
        with self._idle:
            self._idle.wait_for(lambda: not self._open, timeout=ABORT_S_MAX)
        self._break_off_all(tell=False)

    def _end(self, result: str, detail: str) -> None:
        with self._lock:
            if self._result is None:
                self._result = self._carried() if self._is_over() else (result, detail)
        for gate in self._gates():
            gate.close()

    def _break_off_all(self, *, tell: bool) -> None:
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            connection.break_off(tell=tell)

    def counters(self) -> MigrationCounters:
        """Totals so far."""
        link = self.link.counters()
        with self._lock:
            paths = [connection.path for connection in self._connections.values()]
        past_bytes = sum(path.moved_bytes for path in paths)
        counters = MigrationCounters(
            wire_bytes=link.sent_bytes + link.received_bytes + past_bytes,
            aside_bytes=past_bytes,
            plain_bytes=sum(path.moved_bytes for path in paths if not path.is_in_tls),
            resent_segments=link.resent_pieces,
            repaired_segments=self._repaired,
            channels_lost=link.channels_lost,
            link_losses=link.link_losses,
            channels=link.channels,
            rtt_s=link.rtt_s,
            retransmits=link.retransmits,
            cpu_s=time.process_time(),
            channel_bytes=link.channel_bytes,
            path_bytes=link.path_bytes,
        )
        self._totals(counters)
        return counters

    def finished(self) -> Finished | None:
        """Return the result once the session is over; polled by the worker's main loop."""
        with self._lock:
            self._check_end()
            result = self._result
        if result is None:
            return None
        return Finished(result=result[0], detail=result[1], counters=self.counters())

    def close(self) -> None:
        """End the link: in order unless the session failed. Takes a few seconds at most."""
        with self._idle:  # an exit before the resets are sent would look like the end of the stream
            self._idle.wait_for(lambda: not self._open, timeout=CLOSE_S_MAX)
            result = self._result
        in_order = result is not None and result[0] in ("carried", "reset")
        self.link.close("" if in_order else "the session ended early")

    def _is_over(self) -> bool:
        """Every connection has ended, or a QEMU broke it and its threads are leaving."""
        return bool(self._connections) and all(self._connections[number].broken for number in self._open)

    def _carried(self) -> tuple[str, str]:
        return ("reset" if self._was_reset or self._open else "carried", "")

    @abstractmethod
    def _awaits_more(self) -> bool:
        """Whether a further connection may come to an idle session."""

    def _check_end(self) -> None:
        if self._result is not None or not self._connections:
            return
        if not self._open:
            if not self._awaits_more():
                self._result = self._carried()
        elif self._link_down and all(self._connections[number].quiet for number in self._open):
            # Nothing of QEMU's is left here and nothing to deliver: there is no reason to wait for the link.
            self._result = ("reset", "QEMU closed its connections while the link was lost")
