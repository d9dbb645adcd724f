"""Paths of a link: the peer's addresses over which its channels are spread (pure; time is an argument).

Rule: each path that works has an equal share of the channels, since what a channel carries then follows from its path.
A path on which a dial comes to nothing or the last channel dies rests, twice as long each time, and so does one that
crawls: its channels hold back what the others deliver, so that these have to bring it once more. One that has rested
gets a single channel, and four times as many each time that they carry about as much as the others' channels, up to its
share: a path that crawls may carry as much in one channel as a good one in each of many, but not in four of them. With
one path there is nothing to choose, and it never rests.

    trusted ─ a dial or its last channel failed, it crawls ─> rests, its share goes to the others
       ^                                                        │ rested
       └─ its channels carry as much as others, up to ── on trial, of 1 channel, 4, 16 ...
          its share
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
"""Share of the best path's bytes, below which a path costs more than it carries."""
HEALTHY: Final = 0.5
"""Share of the best path's bytes a channel, from which a path of fewer channels only lacks channels."""
RESCUED: Final = 0.5
"""Share of what a path brought that others had to bring once more, above which it costs more than it carries."""
GROWTH: Final = 4
"""Of a path on trial, each time that it was found healthy."""
COMPARED_BYTES_MIN: Final = MIB
"""That all paths have to carry in that span; below that nothing is compared."""


@dataclass(slots=True)
class _Path:
    allowed: int | None = None
    """Channels that it gets on trial; None is its share."""
    rests_until: float = 0.0
    rest_s: float = REST_S_MIN

    @property
    def is_trusted(self) -> bool:
        return self.allowed is None

    def rest(self, now: float) -> None:
        self.allowed = 1
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
        self._rescued: Mapping[int, int] = {}
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
            address: max(0, min(share, path.allowed if path.allowed and trusted else share) - there[address])
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
        if not in_order and all(channel.address != gone.address for channel in self._channels.values()):
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

    def is_due(self, now: float) -> bool:
        """Tell whether there are paths to compare, and the last comparison was long enough ago."""
        return len(self._paths) > 1 and now - self._judged_at >= JUDGE_S

    def crawling(self, now: float, delivered: Mapping[int, int], rescued: Mapping[int, int]) -> list[int]:
        """Compare the paths; returns the channels of those that carry next to nothing beside the best.

        Args:
            now: the clock, monotonic seconds.
            delivered: bytes that the peer's kernel has acknowledged, of each channel that is up.
            rescued: bytes that went once more on another channel, by the channel that did not bring them.
        """
        if not self.is_due(now):
            return []
        self._judged_at = now
        spent: dict[str, list[int]] = {}
        held_back: Counter[str] = Counter()
        for channel in delivered.keys() & self._delivered.keys():
            address = self._channels[channel].address
            spent.setdefault(address, []).append(delivered[channel] - self._delivered[channel])
            held_back[address] += rescued.get(channel, 0) - self._rescued.get(channel, 0)
        self._delivered, self._rescued = delivered, dict(rescued)
        if sum(map(sum, spent.values())) < COMPARED_BYTES_MIN:
            return []
        best = max(spent.values(), key=sum)
        slow = {
            address
            for address, each in spent.items()
            if each is not best and (_crawls(each, best) or held_back[address] > RESCUED * sum(each))
        }
        for address, each in spent.items():
            if address in slow:
                self.failed(now, address)
            else:
                self._extend(self._paths[address], each, best)
        return [number for number, channel in self._channels.items() if channel.address in slow]

    def _extend(self, path: _Path, carried: Sequence[int], best: Sequence[int]) -> None:
        """Let a path on trial have more channels where those that it has carry as much as others."""
        if path.allowed is None or not _is_healthy(carried, best):
            return
        share = (len(carried) + len(best)) / 2
        path.allowed = None if GROWTH * len(carried) >= share else GROWTH * len(carried)


def _crawls(carried: Sequence[int], best: Sequence[int]) -> bool:
    return sum(carried) < CRAWLING * sum(best) and not _is_healthy(carried, best)


def _is_healthy(carried: Sequence[int], best: Sequence[int]) -> bool:
    """Whether the channels of a path carry about as much, each, as those of the best one."""
    return sum(carried) / len(carried) >= HEALTHY * sum(best) / len(best)
