"""The forecast of many series: experts, their bands, the mix and its correction, one step at a time.

The rule: one call takes a sample of each series that has one and returns the present forecast; everything that learns
learns from forecasts that this panel itself made earlier, so that nothing ever sees the future.

    sample ─> SeriesWindow ─> experts ─ points ─> Bands ┐
                             └──── quantiles ──────┴─> (experts, targets, 3) ─> ForecasterMix ─> Conformal ─> forecast
    a dead second goes into Outages instead, which says of each forecast how much of its time will be dead
    and, as soon as a target's time has come, the outcome goes back into Bands, ForecasterMix and Conformal
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.bands import Bands, untrained
from dwcp_migrate.bandwidth.forecasting.conformal import Conformal
from dwcp_migrate.bandwidth.forecasting.mix import TRUST, ForecasterMix
from dwcp_migrate.bandwidth.forecasting.neural import QuantileForecaster
from dwcp_migrate.bandwidth.forecasting.point_forecasters import PointForecaster
from dwcp_migrate.bandwidth.forecasting.windows import SeriesWindow
from dwcp_migrate.bandwidth.outages import Outages
from dwcp_migrate.bandwidth.targets import (
    LAGS,
    QUANTILES,
    STEPS_MAX,
    TARGETS,
    Floats,
    Indices,
    pinball_loss,
    realised_outcomes,
)

PENDING: Final = 64
"""Forecasts kept until their time has come: the longest target and a power of two."""

_COLUMNS: Final = np.arange(len(TARGETS))


@dataclass(frozen=True, slots=True)
class Experts:
    """The forecasters that take part.

    Attributes:
        points: forecasters of numbers.
        quantiles: forecasters of quantiles.
    """

    points: Sequence[PointForecaster]
    quantiles: Sequence[QuantileForecaster]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all, in the order of the panel's arrays."""
        return tuple(expert.name for expert in (*self.points, *self.quantiles))


@dataclass(frozen=True, slots=True)
class Prior:
    """Weights of the experts before the first sample, from training.

    Attributes:
        bands: (point experts, targets, 3) log-ratios.
        losses: (experts, targets, 3) relative pinball losses.
        stretch: (targets, 2) logarithms of the factors by which the mix's bands were too narrow, below and above.
        trust: (targets,) outcomes of a series' own that `losses` count for.
    """

    bands: Floats
    losses: Floats
    stretch: Floats
    trust: Floats


def no_prior(experts: Experts) -> Prior:
    """Make a prior of nothing known: wide bands, equal weights, no correction."""
    losses = np.ones((len(experts.names), len(TARGETS), len(QUANTILES)))
    bands = untrained(len(experts.points), len(TARGETS))
    return Prior(bands, losses, np.zeros((len(TARGETS), 2)), np.full(len(TARGETS), TRUST))


class Panel:
    """Forecasts of `count` series.

    Args:
        count: of series; each has a slot from 0.
        experts: made for so many series.
        prior: from training, or `no_prior`.
    """

    def __init__(self, count: int, experts: Experts, prior: Prior) -> None:
        shape = (len(experts.names), len(TARGETS))
        self.names = experts.names
        self._experts = experts
        self._history = SeriesWindow(count)
        self._bands = Bands(count, prior.bands)
        self._mix = ForecasterMix(count, prior.losses, prior.trust)
        self._conformal = Conformal(count, prior.stretch)
        self._outages = Outages(count)
        self._points = np.zeros((count, PENDING, len(experts.points), shape[1]))
        self._said = np.zeros((count, PENDING, *shape, len(QUANTILES)))
        self._corrected = np.zeros((count, PENDING, shape[1], len(QUANTILES)))
        self.experts_say = np.zeros((count, *shape, len(QUANTILES)))
        self.while_alive = np.zeros((count, shape[1], len(QUANTILES)))
        self.forecasts = np.zeros((count, shape[1], len(QUANTILES)))

    def step(self, slots: Indices, values: Floats) -> Floats:
        """Take one sample of each of these series.

        Args:
            slots: (m,), none twice.
            values: (m,), finite; what is not positive counts as very small.

        Returns:
            (m, targets, 3): the corrected mix. Kept in `forecasts`, and of the seconds in which the series lives what
            each expert says in `experts_say`, the corrected mix of that in `while_alive`.

        Raises:
            ValueError: a value is not finite.
        """
        self._history.push(slots, self._outages.alive(slots, np.asarray(values)))
        self._learn(slots)
        points = np.stack([expert.step(slots, self._history) for expert in self._experts.points], axis=1)
        banded = self._bands.around(slots, points)
        said = np.concatenate(
            [banded, *[expert.step(slots, self._history)[:, None] for expert in self._experts.quantiles]], axis=1
        )
        corrected = self._conformal.correct(slots, self._mix.combine(slots, said))
        place = self._history.taken[slots] % PENDING
        self._points[slots, place], self._said[slots, place] = points, said
        self._corrected[slots, place] = corrected
        self.while_alive[slots] = corrected
        self.experts_say[slots] = said
        found = self.forecasts[slots] = self._outages.forecast(slots, corrected)
        return found

    def with_outages(self, slots: Indices) -> Floats:
        """Forecasts of each expert, dead seconds included: (m, experts, targets, 3)."""
        return self._outages.forecast(slots, self.experts_say[slots])

    def _learn(self, slots: Indices) -> None:
        """Score the forecasts of the sample that has just come."""
        taken = self._history.taken[slots]
        known = (taken[:, None] > LAGS).astype(np.float64)
        if not known.any():
            return
        truth = realised_outcomes(self._history.window(slots, STEPS_MAX))
        place = (taken[:, None] - LAGS) % PENDING
        row = slots[:, None]
        points = self._points[row, place, :, _COLUMNS].transpose(0, 2, 1)
        said = self._said[row, place, :, _COLUMNS].transpose(0, 2, 1, 3)
        absent = known[:, None, :] == 0
        points = np.where(absent, truth[:, None, :], points)
        said = np.where(absent[..., None], truth[:, None, :, None], said)
        corrected = np.where(known[..., None] == 0, truth[..., None], self._corrected[row, place, _COLUMNS])
        self._bands.learn(slots, points, truth, known)
        self._mix.learn(slots, pinball_loss(truth[:, None, :], said), known)
        self._conformal.learn(slots, corrected, truth, known)

    def weights(self, slot: int) -> Floats:
        """Weights of the experts for one series: (experts, targets, 3)."""
        weights: Floats = self._mix.weights(np.array([slot]))[0]
        return weights

    def taken(self, slot: int) -> int:
        """Samples of a series so far."""
        return int(self._history.taken[slot])

    def forget(self, slot: int) -> None:
        """Give the slot to another series."""
        for part in (self._history, self._bands, self._mix, self._conformal, self._outages):
            part.forget(slot)
        for expert in (*self._experts.points, *self._experts.quantiles):
            expert.forget(slot)
