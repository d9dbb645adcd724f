import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_migrate.transport.core.frames import FrameKind
from dwcp_migrate.transport.core.protocol import LinkState
from dwcp_migrate.transport.core.rate_limiter import BURST_BYTES_MIN, BURST_S, RateLimiter
from dwcp_migrate.transport.core.segment import URGENT, Segment
from dwcp_migrate.transport.io import tcp_info


@given(st.lists(st.integers(1, 300_000), min_size=5, max_size=60), st.floats(1e4, 1e9))
def test_a_rate_holds_however_large_the_frames_are(sizes: list[int], rate: float) -> None:
    pacer, now = RateLimiter(), 100.0
    pacer.set(now, rate)
    for size in sizes:
        now += pacer.wait_s(now)
        assert pacer.wait_s(now) == pytest.approx(0, abs=1e-9)
        pacer.took(size)
    elapsed = now - 100.0
    assert sum(sizes[:-1]) <= rate * elapsed + max(rate * BURST_S, BURST_BYTES_MIN) + 1


def test_no_rate_holds_nothing_and_taking_it_away_frees_at_once() -> None:
    pacer = RateLimiter()
    pacer.took(10**9)
    assert pacer.wait_s(5.0) == 0
    pacer.set(5.0, 1000.0)
    pacer.took(10**6)
    assert pacer.wait_s(5.0) > 100
    pacer.set(5.0, 0.0)
    assert pacer.wait_s(5.0) == 0


def test_credit_is_not_saved_up_over_a_pause() -> None:
    pacer = RateLimiter()
    pacer.set(0.0, 1e6)
    assert pacer.wait_s(1e6) == 0
    pacer.took(BURST_BYTES_MIN + 100_000)
    assert pacer.wait_s(1e6) == pytest.approx(0.1)


def test_bulk_waits_for_its_rate_and_what_is_urgent_does_not() -> None:
    state = LinkState(0.0, 60.0)
    state.channel_up(0.0, 1)
    state.pacer.set(0.0, 1000.0)
    state.pacer.took(1000)
    state.outbox.send(Segment(0, 0, 0, 4, 0, b"bulk"))
    while (frame := state.pull(0.0, 1)) is not None:
        assert frame.kind is not FrameKind.SEGMENT
    assert not state.has_work(0.0)
    state.outbox.send(Segment(1, 0, URGENT, 4, 0, b"soon"))
    assert state.has_work(0.0)
    frame = state.pull(0.0, 1)
    assert frame is not None
    assert bytes(frame.payload) == b"soon"
    later = 1.001 + len(b"soon") / 1000
    assert state.has_work(later)
    frame = state.pull(later, 1)
    assert frame is not None
    assert bytes(frame.payload) == b"bulk"


def test_tcp_info_of_a_kernel_too_old_reads_as_nothing() -> None:
    assert tcp_info.parse(bytes(tcp_info.BYTES - 1)) == tcp_info.TcpInfo()
    data = bytearray(tcp_info.BYTES)
    data[68:72] = (1500).to_bytes(4, "little")
    data[100:104] = (7).to_bytes(4, "little")
    data[120:128] = (99).to_bytes(8, "little")
    assert tcp_info.parse(bytes(data)) == tcp_info.TcpInfo(0.0015, 7, 99)


def test_tcp_info_counts_what_is_under_way_sent_or_not_and_reads_what_an_older_kernel_has() -> None:
    data = bytearray(tcp_info.BYTES)
    data[16:20] = (1448).to_bytes(4, "little")
    data[24:28] = (3).to_bytes(4, "little")
    data[120:128] = (99).to_bytes(8, "little")
    data[144:148] = (1000).to_bytes(4, "little")
    assert tcp_info.parse(bytes(data)) == tcp_info.TcpInfo(0.0, 0, 99, 3 * 1448 + 1000)
    assert tcp_info.parse(bytes(data[:128])) == tcp_info.TcpInfo(0.0, 0, 99, 3 * 1448)
