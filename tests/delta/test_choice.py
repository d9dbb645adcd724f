"""The codec follows what is short: the link or the processor."""

import pytest

from dwcp_migrate.delta import RAW, Codec, CodecChoice, Coding, Observation, pinned
from dwcp_migrate.delta.choice import (
    COMPRESSORS_FREE,
    COMPRESSORS_SATURATED,
    LINK_BUSY,
    LINK_IDLE,
    PATIENCE,
    PATIENCE_DOWN,
    ladder,
)

LINK_BOUND = Observation(link_bytes_per_s=10e6, link_busy=1.0, compressors_busy=0.2)
CPU_BOUND = Observation(link_bytes_per_s=1e9, link_busy=0.0, compressors_busy=1.0)
BALANCED = Observation(link_bytes_per_s=50e6, link_busy=0.5, compressors_busy=0.8)
NOTHING_TO_DO = Observation(link_bytes_per_s=50e6, link_busy=0.0, compressors_busy=0.1)
ZSTD_1 = Coding(Codec.ZSTD, 1)


def walk(choice: CodecChoice, seen: Observation, times: int) -> Coding:
    for _ in range(times):
        choice.observe(seen)
    return choice.coding


@pytest.mark.parametrize("seen", [BALANCED, NOTHING_TO_DO])
def test_it_begins_at_zstd_one_and_stays_there_while_nothing_is_short(seen: Observation) -> None:
    assert walk(CodecChoice(6), seen, 100) == ZSTD_1


def test_a_busy_link_climbs_to_the_highest_level_allowed_and_no_further() -> None:
    choice = CodecChoice(3)
    assert walk(choice, LINK_BOUND, PATIENCE) == Coding(Codec.ZSTD, 2)
    assert walk(choice, LINK_BOUND, 100) == Coding(Codec.ZSTD, 3)


@pytest.mark.parametrize(("bytes_per_s", "level"), [(10e6, 6), (25e6, 3), (100e6, 1)])
def test_the_slower_the_link_the_stronger_the_compression_that_it_is_worth(bytes_per_s: float, level: int) -> None:
    busy = Observation(link_bytes_per_s=bytes_per_s, link_busy=1.0, compressors_busy=0.2)
    assert walk(CodecChoice(6), busy, 100) == Coding(Codec.ZSTD, level)


def test_a_link_that_becomes_faster_takes_its_levels_back_at_once() -> None:
    choice = CodecChoice(6)
    walk(choice, LINK_BOUND, 100)
    assert walk(choice, BALANCED, 1) == Coding(Codec.ZSTD, 3)


def test_busy_compressors_do_not_take_on_more() -> None:
    both = Observation(link_bytes_per_s=10e6, link_busy=1.0, compressors_busy=0.9)
    assert walk(CodecChoice(6), both, 100) == ZSTD_1


def test_a_fast_link_that_waits_for_compressors_descends_to_raw_and_a_slow_one_to_lz4() -> None:
    choice = CodecChoice(6)
    assert walk(choice, CPU_BOUND, PATIENCE_DOWN) == Coding(Codec.LZ4)
    assert walk(choice, CPU_BOUND, PATIENCE_DOWN) == Coding(Codec.NONE)
    assert walk(choice, CPU_BOUND, 100) == RAW
    slow = Observation(link_bytes_per_s=20e6, link_busy=0.0, compressors_busy=1.0)
    assert walk(choice, slow, 100) == Coding(Codec.LZ4)


def test_whatever_holds_qemu_up_while_the_link_idles_steps_down() -> None:
    serial = Observation(link_bytes_per_s=0, link_busy=0.1, compressors_busy=0.1, qemu_idle=0.0)
    choice = CodecChoice(6)
    assert walk(choice, serial, 3 * PATIENCE_DOWN) == RAW
    assert walk(choice, serial, 100) == RAW


def test_a_slow_link_that_idles_while_the_pipeline_catches_up_keeps_its_codec() -> None:
    catching_up = Observation(link_bytes_per_s=25e6, link_busy=0.0, compressors_busy=0.6, qemu_idle=0.0)
    assert walk(CodecChoice(6), catching_up, 100) == ZSTD_1


def test_a_qemu_that_has_little_to_send_changes_nothing() -> None:
    idle = Observation(link_bytes_per_s=0, link_busy=0.1, compressors_busy=0.1, qemu_idle=0.5)
    assert walk(CodecChoice(6), idle, 100) == ZSTD_1


def test_raw_climbs_again_when_the_link_becomes_what_all_wait_for() -> None:
    choice = CodecChoice(6)
    walk(choice, CPU_BOUND, 100)
    busy = Observation(link_bytes_per_s=100e6, link_busy=1.0, compressors_busy=0.1, qemu_idle=0.0)
    assert walk(choice, busy, PATIENCE) == Coding(Codec.NONE)
    assert walk(choice, busy, 2 * PATIENCE) == ZSTD_1


def test_alternating_measurements_do_not_make_it_flap() -> None:
    choice = CodecChoice(6)
    for _ in range(50):
        choice.observe(LINK_BOUND)
        choice.observe(CPU_BOUND)
    assert choice.coding == ZSTD_1


def test_an_unknown_rate_sets_no_bounds() -> None:
    unknown = Observation(link_bytes_per_s=0, link_busy=0.5, compressors_busy=0.5)
    assert walk(CodecChoice(6), unknown, 50) == ZSTD_1


def test_the_configuration_pins_by_name_and_auto_pins_nothing() -> None:
    assert pinned("auto", 3) is None
    assert pinned("zstd", 3) == Coding(Codec.ZSTD, 3)
    assert pinned("lz4", 3) == Coding(Codec.LZ4, 3)
    assert ladder(2)[:2] == (RAW, Coding(Codec.NONE))


@pytest.mark.parametrize(
    ("link_busy", "compressors_busy", "coding"),
    [
        (LINK_BUSY, COMPRESSORS_FREE, Coding(Codec.ZSTD, 2)),
        (LINK_BUSY - 0.01, COMPRESSORS_FREE, ZSTD_1),
        (LINK_BUSY, COMPRESSORS_FREE + 0.01, ZSTD_1),
        (LINK_IDLE, COMPRESSORS_SATURATED, Coding(Codec.LZ4)),
        (LINK_IDLE + 0.01, COMPRESSORS_SATURATED, ZSTD_1),
        (LINK_IDLE, COMPRESSORS_SATURATED - 0.01, ZSTD_1),
    ],
)
def test_it_steps_at_its_thresholds_and_not_short_of_them(
    link_busy: float, compressors_busy: float, coding: Coding
) -> None:
    seen = Observation(link_bytes_per_s=10e6, link_busy=link_busy, compressors_busy=compressors_busy)
    assert walk(CodecChoice(6), seen, PATIENCE) == coding
