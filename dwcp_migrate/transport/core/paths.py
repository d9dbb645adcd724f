"""Paths of a link: the peer's addresses over which its channels are spread (pure; time is an argument).

Rule: each path that works has an equal share of the channels, since what a channel carries then follows from its path.
A path on which a dial comes to nothing or a channel dies rests, twice as long each time, and so does one that crawls:
its channels hold back what the others deliver. One that has rested gets a single channel, and its share once that
carries something. With one path there is nothing to choose, and it never rests.

    trusted ─ a dial failed, a channel died, it crawls ─> rests, its share goes to the others
       ^                                                    │ rested
       └── its channel carried something ──── on trial <────┘
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.units import MIB

REST_S_MIN: Final = 2.0
REST_S_MAX: Final = 30.0
"""Of a path on which something failed; doubles from the former, until a channel there has lived for the latter."""
JUDGE_S: Final = 1.0
"""Span over which paths are compared, and the age of the channels that count."""
CRAWLING: Final = 0.03
"""Share of the best path's bytes a channel, below which a path costs more than it carries."""
COMPARED_BYTES_MIN: Final = MIB
"""That all paths have to carry in that span; below that nothing is compared."""


@dataclass(slots=True)
class _Path:
    is_trusted: bool = True
    rests_until: float = 0.0
    rest_s: float = REST_S_MIN

    def rest(self, now: float) -> None:
        self.is_trusted = False
        if now >= self.rests_until:  # of channels that die together only the first is news
            self.rests_until = now + self.rest_s
            self.rest_s = min(2 * self.rest_s, REST_S_MAX)


@dataclass(frozen=True, slots=True)
class _Channel:
    address: str
    since: float


class PathTable:
    """The paths of one link, and the channels on each.

    Args:
        addresses: of the peer; equal ones count once.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._paths = {address: _Path() for address in addresses}
        self._channels: dict[int, _Channel] = {}
        self._delivered: Mapping[int, int] = {}
        self._judged_at = 0.0

    def missing(self, now: float, wanted: int) -> int:
        """Count the channels to dial so that each path has its share.

        Args:
            now: the clock, monotonic seconds.
            wanted: channels that the link should have.
        """
        return sum(self._lacks(now, wanted).values())

    def next(self, now: float, wanted: int) -> str:
        """Return the address of the path that lacks most channels; any where none lacks one.

        Args:
            now: the clock, monotonic seconds.
            wanted: channels that the link should have.
        """
        lacks = self._lacks(now, wanted)
        return max(lacks, key=lambda address: lacks[address])

    def _lacks(self, now: float, wanted: int) -> dict[str, int]:
        """Channels that each path which does not rest lacks; of those that all rest, the one that rests least."""
        usable = {address: path for address, path in self._paths.items() if now >= path.rests_until}
        if not usable:
            first = min(self._paths, key=lambda address: self._paths[address].rests_until)
            usable = {first: self._paths[first]}
        trusted = sum(path.is_trusted for path in usable.values())
        share = -(-wanted // (trusted or len(usable)))
        there = Counter(channel.address for channel in self._channels.values())
        return {
            address: max(0, (share if path.is_trusted or not trusted else 1) - there[address])
            for address, path in usable.items()
        }

    def dialled(self, now: float, channel: int, address: str) -> None:
        """Note a channel that is being made.

        Args:
            now: the clock, monotonic seconds.
            channel: its number.
            address: of its path.
        """
        self._channels[channel] = _Channel(address, now)

    def failed(self, now: float, address: str) -> None:
        """Note that a path failed: a dial or a channel of it came to nothing.

        Args:
            now: the clock, monotonic seconds.
            address: of the path.
        """
        if len(self._paths) > 1:
            self._paths[address].rest(now)

    def ended(self, now: float, channel: int, *, in_order: bool) -> None:
        """Note a channel that is gone; unknown ones are ignored.

        Args:
            now: the clock, monotonic seconds.
            channel: its number.
            in_order: it retired, or left the link.
        """
        gone = self._channels.pop(channel, None)
        if gone is None:
            return
        if now - gone.since >= REST_S_MAX:
            self._paths[gone.address].rest_s = REST_S_MIN
        if not in_order:
            self.failed(now, gone.address)

    def surplus(self, count: int, in_use: Collection[int]) -> list[int]:
        """Choose channels to retire so that `count` stay: the youngest of the fullest path first.

        Args:
            count: channels that the link should have.
            in_use: channels that are up and do not retire, the oldest first.
        """
        if len(in_use) <= count:
            return []
        left: dict[str, list[int]] = {}
        for channel in in_use:
            left.setdefault(self._channels[channel].address, []).append(channel)
        return [max(left.values(), key=len).pop() for _ in range(len(in_use) - count)]

    def crawling(self, now: float, delivered: Mapping[int, int]) -> list[int]:
        """Compare the paths; returns the channels of those that carry next to nothing beside the best.

        Args:
            now: the clock, monotonic seconds.
            delivered: bytes that the peer's kernel has acknowledged, of each channel that is up.
        """
        if len(self._paths) < 2 or now - self._judged_at < JUDGE_S:  # noqa: PLR2004 - nothing to compare with
            return []
        self._judged_at = now
        spent: dict[str, list[int]] = {}
        for channel in delivered.keys() & self._delivered.keys():
            carried = delivered[channel] - self._delivered[channel]
            spent.setdefault(self._channels[channel].address, []).append(carried)
        self._delivered = delivered
        if sum(map(sum, spent.values())) < COMPARED_BYTES_MIN:
            return []
        rates = {address: sum(each) / len(each) for address, each in spent.items()}
        slow = {address for address, rate in rates.items() if rate < CRAWLING * max(rates.values())}
        for address in rates:
            self._paths[address].is_trusted = address not in slow
        for address in slow:
            self.failed(now, address)
        return [number for number, channel in self._channels.items() if channel.address in slow]
