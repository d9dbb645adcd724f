"""Receive buffers that are used again once every segment cut from them is acknowledged.

A fresh buffer costs its page faults at each use (measured 0.1 to 0.4 CPU s/GB), a pooled one only once. Where the
session's memory allows no more large ones, small ones are handed out: each connection needs one.
"""

import threading
from typing import Final

from dwcp_migrate.units import KIB, MIB

BUFFER_BYTES: Final = 2 * MIB
SMALL_BUFFER_BYTES: Final = 256 * KIB
POOLED_BYTES_MAX: Final = 64 * MIB
"""Large buffers, in use and kept for reuse. Those in use are bounded by the window of bytes in flight besides."""


class BufferLease:
    """A buffer and the count of the holders that still need its bytes."""

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
    """Hands out buffers of `BUFFER_BYTES`, and of `SMALL_BUFFER_BYTES` where there would be too many.

    Args:
        bytes_max: of large ones, in use and kept; those that are in use anyway are small beyond that.
    """

    def __init__(self, bytes_max: int = POOLED_BYTES_MAX) -> None:
        self._large_left = max(0, bytes_max // BUFFER_BYTES)
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def lease(self, bytes_min: int = 0) -> BufferLease:
        """Take a buffer; its content is undefined.

        Args:
            bytes_min: that it must have, at most `BUFFER_BYTES`.
        """
        with self._lock:
            if self._free:
                return BufferLease(self, self._free.pop())
            if not self._large_left and bytes_min <= SMALL_BUFFER_BYTES:
                return BufferLease(self, bytearray(SMALL_BUFFER_BYTES))
            self._large_left -= 1  # below nothing where it had to be a large one
        return BufferLease(self, bytearray(BUFFER_BYTES))

    def give_back(self, data: bytearray) -> None:
        """Keep a large buffer for the next lease, and drop a small one, or one too many."""
        if len(data) < BUFFER_BYTES:
            return
        with self._lock:
            if self._large_left < 0:
                self._large_left += 1
            else:
                self._free.append(data)
