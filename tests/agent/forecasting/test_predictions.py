"""What is said of a migration before it and during it, and what its end teaches."""

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from dwcp_migrate.agent.forecasting.predictions import Predictions, Subject
from dwcp_migrate.api.migration import NO_CONVERGENCE, Migration, apply_counters, close_record
from dwcp_migrate.bandwidth.prediction.calibration import SCORES_KEPT
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.cli.support import output
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import GIB, MIB
from tests.agent.foresight import PEER, RATE, Bench, rate_of, record
from tests.agent.records import make_expected

SUBJECT = Subject(uuid=record().uuid, memory_bytes=GIB, peer=PEER, rtt_s=0.02)


def test_the_less_is_known_the_wider_is_what_is_said(tmp_path: Path) -> None:
    ignorant = Predictions(Bench(tmp_path / "a", link=0).forecasts, []).tell(SUBJECT)
    knowing = Bench(tmp_path / "b")
    for quantity, value in (("dirty", 1e6), ("first_share", 0.3), ("later_share", 0.1), ("encode", 400e6)):
        knowing.forecasts.note(Key("domain", quantity, SUBJECT.uuid), value, 0.0)
    knowing.forecasts.note(Key("domain", "working_set", SUBJECT.uuid), 64.0 * MIB, 0.0)
    told = Predictions(knowing.forecasts, []).tell(SUBJECT)
    assert told.link_known
    assert not ignorant.link_known
    assert told.expected.time_s[1] == pytest.approx(0.3 * GIB / RATE, rel=0.2)
    spread = [one.expected.time_s[2] / one.expected.time_s[0] for one in (told, ignorant)]
    assert spread[0] < 2.5
    assert spread[1] > 10
    assert told.expected.way == "precopy"


def finished(seconds: float, **changes: object) -> Migration:
    expected = make_expected(9, 10, 11, downtime_s=(0.1, 0.1, 0.1), wire_bytes=(1, 1, 1), model_downtime_s=0.1)
    known = record(expected=expected, downtime_ms=300)
    return replace(close_record(known, 1000.0 + seconds, libvirt="completed"), **changes)


def test_earlier_errors_of_a_peer_correct_what_is_said_of_it_and_of_nobody_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plain = Predictions(bench.forecasts, []).tell(SUBJECT).expected
    history = [finished(20.0, id=f"{number:032x}") for number in range(12)]
    taught = Predictions(bench.forecasts, history)
    assert taught.tell(SUBJECT).expected.time_s[1] == pytest.approx(2 * plain.model_time_s, rel=0.05)
    assert taught.tell(SUBJECT).expected.downtime_s[1] == pytest.approx(3 * plain.model_downtime_s, rel=0.05)
    elsewhere = Subject(uuid=SUBJECT.uuid, memory_bytes=GIB, peer="hv3")
    assert taught.tell(elsewhere).expected.time_s[1] == pytest.approx(taught.tell(elsewhere).expected.model_time_s)


def test_a_failed_migration_corrects_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plain = Predictions(bench.forecasts, []).tell(SUBJECT).expected
    failed = [replace(finished(20.0), result="failed")]
    assert Predictions(bench.forecasts, failed).tell(SUBJECT).expected.time_s == plain.time_s


