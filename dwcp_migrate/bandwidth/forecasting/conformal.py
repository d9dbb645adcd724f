"""Online, adaptive conformal correction: keeps the coverage of the bands under drift.

The rule: if outcomes fall below the low quantile more often than one in ten, it moves away from the median, and back if
they do more rarely; the same above. In each series and target the two distances are stretched by factors that follow
adaptive conformal inference (Gibbs and Candes 2021) in the form of quantile tracking (Angelopoulos, Candes and
Tibshirani 2023): long-run coverage holds for any series, since a factor can only stay where misses balance.
"""

from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.windows import VALUE_MIN
from dwcp_migrate.bandwidth.targets import HIGH, LAGS, LOW, MEDIAN, QUANTILES, Floats, Indices

RATE: Final = 0.02
"""One miss stretches by 1.8 %, one hit shrinks by 0.2 %; divided by the root of the target's steps, since outcomes of
overlapping targets miss together."""

STRETCH_MAX: Final = 1.1
"""Of |ln factor|: a band is stretched or shrunk by a factor of 3 at most."""


class Conformal:
    """Corrections of `count` series.

    Args:
        count: of series.
        start: (targets, 2) logarithms of the factors to begin with, from `calibrated` or zeros. A minute ahead a series
            has too few outcomes to find them alone.
    """

    def __init__(self, count: int, start: Floats) -> None:
        self._start = np.clip(start, -STRETCH_MAX, STRETCH_MAX)
        self._stretch = np.tile(self._start, (count, 1, 1))
        self._rate = RATE / np.sqrt(LAGS)[:, None]

    def correct(self, slots: Indices, quantiles: Floats) -> Floats:
        """Stretch quantiles around their median, in ratios.

        Args:
            slots: (m,).
            quantiles: (m, targets, 3), positive and ascending.

        Returns:
            The same shape.
        """
        factor = np.exp(self._stretch[slots])
        median = quantiles[..., MEDIAN]
        corrected = np.empty_like(quantiles)
        corrected[..., MEDIAN] = median
        corrected[..., LOW] = median * (quantiles[..., LOW] / median) ** factor[..., 0]
        corrected[..., HIGH] = median * (quantiles[..., HIGH] / median) ** factor[..., 1]
        return corrected

    def learn(self, slots: Indices, corrected: Floats, truth: Floats, known: Floats) -> None:
        """Take in outcomes.

        Args:
            slots: (m,).
            corrected: (m, targets, 3) as said when each outcome was still ahead.
            truth: (m, targets).
            known: (m, targets) 1 where such a forecast was made, else 0.
        """
        below = (truth < corrected[..., LOW]) - QUANTILES[LOW]
        above = (truth > corrected[..., HIGH]) - (1 - QUANTILES[HIGH])
        moved = self._stretch[slots] + self._rate * known[..., None] * np.stack([below, above], axis=-1)
        self._stretch[slots] = np.clip(moved, -STRETCH_MAX, STRETCH_MAX)

    def forget(self, slot: int) -> None:
        """Begin this series anew."""
        self._stretch[slot] = self._start


def calibrated(truth: Floats, quantiles: Floats) -> Floats:
    """Find the factors with which a band would have had the coverage that it should (split conformal prediction).

    Args:
        truth: (n,) outcomes, positive.
        quantiles: (n, 3), ascending, as said of them; zero where an outage was forecast, which is taken for the least
            value of a series.

    Returns:
        (2,): logarithms of the factors below and above, within `STRETCH_MAX`.
    """
    quantiles = np.maximum(quantiles, VALUE_MIN)
    below = np.log(quantiles[:, MEDIAN] / truth) / _distance(quantiles[:, LOW], quantiles[:, MEDIAN])
    above = np.log(truth / quantiles[:, MEDIAN]) / _distance(quantiles[:, MEDIAN], quantiles[:, HIGH])
    factors = np.array([np.quantile(below, 1 - QUANTILES[LOW]), np.quantile(above, QUANTILES[HIGH])])
    found: Floats = np.clip(np.log(np.maximum(factors, 1e-9)), -STRETCH_MAX, STRETCH_MAX)
    return found


def _distance(low: Floats, high: Floats) -> Floats:
    found: Floats = np.maximum(np.log(high / low), 1e-9)
    return found
