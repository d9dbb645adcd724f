"""How many channels a link should have (pure; time is an argument).

Rule: more channels only where more channels carry more. A lossy or long path limits each TCP flow (CUBIC at 40 ms and
0.1 % loss carries about 11 Mbit/s), so the count doubles while the acknowledged rate rises with it by `GAIN_MIN`; the
step that brought nothing is taken back. Only rates measured while segments waited for a channel count: a link that the
session does not fill says nothing about itself.

    settle after a step ─> measure ─> rate rose by 10 %: double again
                                  └─> it did not: back to the count before, rest REST_S, then try once more
"""

from typing import Final

CHANNELS_MIN: Final = 4
"""Below that one lost channel costs more than the others save."""
CHANNELS_START: Final = 16
GAIN_MIN: Final = 1.10
SETTLE_S: Final = 0.3
"""After new channels came up: slow start over 40 ms takes about 5 round trips to carry its share."""
MEASURE_S: Final = 0.5
REST_S: Final = 20.0
"""Between two tries once doubling brought nothing; paths change, and a try costs a handshake a channel."""
STALL_SHARE: Final = 0.5
"""Less than that of the rate before: the path stalled or changed meanwhile."""
BUSY_MIN: Final = 0.5
"""Share of the measuring time in which segments waited for a channel."""


class Controller:
    """Adaptive or fixed channel count.

    Attributes:
        count: how many channels there should be now.
    """

    def __init__(self, now: float, *, channels: int, channels_max: int) -> None:
        self._fixed = channels > 0
        self._max = channels if self._fixed else channels_max
        self.count = channels if self._fixed else min(CHANNELS_START, channels_max)
        self._before: tuple[int, float] | None = None
        self._not_before = now
        self._since: float | None = None
        self._busy_s = 0.0
        self._last = now
        self._bytes_at = 0

    def observe(self, now: float, *, up: int, acknowledged_bytes: int, waiting: bool) -> None:
        """Look at the link; call it every few hundred milliseconds at most.

        Args:
            now: the clock.
            up: channels in use.
            acknowledged_bytes: total payload acknowledged.
            waiting: whether segments wait for a channel.
        """
        elapsed, self._last = now - self._last, now
        if self._fixed or now < self._not_before:
            return
        if up < self.count:
            self._since = None  # they come up, or the link was cut: not the time to judge
            return
        if self._since is None:
            self._begin(now + SETTLE_S, acknowledged_bytes)
            return
        if now < self._since:
            self._bytes_at = acknowledged_bytes
            return
        self._busy_s += elapsed if waiting else 0.0
        measured_s = now - self._since
        if measured_s >= MEASURE_S:
            self._decide(now, (acknowledged_bytes - self._bytes_at) / measured_s, self._busy_s / measured_s)

    def _begin(self, since: float, acknowledged_bytes: int) -> None:
        self._since, self._busy_s, self._bytes_at = since, 0.0, acknowledged_bytes

    def _decide(self, now: float, bytes_per_s: float, busy: float) -> None:
        self._since = None
        if busy < BUSY_MIN:
            return
        if self._before is not None and bytes_per_s < self._before[1] * STALL_SHARE:
            self._before = None  # no number of channels does that: the path stalled, measure again
            return
        if self._before is not None and bytes_per_s < self._before[1] * GAIN_MIN:
            self.count = max(self._before[0], min(CHANNELS_MIN, self._max))
            self._before = None
            self._not_before = now + REST_S
            return
        if self.count < self._max:
            self._before = (self.count, bytes_per_s)
            self.count = min(self.count * 2, self._max)
