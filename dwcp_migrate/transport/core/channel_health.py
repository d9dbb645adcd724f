"""Health of a channel: liveness, round-trip time, and the size of one pull (pure; time is an argument).

Rule: a channel is dead when it should have made progress for `STALLED_S` and made none. Progress is a byte that came,
or one that the peer's kernel acknowledged; it should make some while a ping is unanswered, or could not even be sent.
A peer that stops reading fills its kernel's buffer, acknowledges no more, and is dead by the same rule.
"""

from collections import deque
from typing import Final

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.units import KIB

PING_S: Final = 1.0
"""A ping on every channel that often; 40 bytes and a TLS record's 22."""
STALLED_S: Final = 3.0
"""Longer than a lost packet's second retransmission (1.4 s at 200 ms RTT), short beside the 120 s of a lost link."""
PONGS_MAX: Final = 4
"""Unsent answers; an honest peer has one ping under way."""
QUANTUM_S: Final = 0.02
"""A pull takes what the channel carries in this time, so that none holds a segment up for long."""
QUANTUM_BYTES_MIN: Final = 16 * KIB
"""One TLS record."""
QUANTUM_BYTES_MAX: Final = 256 * KIB
"""1 ms at 2 Gbit/s: how long an urgent frame may wait behind a bulk one; larger gains no throughput."""
RATE_S: Final = 0.1
"""Over which a channel's rate is measured."""


class ChannelHealth:
    """One channel's signs of life.

    Attributes:
        rtt_s: the last round trip measured by a ping, 0 before the first.
        retiring: to be used no more, as soon as the peer agrees.
        retire_sent: we promised to send nothing more on it.
        retire_received: the peer did.
        close_sent: CLOSE went out on it.
        detaching: the connection that it is to carry as it is, once both sides said so; None for a channel of frames.
        detach_sent: we promised to send no frame more on it.
        detach_received: the peer did.
        farewell: acknowledgements that still have to be sent before CLOSE; None before the closing began.
    """

    def __init__(self, now: float) -> None:
        self.rtt_s = 0.0
        self.retiring = False
        self.retire_sent = False
        self.retire_received = False
        self.close_sent = False
        self.detaching: int | None = None
        self.detach_sent = False
        self.detach_received = False
        self.farewell: list[tuple[int, int]] | None = None
        self._progress_at = now
        self._delivered_bytes = 0
        self._ping_number = 0
        self._ping_mark = 0
        self._ping_sent_at: float | None = None
        self._ping_at = now
        self._pongs: deque[int] = deque()
        self._rate_since = now
        self._rate_bytes = 0
        self._quantum = 4 * QUANTUM_BYTES_MIN

    def received(self, now: float) -> None:
        """Note that a byte came."""
        self._progress_at = now

    def delivered(self, now: float, total_bytes: int) -> None:
        """Note how much the peer's kernel has acknowledged.

        Args:
            now: the clock, monotonic seconds.
            total_bytes: of this channel since its start.
        """
        if total_bytes > self._delivered_bytes:
            self._delivered_bytes = total_bytes
            self._progress_at = now

    def is_dead(self, now: float) -> bool:
        """Tell whether it should have made progress for `STALLED_S` and made none."""
        expected_since = self._ping_at if self._ping_sent_at is None else self._ping_sent_at
        return now - max(self._progress_at, expected_since) > STALLED_S

    def is_silent(self, now: float, seconds: float) -> bool:
        """Tell whether a ping has waited for its answer for too long.

        Args:
            now: the clock, monotonic seconds.
            seconds: so long it may wait.
        """
        return self._ping_sent_at is not None and now - self._ping_sent_at > seconds

    def shift(self, seconds: float) -> None:
        """Leave out time in which this process did not run: it proves nothing about the peer."""
        self._progress_at += seconds

    def is_ping_due(self, now: float) -> bool:
        """Tell whether to send a ping now; never two at a time."""
        return self._ping_sent_at is None and now >= self._ping_at

    def ping(self, now: float, mark: int) -> int:
        """Note that a ping leaves.

        Args:
            now: the clock, monotonic seconds.
            mark: length of the channel's ledger (`send_queue`), returned when the answer comes.

        Returns:
            The ping's number.
        """
        self._ping_number += 1
        self._ping_sent_at = now
        self._ping_mark = mark
        return self._ping_number

    def pong(self, now: float, number: int) -> int:
        """Take the answer to a ping.

        Args:
            now: the clock, monotonic seconds.
            number: that it answers.

        Returns:
            The mark of that ping: so many pieces of the ledger have arrived.

        Raises:
            RemoteProtocolError: it answers no ping of ours.
        """
        if self._ping_sent_at is None or number != self._ping_number:
            raise RemoteProtocolError(f"PONG {number} answers no ping")
        self.rtt_s = max(now - self._ping_sent_at, 1e-6)
        self._ping_at = self._ping_sent_at + PING_S
        self._ping_sent_at = None
        return self._ping_mark

    def asked(self, number: int) -> None:
        """Take the peer's ping.

        Raises:
            RemoteProtocolError: it sends pings without waiting for answers.
        """
        if len(self._pongs) >= PONGS_MAX:
            raise RemoteProtocolError("more pings than answers")
        self._pongs.append(number)

    def answer(self) -> int | None:
        """Take the number of the ping to answer next; None if there is none."""
        return self._pongs.popleft() if self._pongs else None

    def quantum(self, now: float) -> int:
        """Return the most payload bytes of the next pull."""
        elapsed = now - self._rate_since
        if elapsed >= RATE_S:
            wanted = int(self._rate_bytes / elapsed * QUANTUM_S)
            self._quantum = min(max(wanted, QUANTUM_BYTES_MIN), QUANTUM_BYTES_MAX)
            self._rate_since, self._rate_bytes = now, 0
        return self._quantum

    def took(self, count: int) -> None:
        """Count the payload bytes of a pull."""
        self._rate_bytes += count
