"""What the pipeline's looks say of the link, of the path and of the coding, with a clock of the test's own."""

import threading
import time

from dwcp_migrate.dataplane.flow_control import FLOOR_BYTES, FixedWindow, Gate
from dwcp_migrate.dataplane.pipeline_monitor import MEASURE_S, PipelineMonitor, PipelineSample
from dwcp_migrate.delta import Coding
from dwcp_migrate.delta.codec import Codec

RATE = 4_000_000


def watch(
    pace: PipelineMonitor, seconds: float, *, queued_bytes: int = 0, busy: float = 0.1, held: float = 0.0
) -> None:
    """Let a look be taken every 10 ms: shares of time that the compressors work and that the window is full."""
    for step in range(int(seconds * 100)):
        now = step / 100
        pace.ahead_s(now, PipelineSample(int(now * RATE), queued_bytes, busy * now, held * now))


def one() -> PipelineMonitor:
    return PipelineMonitor("auto", 1, 6, workers=1)


def test_what_waits_before_the_channels_waits_for_link_and_path() -> None:
    pace = one()
    watch(pace, 5, queued_bytes=100_000)
    assert pace.link_waiting_s > 4.7
    assert pace.path_waiting_s > 4.7


def test_a_full_window_is_the_path_s_and_not_the_link_s() -> None:
    pace = one()
    watch(pace, 5, held=0.8)
    assert pace.link_waiting_s == 0
    assert 3.7 < pace.path_waiting_s < 4.1


def test_a_window_that_is_full_of_what_compressors_hold_says_nothing_of_the_path() -> None:
    pace = one()
    watch(pace, 5, held=0.8, busy=0.98)
    assert pace.path_waiting_s == 0


def test_looks_between_two_waits_count_for_the_rest_of_the_time() -> None:
    pace = one()
    watch(pace, 5, queued_bytes=1, held=0.5)
    assert 4.7 < pace.path_waiting_s <= 5.0


def test_the_time_ahead_is_what_waits_at_the_rate_that_was_seen() -> None:
    pace = one()
    watch(pace, 1)
    assert abs(pace.ahead_s(1.0, PipelineSample(RATE, RATE // 10, 0.1)) - MEASURE_S) < 0.01


def test_the_gate_counts_the_time_in_which_anybody_waits_for_the_window() -> None:
    gate = Gate(FixedWindow(FLOOR_BYTES))
    gate.sent(0, FLOOR_BYTES)
    gate.sent(1, FLOOR_BYTES)
    began = time.monotonic()
    assert gate.held_s(began) == 0
    waiters = [threading.Thread(target=gate.wait, args=(connection,)) for connection in (0, 1)]
    for waiter in waiters:
        waiter.start()
    while gate.held_s(time.monotonic()) < 0.05:
        pass  # until both or one of them has waited for that long
    for connection in (0, 1):
        gate.acknowledged(connection, FLOOR_BYTES)
    for waiter in waiters:
        waiter.join()
    held_s = gate.held_s(time.monotonic())
    assert 0.05 <= held_s <= time.monotonic() - began  # the union: two that wait at once count once
    assert gate.held_s(time.monotonic() + 60) == held_s


def test_a_slow_path_that_holds_all_in_tcp_gets_the_stronger_codec() -> None:
    pace = one()
    watch(pace, 5, held=0.9)
    assert pace.choose(5.0, PipelineSample(5 * RATE, 0, 0.5, 4.5)) == Coding(Codec.ZSTD, 6)
