"""The last `DEPTH` samples of many series, each at its own pace.

The rule: a window is always full. Before a series has so many samples, its first one stands for those that were never
taken, so that no forecaster needs a case for the beginning.
"""

from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.targets import Floats, Indices

DEPTH: Final = 256
"""Four of the longest horizon; a period of up to 64 samples is seen four times."""

VALUE_MIN: Final = 1e-6
"""Rates are positive: a zero becomes this, so that ratios and logarithms exist."""


class SeriesWindow:
    """Ring buffers of `count` series.

    Attributes:
        taken: (count,) samples so far.
    """

    def __init__(self, count: int) -> None:
        self.taken = np.zeros(count, dtype=np.intp)
        self._ring = np.full((count, DEPTH), VALUE_MIN)
        self._behind = np.arange(-DEPTH, 0)

    def push(self, slots: Indices, values: Floats) -> None:
        """Take one new sample of each of these series.

        Args:
            slots: (m,), which series, none twice.
            values: (m,), finite.

        Raises:
            ValueError: a value is not finite.
        """
        if not np.isfinite(values).all():
            raise ValueError("a sample must be a finite number")
        values = np.maximum(values, VALUE_MIN)
        first = self.taken[slots] == 0
        if first.any():
            self._ring[slots[first]] = values[first, None]
        self._ring[slots, self.taken[slots] % DEPTH] = values
        self.taken[slots] += 1

    def window(self, slots: Indices, width: int) -> Floats:
        """Read the newest samples.

        Args:
            slots: (m,), which series.
            width: samples of each, at most `DEPTH`.

        Returns:
            (m, width), oldest first.
        """
        where = (self.taken[slots, None] + self._behind[DEPTH - width :]) % DEPTH
        found: Floats = self._ring[slots[:, None], where]
        return found

    def last(self, slots: Indices) -> Floats:
        """Return the newest sample of each, (m,)."""
        found: Floats = self._ring[slots, (self.taken[slots] - 1) % DEPTH]
        return found

    def forget(self, slot: int) -> None:
        """Begin this series anew: the slot goes to another one."""
        self.taken[slot] = 0
