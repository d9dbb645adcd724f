"""The networks in torch, and their way to and from plain arrays."""

import numpy as np
import torch
from torch import Tensor, nn

from dwcp_migrate.bandwidth.forecasting.features import OUTPUTS, RATIO_MAX
from dwcp_migrate.bandwidth.forecasting.weights import LSTM_INPUTS, Architecture, Weights
from dwcp_migrate.bandwidth.targets import QUANTILES, TARGETS, Floats


class MlpNetwork(nn.Module):
    """The perceptron of `neural.Mlp`."""

    def __init__(self, model: Architecture) -> None:
        super().__init__()
        self.first = nn.Linear(model.sequence, model.hidden)
        self.second = nn.Linear(model.hidden, model.hidden)
        self.head = nn.Linear(model.hidden, OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (examples, sequence) to (examples, targets, 3) log-ratio quantiles."""
        hidden = torch.relu(self.second(torch.relu(self.first(inputs))))
        return ordered(self.head(hidden))

    def export(self) -> Weights:
        """Give the weights as `Architecture.shapes` names them."""
        return {
            "first": _array(self.first.weight.T),
            "first_bias": _array(self.first.bias),
            "second": _array(self.second.weight.T),
            "second_bias": _array(self.second.bias),
            "head": _array(self.head.weight.T),
            "head_bias": _array(self.head.bias),
        }

    def take(self, weights: Weights) -> None:
        """Begin with these weights."""
        for name, layer in (("first", self.first), ("second", self.second), ("head", self.head)):
            _put(layer.weight, weights[name].T)
            _put(layer.bias, weights[f"{name}_bias"])


class LstmNetwork(nn.Module):
    """The cell of `neural.Lstm`, unrolled."""

    def __init__(self, model: Architecture) -> None:
        super().__init__()
        self.cell = nn.LSTM(LSTM_INPUTS, model.hidden, batch_first=True)
        self.head = nn.Linear(model.hidden, OUTPUTS)

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map inputs to log-ratio quantiles.

        Args:
            inputs: (series, steps, 2).
            state: of the cell, as the last call returned it; None begins anew.

        Returns:
            (series, steps, targets, 3), and the state to go on from.
        """
        hidden, state = self.cell(inputs, state)
        return ordered(self.head(hidden)), state

    def _parameter(self, name: str) -> Tensor:
        return self.cell.get_parameter(f"{name}_l0")

    def export(self) -> Weights:
        """Give the weights as `Architecture.shapes` names them; torch's two biases are one here."""
        return {
            "input": _array(self._parameter("weight_ih").T),
            "recurrent": _array(self._parameter("weight_hh").T),
            "bias": _array(self._parameter("bias_ih") + self._parameter("bias_hh")),
            "head": _array(self.head.weight.T),
            "head_bias": _array(self.head.bias),
        }

    def take(self, weights: Weights) -> None:
        """Begin with these weights."""
        _put(self._parameter("weight_ih"), weights["input"].T)
        _put(self._parameter("weight_hh"), weights["recurrent"].T)
        _put(self._parameter("bias_ih"), weights["bias"])
        _put(self._parameter("bias_hh"), weights["bias"] * 0.0)
        _put(self.head.weight, weights["head"].T)
        _put(self.head.bias, weights["head_bias"])


def ordered(outputs: Tensor) -> Tensor:
    """The same as `features.ordered`, for any leading dimensions."""
    raw = outputs.reshape(*outputs.shape[:-1], len(TARGETS), len(QUANTILES))
    spread = nn.functional.softplus(raw[..., 1:])
    median = raw[..., 0]
    stacked = torch.stack([median - spread[..., 0], median, median + spread[..., 1]], dim=-1)
    return torch.clamp(stacked, -RATIO_MAX, RATIO_MAX)


def loss(said: Tensor, outcomes: Tensor, weights: Tensor) -> Tensor:
    """Compute the mean weighted pinball loss of ratios; outcomes that are not known (NaN) do not count.

    Args:
        said: (..., targets, 3) log-ratios.
        outcomes: (..., targets) log-ratios.
        weights: (...).
    """
    known = torch.isfinite(outcomes)
    truth = torch.where(known, outcomes, torch.zeros_like(outcomes)).exp()
    short = truth[..., None] - said.exp()
    share = torch.tensor(QUANTILES)
    lost = torch.maximum(share * short, (share - 1) * short).mean(dim=-1)
    counted = known * weights[..., None]
    return (lost * counted).sum() / counted.sum().clamp(min=1e-9)


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().numpy().astype(np.float64)


def _put(parameter: Tensor, array: Floats) -> None:
    with torch.no_grad():
        parameter.copy_(torch.as_tensor(array, dtype=torch.float32))
