"""Seconds in which a link is dead, apart from its rate in the others: a satellite between two beams.

A dead second says nothing of the rate before and after it, and no band in ratios reaches down to it. So the panel's
experts see only the seconds in which a series lives, and this model tells how many of those to come are dead: a chain
of two states, whose chances of dying and of coming back are counted as they happen. A forecast is the rate while alive
times the share of the target's seconds that live, as quantiles of the product.
"""

import math
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.quantiles import NORMAL_HIGH, normal_quantile
from dwcp_migrate.bandwidth.targets import HIGH, LOW, MEDIAN, QUANTILES, TARGETS, Floats, Indices

DEAD_SHARE: Final = 0.05
"""Of the usual rate: a second with less is dead."""

DEAD_RUN_MAX: Final = 30
"""A series that is dead for longer has become another one, at its new level."""

LEVEL_RATE: Final = 0.1
"""Weight of the newest second in the usual rate."""

FORGET: Final = 0.998
"""Decay of a count each second: about the last eight minutes count."""

PRIOR_DEATHS, PRIOR_LIVES = 0.5, 20.0
PRIOR_RETURNS, PRIOR_DEAD = 0.5, 1.0
"""Count before the first outage; it comes into play with that only."""

DOUBTS: Final[Floats] = np.array([-1.3, 0.0, 1.3])
"""Deviations of the chance of dying that are reckoned with."""

DOUBT_WEIGHTS: Final[Floats] = np.array([0.25, 0.5, 0.25])

DYING_MAX: Final = 0.9
"""Chance of dying in a second, at most."""

LEVELS: Final = 39
"""Points of the rate while alive, equally likely."""


class Outages:
    """The outages of `count` series."""

    def __init__(self, count: int) -> None:
        self._level = np.zeros(count)
        self._dead_for = np.zeros(count, dtype=np.intp)
        self._last = np.zeros(count)
        self._deaths = np.zeros(count)
        self._lives = np.zeros(count)
        self._returns = np.zeros(count)
        self._dead = np.zeros(count)
        self.seen = np.zeros(count, dtype=np.bool_)

    def alive(self, slots: Indices, values: Floats) -> Floats:
        """Take in a second of these series.

        Args:
            slots: (m,), none twice.
            values: (m,), finite.

        Returns:
            (m,): what the series carries while it lives; for a dead second its last living one.
        """
        level, was_dead = self._level[slots], self._dead_for[slots] > 0
        is_dead = (values < DEAD_SHARE * level) & (self._dead_for[slots] < DEAD_RUN_MAX)
        for counts, amount in (
            (self._deaths, ~was_dead & is_dead),
            (self._lives, ~was_dead & (level > 0)),
            (self._returns, was_dead & ~is_dead),
            (self._dead, was_dead),
        ):
            counts[slots] = FORGET * counts[slots] + amount
        self.seen[slots] |= is_dead
        self._dead_for[slots] = np.where(is_dead, self._dead_for[slots] + 1, 0)
        changed = was_dead & ~is_dead & (values < DEAD_SHARE * level)  # it has been dead for too long
        smooth = np.where((level > 0) & ~changed, level + LEVEL_RATE * (values - level), values)
        self._level[slots] = np.where(is_dead, level, smooth)
        self._last[slots] = np.where(is_dead, self._last[slots], values)
        found: Floats = self._last[slots].copy()
        return found

    def chances(self, slot: int) -> tuple[Floats, float]:
        """Probabilities that the series dies in the next second, while alive, and comes back, while dead.

        Returns:
            Chances of dying, one for each of `DOUBTS`, because of a few outages it is not known well; chance of coming
            back.
        """
        deaths, returns = self._deaths[slot] + PRIOR_DEATHS, self._returns[slot] + PRIOR_RETURNS
        dying, returning = deaths / (self._lives[slot] + PRIOR_LIVES), returns / (self._dead[slot] + PRIOR_DEAD)
        spread = math.sqrt(1 / deaths + 1 / returns)
        return np.minimum(DYING_MAX, dying * np.exp(DOUBTS * spread)), float(returning)

    def forecast(self, slots: Indices, alive: Floats) -> Floats:
        """Forecast with dead seconds included.

        Args:
            slots: (m,).
            alive: (m, ..., targets, 3), ascending: forecasts of the rate while alive.

        Returns:
            The same shape; a quantile is 0 where the target is likelier dead than that.
        """
        found = alive.copy()
        for row in np.flatnonzero(self.seen[slots]):
            shares = self._shares(int(slots[row]))
            for column, chances in enumerate(shares):
                found[row, ..., column, :] = product(alive[row, ..., column, :], chances)
        return found

    def _shares(self, slot: int) -> list[Floats]:
        """For each target the chances of each number of dead seconds among those that it spans."""
        is_dead = bool(self._dead_for[slot])
        dying, returning = self.chances(slot)
        counts = dead_seconds(dying, returning, is_dead=is_dead)
        return [
            DOUBT_WEIGHTS
            @ (counts[target.steps] if target.is_mean else last_second(dying, returning, target.steps, is_dead=is_dead))
            for target in TARGETS
        ]

    def forget(self, slot: int) -> None:
        """Begin this series anew."""
        for part in (self._level, self._dead_for, self._last, self._deaths, self._lives, self._returns, self._dead):
            part[slot] = 0
        self.seen[slot] = False