def test_a_migration_that_ran_unaccelerated_corrects_nothing_and_is_not_scored(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plain = Predictions(bench.forecasts, []).tell(SUBJECT).expected
    relayed = finished(60.0, passthrough_reason="unreachable")
    assert Predictions(bench.forecasts, [relayed] * 12).tell(SUBJECT).expected.time_s == plain.time_s
    bench.ledger.put(relayed)
    assert bench.ledger.totals().predictions == {}


def test_a_migration_teaches_what_its_passes_showed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    stages = [
        (1.0, 1, MigrationCounters(raw_bytes=10 * MIB, wire_bytes=2 * MIB)),
        (11.0, 2, MigrationCounters(raw_bytes=GIB, wire_bytes=256 * MIB, path_waiting_s=1.0)),
        (13.0, 3, MigrationCounters(raw_bytes=GIB + 40 * MIB, wire_bytes=260 * MIB, path_waiting_s=1.1)),
    ]
    for seconds, iteration, counters in stages:
        predictions.watch(record(iteration=iteration, counters=counters), 1000.0 + seconds)
    counters = MigrationCounters(raw_bytes=GIB + 41 * MIB, wire_bytes=260 * MIB + 100)
    predictions.ended(close_record(record(iteration=3, counters=counters), 1014.0, libvirt="completed"))

    def newest(quantity: str) -> float:
        return bench.forecasts.known(Key("domain", quantity, SUBJECT.uuid), 1)[0]

    assert newest("first_share") == pytest.approx(0.25, rel=0.01)
    assert newest("later_share") == pytest.approx(0.1, rel=0.05)
    assert newest("encode") == pytest.approx(GIB / 11.0, rel=0.01)
    assert 40 * MIB <= newest("working_set") <= 160 * MIB


def test_a_cancelled_migration_teaches_by_its_passes_and_by_what_was_left_of_the_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    whole = MigrationCounters(raw_bytes=GIB, wire_bytes=256 * MIB, path_waiting_s=9.0)
    for seconds, iteration, counters in ((1.0, 1, MigrationCounters()), (11.0, 2, whole)):
        predictions.watch(record(iteration=iteration, counters=counters), 1000.0 + seconds)
    counters = MigrationCounters(raw_bytes=GIB + 20 * MIB, wire_bytes=258 * MIB)
    cut = record(iteration=2, counters=counters, remaining_bytes=300 * MIB, dirty_bytes_per_s=900e6)
    predictions.watch(cut, 1011.5)
    predictions.ended(close_record(cut, 1012.0, libvirt="failed"))

    def known(quantity: str) -> list[float]:
        return bench.forecasts.known(Key("domain", quantity, SUBJECT.uuid), 9)

    assert known("first_share") == [pytest.approx(0.25)]
    assert known("later_share") == [pytest.approx(0.1)]
    assert known("working_set") == [pytest.approx(320 * MIB, rel=0.05)]


def test_a_guest_that_writes_all_of_its_working_set_within_a_pass_does_not_seem_slow(tmp_path: Path) -> None:
    """40 s over 128 MiB that are written each second show 3 MiB/s; QEMU's measure over a second knows better."""
    bench = Bench(tmp_path, link=2e6)
    bench.forecasts.note(Key("domain", "dirty", SUBJECT.uuid), 60e6, 0.0)
    predictions = Predictions(bench.forecasts, [])
    whole = MigrationCounters(raw_bytes=GIB, wire_bytes=80 * MIB, path_waiting_s=39.0)
    for seconds, iteration, counters in ((1.0, 1, MigrationCounters()), (40.0, 2, whole)):
        predictions.watch(record(iteration=iteration, counters=counters), 1000.0 + seconds)
    for second in range(20):
        bench.forecasts.sample(Key("domain", "rewritten", SUBJECT.uuid), 3.2 * MIB, 1040.0 + second)
        bench.forecasts.step(1040.0 + second)
    counters = MigrationCounters(raw_bytes=GIB + 20 * MIB, wire_bytes=82 * MIB)
    cut = record(iteration=2, counters=counters, remaining_bytes=108 * MIB, dirty_bytes_per_s=3.2 * MIB)
    predictions.ended(close_record(cut, 1045.0, libvirt="failed"))
    told = predictions.tell(SUBJECT)
    assert told.guest.dirty_bytes_per_s.median == pytest.approx(60e6)
    assert told.guest.working_set_bytes.median == pytest.approx(128 * MIB, rel=0.05)
    assert told.expected.convergence < 0.2


def test_a_migration_that_was_cancelled_in_its_first_pass_teaches_nothing_of_the_guest(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    cut = record(iteration=1, counters=MigrationCounters(raw_bytes=MIB, wire_bytes=MIB), dirty_bytes_per_s=-1.0)
    predictions.watch(cut, 1001.0)
    predictions.ended(close_record(cut, 1002.0, libvirt="failed"))
    assert bench.forecasts.known(Key("domain", "first_share", SUBJECT.uuid), 9) == []


def test_what_is_left_becomes_an_estimate_with_a_range(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    bench.forecasts.note(Key("domain", "first_share", SUBJECT.uuid), 0.5, 0.0)
    half, tenth = (predictions.estimate(record(remaining_bytes=int(GIB * share))) for share in (0.5, 0.1))
    assert half.eta_range_s is not None
    assert 0 < tenth.eta_s < half.eta_s
    assert half.eta_range_s[0] < half.eta_s < half.eta_range_s[1]
    assert predictions.estimate(record(remaining_bytes=-1)).eta_s == -1
    assert predictions.estimate(record(state="passthrough")).eta_s == -1


def test_an_estimate_that_does_not_hold_any_more_is_taken_down_with_the_reason(tmp_path: Path) -> None:
    """The guest goes from 1 to 400 MB/s: the estimate of before is no estimate of what comes."""
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    quiet = predictions.estimate(record(memory_bytes=8 * GIB))
    assert quiet.eta_s > 0
    busy = replace(quiet, dirty_bytes_per_s=400e6, remaining_bytes=4 * GIB, iteration=3)
    for _ in range(3):  # and it stays down while the data process reports its rates
        busy = predictions.estimate(
            apply_counters(busy, replace(busy.counters, raw_bytes=busy.counters.raw_bytes + GIB), 0.5)
        )
        assert (busy.eta_s, busy.eta_range_s, busy.eta_note) == (-1.0, None, NO_CONVERGENCE)
        assert output.eta(busy) == "does not converge"
    calm = predictions.estimate(replace(busy, dirty_bytes_per_s=1e6))
    assert calm.eta_s > 0
    assert calm.eta_note == ""
    paused = predictions.estimate(replace(busy, guest_paused=True))
    assert paused.eta_s > 0


def test_an_estimate_goes_by_the_domain_s_own_downtime_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    bench.forecasts.note(Key("domain", "working_set", SUBJECT.uuid), 300.0 * MIB, 0.0)
    bench.forecasts.note(Key("domain", "later_share", SUBJECT.uuid), 1.0, 0.0)
    bench.forecasts.note(Key("domain", "first_share", SUBJECT.uuid), 1.0, 0.0)
    busy = record(dirty_bytes_per_s=60e6)
    assert predictions.estimate(busy).eta_note == NO_CONVERGENCE
    assert predictions.estimate(busy, downtime_s_max=20.0).eta_s > 0
    bench.forecasts.note(Key("domain", "dirty", SUBJECT.uuid), 60e6, 0.0)
    tight, wide = (predictions.tell(replace_subject(limit)) for limit in (0.3, 20.0))
    assert tight.expected.convergence < wide.expected.convergence
    assert wide.advice.way == "precopy"


def replace_subject(downtime_s_max: float) -> Subject:
    return dataclasses.replace(SUBJECT, downtime_s_max=downtime_s_max)


def test_predictions_are_scored_in_the_totals(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    bench.ledger.put(finished(10.5))
    bench.ledger.put(finished(20.0, id="bb" * 16))
    bench.ledger.put(replace(finished(20.0, id="cc" * 16), result="failed"))
    totals = bench.ledger.totals()
    assert totals.predictions == {"inside": 1, "outside": 1}
    assert totals.prediction_error == pytest.approx(0.05 + 1.0)


def test_the_link_is_asked_for_as_long_as_the_guest_takes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, link=0)
    rate_of(bench, [3e6] * 60 + [9e6] * 20, begin=2000.0)
    short, long = (
        Predictions(bench.forecasts, []).tell(Subject(uuid="", memory_bytes=size, peer=PEER)).path.bytes_per_s.median
        for size in (GIB // 16, GIB)
    )
    assert short > 1.02 * long


def carried_out(predictions: Predictions, number: int, seconds: float) -> Migration:
    """A migration of `SUBJECT` that was predicted, crossed at a steady rate and ended after so many seconds."""
    begun = record(id=f"{number:032x}", iteration=1, expected=predictions.tell(SUBJECT).expected)
    wire_bytes = 0.3 * GIB
    predictions.watch(begun, begun.started_at + 1)
    for _ in range(int(seconds)):
        predictions.carried(begun, wire_bytes / seconds)
    counters = MigrationCounters(raw_bytes=GIB, wire_bytes=int(wire_bytes), path_waiting_s=seconds, rtt_s=SUBJECT.rtt_s)
    ended = close_record(replace(begun, counters=counters), begun.started_at + seconds, libvirt="completed")
    predictions.ended(ended)
    return ended


def test_a_link_that_was_forecast_wrong_now_and_then_shifts_nothing_and_widens_the_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path)  # the link's forecast says RATE
    predictions = Predictions(bench.forecasts, [])
    model_s = 0.3 * GIB / RATE
    for number in range(12):
        carried_out(predictions, number, (4 if number % 4 == 1 else 1) * model_s)
    said = predictions.tell(SUBJECT).expected
    assert said.is_guest_known
    assert said.time_s[1] == pytest.approx(said.model_time_s, rel=0.1)
    assert said.time_s[2] > 2 * said.time_s[1]


def test_a_forecast_that_always_errs_to_one_side_is_made_good_for_guests_that_are_known(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    predictions = Predictions(bench.forecasts, [])
    model_s = 0.3 * GIB / RATE
    for number in range(SCORES_KEPT):  # the link carries a fifth less than is forecast, for ever
        carried_out(predictions, number, 1.25 * model_s)
    said = predictions.tell(SUBJECT).expected
    assert said.time_s[1] == pytest.approx(1.25 * model_s, rel=0.05)


def test_guests_that_were_never_seen_widen_no_interval_of_those_that_were(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    unseen = [
        replace(record, expected=replace(record.expected, is_guest_known=False))
        for record in (finished(70.0, id=f"{number:032x}") for number in range(12))
        if record.expected is not None
    ]
    seen = [finished(10.0, id=f"{number:032x}") for number in range(100, 112)]
    bench.forecasts.note(Key("domain", "first_share", SUBJECT.uuid), 0.3, 0.0)
    known = Predictions(bench.forecasts, [*seen, *unseen]).tell(SUBJECT).expected
    unknown = Predictions(Bench(tmp_path / "b").forecasts, [*seen, *unseen]).tell(SUBJECT).expected
    assert known.time_s[2] < 1.2 * known.time_s[1]
    assert unknown.time_s[2] > 3 * unknown.time_s[1]
