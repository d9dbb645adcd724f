"""Guest-physical addresses that are plain memory, out of QEMU's `info mtree -f`. Pure.

    FlatView #1
     AS "memory", root: system                                          <- the view that a processor has: this one
     Root memory region: system
      0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000      taken
      00000000000c0000-00000000000c9fff (prio 0, rom): pc.ram @00000000000c0000      not memory that can be written
      00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram                      a device's
      00000000febf1000-00000000febf1fff (prio 1, i/o): ahci                          registers

Taken is what is of type `ram` and has the name that QEMU or libvirt gives main memory: the machine's own, that of a
NUMA node, that of a DIMM. Left out is memory of devices, even where it is plain: shared memory, frame buffers,
virtio-mem (reading what it has unplugged would bring it back), and the first MiB, whose map changes as firmware runs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.errors import GuestMemoryError
from dwcp_migrate.units import MIB, PAGE_BYTES

MAP_CHARACTERS_MAX: Final = 4 * MIB
"""Of an answer: 10 KB is usual, and a view for each of a thousand devices is 2 MB."""

RANGES_MAX: Final = 4096
"""Of plain memory in one guest: a machine has 256 slots for DIMMs, and firmware cuts the lowest ones up."""

LEGACY_END: Final = 1 * MIB

MAIN_MEMORY: Final = re.compile(r"(?:/objects/)?(?:pc\.ram|ram-node\d+|memdimm\d+)")
"""Names of main memory: of the machine, and by libvirt of NUMA nodes and DIMMs; old machines have the object's path."""

_VIEW: Final = re.compile(r"^FlatView #\d+$", re.MULTILINE)
_SPACE: Final = re.compile(r'^ AS "memory", root: system\b', re.MULTILINE)
_PREAMBLE: Final = re.compile(r" (?:AS \".*\", root: .*|Root memory region: .*)")
_REGION: Final = re.compile(
    r"  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ([^)]+)\): (.+?)(?: @[0-9a-f]{16})?(?: [A-Z]+)?"
)

_HINT: Final = "this guest's memory cannot be read ahead; it migrates as ever"


@dataclass(frozen=True, slots=True, order=True)
class MemoryRange:
    """Guest-physical addresses `[begin, end)`, both multiples of a page."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.begin


def parse_memory_map(text: str) -> tuple[MemoryRange, ...]:
    """Find the plain memory in QEMU's answer to `info mtree -f`.

    Returns:
        Ranges in the order of addresses; neighbours are one.

    Raises:
        GuestMemoryError: the answer is not understood, or there is no such memory in it.
    """
    if len(text) > MAP_CHARACTERS_MAX:
        raise GuestMemoryError(f"a map of memory of {len(text)} characters", hint=_HINT)
    lines = text.replace("\r\n", "\n")
    views = [view for view in _VIEW.split(lines)[1:] if _SPACE.search(view)]
    if len(views) != 1:
        raise GuestMemoryError(f"QEMU shows {len(views)} views of the guest's memory, not one", hint=_HINT)
    found = _joined(list(_plain(views[0])))
    if not found:
        raise GuestMemoryError("QEMU shows no plain memory of the guest", hint=_HINT)
    if len(found) > RANGES_MAX:
        raise GuestMemoryError(f"the guest's memory is in {len(found)} pieces, at most {RANGES_MAX}", hint=_HINT)
    return found


def _plain(view: str) -> Iterator[MemoryRange]:
    """Plain memory of a view, in its order. Raises GuestMemoryError at a line that is not understood."""
    last = -1
    for line in view.splitlines():
        if not line.strip() or _PREAMBLE.fullmatch(line):
            continue
        match = _REGION.fullmatch(line)
        if match is None:
            raise GuestMemoryError(f"QEMU's map of memory has a line {line[:80]!r}", hint=_HINT)
        begin, end = int(match[1], 16), int(match[2], 16) + 1
        if begin <= last or end <= begin:
            raise GuestMemoryError(f"QEMU's map of memory is out of order at {line[:80]!r}", hint=_HINT)
        last = end - 1
        begin = max(begin, LEGACY_END)
        if match[3] == "ram" and MAIN_MEMORY.fullmatch(match[4]) and end > begin:
            yield MemoryRange(begin, end)


def _joined(ranges: list[MemoryRange]) -> tuple[MemoryRange, ...]:
    """Whole pages of the ranges, those that touch as one."""
    found: list[MemoryRange] = []
    for each in ranges:
        begin, end = -(-each.begin // PAGE_BYTES) * PAGE_BYTES, each.end // PAGE_BYTES * PAGE_BYTES
        if end <= begin:
            continue
        if found and found[-1].end == begin:
            begin = found.pop().begin
        found.append(MemoryRange(begin, end))
    return tuple(found)
