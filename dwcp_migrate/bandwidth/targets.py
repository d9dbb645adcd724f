"""Targets of a forecast: five horizons, three quantiles each, and the measures of its error.

A forecast of one series is an array (targets, quantiles) in the series' own unit; a batch puts the series in front.
The mean over a transfer is interpolated between the targets `step1`, `mean10` and `mean60`, linear in the logarithm of
the transfer's length: the spread of a mean changes with orders of magnitude, not with steps.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

QUANTILES: Final = (0.1, 0.5, 0.9)
LOW: Final = 0
MEDIAN: Final = 1
HIGH: Final = 2

COVERAGE: Final = QUANTILES[HIGH] - QUANTILES[LOW]
"""Share of outcomes that lie between the outer quantiles of an honest forecast."""


@dataclass(frozen=True, slots=True)
class Target:
    """One horizon of a forecast.

    Attributes:
        name: as in metrics and reports.
        steps: how far ahead it is known.
        is_mean: the mean over the next `steps` samples, not the sample that far ahead.
    """

    name: str
    steps: int
    is_mean: bool = False


TARGETS: Final = (
    Target("step1", 1),
    Target("step10", 10),
    Target("step60", 60),
    Target("mean10", 10, is_mean=True),
    Target("mean60", 60, is_mean=True),
)
STEPS_MAX: Final = max(target.steps for target in TARGETS)
LAGS: Final[Indices] = np.array([target.steps for target in TARGETS])

_SPANS: Final = ((1, 0), (10, 3), (60, 4))
"""Length of a transfer in steps, and the index of the target that is its mean."""


def pinball_loss(truth: Floats, quantiles: Floats) -> Floats:
    """Compute the quantile (pinball) loss, Koenker and Bassett 1978.

    Args:
        truth: (...), outcomes.
        quantiles: (..., 3), forecasts.

    Returns:
        (..., 3), in the unit of the series.
    """
    short = truth[..., None] - quantiles
    return np.maximum(np.asarray(QUANTILES) * short, (np.asarray(QUANTILES) - 1.0) * short)


def realised_outcomes(window: Floats) -> Floats:
    """Compute the outcomes of the targets that the newest sample completes.

    Args:
        window: (n, at least `STEPS_MAX`), the newest samples, oldest first.

    Returns:
        (n, targets): the last sample, or the mean of the last so many.
    """
    found = np.empty((len(window), len(TARGETS)))
    for column, target in enumerate(TARGETS):
        found[:, column] = window[:, -target.steps :].mean(axis=1) if target.is_mean else window[:, -1]
    return found


def compute_outcomes(values: Floats) -> Floats:
    """Compute the outcomes of the targets after each sample: (samples, targets), NaN beyond the end."""
    found = np.full((len(values), len(TARGETS)), np.nan)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    for column, target in enumerate(TARGETS):
        known = len(values) - target.steps
        if known <= 0:
            continue
        if target.is_mean:
            found[:known, column] = (sums[target.steps + 1 :] - sums[1 : known + 1]) / target.steps
        else:
            found[:known, column] = values[target.steps :]
    return found


def over_transfer(forecast: Floats, steps: float) -> Floats:
    """Interpolate the quantiles of the mean over a transfer.

    Args:
        forecast: (..., targets, 3).
        steps: length of the transfer; under 1 counts as 1, over 60.

    Returns:
        (..., 3).
    """
    position = math.log(min(max(steps, 1.0), float(STEPS_MAX)))
    for (before, low), (after, high) in itertools.pairwise(_SPANS):
        if position <= math.log(after):
            share = (position - math.log(before)) / (math.log(after) - math.log(before))
            blended: Floats = (1 - share) * forecast[..., low, :] + share * forecast[..., high, :]
            return blended
    raise AssertionError("unreachable: the position is bounded by the last span")
