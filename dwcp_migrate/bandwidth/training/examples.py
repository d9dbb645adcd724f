"""Examples for the networks, made from series: normalised inputs, outcomes against the same level, weights.

The rule: an outcome counts by the level that it was normalised with relative to its series' mean, because forecasts are
judged in the unit of the series: a link at a tenth of its usual rate weighs a tenth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.features import WINDOW, log_ratio, window_inputs
from dwcp_migrate.bandwidth.forecasting.neural import level_gain
from dwcp_migrate.bandwidth.forecasting.windows import VALUE_MIN
from dwcp_migrate.bandwidth.targets import STEPS_MAX, TARGETS, Floats, compute_outcomes

SERIES_SAMPLES_MIN: Final = WINDOW + 2
"""A shorter series has not one example."""

WEIGHT_MAX: Final = 4.0


@dataclass(frozen=True, slots=True)
class Examples:
    """Inputs and outcomes.

    Attributes:
        inputs: (examples, `WINDOW`) for the perceptron, (series, steps, 2) for an LSTM.
        outcomes: (..., targets) log-ratios, NaN where the series ended before.
        weights: (...), of each example.
    """

    inputs: Floats
    outcomes: Floats
    weights: Floats


def windows(series: Sequence[Floats], draw: np.random.Generator, count_max: int) -> Examples:
    """Cut windows for the perceptron, drawn evenly.

    Args:
        series: (samples,) each; short ones are left out.
        draw: source of randomness.
        count_max: windows at most.

    Raises:
        ValueError: every series is shorter than `SERIES_SAMPLES_MIN`.
    """
    cut, came, level, mean = [], [], [], []
    for raw in series:
        if len(raw) < SERIES_SAMPLES_MIN:
            continue
        values = np.maximum(raw, VALUE_MIN)
        views = np.lib.stride_tricks.sliding_window_view(values, WINDOW)[:-1]
        inputs, levels = window_inputs(views)
        cut.append(inputs)
        level.append(levels)
        came.append(log_ratio(compute_outcomes(values)[WINDOW - 1 : -1], levels[:, None]))
        mean.append(np.full(len(views), values.mean()))
    if not cut:
        raise ValueError(f"no series has {SERIES_SAMPLES_MIN} samples")
    inputs, came_all = np.concatenate(cut), np.concatenate(came)
    weight = np.minimum(np.concatenate(level) / np.concatenate(mean), WEIGHT_MAX)
    chosen = draw.permutation(len(inputs))[:count_max]
    return Examples(inputs[chosen], came_all[chosen], weight[chosen])


def sequences(series: Sequence[Floats], sequence: int, steps: int) -> Examples:
    """Lay series side by side for an LSTM.

    Args:
        series: (samples,) each; short ones are left out.
        sequence: samples that the LSTM looks back.
        steps: length to which each is cut or padded.

    Raises:
        ValueError: every series is shorter than `SERIES_SAMPLES_MIN`.
    """
    pieces = [
        np.maximum(raw[at : at + steps + STEPS_MAX], VALUE_MIN)
        for raw in series
        for at in range(0, max(1, len(raw) - SERIES_SAMPLES_MIN), steps)
        if len(raw) - at >= SERIES_SAMPLES_MIN
    ]
    if not pieces:
        raise ValueError(f"no series has {SERIES_SAMPLES_MIN} samples")
    laid = np.stack([np.pad(piece, (0, steps + STEPS_MAX - len(piece)), mode="edge") for piece in pieces])
    came = np.full((len(pieces), steps, len(TARGETS)), np.nan)
    for row, piece in enumerate(pieces):
        known = compute_outcomes(piece)[:steps]
        came[row, : len(known)] = known
    laid = laid[:, :steps]
    level = levels(laid, level_gain(sequence))
    before = np.concatenate([laid[:, :1], laid[:, :-1]], axis=1)
    inputs = np.stack([log_ratio(laid, level), log_ratio(laid, before)], axis=2)
    mean = np.array([piece.mean() for piece in pieces])
    return Examples(inputs, log_ratio(came, level[:, :, None]), np.minimum(level / mean[:, None], WEIGHT_MAX))


def levels(laid: Floats, gain: float) -> Floats:
    """Compute the running level of each series, as `neural.Lstm` keeps it.

    Args:
        laid: (series, samples).
        gain: weight of the newest sample.

    Returns:
        (series, samples).
    """
    found = np.empty_like(laid)
    level = laid[:, 0]
    for at in range(laid.shape[1]):
        level = level + gain * (laid[:, at] - level)
        found[:, at] = level
    return found
