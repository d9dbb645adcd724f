"""What a migration teaches of its guest, and how much what was measured is believed."""

import pytest

from dwcp_migrate.bandwidth.prediction.guest_model import (
    FEW_SPREAD,
    KNOWN_SPREAD,
    KnownGuest,
    Lesson,
    Pass,
    describe_guest,
    read_lesson,
    working_set,
)
from dwcp_migrate.units import GIB, MIB

PASSES = (
    Pass(seconds=20.0, raw_bytes=GIB, wire_bytes=300 * MIB, path_busy=0.9),
    Pass(seconds=4.0, raw_bytes=100 * MIB, wire_bytes=20 * MIB, path_busy=0.9),
    Pass(seconds=0.5, raw_bytes=32 * MIB, wire_bytes=6 * MIB, path_busy=0.2),
)


def test_libvirts_dirty_rate_comes_first_and_the_stream_says_it_where_there_is_none() -> None:
    assert read_lesson(GIB, PASSES, 12e6).dirty_bytes_per_s == 12e6
    for absent in (-1.0, 0.0):
        assert read_lesson(GIB, PASSES, absent).dirty_bytes_per_s == pytest.approx(32 * MIB / 4.0)
    assert read_lesson(GIB, PASSES[:1], -1.0).dirty_bytes_per_s is None
    assert read_lesson(GIB, (), 12e6) == Lesson()


def test_passes_tell_what_memory_costs_and_how_much_is_written_again_and_again() -> None:
    found = read_lesson(GIB, PASSES, 12e6)
    assert found.first_share == pytest.approx(300 / 1024)
    assert found.later_share == pytest.approx(26 / 132)
    assert found.encode_bytes_per_s is None  # the link was busy: it says nothing of the hosts
    assert found.working_set_bytes is not None
    assert 100 * MIB <= found.working_set_bytes <= GIB


def test_a_working_set_is_what_makes_the_written_bytes_come_out() -> None:
    assert working_set(50e6, 10e6, 10.0) == pytest.approx(62.7e6, rel=0.01)  # 62.7 (1 - exp(-100 / 62.7)) = 50
    assert working_set(50e6, 1e6, 10.0) == 200e6


def test_what_was_measured_once_is_believed_less_than_what_was_measured_often() -> None:
    spreads = []
    for count in (1, 2, 20):
        dirty = describe_guest(GIB, KnownGuest(dirty=(1e6,) * count)).dirty_bytes_per_s
        assert dirty.median == 1e6
        spreads.append(dirty.high / dirty.median)
    assert spreads[0] == pytest.approx(KNOWN_SPREAD * FEW_SPREAD)
    assert spreads[0] > spreads[1] > spreads[2] > KNOWN_SPREAD
