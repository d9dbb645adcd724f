"""Receive buffers that are used again once every segment cut from them is acknowledged.

A fresh buffer costs its page faults at each use (measured 0.1 to 0.4 CPU s/GB), a pooled one only once.
"""

import threading
from typing import Final

from dwcp_migrate.units import MIB

BUFFER_BYTES: Final = 2 * MIB
POOLED_BUFFERS_MAX: Final = 32
"""What is kept for reuse. Buffers in use are bounded by the window of bytes in flight, not here."""


class BufferLease:
    """A buffer and the count of those who still need its bytes."""

    def __init__(self, pool: "BufferPool", data: bytearray) -> None:
        self._pool = pool
        self._data: bytearray | None = data
        self._holders = 1
        self._lock = threading.Lock()

    @property
    def view(self) -> memoryview:
        """The whole buffer, writable."""
        assert self._data is not None, "a released buffer is in other hands"
        return memoryview(self._data)

    def hold(self) -> None:
        """Count one more holder."""
        with self._lock:
            assert self._holders > 0
            self._holders += 1

    def release(self) -> None:
        """Count one holder less; the last one gives the buffer back."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
            data, self._data = self._data, None
        assert data is not None
        self._pool.give_back(data)


class BufferPool:
    """Hands out buffers of `BUFFER_BYTES`."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def lease(self) -> BufferLease:
        """Take a buffer; its content is undefined."""
        try:
            return BufferLease(self, self._free.pop())
        except IndexError:
            return BufferLease(self, bytearray(BUFFER_BYTES))

    def give_back(self, data: bytearray) -> None:
        """Keep a buffer for the next lease, or drop it when enough are kept."""
        if len(self._free) < POOLED_BUFFERS_MAX:
            self._free.append(data)
