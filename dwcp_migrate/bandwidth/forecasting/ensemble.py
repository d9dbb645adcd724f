"""Ensemble of the experts: five that need no training, the perceptron and three streaming LSTMs.

The rule: the panel of the agent, of the benchmark and of training is made here, so that the measured one is the one
that runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.neural import Lstm, Mlp, QuantileForecaster
from dwcp_migrate.bandwidth.forecasting.panel import Experts, Panel, Prior, no_prior
from dwcp_migrate.bandwidth.forecasting.point_forecasters import Autoregressive, Ewma, Holt, Last, Seasonal
from dwcp_migrate.bandwidth.forecasting.weights import MODELS, Weights
from dwcp_migrate.bandwidth.targets import Floats

EWMA_DEFAULT: Final[Floats] = np.array([0.5, 0.3, 0.1, 0.3, 0.1])
"""Weight of the newest sample for each target: near the best on every set of real traces that was looked at."""

DEFAULT_MODELS: Final = tuple(MODELS)
"""The neural experts of the agent. Without the two larger LSTMs the mix was up to 9 % worse than the best single model
on recorded links, a minute ahead; with them all of it costs 0.2 % of a core more for 32 links."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Everything that a panel is made from.

    Attributes:
        weights: of the neural experts, by name of the model, in the order in which they take part.
        ewma: weights of the EWMA, (targets,).
        prior: what training found, or None.
    """

    weights: Mapping[str, Weights]
    ewma: Floats
    prior: Prior | None = None

    def experts(self, count: int) -> Experts:
        """Make the experts for so many series."""
        points = (Last(), Ewma(count, self.ewma), Holt(count), Seasonal(count), Autoregressive(count))
        return Experts(points, [neural(name, weights, count) for name, weights in self.weights.items()])

    def panel(self, count: int) -> Panel:
        """Make a panel for so many series."""
        experts = self.experts(count)
        return Panel(count, experts, self.prior or no_prior(experts))


def neural(name: str, weights: Weights, count: int) -> QuantileForecaster:
    """Make one neural expert.

    Args:
        name: of the model, in `weights.MODELS`.
        weights: of that model.
        count: of series.
    """
    model = MODELS[name]
    return Mlp(model, weights) if model.kind == "mlp" else Lstm(model, weights, count)
