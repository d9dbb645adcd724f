"""Flow control of a reader: the number of bytes that it may take from QEMU now.

Rule: bytes taken and not yet in the other QEMU are downtime, so they are bounded in time, twice: by a window over all
that is not delivered, and by what waits in this process before a channel takes it. Each connection may always have
`FLOOR_BYTES` in flight: QEMU's destination may refuse to read one connection until another has delivered (multifd's
SYNC), and shared bounds alone would then stand still for ever.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from dwcp_migrate.dataplane.qemu_socket import CancelledError
from dwcp_migrate.errors import LimitExceededError
from dwcp_migrate.transport import Segment
from dwcp_migrate.units import KIB, MIB

FLOOR_BYTES: Final = 256 * KIB
READ_S: Final = 0.025
"""One read takes what the path carries in this time, so that a slow path does not get one huge segment at a time."""
READ_BYTES_MIN: Final = 128 * KIB
AHEAD_POLL_S: Final = 0.004
"""How often a reader looks whether what waits before the channels has become short enough."""
REVERSE_BYTES_MAX: Final = 4 * MIB
"""In flight on a return path. Page requests are 12 bytes; only NBD replies can be large."""


class ByteWindow(Protocol):
    """What a gate asks of a window; `transport.Window` is one."""

    @property
    def rate_bytes_per_s(self) -> float:
        """Rate of delivery, 0 while unknown."""

    def allowed(self, now: float) -> int:
        """Bytes that may still be taken."""

    def on_sent(self, now: float, count: int) -> None:
        """Count bytes taken."""

    def on_acknowledged(self, now: float, count: int) -> None:
        """Count bytes that the other QEMU took."""


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


class Gate:
    """A window that threads wait at, shared by the connections of a session.

    Args:
        window: bounds what is not delivered.
        ahead_s: time that a byte taken now would wait in this process.
        ahead_s_max: bounds it.
    """

    def __init__(
        self, window: ByteWindow, ahead_s: Callable[[], float] = lambda: 0.0, ahead_s_max: float = 0.0
    ) -> None:
        self._window = window
        self._ahead_s = ahead_s
        self._ahead_s_max = ahead_s_max
        self._changed = threading.Condition()
        self._in_flight: dict[int, int] = {}
        self._holding = 0
        self._held_since = self._held_s = 0.0
        self._closed = False

    @property
    def in_flight_bytes(self) -> int:
        """Bytes taken and not yet acknowledged, all connections."""
        with self._changed:
            return sum(self._in_flight.values())

    def held_s(self, now: float) -> float:
        """Time in which a reader waited for the window, of all connections together the union."""
        # Without the lock, for the window's owner asks while it waits: a look that is off by one wait is made good.
        return self._held_s + (max(0.0, now - self._held_since) if self._holding else 0.0)

    def wait(self, connection: int) -> int:
        """Wait until the connection may take bytes.

        Returns:
            How many, at least 1.

        Raises:
            CancelledError: `close` was called.
        """
        with self._changed:
            while not self._closed:
                floor = FLOOR_BYTES - self._in_flight.get(connection, 0)
                room = self._room()
                if room > 0 and self._ahead_s() <= self._ahead_s_max:
                    return max(room, floor)
                if floor > 0:
                    return floor
                if room > 0:
                    self._changed.wait(AHEAD_POLL_S)
                else:
                    self._hold()
        raise CancelledError

    def _hold(self) -> None:
        """Wait for something to be delivered."""
        if not self._holding:
            self._held_since = time.monotonic()
        self._holding += 1
        self._changed.wait()
        self._holding -= 1
        if not self._holding:
            self._held_s += time.monotonic() - self._held_since

    def _room(self) -> int:
        read_bytes_max = max(READ_BYTES_MIN, int(self._window.rate_bytes_per_s * READ_S))
        return min(self._window.allowed(time.monotonic()), read_bytes_max)

    def sent(self, connection: int, count: int) -> None:
        """Count bytes as in flight."""
        with self._changed:
            self._in_flight[connection] = self._in_flight.get(connection, 0) + count
            self._window.on_sent(time.monotonic(), count)

    def acknowledged(self, connection: int, count: int) -> None:
        """Count bytes as delivered and let readers go on."""
        with self._changed:
            self._in_flight[connection] -= count
            self._window.on_acknowledged(time.monotonic(), count)
            self._changed.notify_all()

    def close(self) -> None:
        """Make every waiter raise, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


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
        """What waits now."""
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
        """QEMU took a segment, or nobody will any more."""
        self.delivered_bytes += self._drop(connection, sequence)

    def rejected(self, connection: int, sequence: int) -> None:
        """A segment was wrong: it comes again."""
        self._drop(connection, sequence)

    def _drop(self, connection: int, sequence: int) -> int:
        with self._lock:
            raw_bytes, cost = self._held.pop((connection, sequence), (0, 0))
            self._total -= cost
        return raw_bytes
