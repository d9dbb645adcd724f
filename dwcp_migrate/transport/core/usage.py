"""The time of a link's thread and of its channels, by the state that it is spent in (written by that thread alone).

Time belongs to the state in which a turn of the thread left the link: bytes to send and no channel that takes them
(`BLOCKED`: the link is short, or the peer's kernel has no room, see `receiver_limited`), bytes and channels that would
take them (`BUSY`: the thread is, which encrypts), or nothing to send. Whether it then sleeps or waits for a core makes
no difference.
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
        """Note the end of a turn of the thread.

        Args:
            now: the clock, monotonic seconds.
            left: state in which it left the link.
        """
        self._spent_s[self._left] += max(0.0, now - self._since)
        self._since, self._left = now, left

    def spent_s(self, now: float, left: Leaves) -> float:
        """Return the seconds spent in a state so far.

        Args:
            now: the clock, monotonic seconds.
            left: the state.
        """
        return self._spent_s[left] + (max(0.0, now - self._since) if self._left is left else 0.0)

    def tick(self, channels: Iterable[ChannelUsage]) -> None:
        """Read the kernel's figures of the channels."""
        known = list(channels)
        self.under_way_bytes = sum(channel.under_way_bytes for channel in known)
        totals = sum(channel.busy_s for channel in known), sum(channel.receiver_limited_s for channel in known)
        busy_s, limited_s = (max(0.0, new - old) for new, old in zip(totals, self._channels_s, strict=True))
        self._channels_s = totals
        self.receiver_limited = min(1.0, limited_s / busy_s) if busy_s else 0.0
