"""Both directions of one QEMU connection, on one side of the migration.

    QEMU socket --reader thread--> Outlet --segments--> link
    QEMU socket <--writer thread-- arrivals, in order <-- link

Rules:
- The end of the stream, a reset and a broken socket each cross to the other side as a FIN or RESET segment.
- Where the link is outrun, MOVED marks where a direction goes on over a path of its own (`direct.path`).
- A segment is acknowledged when QEMU's socket took its bytes, never earlier.
- The socket is closed by the last of the two threads to leave; the connection has ended when, besides, the other
  side acknowledged our FIN or RESET (or sent its own RESET).
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from dwcp_migrate.dataplane.buffers import BufferLease
from dwcp_migrate.dataplane.direct.path import DirectPath
from dwcp_migrate.dataplane.flow_control import Gate
from dwcp_migrate.dataplane.qemu_socket import CancelledError, Endpoint
from dwcp_migrate.delta.payload import Slots
from dwcp_migrate.transport import FIN, MOVED, OPEN, RESET, URGENT, Reassembly, Segment


@dataclass(slots=True)
class Retained:
    """Raw bytes that may have to be sent again.

    Attributes:
        state_sequence: the segment's place among those that touch the page caches, None for others.
        checksum: of the raw bytes as they were sent first; None before that.
        lease: the buffer that they lie in, None when they own their memory.
        slots: of the page cache, that it fills.
        names_known: it names pages of the destination's store, of which one may not be there after all.
    """

    sequence: int
    raw: memoryview
    lease: BufferLease | None
    state_sequence: int | None = None
    checksum: int | None = None
    slots: Slots | None = None
    names_known: bool = False


class Outlet:
    """The outgoing half: numbers segments and keeps their raw bytes until they are acknowledged.

    Attributes:
        sent_bytes: raw bytes so far.
    """

    def __init__(self, connection: int, send: Callable[[Segment], None], gate: Gate) -> None:
        self.connection = connection
        self.sent_bytes = 0
        self._send = send
        self._gate = gate
        self._lock = threading.Lock()
        self._next_sequence = 0
        self._retained: deque[Retained] = deque()
        self._dropped = False
        self._end_sequence: int | None = None
        self._end_acknowledged = threading.Event()

    def retain(self, raw: memoryview, lease: BufferLease | None, state_sequence: int | None = None) -> Retained:
        """Number a run of raw bytes and keep it until it is acknowledged.

        Args:
            raw: the bytes; they must not change meanwhile.
            lease: of the buffer that they lie in, held until then; None where they own their memory.
            state_sequence: place among the segments that touch the page caches; None for others.

        Raises:
            CancelledError: `drop` was called: nothing of this connection is sent any more.
        """
        with self._lock:
            if self._dropped:
                raise CancelledError
            if lease is not None:
                lease.hold()
            self._gate.sent(self.connection, len(raw))  # before anybody can acknowledge or drop it
            kept = Retained(self._next_sequence, raw, lease, state_sequence)
            self._next_sequence += 1
            self._retained.append(kept)
            self.sent_bytes += len(raw)
        return kept

    def find(self, sequence: int) -> Retained | None:
        """Find a segment that is not acknowledged yet."""
        with self._lock:
            return next((kept for kept in self._retained if kept.sequence == sequence), None)

    def signal(self, flags: int) -> None:
        """Send OPEN, FIN, MOVED or RESET; of the last three only the first counts, but RESET still follows."""
        with self._lock:
            if flags & OPEN == 0:
                if self._end_sequence is not None and not flags & RESET:
                    return
                self._end_sequence = self._next_sequence
            sequence = self._next_sequence
            self._next_sequence += 1
        self._send(Segment(self.connection, sequence, flags | URGENT, 0, 0, b""))

    def acknowledged(self, sequence: int) -> None:
        """Forget all segments up to this one: they are in the other QEMU."""
        done: list[Retained] = []
        with self._lock:
            while self._retained and self._retained[0].sequence <= sequence:
                done.append(self._retained.popleft())
            ended = self._end_sequence is not None and sequence >= self._end_sequence
        self._free(done)
        if ended:
            self._end_acknowledged.set()

    def drop(self) -> None:
        """Forget everything: the connection is gone."""
        with self._lock:
            self._dropped = True
            done = list(self._retained)
            self._retained.clear()
        self._free(done)
        self._end_acknowledged.set()

    def _free(self, done: list[Retained]) -> None:
        for kept in done:
            self._gate.acknowledged(self.connection, len(kept.raw))
            if kept.lease is not None:
                kept.lease.release()

    @property
    def ended(self) -> bool:
        """Tell whether our FIN or RESET is acknowledged, or nothing can be any more."""
        return self._end_acknowledged.is_set()

    @property
    def empty(self) -> bool:
        """Tell whether nothing waits for an acknowledgement."""
        with self._lock:
            return not self._retained


class Reader(Protocol):
    """Moves one direction from a socket into segments."""

    def pump(self, endpoint: Endpoint) -> None:
        """Read until the end of the stream.

        Raises:
            OSError: the socket broke.
            CancelledError: the session ends.
        """


@dataclass(frozen=True, slots=True)
class Arrival:
    """A piece of the incoming direction, rebuilt and checked."""

    sequence: int
    flags: int
    raw: memoryview | bytes


class Connection:
    """One QEMU connection on this side.

    Args:
        outlet: its outgoing half.
        watch: looks at the bytes given to QEMU, in order; None where nobody has to.
        path: takes over where the link is outrun.
        acknowledge: tells the other side that QEMU took a segment.
        closed: called once, when the connection has ended; True means by a reset.

    Attributes:
        written_bytes: given to QEMU so far.
    """

    def __init__(
        self,
        outlet: Outlet,
        path: DirectPath,
        acknowledge: Callable[[int, int], None],
        closed: Callable[["Connection", bool], None],
        watch: Callable[[memoryview | bytes], None] | None,
    ) -> None:
        self.number = outlet.connection
        self.written_bytes = 0
        self.outlet = outlet
        self.path = path
        self._acknowledge = acknowledge
        self._closed = closed
        self._watch = watch
        self._lock = threading.Lock()
        self._order: Reassembly[Arrival] = Reassembly()
        self._inbox: SimpleQueue[Arrival | None] = SimpleQueue()
        self._endpoint: Endpoint | None = None
        self._threads_left = 0
        self._broken = False
        self._told_closed = False

    def attach(self, endpoint: Endpoint, reader: Reader) -> None:
        """Start both directions over a connected socket.

        Args:
            endpoint: connected; owned from now on.
            reader: moves what it reads into segments.
        """
        with self._lock:
            self._endpoint = endpoint
            self._threads_left = 2
        for target, name in ((lambda: self._read(endpoint, reader), "read"), (lambda: self._write(endpoint), "write")):
            threading.Thread(target=target, name=f"{name}-{self.number}", daemon=True).start()
        if self._broken:
            endpoint.cancel()

    def arrived(self, arrival: Arrival) -> None:
        """Take a rebuilt piece from the link, in any order.

        Raises:
            LimitExceededError: too many pieces wait for an earlier one.
        """
        if arrival.flags & RESET:
            self.break_off(tell=False)
        with self._lock:
            self._order.put(arrival.sequence, arrival, len(arrival.raw))
            ready = list(iter(self._order.pop, None))
            if not self._broken:
                for each in ready:
                    self._inbox.put(each)
                return
        self._discard(ready)

    def _discard(self, arrivals: Iterable[Arrival]) -> None:
        """Acknowledge segments that will not be written, in order: the other side's window must not fill with them."""
        for arrival in arrivals:
            self._acknowledge(self.number, arrival.sequence)

    def _read(self, endpoint: Endpoint, reader: Reader) -> None:
        try:
            reader.pump(endpoint)
            self.outlet.signal(FIN)
        except CancelledError:
            pass
        except OSError:
            self.break_off(tell=True)
        self._leave(endpoint)

    def _write(self, endpoint: Endpoint) -> None:
        in_hand: list[Arrival] = []
        try:
            while (arrival := self._inbox.get()) is not None:
                in_hand = [arrival]
                if arrival.raw:
                    if self._watch is not None:
                        self._watch(arrival.raw)
                    endpoint.write(arrival.raw)
                    self.written_bytes += len(arrival.raw)
                if arrival.flags & FIN:
                    endpoint.finish_writing()
                in_hand = []
                self._acknowledge(self.number, arrival.sequence)
                if arrival.flags & MOVED:
                    self.path.receive_into(endpoint)
                if arrival.flags & (FIN | MOVED):
                    break
        except CancelledError:
            pass
        except OSError:
            self.break_off(tell=True)
        self._discard(in_hand)
        self._leave(endpoint)

    def break_off(self, *, tell: bool) -> None:
        """End both directions by a reset of QEMU's socket.

        Args:
            tell: send RESET to the other side; otherwise it knows or cannot be told.
        """
        with self._lock:
            if self._broken:
                return
            self._broken = True
            endpoint, running = self._endpoint, self._threads_left
        if tell:
            self.outlet.signal(RESET)
        else:
            self.outlet.drop()
        self._inbox.put(None)
        if endpoint is not None:
            endpoint.cancel()
        self.path.cancel()
        if not running:
            self._discard(self._waiting())
        self.check_closed()

    def _waiting(self) -> Iterator[Arrival]:
        while not self._inbox.empty():
            if (arrival := self._inbox.get()) is not None:
                yield arrival

    def _leave(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._threads_left -= 1
            last = self._threads_left == 0
        if last:
            endpoint.close(reset=self._broken)
            self.path.close(reset=self._broken)
            self._discard(self._waiting())
        self.check_closed()

    @property
    def broken(self) -> bool:
        """Tell whether it was reset, by either side."""
        return self._broken

    @property
    def quiet(self) -> bool:
        """Tell whether QEMU's socket is closed here and nothing of it is left to deliver."""
        with self._lock:
            return self._threads_left == 0 and (self._broken or self.outlet.empty)

    def check_closed(self) -> None:
        """Tell the session once the connection has ended."""
        with self._lock:
            if self._told_closed or self._threads_left or not self.outlet.ended:
                return
            self._told_closed = True
        self._closed(self, self._broken)
