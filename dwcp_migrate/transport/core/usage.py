"""The time of a link's thread and of its channels, by what it is spent on (written by that thread alone).

A link is short where its thread sleeps with bytes to send because no channel takes more (`blocked_s`), unless the
peer's kernel has no room (`receiver_limited`): then the destination is. Where the thread never sleeps, encryption is.
"""

from collections.abc import Iterable
from typing import Protocol


class ChannelUsage(Protocol):
    """What is asked of a channel."""

    under_way_bytes: int
    busy_s: float
    receiver_limited_s: float


class LinkUsage:
    """Totals since the start; other threads may read them at any time and see the last change or the one before.

    Args:
        now: the clock.

    Attributes:
        under_way_bytes: in the kernel's hands, as of the last tick.
        receiver_limited: share of the channels' sending time in which the peer's kernel had no room, lately.
    """

    def __init__(self, now: float) -> None:
        self.under_way_bytes = 0
        self.receiver_limited = 0.0
        self._busy_s = self._blocked_s = 0.0
        self._changed_at = now
        self._state = "busy"
        self._channels_s = (0.0, 0.0)

    def sleeps(self, now: float, *, blocked: bool) -> None:
        """The thread waits from now on; `blocked`: with bytes to send that no channel takes."""
        self._account(now, "blocked" if blocked else "idle")

    def wakes(self, now: float) -> None:
        """The thread goes on."""
        self._account(now, "busy")

    def _account(self, now: float, state: str) -> None:
        self._busy_s, self._blocked_s = self.busy_s(now), self.blocked_s(now)
        self._changed_at, self._state = now, state

    def busy_s(self, now: float) -> float:
        """Time in which the thread worked."""
        return self._busy_s + (max(0.0, now - self._changed_at) if self._state == "busy" else 0.0)

    def blocked_s(self, now: float) -> float:
        """Time in which it slept although there was something to send."""
        return self._blocked_s + (max(0.0, now - self._changed_at) if self._state == "blocked" else 0.0)

    def tick(self, channels: Iterable[ChannelUsage]) -> None:
        """Take in what the kernel says of the channels."""
        known = list(channels)
        self.under_way_bytes = sum(channel.under_way_bytes for channel in known)
        totals = sum(channel.busy_s for channel in known), sum(channel.receiver_limited_s for channel in known)
        busy_s, limited_s = (max(0.0, new - old) for new, old in zip(totals, self._channels_s, strict=True))
        self._channels_s = totals
        self.receiver_limited = min(1.0, limited_s / busy_s) if busy_s else 0.0
