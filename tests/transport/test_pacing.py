"""InFlightWindow, controller, dialer and reassembly in virtual time."""

import heapq
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError
from dwcp_migrate.transport.core.channel_count import CHANNELS_MIN, CHANNELS_START, REST_S, Controller, Look
from dwcp_migrate.transport.core.dial_policy import DIALS_MAX, PROBE_S_MAX, Dialer
from dwcp_migrate.transport.core.reassembly import Reassembly
from dwcp_migrate.transport.core.window import (
    CHARGE_BYTES_MIN,
    LIMIT_BYTES_MAX,
    LIMIT_BYTES_MIN,
    LIMIT_BYTES_START,
    PASSAGES,
    PASSAGES_S_MIN,
    InFlightWindow,
)
from dwcp_migrate.units import KIB, MIB

SEGMENT = 128 * KIB


class Path:
    """A link in virtual time: fixed rate and delay, unbounded queue, in-order delivery; the source always has more.

    Every `lost_every`-th segment takes a round trip longer, and all behind it wait.
    """

    def __init__(self, rate: float, rtt_s: float, *, lost_every: int = 0) -> None:
        self.rate, self.rtt_s, self.lost_every = rate, rtt_s, lost_every
        self.now, self.free_at, self.delivered, self.sent = 0.0, 0.0, 0, 0
        self.in_order_at = 0.0
        self.window = InFlightWindow(50)
        self.window.rtt_s = rtt_s
        self.pending: list[tuple[float, int]] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while self.window.allowed(self.now) > 0:
                self._send()
            self.now, size = heapq.heappop(self.pending)
            self.window.on_acknowledged(self.now, size)
            self.delivered += size

    def _send(self) -> None:
        self.sent += 1
        self.window.on_sent(self.now, SEGMENT)
        self.free_at = max(self.free_at, self.now) + SEGMENT / self.rate
        lost = self.lost_every and self.sent % self.lost_every == 0
        arrives = self.free_at + self.rtt_s * (2 if lost else 1)
        self.in_order_at = max(self.in_order_at, arrives)
        heapq.heappush(self.pending, (self.in_order_at, SEGMENT))

    def rate_over(self, seconds: float) -> float:
        """Bytes per second delivered from now on."""
        before, began = self.delivered, self.now
        self.run(seconds)
        return (self.delivered - before) / (self.now - began)


@pytest.mark.parametrize("mbit", [10, 100, 200, 1000])
@pytest.mark.parametrize("rtt_ms", [1, 10, 40, 200])
def test_the_window_fills_a_link_and_is_bounded_in_time(mbit: int, rtt_ms: int) -> None:
    path = Path(mbit * 125_000, rtt_ms / 1000)
    path.run(10)
    assert path.rate_over(20) >= 0.95 * path.rate
    span_s = max(PASSAGES * path.rtt_s, PASSAGES_S_MIN) + 0.05
    assert path.window.limit_bytes <= max(LIMIT_BYTES_MIN, 1.1 * path.rate * span_s)


@pytest.mark.parametrize("rtt_ms", [10, 40, 100])
def test_lost_packets_that_hold_up_what_is_behind_them_do_not_starve_the_link(rtt_ms: int) -> None:
    path = Path(25e6, rtt_ms / 1000, lost_every=12)
    path.run(10)
    assert path.rate_over(20) >= 0.9 * path.rate


@pytest.mark.parametrize(("holds_up", "least", "most"), [(False, 0.0, 0.3), (True, 0.95, 1.1)])
def test_a_passage_that_a_busy_host_stretches_starves_no_link_that_idles(
    holds_up: bool,  # noqa: FBT001 - a parameter of the test
    least: float,
    most: float,
) -> None:
    path = Path(25e6, 0.30)  # the passage, of which the link takes a part
    path.window.rtt_s = 0.04
    path.window.holds_up = holds_up
    path.run(30)
    assert least * path.rate <= path.rate_over(20) <= most * path.rate
    path.window.holds_up = False
    path.window.rtt_s = path.rtt_s = 0.04
    path.run(20)
    assert path.window.limit_bytes <= 1.1 * path.rate * (PASSAGES * 0.04 + 0.05)


