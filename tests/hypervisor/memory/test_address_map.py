"""Which addresses are plain memory: out of recorded answers of QEMU, and nothing out of one that is not understood."""

from pathlib import Path

import pytest

from dwcp_migrate.errors import GuestMemoryError
from dwcp_migrate.hypervisor.memory.address_map import (
    LEGACY_END,
    MAP_CHARACTERS_MAX,
    RANGES_MAX,
    MemoryRange,
    parse_memory_map,
)
from dwcp_migrate.units import GIB, MIB

VECTORS = Path(__file__).parents[2] / "vectors" / "mtree"


def recorded(name: str) -> str:
    return (VECTORS / f"qemu-10.0-{name}.txt").read_text()


def view(*lines: str) -> str:
    head = 'FlatView #0\n AS "memory", root: system\n Root memory region: system\n'
    return head + "".join(f"  {line}\n" for line in lines) + "\n"


def region(begin: int, size: int, name: str = "pc.ram", kind: str = "ram") -> str:
    return f"{begin:016x}-{begin + size - 1:016x} (prio 0, {kind}): {name}"


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        ("pc-64m", [(MIB, 64 * MIB)]),
        ("q35-128m", [(MIB, 128 * MIB)]),
        ("q35-6g", [(MIB, 2 * GIB), (4 * GIB, 8 * GIB)]),
        ("pc-6g-numa", [(MIB, 3 * GIB), (4 * GIB, 7 * GIB)]),
        ("q35-ivshmem", [(MIB, 256 * MIB), (4 * GIB, 4 * GIB + 128 * MIB)]),
    ],
)
def test_main_memory_of_recorded_machines_is_found_and_nothing_else(name: str, ranges: list[tuple[int, int]]) -> None:
    assert parse_memory_map(recorded(name)) == tuple(MemoryRange(*each) for each in ranges)


def test_line_ends_of_the_monitor_change_nothing() -> None:
    text = recorded("q35-6g")
    assert parse_memory_map(text.replace("\n", "\r\n")) == parse_memory_map(text)


@pytest.mark.parametrize("kind", ["rom", "romd", "ramd", "i/o", "nv-ram", "rsvd"])
def test_only_the_type_ram_is_plain(kind: str) -> None:
    text = view(region(2 * MIB, MIB, kind=kind), region(4 * MIB, MIB))
    assert parse_memory_map(text) == (MemoryRange(4 * MIB, 5 * MIB),)


@pytest.mark.parametrize("name", ["vga.vram", "shared", "memvirtiomem0", "memnvdimm0", "pc.ram.shadow", "my pc.ram"])
def test_memory_of_devices_is_left_out_by_its_name(name: str) -> None:
    with pytest.raises(GuestMemoryError, match="no plain memory"):
        parse_memory_map(view(region(2 * MIB, MIB, name)))


@pytest.mark.parametrize("name", ["pc.ram", "ram-node3", "memdimm12", "/objects/ram-node0", "pc.ram KVM"])
def test_main_memory_is_known_by_its_name(name: str) -> None:
    assert parse_memory_map(view(region(2 * MIB, MIB, name))) == (MemoryRange(2 * MIB, 3 * MIB),)


def test_the_first_mib_is_left_out_and_ranges_that_touch_are_one() -> None:
    text = view(region(0, LEGACY_END + 4096), region(LEGACY_END + 4096, MIB), region(8 * MIB, MIB))
    assert parse_memory_map(text) == (MemoryRange(MIB, 2 * MIB + 4096), MemoryRange(8 * MIB, 9 * MIB))


def test_of_a_range_that_is_cut_inside_a_page_the_whole_pages_are_taken() -> None:
    text = view(region(2 * MIB + 100, 3 * 4096), region(3 * MIB + 1, 4096))
    assert parse_memory_map(text) == (MemoryRange(2 * MIB + 4096, 2 * MIB + 3 * 4096),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 views"),
        ("unknown command: 'info mtree'", "0 views"),
        (view(region(2 * MIB, MIB)) * 2, "2 views"),
        (view(region(2 * MIB, MIB), "something new"), "has a line"),
        (view(region(2 * MIB, MIB) + " owner:{obj path=/x}"), "no plain memory"),
        (view(region(4 * MIB, MIB), region(2 * MIB, MIB)), "out of order"),
        (view(region(2 * MIB, 2 * MIB), region(3 * MIB, 2 * MIB)), "out of order"),
        (view(f"{3 * MIB:016x}-{2 * MIB:016x} (prio 0, ram): pc.ram"), "out of order"),
        (
            'FlatView #0\n AS "memory", root: system\n Root memory region: system\n  No rendered FlatView\n',
            "has a line",
        ),
    ],
)
def test_an_answer_that_is_not_understood_is_refused_with_a_remedy(text: str, words: str) -> None:
    with pytest.raises(GuestMemoryError, match=words) as refused:
        parse_memory_map(text)
    assert refused.value.hint


def test_limits_of_the_answer_hold_at_them_and_past_them() -> None:
    whole = view(*(region(2 * (number + 1) * MIB, MIB) for number in range(RANGES_MAX)))
    assert len(parse_memory_map(whole)) == RANGES_MAX
    with pytest.raises(GuestMemoryError, match="pieces"):
        parse_memory_map(view(*(region(2 * (number + 1) * MIB, MIB) for number in range(RANGES_MAX + 1))))
    text = view(region(2 * MIB, MIB))
    assert parse_memory_map(text.ljust(MAP_CHARACTERS_MAX, "\n"))
    with pytest.raises(GuestMemoryError, match="characters"):
        parse_memory_map(text.ljust(MAP_CHARACTERS_MAX + 1, "\n"))
