"""Rate limiter: holds a link's bulk to a rate (pure; time is an argument).

Rule: a token bucket that may go into debt: a frame may leave while there is credit and is charged in full, so the rate
holds however large frames are. Only bulk is held; urgent frames never wait for a rate, but are charged.
"""

from typing import Final

from dwcp_migrate.units import KIB

BURST_S: Final = 0.02
"""Credit that can be saved: as much as one pull takes (`channel_health.QUANTUM_S`)."""

BURST_BYTES_MIN: Final = 64 * KIB
"""A slow rate still sends a few TLS records at once."""


class RateLimiter:
    """One link's rate, 0 for none."""

    def __init__(self) -> None:
        self.bytes_per_s = 0.0
        self._credit = 0.0
        self._at = 0.0

    def set(self, now: float, bytes_per_s: float) -> None:
        """Hold to a rate from now on.

        Args:
            now: the clock, monotonic seconds.
            bytes_per_s: 0 lets everything through.
        """
        self._earn(now)
        self.bytes_per_s = max(0.0, bytes_per_s)
        self._credit = min(self._credit, self._burst)

    @property
    def _burst(self) -> float:
        return max(self.bytes_per_s * BURST_S, BURST_BYTES_MIN)

    def _earn(self, now: float) -> None:
        self._credit = min(self._credit + self.bytes_per_s * (now - self._at), self._burst)
        self._at = now

    def wait_s(self, now: float) -> float:
        """Return the seconds that bulk has to wait; 0 when it may leave."""
        if not self.bytes_per_s:
            return 0.0
        self._earn(now)
        return max(0.0, -self._credit) / self.bytes_per_s

    def took(self, count: int) -> None:
        """Charge the bytes of a frame that leaves."""
        if self.bytes_per_s:
            self._credit -= count