def test_the_window_follows_a_link_that_becomes_slower_and_longer() -> None:
    path = Path(25e6, 0.04)
    path.run(10)
    path.rate = 5e6
    path.rtt_s = path.window.rtt_s = 0.15
    path.run(10)
    assert path.rate_over(30) >= 0.9 * path.rate
    assert path.window.limit_bytes <= 5e6 * (PASSAGES * 0.15 + 0.05) * 1.1


def test_the_window_finds_a_link_that_becomes_ten_times_faster() -> None:
    path = Path(5e6, 0.04)
    path.run(10)
    path.rate = 50e6
    path.run(5)
    assert path.rate_over(5) >= 0.9 * path.rate


def test_the_window_keeps_its_start_its_floor_and_its_ceiling() -> None:
    window = InFlightWindow(50)
    assert window.limit_bytes == window.allowed(0.0) == LIMIT_BYTES_START
    window.on_sent(0.0, SEGMENT)
    window.on_acknowledged(10.0, SEGMENT)
    assert window.limit_bytes == LIMIT_BYTES_MIN
    path = Path(2e9, 0.5)
    path.run(20)
    assert path.window.limit_bytes == LIMIT_BYTES_MAX


def test_a_tiny_segment_is_charged_as_the_least() -> None:
    window = InFlightWindow(50)
    window.on_sent(0.0, 0)
    assert window.in_flight_bytes == CHARGE_BYTES_MIN
    window.on_acknowledged(0.1, 0)
    assert window.in_flight_bytes == 0


def test_a_source_that_pauses_shortly_does_not_shrink_the_window() -> None:
    path = Path(25e6, 0.04)
    path.run(5)
    limit, window, now = path.window.limit_bytes, path.window, path.now
    while window.in_flight_bytes:
        now = heapq.heappop(path.pending)[0]
        window.on_acknowledged(now, SEGMENT)
    for _ in range(50):
        window.on_sent(now, 10 * KIB)
        now += 0.041
        window.on_acknowledged(now, 10 * KIB)
    assert window.limit_bytes >= 0.9 * limit


FILLED = Look(up=0, acknowledged_bytes=0, waiting=True)
IDLE = replace(FILLED, waiting=False)
HELD = replace(FILLED, held=True)


def drive(
    controller: Controller,
    seconds: float,
    capacity: float,
    each: float,
    *,
    like: Look = FILLED,
    drown: int = 1000,
) -> None:
    """Run it against a link of `capacity` bytes/s where a channel carries at most `each`; channels come at once.

    From `drown` channels on they carry two thirds together. `like` says how else it looks.
    """
    state = getattr(controller, "_test", [0.0, 0])
    for _ in range(int(seconds / 0.25)):
        state[0] += 0.25
        share = 2 / 3 if controller.count >= drown else 1.0
        state[1] += int(0.25 * share * min(capacity, each * controller.count))
        controller.observe(state[0], replace(like, up=controller.count, acknowledged_bytes=int(state[1])))
    controller._test = state  # type: ignore[attr-defined]


def test_channels_double_while_that_carries_more_and_no_further() -> None:
    controller = Controller(0.0, channels=0, channels_max=512)
    assert controller.count == CHANNELS_START
    drive(controller, 8, capacity=25e6, each=1.4e6)
    assert controller.count in {16, 32}
    assert controller.count * 1.4e6 >= 0.85 * 25e6


def test_a_link_that_one_channel_fills_keeps_the_count() -> None:
    controller = Controller(0.0, channels=0, channels_max=512)
    drive(controller, 15, capacity=25e6, each=100e6)
    assert controller.count == CHANNELS_START


def test_channels_that_drown_each_other_are_halved_after_a_rest() -> None:
    """Another migration left the link while they doubled, so that each step looked like a gain."""
    controller = Controller(0.0, channels=0, channels_max=64)
    for step in range(1, 13):
        controller.observe(step / 4, Look(controller.count, step**3 * MIB, waiting=True))
    assert controller.count == 64
    controller._test = [3.0, 12**3 * MIB]  # type: ignore[attr-defined]
    drive(controller, REST_S + 3, capacity=25e6, each=1e6, drown=64)
    assert controller.count == 32
    drive(controller, 2 * REST_S, capacity=25e6, each=1e6, drown=64)
    assert controller.count == 32


