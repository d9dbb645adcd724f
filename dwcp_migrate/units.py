"""Units, the few numbers that several packages share, and how amounts are written.

Sizes end in `_bytes`, durations in `_s` or `_ms`, rates in `_bytes_per_s`; a limit appends `_max`.
"""

from typing import Final

KILO: Final = 1000
KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
TIB: Final = 1024 * GIB

PAGE_BYTES: Final = 4096
"""Target page size of x86-64 guests. QEMU never sends it in a precopy stream (exec/target_page.h)."""

PORT_MIN: Final = 49152
"""First port of libvirt's migration range (qemu.conf, migration_port_min)."""

PORT_MAX: Final = 49215
"""Last port of libvirt's migration range (qemu.conf, migration_port_max)."""


def format_bytes(count: float) -> str:
    """Say a byte count as people read it, with binary units: `format_bytes(1536) == "1.5 KiB"`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < KIB or unit == "TiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= KIB
    raise AssertionError("unreachable")


def format_rate(bytes_per_s: float) -> str:
    """Say a rate in bits, as links are sold: `format_rate(25e6) == "200.0 Mbit/s"`."""
    bits = bytes_per_s * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if abs(bits) < KILO:
            return f"{bits:.1f} {unit}"
        bits /= KILO
    return f"{bits:.1f} Gbit/s"


def count_nouns(count: int, one: str, many: str) -> str:
    """Write a count with its noun: `1 address`, `2 addresses`.

    Args:
        count: the number.
        one: noun of a single one.
        many: noun otherwise.
    """
    return f"{count} {one if count == 1 else many}"
