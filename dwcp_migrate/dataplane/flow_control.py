"""Flow control of a reader: the number of bytes that it may take from QEMU now.

Rule: bytes taken and not yet in the other QEMU are downtime, so they are bounded in time, twice: by a window over all
that is not delivered, and by the bytes that wait in this process before a channel takes them. A grant is reserved at
once, so that the bound holds for any number of connections; waiting readers are served in turn, and one is woken for
each grant. Each connection may always have `FLOOR_BYTES` in flight: QEMU's destination may refuse to read one
connection until another has delivered (multifd's SYNC), and shared bounds alone would then stand still for ever. One
whose bytes a running guest waits for may have `URGENT_BYTES`, whatever the others have.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from dwcp_migrate.dataplane.qemu_socket import CancelledError
from dwcp_migrate.errors import LimitExceededError
from dwcp_migrate.protocol.worker import SessionOptions
from dwcp_migrate.transport import Segment
from dwcp_migrate.units import KIB, MIB

FLOOR_BYTES: Final = 64 * KIB
"""Of each connection: 255 of them stay within the window of a slow link together."""
URGENT_BYTES: Final = 4 * MIB
"""Of a connection that a running guest waits for: two huge pages, where the window is not less."""
GRANT_BYTES_MIN: Final = 32 * KIB
"""Less than that is not granted: reads of a few bytes cost as much as large ones."""
READ_S: Final = 0.025
"""One read takes what the path carries in this time, so that a slow path does not get one huge segment at a time."""
READ_BYTES_MIN: Final = 128 * KIB
AHEAD_WAIT_S_MIN: Final = 0.004
AHEAD_WAIT_S_MAX: Final = 0.05
"""Bounds of the time that the first in line sleeps until few enough bytes wait before the channels."""
REVERSE_BYTES_MAX: Final = 4 * MIB
"""In flight on a return path. Page requests are 12 bytes; only NBD replies can be large."""


def reverse_window_bytes(options: SessionOptions) -> int:
    """Return the bytes that may be in flight on all return paths together."""
    return min(REVERSE_BYTES_MAX, options.window_bytes)


class ByteWindow(Protocol):
    """The part of a window that a gate uses; `transport.InFlightWindow` has it."""

    @property
    def rate_bytes_per_s(self) -> float:
        """Rate of delivery, 0 while unknown."""

    def allowed(self, now: float) -> int:
        """Bytes that may still be taken."""

    def on_sent(self, now: float, count: int) -> None:
        """Count bytes taken.

        Args:
            now: the clock, monotonic seconds.
            count: raw bytes.
        """

    def on_acknowledged(self, now: float, count: int) -> None:
        """Count bytes that the other QEMU took.

        Args:
            now: the clock, monotonic seconds.
            count: raw bytes.
        """


class FixedWindow:
    """A window of constant size, for return paths."""

    def __init__(self, limit_bytes: int = REVERSE_BYTES_MAX) -> None:
        self._free = limit_bytes
        self.rate_bytes_per_s = 0.0

    def allowed(self, now: float) -> int:
        """See `ByteWindow`."""
        del now
        return max(0, self._free)

    def on_sent(self, now: float, count: int) -> None:
        """See `ByteWindow`."""
        del now
        self._free -= count

    def on_acknowledged(self, now: float, count: int) -> None:
        """See `ByteWindow`."""
        del now
        self._free += count


class _Waiter:
    """A reader in the line."""

    def __init__(self, connection: int, lock: threading.Lock) -> None:
        self.connection = connection
        self.called = threading.Condition(lock)


class Gate:
    """A window that threads wait at, shared by the connections of a session.

    Args:
        window: bounds the bytes that are not delivered.
        ahead_s: time that a byte taken now would wait in this process; None where nothing waits there.
        ahead_s_max: bounds it.
        urgent_bytes: of a connection that a running guest waits for, whatever the others have in flight.
    """

    def __init__(
        self,
        window: ByteWindow,
        ahead_s: Callable[[], float] | None = None,
        ahead_s_max: float = 0.0,
        urgent_bytes: int = URGENT_BYTES,
    ) -> None:
        self._urgent_bytes = urgent_bytes
        self._window = window
        self._ahead_s = ahead_s
        self._ahead_s_max = ahead_s_max
        self._lock = threading.Lock()
        self._line: deque[_Waiter] = deque()
        self._in_flight: dict[int, int] = {}
        self._in_flight_bytes = 0
        self._reserved: dict[int, int] = {}
        self._reserved_bytes = 0
        self._too_far_s = 0.0
        self._ahead_closed_s = 0.0
        self._holding = 0
        self._held_since = self._held_s = 0.0
        self._closed = False

    @property
    def in_flight_bytes(self) -> int:
        """Bytes taken and not yet acknowledged, all connections."""
        return self._in_flight_bytes

    def held_s(self, now: float) -> float:
        """Time in which a reader waited for the window, of all connections together the union."""
        # Without the lock, since the window's owner asks while it waits: the next sample mends an error of one wait.
        return self._held_s + (max(0.0, now - self._held_since) if self._holding else 0.0)

    @property
    def ahead_closed_s(self) -> float:
        """Time in which the first in line waited for bytes before the channels to become fewer."""
        return self._ahead_closed_s

    def wait(self, connection: int, *, urgent: bool = False) -> int:
        """Wait until the connection may take bytes, and reserve them; its earlier reservation is given back.

        Args:
            connection: whose turn it is.
            urgent: a running guest waits for what this connection carries.

        Returns:
            How many, at least 1.

        Raises:
            CancelledError: `close` was called.
        """
        with self._lock:
            self._give_back(connection)
            if self._closed:
                raise CancelledError
            if not self._line and (granted := self._grant(connection, urgent=urgent)):
                return granted
            waiter = _Waiter(connection, self._lock)
            self._line.append(waiter)
            try:
                while not (granted := self._turn(waiter, urgent=urgent)):
                    if self._closed:
                        raise CancelledError
            finally:
                self._line.remove(waiter)
                self._call_next()
            return granted

    def settle(self, connection: int) -> None:
        """Give back the bytes that were reserved for a connection and not taken."""
        with self._lock:
            self._give_back(connection)
            self._call_next()

    def _turn(self, waiter: _Waiter, *, urgent: bool) -> int:
        """The waiter's grant now; 0 after it was called, or has slept for the bytes ahead."""
        is_first = self._line[0] is waiter
        granted = self._grant(waiter.connection, urgent=urgent) if is_first else 0
        if granted := granted or self._reserve(waiter.connection, self._floor(waiter.connection, urgent=urgent)):
            return granted
        if not self._room():
            self._hold(waiter)
        else:
            self._wait_for_what_is_ahead(waiter, is_first=is_first)
        return 0

    def _grant(self, connection: int, *, urgent: bool) -> int:
        """Reserve the room that there is, or the connection's floor; 0 if there is neither."""
        room = self._room()
        if room and self._ahead_s is not None:
            self._too_far_s = self._ahead_s() - self._ahead_s_max
        if room and self._too_far_s <= 0:
            return self._reserve(connection, room)
        return self._reserve(connection, self._floor(connection, urgent=urgent))

    def _reserve(self, connection: int, count: int) -> int:
        self._reserved[connection] = self._reserved.get(connection, 0) + count
        self._reserved_bytes += count
        return count

    def _give_back(self, connection: int) -> None:
        self._reserved_bytes -= self._reserved.pop(connection, 0)

    def _floor(self, connection: int, *, urgent: bool) -> int:
        """Bytes that the connection may take whatever the others have, 0 if it has most of them."""
        bound = self._urgent_bytes if urgent else FLOOR_BYTES
        left = bound - self._in_flight.get(connection, 0) - self._reserved.get(connection, 0)
        return left if left >= GRANT_BYTES_MIN else 0

    def _room(self) -> int:
        """Bytes that one reader may take of the window, 0 if they are too few to be worth a read."""
        read_bytes_max = max(READ_BYTES_MIN, int(self._window.rate_bytes_per_s * READ_S))
        room = min(self._window.allowed(time.monotonic()) - self._reserved_bytes, read_bytes_max)
        return room if room >= GRANT_BYTES_MIN else 0

    def _hold(self, waiter: _Waiter) -> None:
        """Wait for something to be delivered."""
        if not self._holding:
            self._held_since = time.monotonic()
        self._holding += 1
        waiter.called.wait()
        self._holding -= 1
        if not self._holding:
            self._held_s += time.monotonic() - self._held_since

    def _wait_for_what_is_ahead(self, waiter: _Waiter, *, is_first: bool) -> None:
        """Wait for a channel to take the waiting bytes; the others wait for the first in line."""
        began = time.monotonic()
        waiter.called.wait(min(max(self._too_far_s, AHEAD_WAIT_S_MIN), AHEAD_WAIT_S_MAX) if is_first else None)
        if is_first:
            self._ahead_closed_s += time.monotonic() - began

    def _call_next(self) -> None:
        if self._line:
            self._line[0].called.notify()

    def sent(self, connection: int, count: int) -> None:
        """Count bytes as in flight, out of those reserved for them.

        Args:
            connection: its number.
            count: raw bytes.
        """
        with self._lock:
            covered = min(self._reserved.get(connection, 0), count)
            if covered:
                self._reserved[connection] -= covered
                self._reserved_bytes -= covered
            self._in_flight[connection] = self._in_flight.get(connection, 0) + count
            self._in_flight_bytes += count
            self._window.on_sent(time.monotonic(), count)

    def acknowledged(self, connection: int, count: int) -> None:
        """Count bytes as delivered and let the next reader go on.

        Args:
            connection: its number.
            count: raw bytes, counted before by `sent`.
        """
        with self._lock:
            self._in_flight[connection] -= count
            self._in_flight_bytes -= count
            self._window.on_acknowledged(time.monotonic(), count)
            self._call_next()
            for waiter in self._line:
                if waiter.connection == connection:  # it may be below its floor again
                    waiter.called.notify()

    def close(self) -> None:
        """Make every waiter raise, now and later."""
        with self._lock:
            self._closed = True
            for waiter in self._line:
                waiter.called.notify()


