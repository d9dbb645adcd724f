"""Scores of forecasters on given series: accuracy, WAPE, pinball loss and coverage of each, at each target.

The rule: a panel runs over the series as it would live, sample by sample, and what it said is compared with what came
`WARM_UP` samples or more after the beginning of a series. The median of a forecast is its point forecast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.bandwidth.forecasting.panel import Panel
from dwcp_migrate.bandwidth.targets import HIGH, LOW, MEDIAN, QUANTILES, TARGETS, Floats, compute_outcomes, pinball_loss

WARM_UP: Final = 50
"""Samples of each series that are seen before the first forecast is scored: the window of the perceptron."""

SMALL: Final = 0.05
"""Outcomes under this share of their series' median are left out of the percentage error, which they would blow up."""

MIX: Final = "mix"


@dataclass(frozen=True, slots=True)
class ForecastScore:
    """One forecaster at one target, over all series of a set.

    Attributes:
        accuracy_percent: 100 - mean absolute percentage error of the median.
        wape_percent: sum of absolute errors over the sum of the outcomes.
        pinball_percent: mean pinball loss over the quantiles, of the mean outcome.
        coverage_percent: outcomes between the outer quantiles.
        outcomes: how many were compared.
    """

    accuracy_percent: float
    wape_percent: float
    pinball_percent: float
    coverage_percent: float
    outcomes: int


@dataclass(frozen=True, slots=True)
class Said:
    """Forecasts and their outcomes, for the outcomes that count.

    Attributes:
        names: of the forecasters, the mix last.
        forecasts: for each target (outcomes, forecasters, 3).
        truths: for each target (outcomes,).
        scales: for each target (outcomes,) the median of its series.
    """

    names: tuple[str, ...]
    forecasts: list[Floats]
    truths: list[Floats]
    scales: list[Floats]


def run(make: Callable[[int], Panel], series: Sequence[Floats]) -> Said:
    """Run a panel over all series at once, each in a slot of its own.

    Args:
        make: a panel for so many series.
        series: each of more than `WARM_UP` samples.
    """
    panel = make(len(series))
    lengths = np.array([len(values) for values in series])
    steps = int(lengths.max())
    log = np.full((len(series), steps, len(panel.names) + 1, len(TARGETS), len(QUANTILES)), np.nan, dtype=np.float32)
    for at in range(steps):
        slots = np.flatnonzero(lengths > at)
        panel.step(slots, np.array([series[int(slot)][at] for slot in slots]))
        log[slots, at, :-1] = panel.with_outages(slots)
        log[slots, at, -1] = panel.forecasts[slots]
    names = (*panel.names, MIX)
    return Said(names, *_matched(log, series))


def _matched(log: NDArray[np.float32], series: Sequence[Floats]) -> tuple[list[Floats], list[Floats], list[Floats]]:
    forecasts: list[Floats] = []
    truths: list[Floats] = []
    scales: list[Floats] = []
    all_came = [compute_outcomes(values) for values in series]
    for column in range(len(TARGETS)):
        said, came, scale = [], [], []
        for row, values in enumerate(series):
            outcome = all_came[row][WARM_UP:, column]
            outcome = outcome[np.isfinite(outcome)]
            said.append(log[row, WARM_UP : WARM_UP + len(outcome), :, column].astype(np.float64))
            came.append(outcome)
            scale.append(np.full(len(outcome), np.median(values)))
        forecasts.append(np.concatenate(said))
        truths.append(np.concatenate(came))
        scales.append(np.concatenate(scale))
    return forecasts, truths, scales


def score(said: Said) -> dict[str, list[ForecastScore]]:
    """Score every forecaster: for each name one score a target, in the order of `TARGETS`."""
    return {
        name: [_score(said, index, column) for column in range(len(TARGETS))] for index, name in enumerate(said.names)
    }


def _score(said: Said, index: int, column: int) -> ForecastScore:
    forecast, truth = said.forecasts[column][:, index], said.truths[column]
    if not len(truth):
        return ForecastScore(np.nan, np.nan, np.nan, np.nan, 0)
    error = np.abs(truth - forecast[:, MEDIAN])
    large = truth >= SMALL * said.scales[column]
    inside = (truth >= forecast[:, LOW]) & (truth <= forecast[:, HIGH])
    return ForecastScore(
        accuracy_percent=100 * (1 - float((error[large] / truth[large]).mean())),
        wape_percent=100 * float(error.sum() / truth.sum()),
        pinball_percent=100 * float(pinball_loss(truth, forecast).mean() / truth.mean()),
        coverage_percent=100 * float(inside.mean()),
        outcomes=len(truth),
    )
