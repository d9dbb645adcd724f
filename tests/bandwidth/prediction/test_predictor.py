import math

import numpy as np
import pytest

from dwcp_migrate.bandwidth.prediction.advice import choose_way
from dwcp_migrate.bandwidth.prediction.calibration import (
    SCORES_KEPT,
    correct_prediction,
    estimate_bias,
)
from dwcp_migrate.bandwidth.prediction.precopy_model import DOWNTIME_S, PASSES_MAX, Fluid
from dwcp_migrate.bandwidth.prediction.predictor import GuestFacts, Path, Prediction, predict_migration
from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.units import GIB, MIB


def guest(*, dirty: float = 0.0, working: float = 64 * MIB, memory: float = GIB, share: float = 1.0) -> GuestFacts:
    return GuestFacts(
        memory_bytes=memory,
        dirty_bytes_per_s=Range.exactly(dirty),
        working_set_bytes=Range.exactly(working),
        first_wire_share=Range.exactly(share),
        later_wire_share=Range.exactly(share),
        encode_bytes_per_s=Range.exactly(1e12),
    )


def path(rate: float = 25e6, spread: float = 1.0) -> Path:
    return Path(bytes_per_s=Range.around(rate, spread), setup_s=0.0, pause_s=0.0)


def test_an_idle_guest_takes_one_pass() -> None:
    said = predict_migration(guest(), path())
    assert said.time_s.median == pytest.approx(GIB / 25e6)
    assert said.downtime_s.median == 0
    assert said.wire_bytes.median == pytest.approx(GIB)
    assert (said.passes.median, said.convergence) == (1, 1.0)


def test_round_trips_and_setting_up_count() -> None:
    far = Path(bytes_per_s=Range.exactly(25e6), rtt_s=0.1, setup_s=0.5, pause_s=0.03)
    said = predict_migration(guest(), far)
    assert said.time_s.median == pytest.approx(GIB / 25e6 + 0.5 + 0.8 + 0.23)
    assert said.downtime_s.median == pytest.approx(0.23)


def test_a_guest_that_writes_faster_than_the_link_never_converges() -> None:
    said = predict_migration(guest(dirty=100e6, working=GIB), path())
    assert said.convergence == 0
    assert not said.converges


def test_a_working_set_that_fits_into_the_pause_converges_however_fast_it_is_written() -> None:
    fits = 25e6 * DOWNTIME_S
    assert predict_migration(guest(dirty=1e9, working=0.99 * fits), path()).convergence == 1
    assert predict_migration(guest(dirty=1e9, working=1.01 * fits), path()).convergence == 0


def test_hosts_that_encode_slowly_bound_the_rate() -> None:
    slow = GuestFacts(
        memory_bytes=GIB,
        dirty_bytes_per_s=Range.exactly(0),
        working_set_bytes=Range.exactly(MIB),
        first_wire_share=Range.exactly(0.1),
        later_wire_share=Range.exactly(0.1),
        encode_bytes_per_s=Range.exactly(100e6),
    )
    said = predict_migration(slow, path())
    assert said.time_s.median == pytest.approx(GIB / 100e6)
    assert said.wire_bytes.median == pytest.approx(GIB / 10)


@pytest.mark.parametrize(("dirty", "working"), [(1e6, 16 * MIB), (8e6, 200 * MIB), (20e6, 500 * MIB), (2e6, 2 * MIB)])
def test_prediction_and_fluid_model_are_the_same_guest(dirty: float, working: float) -> None:
    fluid, now = Fluid(GIB, dirty, working), 0.0
    while not fluid.is_over:
        step = min(fluid.next_event_s(25e6), 0.5)
        fluid.advance(step, 25e6)
        now += step
    said = predict_migration(guest(dirty=dirty, working=working), path())
    assert said.time_s.median == pytest.approx(now, rel=0.01)
    assert said.wire_bytes.median == pytest.approx(fluid.sent_bytes, rel=0.01)
    assert fluid.passes < PASSES_MAX


def test_what_is_uncertain_goes_in_and_comes_out() -> None:
    sure, unsure = predict_migration(guest(dirty=2e6), path()), predict_migration(guest(dirty=2e6), path(spread=1.5))
    assert sure.time_s.low == pytest.approx(sure.time_s.high)
    assert unsure.time_s.low < unsure.time_s.median < unsure.time_s.high
    assert unsure.time_s.high / unsure.time_s.median == pytest.approx(1.5, rel=0.1)


def test_more_link_is_never_slower_and_more_writing_never_faster() -> None:
    times = [predict_migration(guest(dirty=5e6), path(rate)).time_s.median for rate in (10e6, 20e6, 40e6)]
    assert times == sorted(times, reverse=True)
    times = [predict_migration(guest(dirty=dirty), path()).time_s.median for dirty in (0, 4e6, 8e6)]
    assert times == sorted(times)


def test_live_the_time_that_passed_counts_and_setting_up_does_not() -> None:
    said = predict_migration(
        guest(memory=100e6), Path(bytes_per_s=Range.exactly(25e6), pause_s=0.0), done_s=40.0, later=True
    )
    assert said.time_s.median == pytest.approx(44.0)


