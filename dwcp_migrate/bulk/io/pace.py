"""Rate that all connections of a host keep together, so that bulk stays below what migrations need."""

import threading
import time
from typing import Final

from dwcp_migrate.transport.core.rate_limiter import RateLimiter
from dwcp_migrate.units import KIB

SLICE_BYTES: Final = 256 * KIB
"""Bytes that are charged, and wait, together."""


class BulkPace:
    """A rate, shared by threads; it may be changed while they wait.

    Args:
        bytes_per_s: 0 lets everything through.
    """

    def __init__(self, bytes_per_s: float = 0.0) -> None:
        self._changed = threading.Condition()
        self._limiter = RateLimiter()
        self._limiter.set(time.monotonic(), bytes_per_s)

    @property
    def rate(self) -> float:
        """Bytes a second, 0 for no limit."""
        return self._limiter.bytes_per_s

    def set_rate(self, bytes_per_s: float) -> None:
        """Keep another rate from now on; 0 lets everything through."""
        with self._changed:
            self._limiter.set(time.monotonic(), bytes_per_s)
            self._changed.notify_all()

    def spend(self, count: int) -> None:
        """Wait until bytes may go, and charge them."""
        with self._changed:
            while wait_s := self._limiter.wait_s(time.monotonic()):
                self._changed.wait(wait_s)
            self._limiter.took(count)
