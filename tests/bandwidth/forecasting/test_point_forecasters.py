from collections.abc import Callable

import numpy as np
import pytest

from dwcp_migrate.bandwidth.forecasting.point_forecasters import (
    Autoregressive,
    Ewma,
    Holt,
    Last,
    PointForecaster,
    Seasonal,
)
from dwcp_migrate.bandwidth.forecasting.windows import SeriesWindow
from dwcp_migrate.bandwidth.targets import STEPS_MAX, TARGETS, Floats

WEIGHTS = np.array([0.5, 0.3, 0.1, 0.3, 0.1])
ALL: list[Callable[[int], PointForecaster]] = [
    lambda _: Last(),
    lambda count: Ewma(count, WEIGHTS),
    Holt,
    Seasonal,
    Autoregressive,
]


def follow(forecaster: PointForecaster, values: Floats, slot: int = 0, count: int = 1) -> list[Floats]:
    history, slots = SeriesWindow(count), np.array([slot])
    said = []
    for value in values:
        history.push(slots, np.array([value]))
        said.append(forecaster.step(slots, history)[0])
    return said


def test_last_says_the_last() -> None:
    assert (follow(Last(), np.array([3.0, 5.0]))[-1] == 5.0).all()


def test_ewma_is_what_a_loop_finds() -> None:
    values = np.random.default_rng(1).lognormal(0, 1, 40)
    level = np.full(len(TARGETS), values[0])
    for value in values[1:]:
        level = level + WEIGHTS * (value - level)
    np.testing.assert_allclose(follow(Ewma(1, WEIGHTS), values)[-1], level)


def test_holt_is_what_a_loop_finds() -> None:
    values = 10 + np.arange(60.0)
    level, trend = values[0], 0.0
    for value in values[1:]:
        before = level
        level = Holt.LEVEL_WEIGHT * value + (1 - Holt.LEVEL_WEIGHT) * (level + Holt.DAMPING * trend)
        trend = Holt.TREND_WEIGHT * (level - before) + (1 - Holt.TREND_WEIGHT) * Holt.DAMPING * trend
    ahead = [level + trend * sum(Holt.DAMPING**power for power in range(1, h + 1)) for h in range(1, STEPS_MAX + 1)]
    wanted = [np.mean(ahead[: t.steps]) if t.is_mean else ahead[t.steps - 1] for t in TARGETS]
    np.testing.assert_allclose(follow(Holt(1), values)[-1], wanted)


def test_a_falling_trend_never_says_less_than_nothing() -> None:
    said = follow(Holt(1), np.linspace(100, 1, 60))
    assert all((each > 0).all() for each in said)


@pytest.mark.parametrize(("period", "off"), [(6, 0.02), (17, 0.02), (40, 0.06), (64, 0.12)])
def test_seasonal_finds_the_period(period: int, off: float) -> None:
    values = 10 + 4 * np.sin(2 * np.pi * np.arange(400) / period)
    said = follow(Seasonal(1), values[:300])[-1]
    wanted = [values[299 + t.steps] if not t.is_mean else values[300 : 300 + t.steps].mean() for t in TARGETS]
    np.testing.assert_allclose(said, wanted, rtol=off)


def test_seasonal_of_noise_is_its_mean() -> None:
    values = np.random.default_rng(4).normal(50, 1, 300)
    assert follow(Seasonal(1), values)[-1] == pytest.approx(50, rel=0.02)


def test_autoregression_finds_the_coefficient() -> None:
    draw = np.random.default_rng(5)
    value, values = 0.0, []
    for shock in draw.normal(0, 1, 600):
        value = 0.8 * value + shock
        values.append(100 + value)
    values.append(110.0)
    said = follow(Autoregressive(1), np.array(values))[-1]
    assert 106 < said[0] < 109.5  # 100 + 0.8 * 10, from 192 samples
    assert 97 < said[2] < 103  # 60 steps ahead it is back at its level


@pytest.mark.parametrize("make", ALL)
def test_many_series_at_once_are_as_each_alone(make: Callable[[int], PointForecaster]) -> None:
    draw = np.random.default_rng(6)
    values = draw.lognormal(0, 0.5, (3, 150))
    # A fit or a look is due by slot, so that each is compared in the slot that it has in the batch.
    alone = [follow(make(3), values[slot], slot, 3)[-1] for slot in range(3)]
    together, history, slots = make(3), SeriesWindow(3), np.arange(3)
    for at in range(values.shape[1]):
        history.push(slots, values[:, at])
        said = together.step(slots, history)
    np.testing.assert_allclose(said, alone, rtol=1e-7)


@pytest.mark.parametrize("make", ALL)
def test_a_slot_that_was_given_away_begins_anew(make: Callable[[int], PointForecaster]) -> None:
    values = np.random.default_rng(7).lognormal(0, 0.5, 100)
    used, history, slots = make(1), SeriesWindow(1), np.array([0])
    for value in 1000 * values:
        history.push(slots, np.array([value]))
        used.step(slots, history)
    used.forget(0)
    history.forget(0)
    for value in values:
        history.push(slots, np.array([value]))
        said = used.step(slots, history)
    np.testing.assert_allclose(said[0], follow(make(1), values)[-1], rtol=1e-6)