def dead_seconds(dying: Floats, returning: float, *, is_dead: bool) -> dict[int, Floats]:
    """Compute how many of the next seconds are dead: for each length of a mean the chance of each count.

    Args:
        dying: (n,), chances of dying in a second.
        returning: chance of coming back in a second.
        is_dead: in the last one.

    Returns:
        For each length (n, length + 1).
    """
    longest = max(target.steps for target in TARGETS)
    alive, dead = np.zeros((2, len(dying), longest + 1))  # chances of each state, by seconds that were dead so far
    (dead if is_dead else alive)[:, 0] = 1.0
    found: dict[int, Floats] = {}
    wanted = {target.steps for target in TARGETS if target.is_mean}
    for step in range(1, longest + 1):
        dies = dying[:, None] * alive + (1 - returning) * dead
        alive = (1 - dying[:, None]) * alive + returning * dead
        dead = np.zeros_like(dies)
        dead[:, 1:] = dies[:, :-1]
        if step in wanted:
            found[step] = (alive + dead)[:, : step + 1]
    return found


def last_second(dying: Floats, returning: float, steps: int, *, is_dead: bool) -> Floats:
    """Compute the chances that a later second lives, and that it does not.

    Args:
        dying: (n,), chances of dying in a second.
        returning: chance of coming back in a second.
        steps: seconds ahead.
        is_dead: in the last second.

    Returns:
        (n, 2).
    """
    usual = dying / (dying + returning)
    dead = usual + (float(is_dead) - usual) * (1 - dying - returning) ** steps
    return np.stack([1 - dead, dead], axis=-1)


def product(alive: Floats, chances: Floats) -> Floats:
    """Quantiles of the rate while alive times the share of seconds that live.

    Args:
        alive: (..., 3), ascending.
        chances: (n + 1,) of each number of dead seconds among n.

    Returns:
        (..., 3), ascending.
    """
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    normal = normal_quantile(levels)
    median = np.maximum(alive[..., MEDIAN, None], 1e-12)
    low, high = (np.log(np.maximum(alive[..., edge, None], 1e-12) / median) for edge in (LOW, HIGH))
    points = median * np.exp(np.where(normal < 0, -low, high) * normal / NORMAL_HIGH)  # (..., levels)
    likely = np.flatnonzero(chances > 1e-6)  # noqa: PLR2004 - no quantile depends on them
    shares = 1 - likely / (len(chances) - 1)
    values = (points[..., None] * shares).reshape(*points.shape[:-1], -1)
    weights = np.broadcast_to(chances[likely], (LEVELS, len(likely))).ravel() / LEVELS
    order = np.argsort(values, axis=-1, kind="stable")
    total = np.cumsum(weights[order], axis=-1)
    total /= total[..., -1:]
    found = np.empty(alive.shape)
    for at, quantile in enumerate(QUANTILES):
        first = np.minimum((total < quantile).sum(axis=-1, keepdims=True), values.shape[-1] - 1)
        found[..., at] = np.take_along_axis(values, np.take_along_axis(order, first, axis=-1), axis=-1)[..., 0]
    return found
