"""Bands, weights and the conformal correction: each does its part, on series where it is known what is right."""

import numpy as np
import pytest

from dwcp_migrate.bandwidth.forecasting.bands import Bands, untrained
from dwcp_migrate.bandwidth.forecasting.conformal import STRETCH_MAX, Conformal, calibrated
from dwcp_migrate.bandwidth.forecasting.mix import TRUST, ForecasterMix
from dwcp_migrate.bandwidth.targets import HIGH, LOW, MEDIAN, TARGETS, Floats

ONE = np.array([0])
KNOWN = np.ones((1, len(TARGETS)))
UNCORRECTED = np.zeros((len(TARGETS), 2))
TRUSTED = np.full(len(TARGETS), TRUST)


def flat(low: float, median: float, high: float) -> Floats:
    return np.tile(np.array([low, median, high]), (1, len(TARGETS), 1))


def test_bands_come_to_lie_around_the_outcomes() -> None:
    draw = np.random.default_rng(1)
    bands = Bands(1, untrained(1, len(TARGETS)))
    points = np.full((1, 1, len(TARGETS)), 10.0)
    for _ in range(3000):
        bands.learn(ONE, points, 11 * np.exp(draw.normal(0, 0.3, (1, len(TARGETS)))), KNOWN)
    edges = np.log(bands.around(ONE, points)[0, 0, 0] / 11)
    assert edges[LOW] == pytest.approx(-1.28 * 0.3, abs=0.15)
    assert edges[MEDIAN] == pytest.approx(0, abs=0.12)
    assert edges[HIGH] == pytest.approx(1.28 * 0.3, abs=0.15)


def test_a_band_does_not_learn_from_what_was_never_said() -> None:
    bands = Bands(1, untrained(1, len(TARGETS)))
    points = np.full((1, 1, len(TARGETS)), 10.0)
    before = bands.around(ONE, points)
    bands.learn(ONE, points, np.full((1, len(TARGETS)), 99.0), np.zeros((1, len(TARGETS))))
    np.testing.assert_array_equal(bands.around(ONE, points), before)


def test_weights_go_to_the_expert_that_errs_least_and_come_back_when_that_changes() -> None:
    mix = ForecasterMix(1, np.ones((3, len(TARGETS), 3)), TRUSTED)
    np.testing.assert_allclose(mix.weights(ONE), 1 / 3)
    for best in (0, 2):
        losses = np.full((1, 3, len(TARGETS), 3), 1.0)
        losses[:, best] = 0.5
        for _ in range(1500):
            mix.learn(ONE, losses, KNOWN)
        weights = mix.weights(ONE)[0]
        assert (weights[best] > 0.95).all()
        np.testing.assert_allclose(weights.sum(axis=0), 1)


def test_a_mix_lies_between_its_experts_and_ascends() -> None:
    mix = ForecasterMix(1, np.ones((2, len(TARGETS), 3)), TRUSTED)
    said = np.stack([flat(1, 5, 6), flat(4, 4.5, 20)], axis=1)
    mixed = mix.combine(ONE, said)[0]
    assert (np.diff(mixed, axis=-1) >= 0).all()
    assert (mixed >= said[0].min(axis=0)).all()
    assert (mixed <= said[0].max(axis=0)).all()


@pytest.mark.parametrize("spread", [0.02, 0.5])
def test_a_wrong_band_is_corrected_to_its_coverage(spread: float) -> None:
    """Outcomes scatter by 0.1, the band says `spread`: far too narrow, or far too wide."""
    draw = np.random.default_rng(2)
    conformal = Conformal(1, UNCORRECTED)
    said = flat(*np.exp(np.array([-1.28, 0, 1.28]) * spread))
    inside = []
    for at in range(6000):
        corrected = conformal.correct(ONE, said)
        truth = np.exp(draw.normal(0, 0.1, (1, len(TARGETS))))
        if at > 3000:
            inside.append((truth >= corrected[..., LOW]) & (truth <= corrected[..., HIGH]))
        conformal.learn(ONE, corrected, truth, KNOWN)
    reachable = abs(np.log(0.1 / spread)) < STRETCH_MAX
    assert reachable == (0.7 < np.mean(inside) < 0.9)


@pytest.mark.parametrize("spread", [0.06, 0.2])
def test_a_correction_that_was_calibrated_holds_from_the_first_outcome(spread: float) -> None:
    draw = np.random.default_rng(3)
    truth = np.exp(draw.normal(0, 0.1, 4000))
    said = np.tile(np.exp(np.array([-1.28, 0, 1.28]) * spread), (len(truth), 1))
    start = np.tile(calibrated(truth, said), (len(TARGETS), 1))
    conformal = Conformal(1, start)
    corrected = conformal.correct(ONE, said[:1, None, :].repeat(len(TARGETS), axis=1))[0, 0]
    assert np.mean((truth >= corrected[LOW]) & (truth <= corrected[HIGH])) == pytest.approx(0.8, abs=0.01)
    conformal.learn(ONE, flat(0.9, 1, 1.1), np.full((1, len(TARGETS)), 5.0), KNOWN)
    conformal.forget(0)
    again = conformal.correct(ONE, said[:1, None, :].repeat(len(TARGETS), axis=1))[0, 0]
    np.testing.assert_array_equal(again, corrected)


def test_a_calibration_stays_within_the_limit() -> None:
    said = np.tile(np.array([0.999, 1.0, 1.001]), (100, 1))
    np.testing.assert_allclose(calibrated(np.array([0.1, 10.0] * 50), said), STRETCH_MAX)
    np.testing.assert_allclose(calibrated(np.full(100, 1.0), said), -STRETCH_MAX)


def test_a_band_is_stretched_by_no_more_than_the_limit() -> None:
    conformal = Conformal(1, UNCORRECTED)
    said = flat(0.5, 1.0, 2.0)
    for _ in range(20_000):
        conformal.learn(ONE, conformal.correct(ONE, said), np.full((1, len(TARGETS)), 1e6), KNOWN)
    corrected = conformal.correct(ONE, said)[0]
    np.testing.assert_allclose(corrected[:, HIGH], 2.0 ** np.exp(STRETCH_MAX))
    assert (corrected[:, MEDIAN] == 1.0).all()
    assert (corrected[:, LOW] > 0.5).all()  # nothing was ever below: that side shrank


def test_the_more_training_is_trusted_the_later_a_series_own_outcomes_decide() -> None:
    losses = np.full((1, 2, len(TARGETS), 3), 1.0)
    losses[:, 1] = 0.8
    start = np.ones((2, len(TARGETS), 3))
    start[1] = 1.2
    before = []
    for trust in (10.0, 100.0):
        mix = ForecasterMix(1, start, np.full(len(TARGETS), trust))
        for _ in range(20):
            mix.learn(ONE, losses, KNOWN)
        before.append(mix.weights(ONE)[0, 1, 0, MEDIAN])
    assert before[0] > 0.5 > before[1]
