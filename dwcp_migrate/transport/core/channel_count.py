"""Number of channels of a link (pure; time is an argument).

Rule: open more channels only where they carry more, and no more than are needed for that. A lossy or long path limits
each TCP flow (CUBIC at 40 ms and 0.1 % loss carries about 11 Mbit/s), so the count doubles while the acknowledged rate
rises with it by `GAIN_MIN`; a step without gain is taken back. Too many flows drown each other: 64 of five packets each
carried two thirds of what 32 did over 200 Mbit/s and 20 ms. A rate also rises when another migration leaves the link,
so after a rest the count is halved once, and stays there if that costs nothing. Only rates measured while segments
waited for a channel argue for more channels: a link that the session does not fill says nothing about its capacity.
Where no segment waits there are too many channels for the load, and half of them do as well; channels that drown each
other look the same, because the session's window is then spent on retransmissions. A link that is held to a rate
(`rate_limiter`) says nothing at all: the step under way is taken back, and later rates are not compared with it.

A short path with a small queue holds few packets. A flow with two or three of them under way cannot tell a loss but by
a time-out of 200 ms, which in-order delivery makes a stall of all: over 32 Mbit/s and 20 ms sixteen channels sent 7 %
of their packets again and took 35 s where four took 27. So the packets that the path holds bound the count at the first
measurement in which it was filled: segments waited, or more was under way than the path holds.

    first measurement ───> no more channels than the path has packets for
    settle after a step ─> measure ─> rate rose by 10 %: double again
                                  ├─> it did not: back to the count before, rest REST_S, then halve
                                  ├─> halved, and it fell by less than 3 %: halve again; else back, rest, then double
                                  └─> no segment waited: halve, unless the session has little to send at all
"""

from dataclasses import dataclass
from typing import Final

from dwcp_migrate.units import KIB

CHANNELS_START: Final = 16
"""Halving stops here where the path holds enough: a lost channel costs more than a few channels less save."""
CHANNELS_MIN: Final = 4
"""Also on a path that holds fewer packets."""
CHANNEL_BYTES_MIN: Final = 12 * KIB
"""Under way on each channel: eight packets, so that three that follow a lost one tell of it."""
STANDING_MIN: Final = 1.5
"""That many times what the path holds have to be under way for the link to be filled: the rest waits in queues."""
GAIN_MIN: Final = 1.10
KEEP_MIN: Final = 0.97
"""Share of the rate of all channels that half of them have to carry, to stay at half."""
SETTLE_S: Final = 0.3
"""After new channels came up: slow start over 40 ms takes about 5 round trips to carry its share."""
MEASURE_S: Final = 0.5
REST_S: Final = 10.0
"""Between two tries; paths change, and a try costs a handshake a channel and, where the count was right, a second at a
lower rate."""
STALL_SHARE: Final = 0.5
"""Less than that of the rate before: the path stalled or changed meanwhile."""
RELEASE_S: Final = 1.0
"""After the link was held to a rate: its channels have to find theirs anew, from a few packets each."""
BUSY_MIN: Final = 0.5
"""Share of the measuring time in which segments waited for a channel."""