def grown(count: int) -> Controller:
    """One that found that each channel carries 0.4 MB/s."""
    controller = Controller(0.0, channels=0, channels_max=count)
    while controller.count < count:
        drive(controller, 0.25, capacity=1e9, each=0.4e6)
    drive(controller, 1.25, capacity=1e9, each=0.4e6)
    return controller


def test_channels_for_which_no_segment_waits_are_halved() -> None:
    """Where 64 drown each other, the session's window is used up and nothing waits for any of them."""
    controller = grown(64)
    drive(controller, REST_S + 5, capacity=25e6, each=2e6, drown=64, like=IDLE)
    assert controller.count == CHANNELS_START


def test_a_pause_costs_no_channels() -> None:
    controller = grown(64)
    drive(controller, 60, capacity=1e3, each=1e6, like=IDLE)
    assert controller.count == 64


def test_half_the_channels_that_carry_less_once_segments_wait_for_them_are_doubled_again() -> None:
    controller = grown(64)
    while controller.count == 64:
        drive(controller, 0.25, capacity=20e6, each=0.4e6, like=IDLE)
    assert controller.count == 32
    drive(controller, 2, capacity=25e6, each=0.4e6)
    assert controller.count == 64


def test_a_link_that_is_held_says_nothing_and_ends_the_trial_under_way() -> None:
    controller = Controller(0.0, channels=0, channels_max=64)
    drive(controller, 1.25, capacity=25e6, each=100e6)
    assert controller.count == 2 * CHANNELS_START
    drive(controller, 20, capacity=0.3e6, each=100e6, like=HELD)
    assert controller.count == CHANNELS_START


def test_what_follows_a_release_is_no_gain_over_what_was_before_it() -> None:
    controller = Controller(0.0, channels=0, channels_max=64)
    drive(controller, 1.25, capacity=0.3e6, each=100e6)  # alone for a moment, then held, then let go
    drive(controller, 1, capacity=0.3e6, each=100e6, like=HELD)
    most = 0
    for _ in range(40):
        drive(controller, 0.25, capacity=25e6, each=100e6)
        most = max(most, controller.count)
    assert most == 2 * CHANNELS_START  # tried once, in vain
    assert controller.count == CHANNELS_START


@pytest.mark.parametrize("up", [0, CHANNELS_START - 1])
def test_while_channels_are_missing_nothing_is_judged(up: int) -> None:
    controller = Controller(0.0, channels=0, channels_max=512)
    for step in range(1, 41):  # a cut in the midst of the first measurement
        there = CHANNELS_START if step < 3 else up
        controller.observe(step / 4, Look(there, step * MIB, waiting=True))
    assert controller.count == CHANNELS_START
    for step in range(41, 46):
        controller.observe(step / 4, Look(CHANNELS_START, step * MIB, waiting=True))
    assert controller.count == 2 * CHANNELS_START


def test_a_path_that_holds_few_packets_gets_few_channels() -> None:
    """32 Mbit/s over 20 ms hold 80 KB: five a channel of sixteen, and none waits before them."""
    controller = Controller(0.0, channels=0, channels_max=64)
    drive(controller, 1.5, 4e6, each=4e6, like=Look(0, 0, waiting=False, under_way_bytes=160_000, rtt_s=0.02))
    assert CHANNELS_MIN <= controller.count <= 7
    drive(controller, 30, 4e6, each=4e6, like=Look(0, 0, waiting=False, under_way_bytes=160_000, rtt_s=0.02))
    assert controller.count <= 7


def test_a_lossy_path_that_holds_few_packets_still_gets_the_channels_that_carry_more() -> None:
    controller = Controller(0.0, channels=0, channels_max=64)
    drive(controller, 20, 4e6, each=0.1e6, like=replace(FILLED, rtt_s=0.02))
    assert controller.count * 0.1e6 >= 0.8 * 4e6


def test_a_long_path_keeps_the_channels_that_it_began_with() -> None:
    controller = Controller(0.0, channels=0, channels_max=64)
    drive(controller, 1.5, 25e6, each=25e6, like=replace(FILLED, rtt_s=0.04))
    assert controller.count >= CHANNELS_START


def test_a_link_that_holds_no_more_than_its_rate_needs_is_not_filled() -> None:
    controller = Controller(0.0, channels=0, channels_max=64)
    drive(controller, 20, 4e6, each=4e6, like=Look(0, 0, waiting=False, under_way_bytes=100_000, rtt_s=0.02))
    assert controller.count == CHANNELS_START


