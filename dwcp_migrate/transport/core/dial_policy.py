"""Dial policy: when to dial how many channels (pure; time is an argument).

Rule: towards a peer that answers, all at once up to `DIALS_MAX`; towards one that does not, one probe at a time, never
more than `PROBE_S_MAX` after the last one failed, so that a healed link is used again within about a second.
"""

from typing import Final

DIALS_MAX: Final = 32
"""Handshakes under way; the peer's listener has a backlog of 128 and other sessions."""
CONNECT_S_MAX: Final = 1.0
"""A TCP connect; the kernel repeats a SYN after 1 s, so a new try is as good."""
CONNECT_DOUBLINGS_MAX: Final = 6
PROBE_S_MIN: Final = 0.05
PROBE_S_MAX: Final = 0.5
"""Pause between two dials that fail at once (refused), doubling from the former."""


class Dialer:
    """Dialling side's pacing."""

    def __init__(self, now: float) -> None:
        self._failures = 0
        self._has_answered = False
        self._not_before = now

    def connect_s(self, timeout_s: float) -> float:
        """Return the seconds that the next TCP connects may take: longer after each failure, at most `timeout_s`.

        A path that once answered is tried anew soon; one that never did may have a round trip of more than a second.
        """
        tries = 0 if self._has_answered else min(self._failures, CONNECT_DOUBLINGS_MAX)
        return min(timeout_s, CONNECT_S_MAX * (1 << tries))

    def count(self, now: float, *, up: int, pending: int, wanted: int) -> int:
        """Return the number of channels to dial now.

        Args:
            now: the clock.
            up: channels in use.
            pending: dialled, not yet up.
            wanted: how many there should be.
        """
        if now < self._not_before:
            return 0
        limit = 1 if self._failures and not up else DIALS_MAX
        return max(0, min(wanted - up - pending, limit - pending))

    def timeout(self, now: float, *, up: int, pending: int, wanted: int) -> float | None:
        """Seconds until `count` may say more than 0 by time alone; None if time alone changes nothing.

        Args:
            now: the clock.
            up: channels in use.
            pending: dialled, not yet up.
            wanted: how many there should be.
        """
        if up + pending >= wanted or now >= self._not_before:
            return None
        return self._not_before - now

    def failed(self, now: float, dialled_at: float) -> None:
        """Note that a dial came to nothing.

        Args:
            now: the clock, monotonic seconds.
            dialled_at: when the dial began.
        """
        self._failures += 1
        pause = min(PROBE_S_MIN * 2 ** min(self._failures - 1, 10), PROBE_S_MAX)
        self._not_before = max(now, dialled_at + pause)

    def link_lost(self, now: float) -> None:
        """Probe at once: the last channel died."""
        self._failures = max(self._failures, 1)
        self._not_before = now

    def succeeded(self, now: float) -> None:
        """Note that a channel came up: the peer answers."""
        self._has_answered = True
        self._failures = 0
        self._not_before = now