@dataclass(frozen=True, slots=True)
class Look:
    """The link at a moment.

    Attributes:
        up: channels in use.
        acknowledged_bytes: total payload acknowledged.
        waiting: whether segments wait for a channel.
        under_way_bytes: in the kernel, of all channels, and not acknowledged.
        rtt_s: smallest round trip lately, 0 while unknown.
        held: whether the link is held to a rate.
    """

    up: int
    acknowledged_bytes: int
    waiting: bool
    under_way_bytes: int = 0
    rtt_s: float = 0.0
    held: bool = False


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
        self._fewest: int | None = None
        self._halve_next = False
        self._best = 0.0
        self._not_before = now
        self._since: float | None = None
        self._waiting_s = self._standing_s = 0.0
        self._last = now
        self._bytes_at = 0

    def observe(self, now: float, look: Look) -> None:
        """Take a measurement; to be called every few hundred milliseconds.

        Args:
            now: the clock, monotonic seconds.
            look: the link at that moment.
        """
        elapsed, self._last = now - self._last, now
        if self._fixed:
            return
        if look.held:
            self._take_back(now)
        if now < self._not_before:
            return
        if look.up < self.count:
            self._since = None  # they come up, or the link was cut: not the time to judge
            return
        if self._since is None:
            self._begin(now + SETTLE_S, look.acknowledged_bytes)
            return
        if now < self._since:
            self._bytes_at = look.acknowledged_bytes
            return
        measured_s = now - self._since
        bytes_per_s = (look.acknowledged_bytes - self._bytes_at) / measured_s if measured_s else 0.0
        path_bytes = bytes_per_s * look.rtt_s
        self._waiting_s += elapsed if look.waiting else 0.0
        self._standing_s += elapsed if look.under_way_bytes >= STANDING_MIN * path_bytes > 0 else 0.0
        if measured_s >= MEASURE_S:
            self._since = None
            self._judge(now, bytes_per_s, measured_s, look.rtt_s)

    def detached(self) -> None:
        """Note that a channel left the link for good, with its load."""
        self.count = max(self.count - 1, min(CHANNELS_MIN, self._max))

    def _judge(self, now: float, bytes_per_s: float, measured_s: float, rtt_s: float) -> None:
        is_busy, is_standing = (spent >= BUSY_MIN * measured_s for spent in (self._waiting_s, self._standing_s))
        if self._fewest is None and (is_busy or is_standing):
            self._fewest = _fewest(bytes_per_s, rtt_s)
            if self._fewest < self.count:
                self.count = self._fewest
                return  # the measurement was of more channels
        self._decide(now, bytes_per_s, is_busy=is_busy)

    def _begin(self, since: float, acknowledged_bytes: int) -> None:
        self._since, self._bytes_at = since, acknowledged_bytes
        self._waiting_s = self._standing_s = 0.0

    def _take_back(self, now: float) -> None:
        """End the trial under way without a verdict."""
        if self._before is not None:
            self.count, self._before = self._before[0], None
        self._since = None
        self._best = 0.0
        self._not_before = max(self._not_before, now + RELEASE_S)

    def _decide(self, now: float, bytes_per_s: float, *, is_busy: bool) -> None:
        before, self._before = self._before, None
        if before is not None and before[0] < self.count:
            if bytes_per_s < before[1] * STALL_SHARE:
                return  # no number of channels does that: the path stalled, measure again
            if bytes_per_s < before[1] * GAIN_MIN:
                self._rest(now, before[0], halve_next=True)
                return
        elif before is not None and is_busy and bytes_per_s < before[1] * KEEP_MIN:
            self._rest(now, before[0], halve_next=False)
            return
        if is_busy:
            self._best = max(self._best, bytes_per_s)
            self._step(now, bytes_per_s)
        else:
            self._ease(bytes_per_s)

    def _ease(self, bytes_per_s: float) -> None:
        """Nothing waits for a channel: half of them do as well, unless there is little to send just now."""
        if self._can_halve() and bytes_per_s > self._best * STALL_SHARE:
            self._before, self.count, self._halve_next = (self.count, bytes_per_s), self.count // 2, True

    def _can_halve(self) -> bool:
        return self.count // 2 >= (self._fewest or CHANNELS_START)

    def _rest(self, now: float, count: int, *, halve_next: bool) -> None:
        self.count, self._halve_next = count, halve_next
        self._not_before = now + REST_S

    def _step(self, now: float, bytes_per_s: float) -> None:
        """Try twice or half as many, against the rate of now."""
        more = min(self.count * 2, self._max)
        if self._halve_next and self._can_halve():
            self._before, self.count = (self.count, bytes_per_s), self.count // 2
        elif more > self.count:
            self._before, self.count, self._halve_next = (self.count, bytes_per_s), more, False
        else:
            self._rest(now, self.count, halve_next=True)


def _fewest(bytes_per_s: float, rtt_s: float) -> int:
    """Number of channels that is small enough for such a path; that of the start where it is unknown."""
    holds = int(bytes_per_s * rtt_s / CHANNEL_BYTES_MIN) if rtt_s else CHANNELS_START
    return min(max(holds, CHANNELS_MIN), CHANNELS_START)
