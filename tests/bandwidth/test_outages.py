"""Dead seconds of a link: how many are to come, and what that does to a forecast."""

from typing import Final

import numpy as np
import pytest

from dwcp_migrate.bandwidth.forecasting import synthetic
from dwcp_migrate.bandwidth.forecasting.evaluation import MIX, run, score
from dwcp_migrate.bandwidth.outages import DEAD_RUN_MAX, Outages, dead_seconds, last_second, product
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.targets import COVERAGE, LOW, MEDIAN, TARGETS, Floats

SLOT: Final = np.array([0])
SEED: Final = 5


def taken(values: Floats) -> Outages:
    found = Outages(1)
    for value in values:
        found.alive(SLOT, np.array([value]))
    return found


@pytest.mark.parametrize("is_dead", [False, True])
def test_how_many_seconds_to_come_are_dead_is_as_often_as_when_it_is_played(*, is_dead: bool) -> None:
    dying, returning, plays = 0.07, 0.4, 20_000
    draw = np.random.default_rng(SEED)
    dead = np.full(plays, is_dead)
    counts = np.zeros(plays, dtype=np.intp)
    for step in range(1, 11):
        chance = draw.random(plays)
        dead = np.where(dead, chance >= returning, chance < dying)
        counts += dead
        if step in {1, 10}:
            assert last_second(np.array([dying]), returning, step, is_dead=is_dead)[0, 1] == pytest.approx(
                dead.mean(), abs=0.01
            )
    played = np.bincount(counts, minlength=11) / plays
    np.testing.assert_allclose(dead_seconds(np.array([dying]), returning, is_dead=is_dead)[10][0], played, atol=0.01)


def test_the_quantiles_of_a_product_reach_zero_where_the_target_is_likelier_dead() -> None:
    alive = np.array([8.0, 10.0, 12.5])
    np.testing.assert_allclose(product(alive, np.array([1.0, 0.0])), alive, rtol=0.02)
    assert product(alive, np.array([0.95, 0.05]))[LOW] == pytest.approx(7.2, rel=0.1)
    assert product(alive, np.array([0.8, 0.2]))[LOW] == 0
    assert product(alive, np.array([0.8, 0.2]))[MEDIAN] == pytest.approx(9.5, rel=0.05)
    assert (product(alive, np.array([0.0, 1.0])) == 0).all()


def test_a_series_that_never_dies_is_forecast_as_before() -> None:
    values = np.random.default_rng(SEED).lognormal(0, 0.8, 300)
    found = taken(np.maximum(values, 0.1))
    alive = np.sort(np.random.default_rng(SEED).random((1, len(TARGETS), 3)), axis=-1)
    np.testing.assert_array_equal(found.forecast(SLOT, alive), alive)


def test_a_dead_second_says_nothing_of_the_rate_and_a_long_silence_is_a_new_level() -> None:
    found = taken(np.full(100, 10.0))
    for second in range(DEAD_RUN_MAX):
        assert found.alive(SLOT, np.array([0.1])) == 10.0, second
    assert found.alive(SLOT, np.array([0.1])) == 0.1
    assert found.alive(SLOT, np.array([0.1])) == 0.1
    assert found.alive(SLOT, np.array([10.0])) == 10.0


def test_a_slot_that_goes_to_another_series_has_seen_nothing() -> None:
    found = taken(np.array([10.0] * 50 + [0.0, 0.0] + [10.0] * 5))
    assert found.seen[0]
    found.forget(0)
    assert not found.seen[0]
    assert found.alive(SLOT, np.array([1e-3])) == 1e-3


def test_bands_of_links_with_dead_seconds_hold_what_they_say() -> None:
    draw = np.random.default_rng(SEED)
    series = [synthetic.satellite(draw, 400) for _ in range(5)]
    scores = score(run(model_files.load().panel, series))[MIX]
    cover = {target.name: each.coverage_percent for target, each in zip(TARGETS, scores, strict=True)}
    assert np.mean(list(cover.values())) == pytest.approx(100 * COVERAGE, abs=5), cover
    assert min(cover.values()) > 70, cover
    assert max(cover.values()) < 90, cover
