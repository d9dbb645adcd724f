"""Quantiles around the numbers of the point forecasters: where outcomes have lain, in ratios, lately.

The rule: a band follows the outcomes. Each quantile of ln(outcome / forecast) moves up by its share of a step when the
outcome was above it and down by the rest when it was below (stochastic gradient of the pinball loss), the step being a
fraction of the usual error: it keeps its meaning on a calm and on a wild series.
"""

from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.features import RATIO_MAX
from dwcp_migrate.bandwidth.targets import LAGS, QUANTILES, Floats, Indices

RATE: Final = 0.06
"""Of the usual error, one step: a band is rebuilt in about 50 outcomes. Divided by the root of the target's steps,
since outcomes of overlapping targets err together."""

SCALE_RATE: Final = 0.05
"""Weight of the newest outcome in the usual error."""

SPREAD: Final = 0.15
"""Width of bands that were not trained: 15 % either way."""


class Bands:
    """Bands of `forecasters` point forecasters over `count` series.

    Args:
        count: of series.
        start: (forecasters, targets, 3) log-ratios to begin with.
    """

    def __init__(self, count: int, start: Floats) -> None:
        self._start = start
        self._rate = RATE / np.sqrt(LAGS)[:, None]
        self._edges = np.tile(start, (count, 1, 1, 1))
        self._scale = np.tile((start[:, :, -1] - start[:, :, 0]) / 2, (count, 1, 1))

    def around(self, slots: Indices, points: Floats) -> Floats:
        """Put quantiles around points.

        Args:
            slots: (m,).
            points: (m, forecasters, targets), positive.

        Returns:
            (m, forecasters, targets, 3), ascending.
        """
        found: Floats = points[..., None] * np.exp(np.sort(self._edges[slots], axis=-1))
        return found

    def learn(self, slots: Indices, points: Floats, truth: Floats, known: Floats) -> None:
        """Take in outcomes.

        Args:
            slots: (m,).
            points: (m, forecasters, targets) as said when each target was still ahead.
            truth: (m, targets).
            known: (m, targets) 1 where such a forecast was made, else 0.
        """
        error = np.clip(np.log(truth[:, None, :] / points), -RATIO_MAX, RATIO_MAX)
        edges, scale = self._edges[slots], self._scale[slots]
        scale = scale + SCALE_RATE * known[:, None, :] * (np.abs(error) - scale)
        above = (error[..., None] > edges) - (1.0 - np.asarray(QUANTILES))
        self._edges[slots] = edges + (self._rate * known[:, None, :, None] * scale[..., None]) * above
        self._scale[slots] = scale

    def forget(self, slot: int) -> None:
        """Begin this series anew."""
        self._edges[slot] = self._start
        self._scale[slot] = (self._start[:, :, -1] - self._start[:, :, 0]) / 2


def untrained(forecasters: int, targets: int) -> Floats:
    """Make bands for forecasters of which nothing is known.

    Args:
        forecasters: their number.
        targets: their number.

    Returns:
        (forecasters, targets, 3) log-ratios.
    """
    return np.tile(np.array([-SPREAD, 0.0, SPREAD]), (forecasters, targets, 1))
