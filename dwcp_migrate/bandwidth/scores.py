"""How good the predictions were, and what they should have said (pure).

The rule: each finished migration is held against what was predicted before it, and the next predictions are corrected
by what that shows: the median by the median error, the interval to hold as many outcomes as it says (split conformal
prediction over recent scores; Vovk et al. 2005). With few scores the model's own interval counts more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.predictor import Range
from dwcp_migrate.bandwidth.targets import QUANTILES

SCORES_KEPT: Final = 40
"""The last so many of a peer count."""

TRUST_SCORES: Final = 10
"""With so many scores the outcomes alone count for the interval, with fewer the model in proportion."""

BIAS_SCORES: Final = 1.0
"""As many scores weigh what the model's own median does. In the lab seven migrations of one guest varied by 0.15 (in
ln), first predictions were off by 0.27; the square of that ratio is 0.3, rounded up, for scores are of others too."""

ERROR_MAX: Final = 2.0
"""Of |ln(actual / predicted)|: a migration that stood still for an hour is no model error."""


@dataclass(frozen=True, slots=True)
class Score:
    """One prediction against what came.

    Attributes:
        predicted: as it was said.
        actual: what came.
    """

    predicted: Range
    actual: float

    @property
    def error(self) -> float:
        """Relative error of the median, signed: 0.1 took 10 % longer than said."""
        return self.actual / self.predicted.median - 1

    @property
    def is_inside(self) -> bool:
        """Whether it lay in the interval."""
        return self.predicted.low <= self.actual <= self.predicted.high


def corrected(said: Range, raw_log_errors: Sequence[float]) -> Range:
    """Correct a prediction by how far earlier ones were off.

    Args:
        said: by the model.
        raw_log_errors: ln(actual / the model's median) of earlier migrations, uncorrected, the newest last.
    """
    recent = np.clip(np.asarray(raw_log_errors[-SCORES_KEPT:], dtype=np.float64), -ERROR_MAX, ERROR_MAX)
    if not len(recent) or said.median <= 0:
        return said
    trust = min(1.0, len(recent) / TRUST_SCORES)
    model = np.log(np.array([said.low, said.median, said.high]) / said.median)
    low, middle, high = np.quantile(recent, QUANTILES)
    # The few errors seen lie closer together than those to come: conformal's (n + 1) / n, in spread.
    spread = 1 + 2 / len(recent)
    shown = np.array([(low - middle) * spread, 0.0, (high - middle) * spread])
    bias = middle * max(trust, len(recent) / (len(recent) + BIAS_SCORES))
    edges = np.exp(bias + (1 - trust) * model + trust * shown)
    return Range(*(float(said.median * edge) for edge in edges))
