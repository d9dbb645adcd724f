"""Trains everything that a panel begins with: the networks, the weights of the EWMA, bands and losses.

The rule: the losses that the mix begins with come from series that the networks did not learn from, or it would trust
whoever learned by heart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth import priors, synthetic
from dwcp_migrate.bandwidth.ensemble import DEFAULT_MODELS, Ensemble
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.bandwidth.training.fit import Plan, Trained, train
from dwcp_migrate.bandwidth.weights import MODELS, Architecture

SYNTHETIC_SERIES: Final = 700
SYNTHETIC_SAMPLES: Final = 400

PRIOR_SHARE: Final = 0.2
"""Of the series, kept from the networks for the prior."""

PRIOR_SERIES_MIN: Final = 12
"""With fewer series the prior is found on those that the networks saw: better a proud mix than one of three traces."""

Progress = Callable[[str, Trained], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to train.

    Attributes:
        models: names of the neural experts; empty is those of the agent's mix.
        epochs: passes over the series.
        threads: of torch.
        seed: of everything that is drawn.
    """

    models: Sequence[str] = ()
    epochs: int = 12
    threads: int = 1
    seed: int = 1

    def plan(self, model: Architecture, series: int) -> Plan:
        """How to train this model on so many series: an LSTM needs more steps, so smaller batches."""
        batch = 512 if model.kind == "mlp" else max(8, min(64, series // 8))
        return Plan(epochs=self.epochs, batch=batch, seed=self.seed, threads=self.threads)


def synthetic_series(seed: int, count: int = SYNTHETIC_SERIES) -> list[Floats]:
    """Draw the series that the shipped models are trained on."""
    draw = np.random.default_rng(seed)
    return [synthetic.mixture(draw, SYNTHETIC_SAMPLES) for _ in range(count)]


def train_ensemble(
    series: Sequence[Floats],
    told: Progress,
    effort: Effort,
    start: Ensemble | None = None,
) -> Ensemble:
    """Train an ensemble.

    Args:
        series: to learn from; those for the prior are taken out of them.
        told: hears of each model when it is done.
        effort: how much.
        start: networks to go on from, where it has them.

    Raises:
        ValueError: fewer than two series are long enough.
    """
    order = np.random.default_rng(effort.seed).permutation(len(series))
    cut = round(PRIOR_SHARE * len(series))
    apart = [series[at] for at in order[:cut]]
    rest = [series[at] for at in order[cut:]]
    if len(apart) < PRIOR_SERIES_MIN:
        apart = rest = list(series)
    weights = {}
    for name in effort.models or DEFAULT_MODELS:
        before = start.weights.get(name) if start is not None else None
        trained = train(MODELS[name], rest, effort.plan(MODELS[name], len(rest)), before)
        told(name, trained)
        weights[name] = trained.weights
    bare = Ensemble(weights, priors.tune_ewma(rest))
    return Ensemble(weights, bare.ewma, priors.learn(bare.experts, apart))
