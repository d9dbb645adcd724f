"""The neural forecasters in numpy: a perceptron over a window, and LSTM cells that stream.

The rule: weights come from training (`bandwidth.training`), inference needs numpy alone. An LSTM keeps its state, so
one sample costs one step of the cell, whatever the length of the sequence that it was trained on.

Source of the cell: Hochreiter and Schmidhuber 1997 with a forget gate; gates in torch's order: input, forget, cell,
output.
"""

from typing import Protocol

import numpy as np

from dwcp_migrate.bandwidth.forecasting.features import log_ratio, quantiles, window_inputs
from dwcp_migrate.bandwidth.forecasting.weights import LSTM_INPUTS, Architecture, Weights
from dwcp_migrate.bandwidth.forecasting.windows import SeriesWindow
from dwcp_migrate.bandwidth.targets import Floats, Indices


class QuantileForecaster(Protocol):
    """A forecaster of quantiles for each target."""

    @property
    def name(self) -> str:
        """As in reports."""

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """Take in the sample that `history` got last.

        Args:
            slots: (m,), which series have a new sample.
            history: of all series.

        Returns:
            (m, targets, 3), ascending and positive.
        """

    def forget(self, slot: int) -> None:
        """Begin this series anew."""


class Mlp:
    """Two hidden layers over the last samples.

    Args:
        model: its form.
        weights: of that form.
    """

    def __init__(self, model: Architecture, weights: Weights) -> None:
        self.name = model.name
        self._width = model.sequence
        self._weights = weights

    def infer(self, window: Floats) -> Floats:
        """Forecast from windows (m, sequence), oldest first; returns (m, targets, 3)."""
        inputs, level = window_inputs(window)
        w = self._weights
        hidden = np.maximum(inputs @ w["first"] + w["first_bias"], 0.0)
        hidden = np.maximum(hidden @ w["second"] + w["second_bias"], 0.0)
        return quantiles(hidden @ w["head"] + w["head_bias"], level)

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `QuantileForecaster.step`."""
        return self.infer(history.window(slots, self._width))

    def forget(self, slot: int) -> None:
        """Nothing is kept but the history."""


class Lstm:
    """One layer, streaming.

    Args:
        model: its form.
        weights: of that form.
        count: of series.
    """

    def __init__(self, model: Architecture, weights: Weights, count: int) -> None:
        self.name = model.name
        self._weights = weights
        self._hidden = np.zeros((count, model.hidden))
        self._cell = np.zeros((count, model.hidden))
        self._level = np.zeros(count)
        self._before = np.zeros(count)
        self._fresh = np.ones(count, dtype=bool)
        self._gain = level_gain(model.sequence)
        self._stacked = np.concatenate([weights["input"], weights["recurrent"]])

    def step(self, slots: Indices, history: SeriesWindow) -> Floats:
        """See `QuantileForecaster.step`."""
        newest = history.last(slots)
        fresh = self._fresh[slots]
        level = np.where(fresh, newest, self._level[slots] + self._gain * (newest - self._level[slots]))
        before = np.where(fresh, newest, self._before[slots])
        inputs = np.empty((len(slots), LSTM_INPUTS + self._hidden.shape[1]))
        inputs[:, 0] = log_ratio(newest, level)
        inputs[:, 1] = log_ratio(newest, before)
        inputs[:, LSTM_INPUTS:] = self._hidden[slots]
        hidden, cell = self._advance(inputs, self._cell[slots])
        self._hidden[slots], self._cell[slots] = hidden, cell
        self._level[slots], self._before[slots], self._fresh[slots] = level, newest, False
        return quantiles(hidden @ self._weights["head"] + self._weights["head_bias"], level)

    def _advance(self, inputs: Floats, cell: Floats) -> tuple[Floats, Floats]:
        size = cell.shape[1]
        gates = inputs @ self._stacked + self._weights["bias"]
        opened = 1.0 / (1.0 + np.exp(-np.clip(gates, -30.0, 30.0)))
        cell = opened[:, size : 2 * size] * cell + opened[:, :size] * np.tanh(gates[:, 2 * size : 3 * size])
        return opened[:, 3 * size :] * np.tanh(cell), cell

    def forget(self, slot: int) -> None:
        """See `QuantileForecaster.forget`."""
        self._hidden[slot] = 0.0
        self._cell[slot] = 0.0
        self._fresh[slot] = True


def level_gain(sequence: int) -> float:
    """Return the weight of the newest sample in the level that an LSTM's inputs and outputs are relative to."""
    return 2.0 / (sequence + 1)
