"""Forecasters of one number for each target: last value, EWMA, damped Holt, seasonal, autoregressive.

The rule: each holds the state of many series in arrays with the series in front, and one call takes a sample of each of
them, because at ten samples a second a Python object for each series would cost more than the link's rate is worth.
Quantiles are put around the numbers by `bands`.

Sources: Holt's linear trend with damping, Gardner and McKenzie 1985; Yule-Walker by least squares with a ridge.
"""

from typing import Final, Protocol

import numpy as np

from dwcp_migrate.bandwidth.forecasting.windows import DEPTH, VALUE_MIN, SeriesWindow
from dwcp_migrate.bandwidth.targets import STEPS_MAX, TARGETS, Floats, Indices


class PointForecaster(Protocol):
    """A forecaster of one number for each target."""

    @property
    def name(self) -> str:
        """As in reports."""

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """Take in the sample that `history` got last.

        Args:
            slots: (m,), which series have a new sample.
            history: of all series.

        Returns:
            (m, targets), positive.
        """

    def forget(self, slot: int) -> None:
        """Begin this series anew."""


class Last:
    """The last value, for every target."""

    name: Final = "last"

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `PointForecaster.step`."""
        return np.repeat(history.last(slots)[:, None], len(TARGETS), axis=1)

    def forget(self, slot: int) -> None:
        """Nothing is kept."""


class Ewma:
    """Exponentially weighted mean.

    Args:
        count: of series.
        weights: of the newest sample, one for each target: a target further off is served by a longer memory.
    """

    name: Final = "ewma"

    def __init__(self, count: int, weights: Floats) -> None:
        self._weights = weights
        self._level = np.zeros((count, len(TARGETS)))
        self._fresh = np.ones(count, dtype=bool)

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `PointForecaster.step`."""
        newest = history.last(slots)[:, None]
        before = self._level[slots]
        level = np.where(self._fresh[slots, None], newest, before + self._weights * (newest - before))
        self._fresh[slots] = False
        self._level[slots] = level
        return level

    def forget(self, slot: int) -> None:
        """See `PointForecaster.forget`."""
        self._fresh[slot] = True


class Holt:
    """Level and damped trend."""

    name: Final = "holt"

    LEVEL_WEIGHT: Final = 0.4
    TREND_WEIGHT: Final = 0.1
    DAMPING: Final = 0.95
    """A trend halves every 13 samples: no rate rises for ever."""

    def __init__(self, count: int) -> None:
        self._level = np.zeros(count)
        self._trend = np.zeros(count)
        self._fresh = np.ones(count, dtype=bool)
        reach = np.cumsum(self.DAMPING ** np.arange(1, STEPS_MAX + 1))
        self._reach = np.array([reach[: t.steps].mean() if t.is_mean else reach[t.steps - 1] for t in TARGETS])

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `PointForecaster.step`."""
        newest, fresh = history.last(slots), self._fresh[slots]
        before, damped = self._level[slots], self.DAMPING * self._trend[slots]
        level = self.LEVEL_WEIGHT * newest + (1 - self.LEVEL_WEIGHT) * (before + damped)
        trend = self.TREND_WEIGHT * (level - before) + (1 - self.TREND_WEIGHT) * damped
        level, trend = np.where(fresh, newest, level), np.where(fresh, 0.0, trend)
        self._level[slots], self._trend[slots], self._fresh[slots] = level, trend, False
        ahead: Floats = level[:, None] + trend[:, None] * self._reach
        bounded: Floats = np.maximum(ahead, np.maximum(level[:, None] / self.RATIO_MAX, VALUE_MIN))
        return bounded

    RATIO_MAX: Final = 10.0
    """A falling trend may not say less than a tenth of the level."""

    def forget(self, slot: int) -> None:
        """See `PointForecaster.forget`."""
        self._fresh[slot] = True


class Seasonal:
    """The mean of the same phase in earlier periods, where there is a period; the mean level where there is none.

    The period is where the autocorrelation of the last `DEPTH` samples has its highest peak, looked for anew every
    `LOOK_STEPS` samples.
    """

    name: Final = "seasonal"

    LOOK_STEPS: Final = 32
    PERIOD_MIN: Final = 4
    PERIOD_MAX: Final = DEPTH // 3
    CORRELATION_MIN: Final = 0.35
    CYCLES_MAX: Final = 4

    def __init__(self, count: int) -> None:
        self._period = np.zeros(count, dtype=np.intp)
        self._ahead = np.arange(STEPS_MAX)

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `PointForecaster.step`."""
        taken = history.taken[slots]
        due = (taken % self.LOOK_STEPS == slots % self.LOOK_STEPS) & (taken >= 3 * self.PERIOD_MIN)
        if due.any():
            self._look(slots[due], history)
        found = np.repeat(history.window(slots, self.LOOK_STEPS).mean(axis=1)[:, None], len(TARGETS), axis=1)
        periodic = np.flatnonzero(self._period[slots])
        if len(periodic):
            found[periodic] = self._same_phase(slots[periodic], history)
        return found

    def _look(self, slots: Indices, history: SeriesWindow) -> None:
        window = history.window(slots, DEPTH)
        known = np.minimum(history.taken[slots], DEPTH)
        unknown = np.arange(DEPTH) < (DEPTH - known)[:, None]
        window[unknown] = 0.0
        window = window - window.sum(axis=1, keepdims=True) / known[:, None]
        window[unknown] = 0.0
        spectrum = np.fft.rfft(window, 2 * DEPTH, axis=1)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, : self.PERIOD_MAX + 2]
        correlation = correlation * (known[:, None] / np.maximum(known[:, None] - np.arange(self.PERIOD_MAX + 2), 1))
        correlation = correlation / np.maximum(correlation[:, :1], 1e-30)
        inner = correlation[:, 1:-1]
        is_peak = (inner >= correlation[:, :-2]) & (inner >= correlation[:, 2:])
        lags = np.arange(1, self.PERIOD_MAX + 1)
        usable = is_peak & (lags >= self.PERIOD_MIN) & (2 * lags <= known[:, None])
        score = np.where(usable, inner, -1.0)
        best = score.argmax(axis=1)
        strong = score[np.arange(len(slots)), best] >= self.CORRELATION_MIN
        self._period[slots] = np.where(strong, lags[best], 0)

    def _same_phase(self, slots: Indices, history: SeriesWindow) -> Floats:
        """Average the samples one, two, ... periods before each of the next `STEPS_MAX`."""
        window = history.window(slots, DEPTH)
        period = self._period[slots][:, None]
        behind = period - self._ahead % period  # samples back from the end, 1 is the newest
        known = np.minimum(history.taken[slots], DEPTH)[:, None]
        rows = np.arange(len(slots))[:, None]
        total, cycles = np.zeros(behind.shape), np.zeros(behind.shape)
        for cycle in range(self.CYCLES_MAX):
            back = behind + cycle * period
            usable = back <= known
            total += np.where(usable, window[rows, DEPTH - np.minimum(back, DEPTH)], 0.0)
            cycles += usable
        ahead = total / cycles
        return _at_targets(ahead)

    def forget(self, slot: int) -> None:
        """See `PointForecaster.forget`."""
        self._period[slot] = 0


