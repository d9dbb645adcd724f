"""Weighted mix of the forecasters: weights by recent pinball loss, for each series, target and quantile.

The rule: never far from the best single expert. Each weight falls exponentially with the expert's recent loss relative
to the others (exponentially weighted aggregation with forgetting; Herbster and Warmuth 1998, applied to each quantile
as in Berrisch and Ziel 2023). Experts that err in different directions make the mean of their quantiles better than the
best of them.

A series' own outcomes are few at long horizons, so the losses found in training count as many outcomes beside them: the
more, the more alike the series are that they were found on.
"""

from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.targets import LAGS, Floats, Indices

FORGET: Final = 0.99
"""Decay of a loss with each outcome: about the last 100 count."""

SHARPNESS: Final = 40.0
"""An expert 5 % worse than the best keeps e^-2 of its weight."""

TRUST: Final = 100.0
"""Outcomes that the losses from training count for at the beginning, where training has not found how many are best;
they are forgotten like any other."""


class ForecasterMix:
    """Weights of `experts` over `count` series.

    Args:
        count: of series.
        start: (experts, targets, 3) mean loss of each in training, relative to the mean of all; ones where unknown.
        trust: (targets,) outcomes that this counts for.
    """

    def __init__(self, count: int, start: Floats, trust: Floats) -> None:
        self._start = trust[:, None] * start / start.mean(axis=0)
        self._loss = np.tile(self._start, (count, 1, 1, 1))
        # Overlapping targets are no independent evidence: the root of their steps is between one and the steps.
        self._evidence = 1 / np.sqrt(LAGS)

    def combine(self, slots: Indices, quantiles: Floats) -> Floats:
        """Mix the experts' quantiles.

        Args:
            slots: (m,).
            quantiles: (m, experts, targets, 3).

        Returns:
            (m, targets, 3), ascending.
        """
        mixed: Floats = np.sort((self.weights(slots) * quantiles).sum(axis=1), axis=-1)
        return mixed

    def weights(self, slots: Indices) -> Floats:
        """Return the weights (m, experts, targets, 3), which sum to 1 over the experts."""
        loss = self._loss[slots]
        relative = loss / loss.mean(axis=1, keepdims=True)
        weight: Floats = np.exp(-SHARPNESS * (relative - relative.min(axis=1, keepdims=True)))
        weight /= weight.sum(axis=1, keepdims=True)
        return weight

    def learn(self, slots: Indices, losses: Floats, known: Floats) -> None:
        """Take in losses.

        Args:
            slots: (m,).
            losses: (m, experts, targets, 3).
            known: (m, targets) 1 where there was a forecast to score, else 0.
        """
        relative = losses / np.maximum(losses.mean(axis=1, keepdims=True), 1e-12)
        evidence = known * self._evidence
        kept = (FORGET**evidence)[:, None, :, None]
        self._loss[slots] = kept * self._loss[slots] + evidence[:, None, :, None] * relative

    def forget(self, slot: int) -> None:
        """Begin this series anew."""
        self._loss[slot] = self._start
