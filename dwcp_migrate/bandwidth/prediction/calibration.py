"""Calibration of predictions: scores of past ones, and the correction that follows (pure).

The rule: errors of each finished migration are kept apart by their cause. The model's prediction for the guest and link
as they turned out shows the model's own error: the next migration of the guest meets it again, and the median is
corrected by it. The rest is the error of the forecasts of guest and link, for a known guest mostly the link's; its
median over all guests counts too. The prediction that was really given shows how well everything was known: the
interval is to hold as many outcomes as it says (split conformal prediction over recent scores; Vovk et al. 2005). With
few scores the model's own interval counts more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.bandwidth.targets import QUANTILES, Floats

SCORES_KEPT: Final = 40
"""The last so many of a peer count."""

TRUST_SCORES: Final = 10
"""With so many scores the outcomes alone count for the interval, with fewer the model in proportion."""

BIAS_SCORES: Final = 1.0
"""As many scores of a guest weigh what those of all guests of the peer do; as many of a peer, what the model's own
median does. In the lab seven migrations of one guest varied by 0.15 (in ln), those of different guests by 0.27; the
square of that ratio is 0.3, rounded up, for few are known."""

ERROR_MAX: Final = 2.0
"""Of |ln(actual / predicted)|: a migration that stood still for an hour is no model error."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Errors of one migration's prediction, as ln(actual / predicted).

    Attributes:
        uuid: of its domain.
        is_known: an earlier migration had shown the guest.
        model_error: of the model's median, had guest and link been known.
        foresight_error: ln of that median over the one that was forecast: the error of guest and link.
        said_error: of the median that was given.
    """

    uuid: str
    is_known: bool
    model_error: float
    foresight_error: float
    said_error: float


def estimate_bias(own: Sequence[float], everybody: Sequence[float]) -> float:
    """Estimate the error to be expected, as a logarithm.

    Args:
        own: errors of the guest's earlier migrations to this peer, the newest last.
        everybody: of all migrations to it.
    """
    found = 0.0
    for errors in (_recent(everybody), _recent(own)):
        if len(errors):
            found = (len(errors) * float(np.median(errors)) + BIAS_SCORES * found) / (len(errors) + BIAS_SCORES)
    return found


def correct_prediction(said: Range, shift: float, said_errors: Sequence[float]) -> Range:
    """Correct a prediction by the errors of earlier ones.

    Args:
        said: by the model.
        shift: what its median is off by, as a logarithm; see `bias`.
        said_errors: ln(actual / the median said) of earlier migrations of which as much was known, the newest last.
    """
    if said.median <= 0:
        return said
    edges = np.log(np.array([said.low, said.median, said.high]) / said.median)
    recent = _recent(said_errors)
    if len(recent):
        trust = min(1.0, len(recent) / TRUST_SCORES)
        low, _, high = np.quantile(recent, QUANTILES)
        # The few errors seen lie closer together than those to come: conformal's (n + 1) / n, in spread.
        spread = 1 + 1 / len(recent)
        edges = (1 - trust) * edges + trust * spread * np.array([min(low, 0.0), 0.0, max(high, 0.0)])
    return Range(*(float(said.median * edge) for edge in np.exp(shift + edges)))


def _recent(errors: Sequence[float]) -> Floats:
    return np.clip(np.asarray(errors[-SCORES_KEPT:], dtype=np.float64), -ERROR_MAX, ERROR_MAX)
