import numpy as np
import pytest

from bench.suites.pba_accuracy import SAMPLES
from dwcp_migrate.bandwidth.forecasting import synthetic
from dwcp_migrate.bandwidth.forecasting.ensemble import EWMA_DEFAULT, Ensemble
from dwcp_migrate.bandwidth.forecasting.evaluation import MIX, run, score
from dwcp_migrate.bandwidth.forecasting.panel import Panel
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.targets import MEDIAN, TARGETS, Floats

ENSEMBLE = model_files.load()

BARS = {"stable": 97.5, "linear": 95.0, "periodic": 95.0, "volatile": 86.3}


def follow(panel: Panel, values: Floats, slot: int = 0) -> Floats:
    for value in values:
        panel.step(np.array([slot]), np.array([value]))
    said: Floats = panel.forecasts[slot]
    return said


@pytest.mark.parametrize("name", BARS)
def test_the_mix_reaches_its_accuracy_on_the_synthetic_classes(name: str) -> None:
    draw = np.random.default_rng([1, len(name)])
    series = [synthetic.CLASSES[name](draw, SAMPLES) for _ in range(6)]
    scores = score(run(ENSEMBLE.panel, series))
    assert scores[MIX][0].accuracy_percent >= BARS[name]
    best = min(scores[expert][0].pinball_percent for expert in scores if expert != MIX)
    assert scores[MIX][0].pinball_percent <= 1.03 * best
    assert 75 <= scores[MIX][0].coverage_percent <= 90


def test_nothing_that_is_said_depends_on_what_comes_later() -> None:
    draw = np.random.default_rng(2)
    values = draw.lognormal(0, 0.4, 90)
    other = np.concatenate([values[:80], 100 * values[80:]])
    np.testing.assert_array_equal(follow(ENSEMBLE.panel(1), values[:80]), follow(ENSEMBLE.panel(1), other[:80]))
    first, second = (run(ENSEMBLE.panel, [each]).forecasts[0][: 80 - 50] for each in (values, other))
    np.testing.assert_array_equal(first, second)


def test_a_series_hears_nothing_of_its_neighbours() -> None:
    draw = np.random.default_rng(3)
    values = draw.lognormal(0, 0.4, 120)
    alone = follow(ENSEMBLE.panel(4), values, 2)
    panel, slots = ENSEMBLE.panel(4), np.arange(4)
    for value in values:
        said = panel.step(slots, np.array([1e3, 1e-3, value, draw.uniform()]))
    np.testing.assert_allclose(said[2], alone, rtol=1e-7)


def test_forecasts_scale_with_the_unit() -> None:
    values = np.random.default_rng(4).lognormal(0, 0.3, 100)
    np.testing.assert_allclose(
        follow(ENSEMBLE.panel(1), 1e6 * values), 1e6 * follow(ENSEMBLE.panel(1), values), rtol=1e-6
    )


def test_a_link_that_stands_still_is_forecast_to_stand_still_and_recovers() -> None:
    panel = ENSEMBLE.panel(1)
    follow(panel, np.full(100, 10.0))
    stopped = follow(panel, np.zeros(100))
    assert stopped[0, MEDIAN] < 0.01
    again = follow(panel, np.full(100, 10.0))
    assert again[0, MEDIAN] == pytest.approx(10, rel=0.1)
    assert np.isfinite(again).all()


def test_a_slot_that_was_given_away_begins_anew() -> None:
    values = np.random.default_rng(5).lognormal(0, 0.3, 80)
    panel = ENSEMBLE.panel(1)
    follow(panel, 1e5 * values[::-1])
    panel.forget(0)
    np.testing.assert_allclose(follow(panel, values), follow(ENSEMBLE.panel(1), values), rtol=1e-6)


def test_without_models_the_forecasters_that_need_no_training_go_on() -> None:
    panel = Ensemble({}, EWMA_DEFAULT).panel(1)
    said = follow(panel, np.full(80, 4.0))
    assert said[:, MEDIAN] == pytest.approx(4, rel=0.05)
    assert len(panel.names) == 5
    assert said.shape == (len(TARGETS), 3)


def test_the_weights_of_the_experts_sum_to_one() -> None:
    panel = ENSEMBLE.panel(1)
    follow(panel, np.random.default_rng(6).lognormal(0, 0.3, 80))
    np.testing.assert_allclose(panel.weights(0).sum(axis=0), 1)
    assert panel.taken(0) == 80
