"""Promotion of models: a newly trained one replaces the one in use, and stays, only by its scores (pure).

The rule: a candidate must be better than the models in use on history that neither has seen, and keeps its place only
as long as it is no worse there than those that it replaced. Both are judged by the mix, which is what the agent uses.

    trained ── better by GAIN_MIN on the newest tenth of the history? ── yes ─> current, the replaced one is previous
                                                                     └─ no ──> dropped
    each day: current worse than previous by LOSS_MAX on the day's history ─> previous again
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.ensemble import Ensemble
from dwcp_migrate.bandwidth.forecasting.evaluation import MIX, WARM_UP, run, score
from dwcp_migrate.bandwidth.targets import STEPS_MAX, Floats

GAIN_MIN: Final = 0.01
"""A candidate that is not 1 % better is not worth the change."""

LOSS_MAX: Final = 0.02
"""A model that is more than 2 % worse than its predecessor goes."""

HELD_OUT: Final = 0.25
"""The newest share of each series, for the judgement."""

SAMPLES_MIN: Final = 4 * (WARM_UP + STEPS_MAX)
"""A shorter series leaves too little to be judged by."""


def split(series: Sequence[Floats]) -> tuple[list[Floats], list[Floats]]:
    """Cut each long series in time: to learn from, and to judge by."""
    long = [values for values in series if len(values) >= SAMPLES_MIN]
    cuts = [round(len(values) * (1 - HELD_OUT)) for values in long]
    pairs = list(zip(long, cuts, strict=True))
    return [values[:cut] for values, cut in pairs], [values[cut:] for values, cut in pairs]


def loss(ensemble: Ensemble, series: Sequence[Floats]) -> float:
    """Compute the mean pinball loss of the mix over all targets.

    Args:
        ensemble: to judge.
        series: history that it has not seen.

    Returns:
        Percent of the mean; infinite where there is nothing to score.
    """
    if not series:
        return float("inf")
    figures = [one.pinball_percent for one in score(run(ensemble.panel, series))[MIX] if one.outcomes]
    return float(np.mean(figures)) if figures else float("inf")


def is_better(candidate: float, current: float) -> bool:
    """Tell whether a candidate replaces the models in use.

    Args:
        candidate: its `loss`.
        current: that of the models in use, on the same history.
    """
    return candidate < current * (1 - GAIN_MIN)


def is_worse(current: float, previous: float) -> bool:
    """Tell whether the models in use give way to those that they replaced.

    Args:
        current: the `loss` of the models in use.
        previous: that of those that they replaced, on the same history.
    """
    return current > previous * (1 + LOSS_MAX)
