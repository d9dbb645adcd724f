"""Model of a guest, learnt from its migrations: compressibility, dirty rate, forms of its pages (pure).

The rule: one finished pass after the other. The first pass shows the wire bytes of memory that was never sent before;
later passes show how much the guest wrote while the pass before ran, and the wire bytes of that as deltas.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.prediction.predictor import GuestFacts
from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.bandwidth.targets import QUANTILES
from dwcp_migrate.units import MIB

PATH_BUSY: Final = 0.5
"""A pass in which less than that share of the time was the path's shows how fast the hosts encode."""

UNKNOWN_FIRST_SHARE: Final = Range(0.08, 0.3, 0.7)
"""GuestFacts memory after zero pages, duplicates and zstd, over the guests of the benchmark suite `hde`."""

UNKNOWN_LATER_SHARE: Final = Range(0.05, 0.2, 0.6)
UNKNOWN_ENCODE: Final = Range(80e6, 300e6, 900e6)
"""Bytes of memory a second, two to eight cores."""

KNOWN_SPREAD: Final = 1.15
"""Factor either way around a quantity, however often it was measured."""

FEW_SPREAD: Final = 1.35
"""Further factor around a quantity measured once; of n measurements its nth root is left."""

SAMPLES_KEPT: Final = 20
"""Of a quantity of a guest: a guest changes its habits with its software."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of one migration.

    Attributes:
        seconds: how long it ran.
        raw_bytes: taken from QEMU.
        wire_bytes: on the channels.
        path_busy: share of the time in which the path held it up.
        left_bytes: of a pass that was cut short, what was still to be sent.
    """

    seconds: float
    raw_bytes: float
    wire_bytes: float
    path_busy: float
    left_bytes: float = 0.0

    @property
    def whole_bytes(self) -> float:
        """Memory that the guest had written to before it."""
        return self.raw_bytes + self.left_bytes


@dataclass(frozen=True, slots=True)
class Lesson:
    """A guest's behaviour in one migration; None where it showed nothing."""

    first_share: float | None = None
    later_share: float | None = None
    encode_bytes_per_s: float | None = None
    working_set_bytes: float | None = None
    dirty_bytes_per_s: float | None = None
    rewritten_bytes_per_s: float | None = None


def read_lesson(memory_bytes: float, passes: Sequence[Pass], dirty_bytes_per_s: float) -> Lesson:
    """Read a finished migration.

    Args:
        memory_bytes: of the guest.
        passes: in order; the last one may be the switchover's, or one after the first that was cut short.
        dirty_bytes_per_s: what the guest writes in a second. Over a pass of a minute libvirt's measure and the stream
            tell no more than how large its working set is. Not positive where neither was measured: then the stream
            says it, by what each pass brought that the guest wrote during the one before.
    """
    if not passes or memory_bytes <= 0:
        return Lesson()
    first, later = passes[0], [one for one in passes[1:] if one.raw_bytes >= MIB]
    later_raw = sum(one.raw_bytes for one in later)
    free = first.path_busy < PATH_BUSY and first.seconds > 0
    pairs = [
        (before, written)
        for before, written in itertools.pairwise(passes)
        if written.raw_bytes >= MIB and before.seconds > 0
    ]
    # A page that is written twice during a pass comes once: the shortest passes show most of the writing.
    streamed = max((written.whole_bytes / before.seconds for before, written in pairs), default=None)
    dirty = dirty_bytes_per_s if dirty_bytes_per_s > 0 else streamed
    sets = [working_set(written.whole_bytes, dirty or 0.0, before.seconds) for before, written in pairs]
    return Lesson(
        first_share=first.wire_bytes / memory_bytes if first.wire_bytes > 0 else None,
        later_share=sum(one.wire_bytes for one in later) / later_raw if later_raw else None,
        encode_bytes_per_s=memory_bytes / first.seconds if free else None,
        working_set_bytes=min(max(sets), memory_bytes) if sets else None,
        dirty_bytes_per_s=dirty,
        rewritten_bytes_per_s=streamed,
    )


def working_set(written_bytes: float, dirty_bytes_per_s: float, seconds: float) -> float:
    """Solve written = W (1 - exp(-D t / W)) for W, by bisection.

    Args:
        written_bytes: during the pass.
        dirty_bytes_per_s: rate at which it writes, repeated writes counted.
        seconds: length of the pass.

    Returns:
        At least `written_bytes`; four times that where D t says nothing about a bound.
    """
    drawn = dirty_bytes_per_s * seconds
    if drawn <= written_bytes * 1.05:
        return 4 * written_bytes
    low, high = written_bytes, 4 * written_bytes
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if middle * -math.expm1(-drawn / middle) < written_bytes else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class KnownGuest:
    """Measured values of one guest, oldest first; empty where nothing was measured."""

    dirty: Sequence[float] = ()
    working_set: Sequence[float] = ()
    first_share: Sequence[float] = ()
    later_share: Sequence[float] = ()
    encode: Sequence[float] = ()


def describe_guest(memory_bytes: float, known: KnownGuest) -> GuestFacts:
    """Put a guest together from its measurements, and from usual values where there are none.

    Args:
        memory_bytes: of the guest.
        known: its measurements.
    """
    dirty = _known(known.dirty, Range(0.0, 0.01 * memory_bytes, 0.05 * memory_bytes))
    bound = Range(min(4 * MIB, memory_bytes), min(16 * max(dirty.median, MIB), memory_bytes), memory_bytes)
    return GuestFacts(
        memory_bytes=memory_bytes,
        dirty_bytes_per_s=dirty,
        working_set_bytes=_known(known.working_set, bound),
        first_wire_share=_known(known.first_share, UNKNOWN_FIRST_SHARE),
        later_wire_share=_known(known.later_share, UNKNOWN_LATER_SHARE),
        encode_bytes_per_s=_known(known.encode, UNKNOWN_ENCODE),
    )


def _known(values: Sequence[float], otherwise: Range) -> Range:
    recent = np.asarray(values[-SAMPLES_KEPT:], dtype=np.float64)
    if not len(recent):
        return otherwise
    low, median, high = (float(value) for value in np.quantile(recent, QUANTILES))
    spread = KNOWN_SPREAD * FEW_SPREAD ** (1 / len(recent))
    return Range(min(low, median / spread), median, max(high, median * spread))
