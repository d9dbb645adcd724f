"""A training run as the command line and the agent start it: its history, and the use of its result (shell).

The rule: models in use are not touched before their successor is whole and judged; see `lifecycle`.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.bandwidth.forecasting import lifecycle
from dwcp_migrate.bandwidth.forecasting.ensemble import Ensemble
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.storage.series_store import read_all
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.bandwidth.training.ensembles import TrainingEffort, train_ensemble
from dwcp_migrate.bandwidth.training.fit import Trained
from dwcp_migrate.errors import ConfigError

FORECAST: Final = frozenset({("link", "rate"), ("domain", "dirty"), ("domain", "rewritten")})
"""Series that are forecast, and so learned from."""

SERIES_MIN: Final = 2
"""One to learn from and one to choose the epoch by."""


class ModelOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One model's training: its loss on the held-out series, before and after, and the seconds that it took."""

    model: str
    before: float
    after: float
    seconds: float


class TrainingOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a training run.

    Attributes:
        taken: the new models are in use (or written, where nothing was in use).
        loss: of the new mix on the newest history, percent of the mean; 0 where nothing was judged.
        loss_before: of what was in use.
        message: for people.
    """

    models: list[ModelOutcome]
    taken: bool
    loss: float = 0.0
    loss_before: float = 0.0
    message: str = ""


class Learned(msgspec.Struct, frozen=True):
    """An ensemble and the log of its training."""

    ensemble: Ensemble
    models: list[ModelOutcome]


def make(series: Sequence[Floats], effort: TrainingEffort, start: Ensemble | None = None) -> Learned:
    """Train an ensemble.

    Args:
        series: to learn from.
        effort: how much.
        start: networks to go on from; None begins with random ones.

    Raises:
        ConfigError: fewer than two series are long enough.
    """
    told: list[ModelOutcome] = []
    since = [time.perf_counter()]

    def tell(name: str, trained: Trained) -> None:
        now = time.perf_counter()
        told.append(
            ModelOutcome(model=name, before=trained.losses[0], after=min(trained.losses), seconds=now - since[0])
        )
        since[0] = now

    try:
        return Learned(train_ensemble(series, tell, effort, start), told)
    except ValueError as error:
        raise ConfigError(str(error), hint="give more or longer series") from error


def keep(learned: Learned, directory: Path) -> TrainingOutcome:
    """Write models into a directory of the operator's.

    Args:
        learned: the models.
        directory: made if it is not there.

    Raises:
        ConfigError: they cannot be written.
    """
    model_files.save(directory, learned.ensemble)
    return TrainingOutcome(models=learned.models, taken=True, message=f"written to {directory}")


def learn(state: Path, effort: TrainingEffort) -> TrainingOutcome:
    """Learn from the history in an agent's state directory, and take the result if it is better.

    Before that, models that turned out worse than those that they replaced are rolled back.

    Args:
        state: the agent's state directory.
        effort: how much.

    Raises:
        ConfigError: too little history, or the directory cannot be written.
    """
    back = look_back(state)
    history = _history(state)
    older, newest = lifecycle.split(history)
    if len(older) < SERIES_MIN:
        raise ConfigError(
            f"{state} holds {len(older)} series of {lifecycle.SAMPLES_MIN} s or more, training needs {SERIES_MIN}",
            hint="let the agent carry migrations for a while",
        )
    current = model_files.in_use(state)
    learned = make(older, effort, current)
    before, after = lifecycle.loss(current, newest), lifecycle.loss(learned.ensemble, newest)
    taken = lifecycle.is_better(after, before)
    if taken:
        model_files.promote(state, learned.ensemble)
    verdict = "taken" if taken else "dropped: not better"
    message = (
        f"{back}; " * bool(back)
        + f"{verdict}; loss on the newest history {after:.2f} %, of what was in use {before:.2f} %"
    )
    return TrainingOutcome(models=learned.models, taken=taken, loss=after, loss_before=before, message=message)


def _history(state: Path) -> list[Floats]:
    """Rates of links and of guests' writing: the series that the panel forecasts."""
    rings = read_all(state / model_files.SERIES_DIRECTORY)
    return [ring.values for ring in rings if (ring.key.kind, ring.key.quantity) in FORECAST]


def look_back(state: Path) -> str:
    """Go back to the previous models if they do better on the newest history; returns a message, or nothing."""
    previous = model_files.replaced(state)
    _, newest = lifecycle.split(_history(state))
    if previous is None or not newest:
        return ""
    now, then = lifecycle.loss(model_files.in_use(state), newest), lifecycle.loss(previous, newest)
    if not lifecycle.is_worse(now, then):
        return ""
    model_files.roll_back(state)
    return f"rolled back: loss {now:.2f} % on the newest history, {then:.2f} % with the models before"
