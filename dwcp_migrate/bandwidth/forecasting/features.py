"""Input features of the neural forecasters: ratios of a series, never its units.

The rule: a link of 10 Mbit/s and one of 10 Gbit/s look alike. Inputs are logarithms of samples against a level of the
series, outputs are quantiles of the logarithm of the outcome against the same level; clipped, because a link that
stood still for one sample would otherwise drown all others.
"""

from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.targets import QUANTILES, TARGETS, Floats

WINDOW: Final = 50
"""Samples that the multi-layer perceptron sees."""

LEVEL_SAMPLES: Final = 10
"""Its level is the mean of the last so many."""

RATIO_MAX: Final = 4.0
"""Of |ln(sample / level)|: a factor of 55 either way."""

OUTPUTS: Final = len(TARGETS) * len(QUANTILES)


def window_inputs(window: Floats) -> tuple[Floats, Floats]:
    """Normalise windows.

    Args:
        window: (m, `WINDOW`), positive, oldest first.

    Returns:
        Inputs (m, `WINDOW`) and levels (m,).
    """
    level = window[:, -LEVEL_SAMPLES:].mean(axis=1)
    return log_ratio(window, level[:, None]), level


def log_ratio(values: Floats, level: Floats) -> Floats:
    """Return the logarithm of a ratio, clipped to ±`RATIO_MAX`.

    Args:
        values: positive.
        level: positive, of a shape that broadcasts to that of `values`.
    """
    found: Floats = np.clip(np.log(values / level), -RATIO_MAX, RATIO_MAX)
    return found


def ordered(outputs: Floats) -> Floats:
    """Turn raw network outputs into quantiles that cannot cross.

    Args:
        outputs: (m, `OUTPUTS`): for each target the median and two free numbers.

    Returns:
        (m, targets, 3) log-ratios: median - softplus, median, median + softplus.
    """
    raw = outputs.reshape(len(outputs), len(TARGETS), len(QUANTILES))
    spread = np.logaddexp(0.0, raw[:, :, 1:])
    median = raw[:, :, 0]
    return np.stack([median - spread[:, :, 0], median, median + spread[:, :, 1]], axis=2)


def quantiles(outputs: Floats, level: Floats) -> Floats:
    """Turn raw network outputs into quantiles in the unit of the series.

    Args:
        outputs: (m, `OUTPUTS`).
        level: (m,), to which they are relative.

    Returns:
        (m, targets, 3), ascending.
    """
    found: Floats = level[:, None, None] * np.exp(np.clip(ordered(outputs), -RATIO_MAX, RATIO_MAX))
    return found