def advice_for(
    dirty: float, working: float, *, rate: float = 25e6, spread: float = 1.05, **more: float
) -> tuple[str, str]:
    here, way = guest(dirty=dirty, working=working), path(rate, spread)
    said = choose_way(
        here, way, predict_migration(here, way), link_losses=int(more.get("losses", 0)), deadline_s=more.get("due", 0)
    )
    return said.way, said.reason


def test_what_is_advised_and_why() -> None:
    assert advice_for(1e6, 16 * MIB)[0] == "precopy"
    way, reason = advice_for(100e6, GIB)
    assert way == "postcopy"
    assert "800.0 Mbit/s" in reason
    way, reason = advice_for(100e6, GIB, losses=2)
    assert way == "not-now"
    assert "2 times" in reason
    assert advice_for(100e6, GIB, spread=5.0)[0] == "not-now"
    assert advice_for(0, 0, rate=0.0)[0] == "not-now"


def test_a_deadline_changes_the_advice() -> None:
    quiet = {"dirty": 1e6, "working": 16.0 * MIB, "rate": 10e6}
    assert advice_for(**quiet, due=300.0)[0] == "precopy"
    way, reason = advice_for(**quiet, due=105.0)
    assert way == "precopy"  # nothing is advised that no command can do
    assert "may take longer than the 105 s there are" in reason
    assert advice_for(6e6, 400 * MIB, due=20.0)[0] == "not-now"


def test_a_longer_pause_that_the_operator_allowed_lets_a_busy_guest_converge() -> None:
    busy = GuestFacts(
        memory_bytes=16 * GIB,
        dirty_bytes_per_s=Range(120e6, 150e6, 180e6),
        working_set_bytes=Range(0.4 * GIB, 0.5 * GIB, 0.6 * GIB),
        first_wire_share=Range(0.3, 0.35, 0.4),
        later_wire_share=Range(0.25, 0.3, 0.35),
        encode_bytes_per_s=Range(300e6, 400e6, 500e6),
    )
    short, long = (
        Path(bytes_per_s=Range(40e6, 50e6, 60e6), rtt_s=0.02, downtime_s_max=limit) for limit in (DOWNTIME_S, 3.0)
    )
    assert predict_migration(busy, short).convergence < 0.8
    assert predict_migration(busy, long).convergence > 0.9
    assert choose_way(busy, short, predict_migration(busy, short)).way == "postcopy"
    assert choose_way(busy, long, predict_migration(busy, long)).way == "precopy"


def test_the_error_that_the_model_made_before_is_made_good() -> None:
    said = Range(9.0, 10.0, 11.0)
    assert correct_prediction(said, estimate_bias([], []), []) == said
    always = estimate_bias([], [math.log(1.5)] * SCORES_KEPT)
    assert correct_prediction(said, always, []).median == pytest.approx(15, rel=0.05)
    assert 10 < correct_prediction(said, estimate_bias([], [math.log(1.5)]), []).median < 15


def test_a_guest_s_own_errors_weigh_more_than_those_of_others() -> None:
    others = [0.4] * 20
    assert estimate_bias([], others) == pytest.approx(0.4, rel=0.05)
    once, thrice = estimate_bias([0.0], [*others, 0.0]), estimate_bias([0.0] * 3, [*others, 0.0])
    assert once == pytest.approx(0.2, rel=0.1)
    assert thrice == pytest.approx(0.1, rel=0.1)


def test_a_few_migrations_show_most_of_a_bias() -> None:
    """Durations of a guest that the lab moved to and fro, each said too long: the third is corrected by two."""
    model = Range(4.0, 6.0, 9.0)
    seen = [math.log(seconds / model.median) for seconds in (5.3, 4.5, 4.3)]

    def off(count: int) -> float:
        said = correct_prediction(model, estimate_bias(seen[:count], seen[:count]), [])
        return abs(said.median / (model.median * math.exp(seen[count])) - 1)

    assert off(1) < 0.27
    assert off(2) < 0.22


def test_corrected_intervals_hold_as_many_as_they_say() -> None:
    draw = np.random.default_rng(1)
    model_errors: list[float] = []
    said_errors: list[float] = []
    inside = []
    for _ in range(400):
        said = correct_prediction(Range(9.9, 10.0, 10.1), estimate_bias([], model_errors), said_errors)
        actual = 10.0 * math.exp(draw.normal(0.2, 0.3))
        inside.append(said.low <= actual <= said.high)
        model_errors.append(math.log(actual / 10.0))
        said_errors.append(math.log(actual / said.median))
    assert 0.74 < np.mean(inside[50:]) < 0.9


def test_an_interval_holds_its_median_even_if_all_were_off_to_one_side() -> None:
    said = correct_prediction(Range.exactly(10.0), 0.0, [0.5] * 20)
    assert said.low == said.median == pytest.approx(10.0)
    assert said.high > 16


def test_nothing_older_than_the_scores_kept_counts() -> None:
    old, recent = [2.0] * 10, [0.1] * SCORES_KEPT
    assert estimate_bias([*old, *recent], [*old, *recent]) == estimate_bias(recent, recent)
    exactly = Range.exactly(10.0)
    assert correct_prediction(exactly, 0.0, [*old, *recent]) == correct_prediction(exactly, 0.0, recent)


def test_a_prediction_of_nothing_known_is_still_one() -> None:
    said = predict_migration(guest(memory=0.0), path())
    assert isinstance(said, Prediction)
    assert said.time_s.median == 0
