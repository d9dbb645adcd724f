import numpy as np
import pytest

from dwcp_migrate.bandwidth.targets import (
    MEDIAN,
    STEPS_MAX,
    TARGETS,
    Floats,
    compute_outcomes,
    over_transfer,
    pinball_loss,
    realised_outcomes,
)


def naive_outcomes(values: Floats) -> Floats:
    found = np.full((len(values), len(TARGETS)), np.nan)
    for at in range(len(values)):
        for column, target in enumerate(TARGETS):
            ahead = values[at + 1 : at + 1 + target.steps]
            if len(ahead) == target.steps:
                found[at, column] = ahead.mean() if target.is_mean else ahead[-1]
    return found


def test_outcomes_are_what_a_loop_finds() -> None:
    values = np.random.default_rng(1).lognormal(0, 1, 150)
    np.testing.assert_allclose(compute_outcomes(values), naive_outcomes(values))


def test_what_is_realised_now_is_what_was_the_outcome_then() -> None:
    values = np.random.default_rng(2).lognormal(0, 1, 200)
    then = compute_outcomes(values)
    now = realised_outcomes(values[None, :])[0]
    for column, target in enumerate(TARGETS):
        assert now[column] == pytest.approx(then[len(values) - 1 - target.steps, column])


def test_pinball_is_least_at_the_true_quantiles() -> None:
    drawn = np.random.default_rng(3).normal(10, 1, 20_000)
    right = np.quantile(drawn, (0.1, 0.5, 0.9))
    best = pinball_loss(drawn, np.tile(right, (len(drawn), 1))).mean(axis=0)
    for shift in (-0.5, 0.5):
        off = pinball_loss(drawn, np.tile(right + shift, (len(drawn), 1))).mean(axis=0)
        assert (off > best).all()


@pytest.mark.parametrize(("steps", "target"), [(0.1, 0), (1, 0), (10, 3), (60, 4), (1e9, 4)])
def test_a_transfer_as_long_as_a_target_is_that_target(steps: float, target: int) -> None:
    forecast = np.arange(len(TARGETS) * 3, dtype=np.float64).reshape(len(TARGETS), 3)
    np.testing.assert_allclose(over_transfer(forecast, steps), forecast[target])


def test_a_transfer_in_between_lies_in_between() -> None:
    forecast = np.zeros((len(TARGETS), 3))
    forecast[3], forecast[4] = 10.0, 20.0
    assert 10 < over_transfer(forecast, 25)[MEDIAN] < 20
    assert max(target.steps for target in TARGETS) == STEPS_MAX
