"""Totals over a link's channels, those that are gone included (other threads may read them at any time)."""

from collections import Counter
from collections.abc import Collection
from typing import Final, NamedTuple

from dwcp_migrate.transport.io.channel import Channel

GONE_MAX: Final = 64
"""Channels that are gone and still told apart; the bytes of further ones are the last one's."""


class CarriedFrames(NamedTuple):
    """Frame bytes both ways, packets that the kernel sent again, errors by class name, bytes by channel and by path."""

    sent_bytes: int
    received_bytes: int
    retransmits: int
    errors: dict[str, int]
    by_channel: list[int]
    by_path: dict[str, int]


class ChannelTotals:
    """Bytes, retransmissions and errors of all channels since the start.

    Attributes:
        errors: by class name, of channels that never came up or broke the protocol.
    """

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self._sent_bytes = self._received_bytes = self._retransmits = 0
        self._gone: list[int] = []
        self._by_path: Counter[str] = Counter()

    def count_error(self, kind: type[BaseException]) -> None:
        """Count a channel that came to nothing."""
        self.errors[kind.__name__] += 1

    def left(self, channel: Channel) -> None:
        """Add the figures of a channel that is gone from the link."""
        self._sent_bytes += channel.sent_bytes
        self._received_bytes += channel.received_bytes
        self._retransmits += channel.retransmits
        if len(self._gone) < GONE_MAX:
            self._gone.append(0)
        self._gone[-1] += channel.sent_bytes + channel.received_bytes
        if channel.path:
            self._by_path[channel.path] += channel.sent_bytes + channel.received_bytes

    def carried(self, channels: Collection[Channel]) -> CarriedFrames:
        """Total the figures, those of the given channels included."""
        by_path = Counter(self._by_path)
        for channel in channels:
            if channel.path:
                by_path[channel.path] += channel.sent_bytes + channel.received_bytes
        return CarriedFrames(
            self._sent_bytes + sum(channel.sent_bytes for channel in channels),
            self._received_bytes + sum(channel.received_bytes for channel in channels),
            self._retransmits + sum(channel.retransmits for channel in channels),
            dict(self.errors),
            [*self._gone, *(channel.sent_bytes + channel.received_bytes for channel in channels)],
            dict(by_path),
        )
