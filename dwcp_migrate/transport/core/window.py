"""Window of raw bytes in flight between the two QEMUs (pure; time is an argument).

Rule: bytes accepted from QEMU and not yet taken by the other one are bounded in time: at the best rate lately
delivered, a few round trips and `in_flight_ms_max`.

    limit = rate x (PASSAGES x rtt, at least PASSAGES_S_MIN, + in_flight)

Why a few round trips and not one: QEMU's stream is delivered in order, so each lost packet holds up everything behind
it until its retransmission. At 200 Mbit/s, 40 ms and 0.1 % loss some 17 packets a second are lost, and somewhere one
is missing nearly always; a bound of one passage then starves the link, its rate falls, and the bound with it (measured:
200 Mbit/s decayed to 50). Bytes that this bound lets in beyond one passage do not queue before the link: that is
bounded before the channels (`dataplane.flow_control`), and beyond them by TCP.

Where the passage takes longer than that although the link idles (a busy host takes its time, loss keeps bytes waiting
for their order), the same decay would set in: rate and bound would sink together to the floor. So while the session
says that this bound alone holds the link up, it widens step by step, and narrows again afterwards.
"""

from collections import deque
from typing import Final

from dwcp_migrate.units import KIB, MIB

LIMIT_BYTES_MIN: Final = 1 * MIB
"""One segment under way and one being read, at any rate."""
LIMIT_BYTES_START: Final = 4 * MIB
"""While the rate is unknown: 40 ms of a Gbit/s, so that the channels' slow start does not wait for ours."""
LIMIT_BYTES_MAX: Final = 64 * MIB
"""320 ms at 200 MB/s of raw pages; bounds the memory of both sides."""
CHARGE_BYTES_MIN: Final = KIB
"""A segment counts as at least that, so that tiny ones cannot fill the link's tables: 65536 of them at most."""
PASSAGES: Final = 4
"""One round trip for bytes and acknowledgement, one or two for a retransmission, and room to grow into. At 3 the lab's
200 Mbit/s with 0.1 % loss carried 7 % less, at 5 no more, with 0.1 to 0.2 s more downtime."""
PASSAGES_S_MIN: Final = 0.15
"""Of the same order as Linux's least retransmission time-out, 0.2 s."""
WIDEN: Final = 1.25
NARROW: Final = 0.9
"""By how much the bound in time changes with each sample of the rate."""
WIDTH_MAX: Final = 2.5
"""Most that it widens to."""
SAMPLE_S: Final = 0.25
"""Span of a rate sample: longer than a stall for one lost packet, so that the burst after it is no high rate."""
RATE_WINDOW_S: Final = 4.0
"""The rate is the best sample of that long; a source that had little to send must not look like a slow link."""


class InFlightWindow:
    """Bound of one direction of a link.

    Args:
        in_flight_ms_max: beyond the round trips.
        bytes_max: that both sides have memory for.

    Attributes:
        in_flight_bytes: sent and not acknowledged.
        rate_bytes_per_s: best rate of delivery lately, 0 before the first sample.
        rtt_s: the link's round trip, told by the session; 0 while unknown.
        holds_up: told by the session: this window is full while the link would take more.
    """

    def __init__(self, in_flight_ms_max: float, bytes_max: int = LIMIT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.in_flight_bytes = 0
        self.rate_bytes_per_s = 0.0
        self.rtt_s = 0.0
        self.holds_up = False
        self._width = 1.0
        self._in_flight_s = in_flight_ms_max / 1000
        self._samples: deque[tuple[float, float]] = deque()
        self._sampled_at: float | None = None
        self._sampled_bytes = 0
        self._delivered_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """Most bytes in flight."""
        if not self.rate_bytes_per_s:
            return min(LIMIT_BYTES_START, self._bytes_max)
        span_s = max(PASSAGES * self.rtt_s, PASSAGES_S_MIN) + self._in_flight_s
        return int(min(max(self.rate_bytes_per_s * span_s * self._width, LIMIT_BYTES_MIN), self._bytes_max))

    def allowed(self, now: float) -> int:
        """Bytes that may be sent now, 0 at the limit. One segment may overshoot it."""
        self._sample(now)
        return max(0, self.limit_bytes - self.in_flight_bytes)

    def on_sent(self, now: float, size: int) -> None:
        """Count a segment that was accepted.

        Args:
            now: the clock, monotonic seconds.
            size: raw bytes that it stands for.
        """
        if self._sampled_at is None:
            self._sampled_at = now
        self.in_flight_bytes += max(size, CHARGE_BYTES_MIN)

    def on_acknowledged(self, now: float, size: int) -> None:
        """Count a segment that the other QEMU took; once for each that was sent.

        Args:
            now: the clock, monotonic seconds.
            size: raw bytes that it stands for.
        """
        size = min(max(size, CHARGE_BYTES_MIN), self.in_flight_bytes)
        self.in_flight_bytes -= size
        self._delivered_bytes += size
        self._sample(now)

    def _sample(self, now: float) -> None:
        """Take a sample of the rate when its span is over; the first one sooner, so that the start is not slow."""
        if self._sampled_at is None:
            return
        elapsed = now - self._sampled_at
        delivered = self._delivered_bytes - self._sampled_bytes
        first = not self._samples and delivered > 0
        if elapsed < SAMPLE_S and not (first and elapsed > 0):
            return
        self._samples.append((now, delivered / elapsed))
        self._width = min(self._width * WIDEN, WIDTH_MAX) if self.holds_up else max(self._width * NARROW, 1.0)
        self._sampled_at, self._sampled_bytes = now, self._delivered_bytes
        while now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        self.rate_bytes_per_s = max(rate for _, rate in self._samples)
