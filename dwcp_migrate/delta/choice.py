"""Choice of the codec for the next segments: from measurements, by whichever is scarce, link or processor.

A rung costs CPU and saves bytes. Where segments wait for the link all the time and the compressors have time left, the
next rung up is affordable: compression hides behind sending. Where the link waits for the pipeline and QEMU does too,
whichever part holds both up, the next rung down is due. In between it stays: a dead band, one step at a time, and only
after `PATIENCE` measurements that agree, so that it does not flap. Pure: the same observations give the same choices.

    rungs       raw (pages are not looked at), none, lz4, zstd 1 .. zstd level_max
    ceiling     the faster the link, the less a level is worth
    floor       lz4 on links that it outruns even on a busy core
"""

from dataclasses import dataclass
from typing import Final

from dwcp_migrate.delta.codec import RAW, Codec, Coding

STRONG_BYTES_PER_S_MAX: Final = 15e6
"""Links below that deserve any level: 9 to 12 % fewer bytes than level 1 on real guests."""
MIDDLE_BYTES_PER_S_MAX: Final = 60e6
"""Below that level 3, which saves most of it for half as much CPU again; the guests here need the rest."""
LEVEL_MIDDLE: Final = 3
LINK_BUSY: Final = 0.8
"""Share of the time with bytes waiting for the link, from which on all wait for the link."""
LINK_IDLE: Final = 0.2
"""The same, up to which the link waits."""
COMPRESSORS_SATURATED: Final = 0.85
COMPRESSORS_FREE: Final = 0.6
"""Shares of the compressors' time; waiting for a core counts as work: cores are short then."""
TRIED_BUSY: Final = 0.5
"""The same, from which on a link that was tried with pages as they are is not outrunning us."""
QEMU_HELD: Final = 0.2
"""Share of the time in which QEMU had nothing to send, up to which QEMU waits for this pipeline."""
PATIENCE: Final = 3
"""Measurements in a row before a step up: one tells of a lost packet or of a guest that paused."""
PATIENCE_DOWN: Final = 2
"""Before a step down: a link that idles while QEMU waits is lost time, and one lost packet makes no link idle."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One measurement of the pipeline, of a tenth of a second or so.

    Attributes:
        link_bytes_per_s: what the link can carry as far as it is known: its rate while it was busy; 0 is unknown.
        link_busy: share of the time in which all waited for the link and for what is under way on it, 0 to 1.
        compressors_busy: share of their time that the compressors worked, 0 to 1.
        qemu_idle: share of the time in which QEMU had nothing to send, 0 to 1.
    """

    link_bytes_per_s: float
    link_busy: float
    compressors_busy: float
    qemu_idle: float = 1.0


def ladder(level_max: int) -> tuple[Coding, ...]:
    """List all rungs from cheap to strong."""
    return (
        RAW,
        Coding(Codec.NONE),
        Coding(Codec.LZ4),
        *(Coding(Codec.ZSTD, level) for level in range(1, level_max + 1)),
    )


def pinned(codec: str, level: int) -> Coding | None:
    """Return the coding that the configuration fixes, None for `auto`.

    Args:
        codec: `auto`, `none`, `lz4` or `zstd`.
        level: of zstd, 1..`LEVEL_MAX`; the others ignore it.
    """
    names = {"none": Codec.NONE, "lz4": Codec.LZ4, "zstd": Codec.ZSTD}
    return Coding(names[codec], level) if codec in names else None


class CodecChoice:
    """Walks the ladder. Begins at zstd level 1: right for most links up to a few Gbit/s.

    On a path that is near it may begin as far down as it goes: a link that then turns out to be busy is met at level 1
    a tenth of a second later, while one that outruns the pipeline would have idled for half a second on the way down.

    Attributes:
        coding: the rung it stands on.
    """

    def __init__(self, level_max: int) -> None:
        self._rungs = ladder(level_max)
        self._rung = self._rungs.index(Coding(Codec.ZSTD, 1))
        self._pressure = 0
        self._is_trying = False

    def begin_raw(self) -> None:
        """Begin with segments as they are, to find out first whether the link outruns the pipeline."""
        self._rung, self._is_trying = 0, True

    @property
    def coding(self) -> Coding:
        """The rung it stands on."""
        return self._rungs[self._rung]

    def observe(self, seen: Observation) -> None:
        """Take one measurement; `coding` may be another one after it."""
        if self._is_trying and seen.link_busy >= TRIED_BUSY:
            self._rung, self._is_trying = self._rungs.index(Coding(Codec.ZSTD, 1)), False
        direction = _direction(seen)
        self._pressure = self._pressure + direction if direction * self._pressure >= 0 and direction else direction
        if self._pressure >= PATIENCE or self._pressure <= -PATIENCE_DOWN:
            self._rung = min(max(self._rung + direction, 0), len(self._rungs) - 1)
            self._pressure = 0
        if seen.link_bytes_per_s > 0:
            self._rung = min(max(self._rung, self._lowest(seen)), self._highest(seen))

    def _highest(self, seen: Observation) -> int:
        """The rung above which more CPU is not worth its bytes on such a link."""
        if seen.link_bytes_per_s <= STRONG_BYTES_PER_S_MAX:
            return len(self._rungs) - 1
        level = LEVEL_MIDDLE if seen.link_bytes_per_s <= MIDDLE_BYTES_PER_S_MAX else 1
        return min(self._rungs.index(Coding(Codec.ZSTD, 1)) + level - 1, len(self._rungs) - 1)

    def _lowest(self, seen: Observation) -> int:
        """The rung below which nothing can be gained on such a link."""
        return self._rungs.index(Coding(Codec.LZ4)) if seen.link_bytes_per_s <= MIDDLE_BYTES_PER_S_MAX else 0


def _direction(seen: Observation) -> int:
    """+1: bytes are dearer than cycles; -1: QEMU and the link wait for this pipeline."""
    if seen.link_busy >= LINK_BUSY and seen.compressors_busy <= COMPRESSORS_FREE:
        return 1
    is_slow = 0 < seen.link_bytes_per_s <= MIDDLE_BYTES_PER_S_MAX  # it idles while we catch up after a stall
    held_up = seen.compressors_busy >= COMPRESSORS_SATURATED or (seen.qemu_idle <= QEMU_HELD and not is_slow)
    if seen.link_busy <= LINK_IDLE and held_up:
        return -1
    return 0
