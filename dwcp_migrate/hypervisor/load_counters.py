"""Libvirt's bulk statistics of a host and its guests as counters (pure): resources used so far, or held now.

The rule: one bulk call a host is enough. A figure that libvirt does not give is None; devices past DEVICES_MAX are not
counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dwcp_migrate.units import KIB, MIB

NANOSECONDS: Final = 1e9

DEVICES_MAX: Final = 256
"""Disks of one guest that are counted, and network interfaces."""

MEASURED: Final = 2
"""Libvirt's status of a dirty rate that was measured."""


@dataclass(frozen=True, slots=True)
class GuestCounters:
    """A guest.

    Attributes:
        cpu_s: CPU time so far.
        memory_bytes: that it has in use: by its own balloon driver, else what the host sees of it.
        disk_bytes: read and written so far; `network_bytes` received and sent.
        dirty_bytes_per_s: that it writes to memory, where QEMU was asked to measure that lately.
    """

    cpu_s: float | None = None
    memory_bytes: float | None = None
    disk_bytes: float | None = None
    network_bytes: float | None = None
    dirty_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class HostCounters:
    """A host and its guests.

    Attributes:
        busy_s: CPU time that was not idle so far, of all its cores.
        memory_bytes: that are neither free nor quickly freed.
        stalled_s: time so far in which somebody waited for memory.
        guests: by UUID.
    """

    busy_s: float | None = None
    memory_bytes: float | None = None
    stalled_s: float | None = None
    guests: dict[str, GuestCounters] = field(default_factory=dict)


def guest_counters(values: Mapping[str, Any]) -> GuestCounters:
    """Read one domain's record of libvirt's bulk statistics."""
    cpu = values.get("cpu.time")
    return GuestCounters(
        cpu_s=None if cpu is None else cpu / NANOSECONDS,
        memory_bytes=_memory_bytes(values),
        disk_bytes=_sum(values, "block", ("rd.bytes", "wr.bytes")),
        network_bytes=_sum(values, "net", ("rx.bytes", "tx.bytes")),
        dirty_bytes_per_s=_dirty(values),
    )


def _memory_bytes(values: Mapping[str, Any]) -> float | None:
    available, usable = values.get("balloon.available"), values.get("balloon.usable")
    if available is not None and usable is not None:
        return max(0.0, float(available - usable)) * KIB
    resident = values.get("balloon.rss")
    return None if resident is None else float(resident) * KIB


def _sum(values: Mapping[str, Any], kind: str, names: tuple[str, str]) -> float | None:
    count = values.get(f"{kind}.count")
    if count is None:
        return None
    found = 0.0
    for number in range(min(int(count), DEVICES_MAX)):
        for name in names:
            found += values.get(f"{kind}.{number}.{name}", 0)
    return found


def _dirty(values: Mapping[str, Any]) -> float | None:
    if values.get("dirtyrate.calc_status") != MEASURED:
        return None
    rate = values.get("dirtyrate.megabytes_per_second")
    return None if rate is None or rate < 0 else float(rate) * MIB


def busy_s(cpu: Mapping[str, int]) -> float | None:
    """CPU time of a host that was not idle, of libvirt's figures in nanoseconds; None where it has none."""
    if "user" not in cpu and "kernel" not in cpu:
        return None
    return (cpu.get("user", 0) + cpu.get("kernel", 0)) / NANOSECONDS


def held_bytes(memory: Mapping[str, int]) -> float | None:
    """Memory of a host that is neither free nor cache, of libvirt's figures in KiB; None where it has none."""
    if "total" not in memory or "free" not in memory:
        return None
    free = memory["free"] + memory.get("buffers", 0) + memory.get("cached", 0)
    return max(0.0, float(memory["total"] - free)) * KIB


def stalled_s(pressure: str) -> float | None:
    """Time so far in which some task waited for memory, out of /proc/pressure/memory; None for another text."""
    for line in pressure.splitlines():
        kind, _, rest = line.partition(" ")
        total = rest.rpartition("total=")[2]
        if kind == "some" and total.isdecimal():
            return int(total) / 1e6
    return None
