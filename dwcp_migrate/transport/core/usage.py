"""The time of a link's thread and of its channels, by what it is spent on (written by that thread alone).

Time is spent on what a turn of the thread left behind: bytes to send and no channel that takes them (`BLOCKED`: the
link is short, or the peer's kernel has no room, see `receiver_limited`), bytes and channels that would take them
(`BUSY`: the thread is, which encrypts), or nothing to send. How long it then sleeps, or waits for a core, is no matter.
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import Protocol


class Leaves(Enum):
    """State in which a turn of the thread leaves the link."""

    NOTHING = auto()
    BLOCKED = auto()
    BUSY = auto()


class ChannelUsage(Protocol):
    """Demand on a channel."""

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
        self._spent_s = {Leaves.NOTHING: 0.0, Leaves.BLOCKED: 0.0, Leaves.BUSY: 0.0}
        self._since = now
        self._left = Leaves.NOTHING
        self._channels_s = (0.0, 0.0)

    def turned(self, now: float, left: Leaves) -> None:
        """A turn of the thread is over."""
        self._spent_s[self._left] += max(0.0, now - self._since)
        self._since, self._left = now, left

    def spent_s(self, now: float, left: Leaves) -> float:
        """Time in which turns had left that behind."""
        return self._spent_s[left] + (max(0.0, now - self._since) if self._left is left else 0.0)

    def tick(self, channels: Iterable[ChannelUsage]) -> None:
        """Take in what the kernel says of the channels."""
        known = list(channels)
        self.under_way_bytes = sum(channel.under_way_bytes for channel in known)
        totals = sum(channel.busy_s for channel in known), sum(channel.receiver_limited_s for channel in known)
        busy_s, limited_s = (max(0.0, new - old) for new, old in zip(totals, self._channels_s, strict=True))
        self._channels_s = totals
        self.receiver_limited = min(1.0, limited_s / busy_s) if busy_s else 0.0