class Autoregressive:
    """An autoregression fitted to each series' own last samples.

    One fit every `FIT_STEPS` samples; between fits the forecast of every target is one product, because iterating a
    linear model is itself linear: its weights for all targets are worked out with the fit.
    """

    name: Final = "ar"

    ORDER: Final = 12
    FIT_STEPS: Final = 32
    FIT_WIDTH: Final = 192
    RIDGE: Final = 0.02
    """Of the mean variance: damps coefficients that 192 samples do not determine."""

    def __init__(self, count: int) -> None:
        self._weights = np.zeros((count, len(TARGETS), self.ORDER))
        self._weights[:, :, -1] = 1.0

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `PointForecaster.step`."""
        taken = history.taken[slots]
        due = (taken % self.FIT_STEPS == slots % self.FIT_STEPS) & (taken > 2 * self.ORDER)
        if due.any():
            self._fit(slots[due], history)
        window = history.window(slots, self.LEVEL_WIDTH)
        level = window.mean(axis=1, keepdims=True)
        recent = window[:, -self.ORDER :] - level
        found = level + np.matmul(self._weights[slots], recent[:, :, None])[:, :, 0]
        clipped: Floats = np.clip(found, window.min(axis=1, keepdims=True) / 2, window.max(axis=1, keepdims=True) * 2)
        return clipped

    LEVEL_WIDTH: Final = 64
    """The level to which forecasts return is that of the last so many samples."""

    def _fit(self, slots: Indices, history: SeriesWindow) -> None:
        window = history.window(slots, self.FIT_WIDTH)
        known = np.minimum(history.taken[slots], self.FIT_WIDTH)
        centred = window - window.mean(axis=1, keepdims=True)
        views = np.lib.stride_tricks.sliding_window_view(centred, self.ORDER, axis=1)[:, :-1]
        mask = np.arange(views.shape[1]) >= (self.FIT_WIDTH - known)[:, None]
        inputs = views * mask[:, :, None]
        outputs = centred[:, self.ORDER :] * mask
        gram = np.matmul(inputs.transpose(0, 2, 1), inputs)
        ridge = self.RIDGE * np.trace(gram, axis1=1, axis2=2)[:, None, None] / self.ORDER + 1e-12
        gram = gram + ridge * np.eye(self.ORDER)
        moments = np.matmul(inputs.transpose(0, 2, 1), outputs[:, :, None])
        self._weights[slots] = self._iterate(np.linalg.solve(gram, moments)[:, :, 0])

    def _iterate(self, coefficients: Floats) -> Floats:
        """Weights of the last `ORDER` samples in the forecast of each target: (m, targets, ORDER)."""
        rows = np.tile(np.eye(self.ORDER), (len(coefficients), 1, 1))
        ahead = []
        for _ in range(STEPS_MAX):
            new = np.matmul(coefficients[:, None, :], rows)
            rows = np.concatenate([rows[:, 1:], new], axis=1)
            ahead.append(new[:, 0])
        return _at_targets(np.clip(np.stack(ahead, axis=1), -self.WEIGHT_MAX, self.WEIGHT_MAX))

    WEIGHT_MAX: Final = 4.0
    """A fit that explodes over 60 steps is no forecast."""

    def forget(self, slot: int) -> None:
        """See `PointForecaster.forget`."""
        self._weights[slot] = 0.0
        self._weights[slot, :, -1] = 1.0


def _at_targets(ahead: Floats) -> Floats:
    """Pick the targets from what is forecast for each of the next steps.

    Args:
        ahead: (m, `STEPS_MAX`, ...).

    Returns:
        (m, targets, ...).
    """
    columns = [ahead[:, : t.steps].mean(axis=1) if t.is_mean else ahead[:, t.steps - 1] for t in TARGETS]
    return np.stack(columns, axis=1)