def test_a_session_that_fills_nothing_says_nothing_about_the_link() -> None:
    controller = Controller(0.0, channels=0, channels_max=512)
    drive(controller, 60, capacity=25e6, each=1.4e6, like=replace(FILLED, waiting=False))
    assert controller.count == CHANNELS_START


@pytest.mark.parametrize(("most", "count"), [(1, 1), (2, 2), (20, 20), (512, 512)])
def test_the_count_never_passes_its_bound(most: int, count: int) -> None:
    controller = Controller(0.0, channels=0, channels_max=most)
    drive(controller, 60, capacity=1e12, each=1e6)
    assert controller.count == count


def test_a_fixed_count_is_fixed() -> None:
    controller = Controller(0.0, channels=3, channels_max=64)
    drive(controller, 20, capacity=1e12, each=1e6)
    assert controller.count == 3


def test_a_peer_that_answers_is_dialled_at_once_and_in_bounded_numbers() -> None:
    dialer = Dialer(0.0)
    assert dialer.count(0.0, up=0, pending=0, wanted=8) == 8
    assert dialer.count(0.0, up=0, pending=0, wanted=512) == DIALS_MAX
    assert dialer.count(0.0, up=100, pending=DIALS_MAX, wanted=512) == 0


def test_a_silent_peer_is_probed_by_one_dial_at_least_every_second_and_a_half() -> None:
    dialer = Dialer(0.0)
    for _ in range(20):
        dialer.failed(0.0, 0.0)
    assert dialer.count(PROBE_S_MAX - 0.01, up=0, pending=0, wanted=8) == 0
    assert dialer.timeout(0.0, up=0, pending=0, wanted=8) == pytest.approx(PROBE_S_MAX)
    assert dialer.count(PROBE_S_MAX, up=0, pending=0, wanted=8) == 1
    assert dialer.count(PROBE_S_MAX, up=0, pending=1, wanted=8) == 0
    dialer.failed(2.0, 1.0)  # a connect that timed out is followed by the next at once
    assert dialer.count(2.0, up=0, pending=0, wanted=8) == 1
    dialer.succeeded(3.0)
    assert dialer.count(3.0, up=1, pending=0, wanted=8) == 7


def test_a_lost_link_is_probed_at_once() -> None:
    dialer = Dialer(0.0)
    dialer.link_lost(5.0)
    assert dialer.count(5.0, up=0, pending=0, wanted=8) == 1


@given(st.permutations(range(12)))
def test_reassembly_gives_any_order_back_in_order(order: list[int]) -> None:
    reassembly, got = Reassembly[int](), []
    for sequence in order:
        reassembly.put(sequence, sequence, 1)
        while (item := reassembly.pop()) is not None:
            got.append(item)
    assert got == list(range(12))
    assert reassembly.waiting_bytes == len(reassembly) == 0


def test_reassembly_is_bounded_and_always_takes_what_it_waits_for() -> None:
    reassembly = Reassembly[str](bytes_max=MIB, items_max=3)
    reassembly.put(1, "b", MIB)
    with pytest.raises(LimitExceededError):
        reassembly.put(2, "c", 1)
    reassembly.put(0, "a", MIB)
    assert (reassembly.pop(), reassembly.pop(), reassembly.pop()) == ("a", "b", None)
    for sequence in (3, 4, 5):
        reassembly.put(sequence, "x", 0)
    with pytest.raises(LimitExceededError):
        reassembly.put(6, "x", 0)


def test_reassembly_refuses_a_second_coming() -> None:
    reassembly = Reassembly[str]()
    reassembly.put(0, "a", 1)
    with pytest.raises(LocalProtocolError):
        reassembly.put(0, "a", 1)
    reassembly.pop()
    with pytest.raises(LocalProtocolError):
        reassembly.put(0, "a", 1)


def test_a_path_that_never_answered_is_given_longer_each_time_and_one_that_did_is_not() -> None:
    dialer = Dialer(0.0)
    waits = []
    for _ in range(5):
        waits.append(dialer.connect_s(5.0))
        dialer.failed(0.0, 0.0)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    dialer.succeeded(0.0)
    dialer.link_lost(0.0)
    dialer.failed(0.0, 0.0)
    assert dialer.connect_s(5.0) == 1.0
    assert dialer.connect_s(0.5) == 0.5
