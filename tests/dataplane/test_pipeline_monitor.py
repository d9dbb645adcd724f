"""What the pipeline's looks say of the link, of the path and of the coding, with a clock of the test's own."""

import threading
import time
from dataclasses import replace

import pytest

from dwcp_migrate.dataplane.flow_control import GRANT_BYTES_MIN, FixedWindow, Gate
from dwcp_migrate.dataplane.pipeline_monitor import (
    MEASURE_S,
    NEAR_S,
    NEAR_SEEN_S,
    OUTRUN_LOOKS,
    SETTLE_ROUND_TRIPS,
    PipelineMonitor,
    PipelineSample,
    Shares,
    Stage,
    measure,
)
from dwcp_migrate.dataplane.worker_threads import IdleClock
from dwcp_migrate.delta import RAW, Coding
from dwcp_migrate.delta.codec import Codec

RATE = 4_000_000
FAR_S = 0.04


def look(now: float, *, queued_bytes: int = 0, rtt_s: float = FAR_S, **shares: float) -> PipelineSample:
    """What is seen at `now` where each `..._s` grew by its share of the time all along."""
    totals = {f"{name}_s": share * now for name, share in shares.items()}
    seen = PipelineSample(sent_bytes=int(now * RATE), queued_bytes=queued_bytes, rtt_s=rtt_s)
    return replace(seen, **totals)  # type: ignore[arg-type]


def watch(pace: PipelineMonitor, seconds: float, **shares: float) -> None:
    """Let a look be taken every 10 ms."""
    for step in range(int(seconds * 100)):
        pace.ahead_s(step / 100, look(step / 100, **{"busy": 0.1, "qemu_idle": 1.0, **shares}))  # type: ignore[arg-type]


def one() -> PipelineMonitor:
    return PipelineMonitor("auto", 1, 6, workers=1)


def test_time_in_which_no_channel_takes_what_waits_is_the_link_s_and_the_path_s() -> None:
    pace = one()
    watch(pace, 5, blocked=1.0)
    assert pace.link_waiting_s > 4.7
    assert pace.path_waiting_s > 4.7
    assert list(pace.held_up_s) == [Stage.LINK]


def test_a_queue_that_encryption_cannot_drain_says_nothing_of_the_link() -> None:
    pace = one()
    watch(pace, 5, queued_bytes=100_000, encryption=0.95, qemu_idle=0.0)
    assert pace.link_waiting_s == pace.path_waiting_s == 0
    assert list(pace.held_up_s) == [Stage.ENCRYPTION]


def test_a_full_window_is_the_path_s_and_not_the_link_s() -> None:
    pace = one()
    watch(pace, 5, held=0.8)
    assert pace.link_waiting_s == 0
    assert 3.7 < pace.path_waiting_s < 4.1


def test_a_window_that_is_full_of_what_compressors_hold_says_nothing_of_the_path() -> None:
    pace = one()
    watch(pace, 5, held=0.8, busy=0.98, qemu_idle=0.0)
    assert pace.path_waiting_s == 0
    assert list(pace.held_up_s) == [Stage.COMPRESSORS]


def test_waiting_for_channels_and_waiting_for_the_window_add_up_to_the_whole_time_at_most() -> None:
    pace = one()
    watch(pace, 5, blocked=0.7, held=0.5)
    assert 4.7 < pace.path_waiting_s <= 5.0


