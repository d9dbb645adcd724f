"""Libvirt's bulk statistics as counters; the record is one of libvirt 11.3 with QEMU 10.0, its numbers made round."""

from typing import Any, Final

import pytest

from dwcp_migrate.hypervisor.load_counters import (
    DEVICES_MAX,
    GuestCounters,
    busy_s,
    guest_counters,
    held_bytes,
    stalled_s,
)
from dwcp_migrate.units import KIB, MIB

RECORD: Final[dict[str, Any]] = {
    "cpu.time": 12_500_000_000, "cpu.user": 11_000_000_000, "cpu.system": 1_500_000_000,
    "balloon.current": 4194304, "balloon.maximum": 4194304, "balloon.swap_in": 0, "balloon.swap_out": 0,
    "balloon.major_fault": 301, "balloon.minor_fault": 96000, "balloon.unused": 2900000, "balloon.available": 4000000,
    "balloon.usable": 3400000, "balloon.last-update": 1790000000, "balloon.disk_caches": 500000, "balloon.rss": 1200000,
    "net.count": 1, "net.0.name": "vnet3", "net.0.rx.bytes": 5000, "net.0.rx.pkts": 50, "net.0.rx.errs": 0,
    "net.0.rx.drop": 0, "net.0.tx.bytes": 7000, "net.0.tx.pkts": 60, "net.0.tx.errs": 0, "net.0.tx.drop": 0,
    "block.count": 2, "block.0.name": "vda", "block.0.path": "/srv/images/web1.qcow2", "block.0.backingIndex": 1,
    "block.0.rd.reqs": 10, "block.0.rd.bytes": 40960, "block.0.rd.times": 1, "block.0.wr.reqs": 5,
    "block.0.wr.bytes": 20480, "block.0.wr.times": 1, "block.0.allocation": 10, "block.0.capacity": 20,
    "block.1.name": "sda", "block.1.rd.bytes": 1024, "block.1.wr.bytes": 0,
    "dirtyrate.calc_status": 2, "dirtyrate.calc_start_time": 7, "dirtyrate.calc_period": 1,
    "dirtyrate.calc_mode": "page-sampling", "dirtyrate.megabytes_per_second": 3,
}  # fmt: skip


def test_a_record_of_libvirt_s_is_read() -> None:
    assert guest_counters(RECORD) == GuestCounters(
        cpu_s=12.5,
        memory_bytes=600_000 * KIB,
        disk_bytes=40960 + 20480 + 1024,
        network_bytes=12000,
        dirty_bytes_per_s=3 * MIB,
    )


def test_what_libvirt_does_not_say_is_none_and_not_nothing() -> None:
    assert guest_counters({}) == GuestCounters()
    unfinished = {**RECORD, "dirtyrate.calc_status": 1}
    assert guest_counters(unfinished).dirty_bytes_per_s is None
    assert busy_s({}) is None
    assert held_bytes({"total": 5}) is None


def test_without_a_balloon_driver_memory_is_what_the_host_sees() -> None:
    assert guest_counters({"balloon.current": 4194304, "balloon.rss": 1000}).memory_bytes == 1000 * KIB


@pytest.mark.parametrize(("count", "counted"), [(DEVICES_MAX, DEVICES_MAX), (DEVICES_MAX + 1, DEVICES_MAX)])
def test_devices_past_the_limit_are_not_counted(count: int, counted: int) -> None:
    values = {"net.count": count} | {f"net.{number}.rx.bytes": 1 for number in range(count)}
    assert guest_counters(values).network_bytes == counted


def test_a_host_s_figures_are_read() -> None:
    assert busy_s({"kernel": 2_000_000_000, "user": 3_000_000_000, "idle": 9, "iowait": 9}) == 5.0
    assert held_bytes({"total": 100, "free": 30, "buffers": 5, "cached": 15}) == 50 * KIB
    pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    assert stalled_s(pressure) == 2.5
    assert stalled_s("") is None
