"""Training of everything that a panel begins with: the networks, the weights of the EWMA, bands and losses.

The rule: the losses and corrections that the mix begins with come from series that the networks did not learn from, or
it would trust a network that learned by heart. Of many series some are kept apart for that. Of few, each half judges
networks that learned from the other (cross-fitting), and those that are used learn from all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting import priors, synthetic
from dwcp_migrate.bandwidth.forecasting.ensemble import DEFAULT_MODELS, Ensemble
from dwcp_migrate.bandwidth.forecasting.weights import MODELS, Architecture
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.bandwidth.training.examples import SERIES_SAMPLES_MIN
from dwcp_migrate.bandwidth.training.fit import Trained, TrainingPlan, train

SYNTHETIC_SERIES: Final = 700
SYNTHETIC_SAMPLES: Final = 400

PRIOR_SHARE: Final = 0.2
"""Of the series, kept from the networks for the prior."""

PRIOR_SERIES_MIN: Final = 30
"""With fewer kept apart, a prior is the luck of the draw."""

HALF_SERIES_MIN: Final = 4
"""With fewer in a half the prior is found on the networks' own series: too confident, but better than three traces."""

Progress = Callable[[str, Trained], None]


@dataclass(frozen=True, slots=True)
class TrainingEffort:
    """Effort of a training.

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

    def plan(self, model: Architecture, series: int) -> TrainingPlan:
        """Plan the training of a model on so many series: an LSTM needs more steps, so smaller batches.

        Args:
            model: its form.
            series: number of series to learn from.
        """
        batch = 512 if model.kind == "mlp" else max(8, min(64, series // 8))
        return TrainingPlan(epochs=self.epochs, batch=batch, seed=self.seed, threads=self.threads)


def synthetic_series(seed: int, count: int = SYNTHETIC_SERIES) -> list[Floats]:
    """Draw the series that the shipped models are trained on.

    Args:
        seed: of everything that is drawn.
        count: of series.
    """
    draw = np.random.default_rng(seed)
    return [synthetic.mixture(draw, SYNTHETIC_SAMPLES) for _ in range(count)]


def train_ensemble(
    series: Sequence[Floats],
    told: Progress,
    effort: TrainingEffort,
    start: Ensemble | None = None,
) -> Ensemble:
    """Train an ensemble.

    Args:
        series: to learn from.
        told: hears of each model when it is done.
        effort: how much.
        start: networks to go on from, where it has them.

    Raises:
        ValueError: fewer than two series are long enough.
    """
    order = np.random.default_rng(effort.seed).permutation(len(series))
    shuffled = [series[at] for at in order]
    cut = round(PRIOR_SHARE * len(series))
    fit = _Fit(effort, start)
    if cut >= PRIOR_SERIES_MIN:
        made = fit.networks(shuffled[cut:], told)
        return Ensemble(made.weights, made.ewma, priors.learn(made.experts, shuffled[:cut]))
    made = fit.networks(series, told)
    halves = shuffled[::2], shuffled[1::2]
    if min(sum(len(values) >= SERIES_SAMPLES_MIN for values in half) for half in halves) < HALF_SERIES_MIN:
        return Ensemble(made.weights, made.ewma, priors.learn(made.experts, shuffled))
    found = [
        priors.learn(Ensemble(fit.networks(learned, _silent).weights, made.ewma).experts, judged)
        for learned, judged in (halves, halves[::-1])
    ]
    return Ensemble(made.weights, made.ewma, priors.together(*found))


class _Fit:
    """Trains the networks of one ensemble, on any series."""

    def __init__(self, effort: TrainingEffort, start: Ensemble | None) -> None:
        self._effort = effort
        self._start = start.weights if start is not None else {}

    def networks(self, series: Sequence[Floats], told: Progress) -> Ensemble:
        """Train them, and the weights of the EWMA; without a prior."""
        weights = {}
        for name in self._effort.models or DEFAULT_MODELS:
            model = MODELS[name]
            trained = train(model, series, self._effort.plan(model, len(series)), self._start.get(name))
            told(name, trained)
            weights[name] = trained.weights
        return Ensemble(weights, priors.tune_ewma(series))


def _silent(name: str, trained: Trained) -> None:
    """Report nothing: a model of a half is not the result."""
    del name, trained
