"""What was measured, kept and forecast of links and guests."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.forecasting.series import SLOTS, Forecasts
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.bandwidth.targets import MEDIAN
from tests.agent.foresight import LINK, PEER, RATE, Bench, rate_of


def test_what_was_measured_is_forecast_and_survives_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.forecasts.quantiles(Key("link", "rate", "nobody")) is None
    found = bench.forecasts.quantiles(LINK)
    assert found is not None
    assert found[0, MEDIAN] == pytest.approx(RATE, rel=0.02)
    bench.forecasts._store.flush()
    again = Forecasts(tmp_path).quantiles(LINK)
    assert again is not None
    assert again[0, MEDIAN] == pytest.approx(RATE, rel=0.02)


def test_as_many_series_as_there_are_slots_are_forecast_and_one_more_takes_the_oldest_place(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    for number in range(SLOTS + 1):
        bench.forecasts.sample(Key("link", "rate", f"hv{number}"), 1e6 * (number + 1), 2000.0 + number)
        if number % 32 == 0:
            bench.forecasts.step(2000.0 + number)
    bench.forecasts.step(9999.0)
    assert len(bench.forecasts._slots) == SLOTS
    assert Key("link", "rate", "hv0") not in bench.forecasts._slots
    first = bench.forecasts.quantiles(Key("link", "rate", "hv0"))  # from what is kept of it
    assert first is not None
    assert first[0, MEDIAN] == pytest.approx(1e6, rel=0.2)


def test_new_models_are_taken_and_what_was_measured_is_not_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.forecasts.reload()
    found = bench.forecasts.quantiles(LINK)
    assert found is not None
    assert found[0, MEDIAN] == pytest.approx(RATE, rel=0.05)


def test_what_a_link_did_not_fill_counts_until_it_is_filled_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for _ in range(10):
        bench.forecasts.seen(PEER, 4 * RATE, bench.now, fills=False)
    assert (found := bench.forecasts.carries(PEER, 10)) is not None
    assert found.median == pytest.approx(4 * RATE)
    bench.forecasts.seen(PEER, RATE, bench.now, fills=True)
    assert (found := bench.forecasts.carries(PEER, 10)) is not None
    assert found.median == pytest.approx(RATE, rel=0.05)


def test_a_link_that_became_another_one_between_two_migrations_is_believed_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    assert rate_of(bench, [3e6] * 60, begin=2000.0) == pytest.approx(3e6, rel=0.1)
    assert rate_of(bench, [7.5e6] * 5, begin=9000.0) == pytest.approx(7.5e6, rel=0.1)


def test_a_link_that_changes_within_a_migration_or_a_little_is_still_the_same(tmp_path: Path) -> None:
    within, little = Bench(tmp_path / "a", link=0), Bench(tmp_path / "b", link=0)
    assert rate_of(within, [3e6] * 60 + [7.5e6] * 5, begin=2000.0) < 6.5e6
    rate_of(little, [3e6, 3.5e6] * 30, begin=2000.0)
    assert rate_of(little, [3.6e6] * 5, begin=9000.0) < 3.55e6


def test_the_slow_end_of_a_migration_does_not_make_the_next_one_slow(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    rate_of(bench, [3.5e6] * 25 + [1.2e6, 2.1e6, 0.9e6], begin=2000.0)
    now, later = bench.forecasts.carries(PEER, 30), bench.forecasts.carries(PEER, 30, silent=True)
    assert now is not None
    assert later is not None
    assert later.median == pytest.approx(3.2e6, rel=0.1)
    assert abs(later.median - 3.2e6) < abs(now.median - 3.2e6)
