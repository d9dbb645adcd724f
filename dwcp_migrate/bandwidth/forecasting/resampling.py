"""Resampling: from samples at ten a second to steps of one second, for many series at once (pure).

The rule: measurements are averaged, forecasts are of a second's mean: a migration lasts seconds to minutes, so 1, 10
and 60 steps are its horizons, and one panel step a second costs a tenth of ten.
"""

from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.targets import Floats, Indices

STEP_S: Final = 1.0
"""Length of a step."""


class Samples:
    """Samples of `count` series since the last step."""

    def __init__(self, count: int) -> None:
        self._sums = np.zeros(count)
        self._counts = np.zeros(count, dtype=np.intp)

    def add(self, slots: Indices, values: Floats) -> None:
        """Take one sample of each of these series.

        Args:
            slots: (m,), none twice.
            values: (m,); those that are not finite are left out.
        """
        finite = np.isfinite(values)
        if not finite.all():
            slots, values = slots[finite], values[finite]
        self._sums[slots] += values
        self._counts[slots] += 1

    def take(self) -> tuple[Indices, Floats]:
        """End the step: the series that have samples, and the means of these."""
        slots = np.flatnonzero(self._counts)
        means = self._sums[slots] / self._counts[slots]
        self._sums[slots] = 0.0
        self._counts[slots] = 0
        return slots, means
