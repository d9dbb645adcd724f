"""The training loops: Adam, a share of the series held out, the best epoch's weights kept.

The rule: the same series, plan and torch version give the same weights; the seed is part of the plan. An LSTM is
trained as it will live: its state goes from one stretch of `sequence` samples to the next, the gradient does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from dwcp_migrate.bandwidth.forecasting.weights import Architecture, Weights
from dwcp_migrate.bandwidth.targets import Floats
from dwcp_migrate.bandwidth.training.examples import SERIES_SAMPLES_MIN, Examples, sequences, windows
from dwcp_migrate.bandwidth.training.networks import LstmNetwork, MlpNetwork, loss

HELD_OUT: Final = 0.15
"""Of the series, to choose the epoch by."""

WINDOWS_MAX: Final = 150_000
"""Examples of the perceptron: more of the same series add nothing."""

STEPS: Final = 400
"""Length to which an LSTM's series are cut."""

GRADIENT_MAX: Final = 1.0


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Settings of a training.

    Attributes:
        epochs: passes over the examples.
        batch: examples (series, for an LSTM) in a step.
        rate: Adam's, decayed to a tenth along a cosine.
        seed: of the weights, the order and what is held out.
        threads: of torch.
    """

    epochs: int = 12
    batch: int = 512
    rate: float = 2e-3
    seed: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of a training.

    Attributes:
        weights: of the best epoch.
        losses: on what was held out, before the first epoch and after each.
    """

    weights: Weights
    losses: tuple[float, ...]


def train(model: Architecture, series: Sequence[Floats], plan: TrainingPlan, start: Weights | None = None) -> Trained:
    """Train a model.

    Args:
        model: its form.
        series: at least two with an example.
        plan: how.
        start: weights to begin with; random ones without.

    Raises:
        ValueError: fewer than two series are long enough.
    """
    usable = [values for values in series if len(values) >= SERIES_SAMPLES_MIN]
    if len(usable) < 2:  # noqa: PLR2004 - one to learn from, one to judge by
        raise ValueError(f"training needs two series of {SERIES_SAMPLES_MIN} samples or more, not {len(usable)}")
    torch.set_num_threads(plan.threads)
    # oneDNN compiles kernels while it runs, which the agent's service forbids itself (MemoryDenyWriteExecute).
    torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]
    torch.manual_seed(plan.seed)
    draw = np.random.default_rng(plan.seed)
    order = draw.permutation(len(usable))
    held = max(1, round(HELD_OUT * len(usable)))
    kept, judged = [usable[at] for at in order[held:]], [usable[at] for at in order[:held]]
    if model.kind == "mlp":
        mlp = MlpNetwork(model)
        pair = windows(kept, draw, WINDOWS_MAX), windows(judged, draw, WINDOWS_MAX)
        return _Fit(mlp, plan, draw, start).run(_MlpPass(mlp, *pair))
    lstm = LstmNetwork(model)
    pair = sequences(kept, model.sequence, STEPS), sequences(judged, model.sequence, STEPS)
    return _Fit(lstm, plan, draw, start).run(_LstmPass(lstm, *pair, model.sequence))


class _Tensors:
    def __init__(self, examples: Examples) -> None:
        self.inputs = torch.as_tensor(examples.inputs, dtype=torch.float32)
        self.outcomes = torch.as_tensor(examples.outcomes, dtype=torch.float32)
        self.weights = torch.as_tensor(examples.weights, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.inputs)


class _MlpPass:
    def __init__(self, network: MlpNetwork, kept: Examples, judged: Examples) -> None:
        self._network = network
        self._kept, self._judged = _Tensors(kept), _Tensors(judged)
        self.count = len(self._kept)

    def learn(self, rows: Tensor, step: Callable[[Tensor], None]) -> None:
        kept = self._kept
        step(loss(self._network(kept.inputs[rows]), kept.outcomes[rows], kept.weights[rows]))

    def judge(self) -> float:
        judged = self._judged
        return float(loss(self._network(judged.inputs), judged.outcomes, judged.weights))


class _LstmPass:
    def __init__(self, network: LstmNetwork, kept: Examples, judged: Examples, sequence: int) -> None:
        self._network = network
        self._sequence = sequence
        self._kept, self._judged = _Tensors(kept), _Tensors(judged)
        self.count = len(self._kept)

    def learn(self, rows: Tensor, step: Callable[[Tensor], None]) -> None:
        kept = self._kept
        inputs, outcomes, weights = kept.inputs[rows], kept.outcomes[rows], kept.weights[rows]
        state: tuple[Tensor, Tensor] | None = None
        for at in range(0, inputs.shape[1], self._sequence):
            here = slice(at, at + self._sequence)
            said, state = self._network(inputs[:, here], state)
            state = (state[0].detach(), state[1].detach())
            step(loss(said, outcomes[:, here], weights[:, here]))

    def judge(self) -> float:
        judged = self._judged
        said, _ = self._network(judged.inputs, None)
        return float(loss(said, judged.outcomes, judged.weights))


class _Fit:
    def __init__(
        self, network: MlpNetwork | LstmNetwork, plan: TrainingPlan, draw: np.random.Generator, start: Weights | None
    ) -> None:
        self._network = network
        self._plan = plan
        self._draw = draw
        if start is not None:
            network.take(start)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=plan.rate)

    def run(self, passes: _MlpPass | _LstmPass) -> Trained:
        plan = self._plan
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, plan.epochs, plan.rate / 10)
        losses = [self._judge(passes)]
        best, weights = losses[0], self._network.export()
        for _ in range(plan.epochs):
            order = torch.as_tensor(self._draw.permutation(passes.count))
            for rows in torch.split(order, plan.batch):
                passes.learn(rows, self._step)
            schedule.step()
            losses.append(self._judge(passes))
            if losses[-1] < best:
                best, weights = losses[-1], self._network.export()
        return Trained(weights, tuple(losses))

    @staticmethod
    def _judge(passes: _MlpPass | _LstmPass) -> float:
        with torch.no_grad():
            return passes.judge()

    def _step(self, lost: Tensor) -> None:
        self._optimizer.zero_grad()
        lost.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_MAX)
        self._optimizer.step()