def test_the_time_ahead_is_what_waits_at_the_rate_that_was_seen() -> None:
    pace = one()
    watch(pace, 1)
    assert abs(pace.ahead_s(1.0, look(1.0, queued_bytes=RATE // 10)) - MEASURE_S) < 0.01


@pytest.mark.parametrize(
    ("before", "seen", "stage"),
    [
        (
            "window full, all arrived, near",
            PipelineSample(held_s=0.09, retained_bytes=900, rtt_s=NEAR_S),
            "destination",
        ),
        ("window full, all arrived, far", PipelineSample(held_s=0.09, retained_bytes=900, rtt_s=FAR_S), "link"),
        (
            "window full of what TCP has, near",
            PipelineSample(held_s=0.09, retained_bytes=900, under_way_bytes=800, rtt_s=NEAR_S),
            "link",
        ),
        (
            "channels blocked by a slow reader, near",
            PipelineSample(blocked_s=0.09, receiver_limited=0.9, rtt_s=NEAR_S),
            "destination",
        ),
        ("one lock", PipelineSample(classifier_s=0.095), "classifier"),
        ("one thread that reads", PipelineSample(classifier_s=0.03), "reader"),
        ("little to send", PipelineSample(qemu_idle_s=0.08), "qemu"),
        ("processors shared with others", PipelineSample(qemu_idle_s=0.03, encryption_s=0.05), "cores"),
    ],
)
def test_a_measurement_names_the_stage_that_all_others_wait_for(before: str, seen: PipelineSample, stage: str) -> None:
    assert measure(MEASURE_S, PipelineSample(), seen, workers=2).held_up_by() == stage, before


def test_a_stage_is_named_before_those_that_wait_for_it() -> None:
    all_busy = Shares(link=0.9, destination=0.0, qemu=0.0, reader=1.0, classifier=0.9, compressors=0.9, encryption=0.9)
    assert all_busy.held_up_by() is Stage.LINK


def test_a_pipeline_that_holds_qemu_up_over_an_idle_link_steps_aside_and_says_why() -> None:
    pace = one()
    watch(pace, 1, classifier=0.95, qemu_idle=0.0)
    assert pace.choose(1.0, look(1.0, classifier=0.95)) == RAW
    assert "raw after none: held up by classifier" in pace.decision


def test_a_pinned_codec_is_never_changed_and_decides_nothing() -> None:
    pace = PipelineMonitor("zstd", 3, 6, workers=1)
    watch(pace, 1, classifier=0.95, qemu_idle=0.0)
    assert pace.choose(1.0, look(1.0)) == Coding(Codec.ZSTD, 3)
    assert not pace.decision


def test_the_gate_counts_the_time_in_which_anybody_waits_for_the_window() -> None:
    gate = Gate(FixedWindow(2 * GRANT_BYTES_MIN))
    for connection in (0, 1):
        gate.sent(connection, 2 * GRANT_BYTES_MIN)
    began = time.monotonic()
    assert gate.held_s(began) == 0
    waiters = [threading.Thread(target=gate.wait, args=(connection,)) for connection in (0, 1)]
    for waiter in waiters:
        waiter.start()
    while gate.held_s(time.monotonic()) < 0.05:
        pass  # until both or one of them has waited for that long
    for connection in (0, 1):
        gate.acknowledged(connection, 2 * GRANT_BYTES_MIN)
    for waiter in waiters:
        waiter.join()
    held_s = gate.held_s(time.monotonic())
    assert 0.05 <= held_s <= time.monotonic() - began  # the union: two that wait at once count once
    assert gate.held_s(time.monotonic() + 60) == held_s


def test_the_idle_clock_runs_while_all_members_wait_and_stands_while_one_does_not() -> None:
    clock = IdleClock()
    assert clock.total_s(time.monotonic()) == 0
    with clock.member(), clock.waiting():
        began = time.monotonic()
        assert clock.total_s(began + 1) >= 1
        with clock.member():
            stood = clock.total_s(time.monotonic())
            assert clock.total_s(time.monotonic() + 1) == stood
    assert clock.total_s(time.monotonic() + 60) < 1


def test_a_slow_path_that_holds_all_in_tcp_gets_the_stronger_codec() -> None:
    pace = one()
    watch(pace, 5, held=0.9)
    assert pace.choose(5.0, look(5.0, held=0.9, busy=0.1)) == Coding(Codec.ZSTD, 6)


def aside() -> PipelineMonitor:
    return PipelineMonitor("auto", 1, 6, workers=1, may_leave=True)


def test_a_link_that_idles_beside_segments_as_they_are_is_left() -> None:
    pace = aside()
    watch(pace, OUTRUN_LOOKS * MEASURE_S, encryption=0.95, qemu_idle=0.0, rtt_s=NEAR_S)
    assert not pace.stands_aside  # a host may be busy for a moment, and this is for good
    pace = aside()
    watch(pace, OUTRUN_LOOKS * MEASURE_S + 0.5, encryption=0.95, qemu_idle=0.0, rtt_s=NEAR_S)
    assert pace.stands_aside
    assert pace.reason_to_leave.startswith("held up by")


@pytest.mark.parametrize(
    "shares",
    [{"blocked": 0.3, "encryption": 0.6, "qemu_idle": 0.0}, {"encryption": 0.5, "qemu_idle": 0.5}],
    ids=["the link is used", "QEMU has nothing more"],
)
def test_a_link_is_not_left_while_it_or_qemu_is_what_all_wait_for(shares: dict[str, float]) -> None:
    pace = aside()
    watch(pace, 5, rtt_s=NEAR_S, **shares)
    assert not pace.stands_aside


def test_no_link_is_left_where_that_is_not_allowed() -> None:
    pace = one()
    watch(pace, 5, encryption=0.95, qemu_idle=0.0, rtt_s=NEAR_S)
    assert not pace.stands_aside


@pytest.mark.parametrize(("seen_s", "is_raw"), [(NEAR_SEEN_S, True), (NEAR_SEEN_S + 0.01, False)])
def test_a_short_round_trip_tells_of_a_near_path_for_a_while(seen_s: float, *, is_raw: bool) -> None:
    pace = one()
    pace.ahead_s(0.0, look(0.0, rtt_s=0.0))
    pace.ahead_s(0.05, look(0.05, rtt_s=10 * NEAR_S))
    assert (pace.choose(seen_s, look(seen_s, rtt_s=NEAR_S)) == RAW) == is_raw


def test_a_near_link_that_turns_out_to_be_slow_is_met_at_level_1_after_one_measurement() -> None:
    pace = one()
    watch(pace, 2.5 * MEASURE_S, blocked=1.0, qemu_idle=0.0, rtt_s=NEAR_S)
    coding = pace.choose(2.5 * MEASURE_S, look(2.5 * MEASURE_S, rtt_s=NEAR_S))
    assert coding == Coding(Codec.ZSTD, 1)


def test_slow_start_on_a_long_path_lowers_no_level() -> None:
    pace = one()
    watch(pace, SETTLE_ROUND_TRIPS * FAR_S - 0.01, busy=1.0, qemu_idle=0.0)
    assert pace.choose(0.0, look(0.0)) == Coding(Codec.ZSTD, 1)
    watch(pace, SETTLE_ROUND_TRIPS * FAR_S + 1, busy=1.0, qemu_idle=0.0)
    assert pace.choose(0.0, look(0.0)) != Coding(Codec.ZSTD, 1)


@pytest.mark.parametrize(("blocked", "holds_up"), [(0.0, True), (0.5, False)])
def test_a_full_window_beside_an_idle_link_is_what_holds_up(blocked: float, *, holds_up: bool) -> None:
    pace = one()
    watch(pace, 1, held=0.9, blocked=blocked)
    assert pace.window_holds_up is holds_up