class PendingBytes:
    """Bytes that came from the peer and have not reached this side's QEMU, of one direction; from any thread.

    An honest peer's window keeps them far below the bound; one that goes past it breaks the protocol. A segment costs
    what it occupies: its payload until it is decoded, its raw bytes after that, whichever is more.

    Attributes:
        delivered_bytes: raw bytes that QEMU took so far.
    """

    def __init__(self) -> None:
        self.delivered_bytes = 0
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], tuple[int, int]] = {}
        self._total = 0

    @property
    def total_bytes(self) -> int:
        """Bytes that wait now."""
        with self._lock:
            return self._total

    def add(self, segment: Segment, bytes_max: int) -> None:
        """Count a segment that came; one without bytes is none.

        Args:
            segment: as it came from the link.
            bytes_max: how much may wait, this segment included.

        Raises:
            LimitExceededError: more waits.
        """
        cost = max(segment.raw_size, len(segment.payload))
        if not cost:
            return
        with self._lock:
            self._held[segment.connection, segment.sequence] = segment.raw_size, cost
            self._total += cost
            total = self._total
        if total > bytes_max:
            raise LimitExceededError(f"{total} bytes of the peer's wait for QEMU, at most {bytes_max}")

    def delivered(self, connection: int, sequence: int) -> None:
        """Count a segment as taken by QEMU, or as dropped for good.

        Args:
            connection: its number.
            sequence: of the segment.
        """
        with self._lock:  # several connections deliver at once, each from a thread of its own
            self.delivered_bytes += self._drop(connection, sequence)

    def rejected(self, connection: int, sequence: int) -> None:
        """Forget a segment that was wrong: it comes again.

        Args:
            connection: its number.
            sequence: of the segment.
        """
        with self._lock:
            self._drop(connection, sequence)

    def _drop(self, connection: int, sequence: int) -> int:
        raw_bytes, cost = self._held.pop((connection, sequence), (0, 0))
        self._total -= cost
        return raw_bytes
