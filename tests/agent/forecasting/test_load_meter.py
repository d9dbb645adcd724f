"""Loads from counters: minutes, quantiles, the disk."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.forecasting.load_meter import KEPT, LoadMeter, guest_rates
from dwcp_migrate.hypervisor.load_counters import GuestCounters, HostCounters
from dwcp_migrate.protocol.load import HostLoad


def counters(cpu_s: float, disk: float = 0.0, **more: float) -> HostCounters:
    return HostCounters(busy_s=2 * cpu_s, memory_bytes=7.0, guests={"a": GuestCounters(cpu_s, 5.0, disk)}, **more)


def run(meter: LoadMeter, cores: list[float], since: float = 0.0, step_s: float = 10.0) -> HostLoad:
    """Let a guest use so many cores, a step each."""
    used = 0.0
    meter.take(since, counters(0.0))
    for number, value in enumerate(cores, 1):
        used += value * step_s
        meter.take(since + number * step_s, counters(used, disk=number * step_s * 100))
    return meter.load(step_s)


def test_a_guest_s_load_is_what_its_counters_grew_by() -> None:
    load = run(LoadMeter(None), [1.5] * 12)
    (guest,) = load.guests
    assert guest.uuid == "a"
    assert guest.cpu is not None
    assert guest.cpu.median == guest.cpu.high == pytest.approx(1.5)
    assert load.cpu is not None
    assert load.cpu.now == pytest.approx(3.0)
    assert guest.disk is not None
    assert guest.disk.now == pytest.approx(100.0)
    assert guest.network is None
    assert load.stalled is None
    assert (load.total, load.every_s, load.at) == (1, 10.0, 120.0)


def test_a_guest_that_is_busy_six_minutes_an_hour_is_not_idle() -> None:
    load = run(LoadMeter(None), [0.0] * 6 * 52 + [4.0] * 6 * 8)
    (guest,) = load.guests
    assert guest.cpu is not None
    assert guest.cpu.median == 0.0
    assert guest.cpu.high == pytest.approx(4.0)


def test_the_last_hour_counts_and_no_more() -> None:
    load = run(LoadMeter(None), [4.0] * 6 * 10 + [1.0] * 6 * (KEPT + 1))
    (guest,) = load.guests
    assert guest.cpu is not None
    assert guest.cpu.high == pytest.approx(1.0)


def test_an_agent_that_starts_knows_the_last_hour(tmp_path: Path) -> None:
    first = LoadMeter(tmp_path)
    run(first, [2.0] * 6 * 30)
    first.flush()
    assert first.error == ""
    load = run(LoadMeter(tmp_path), [0.5], since=2000.0)
    (guest,) = load.guests
    assert guest.cpu is not None
    assert guest.cpu.median == pytest.approx(2.0)
    assert guest.cpu.now == pytest.approx(0.5)


def test_a_counter_that_began_anew_has_no_rate() -> None:
    assert guest_rates(GuestCounters(cpu_s=9.0), GuestCounters(cpu_s=1.0), 1.0) == {}
    assert guest_rates(None, GuestCounters(cpu_s=9.0, memory_bytes=3.0), 1.0) == {"memory": 3.0}


def test_a_guest_that_left_is_told_of_no_more() -> None:
    meter = LoadMeter(None)
    run(meter, [1.0, 1.0])
    meter.take(30.0, HostCounters(busy_s=90.0))
    assert meter.load().guests == []


def test_guests_past_the_limit_are_not_kept() -> None:
    meter = LoadMeter(None, kept=2)
    for at, used in ((0.0, 0.0), (10.0, 10.0)):
        meter.take(at, HostCounters(guests={name: GuestCounters(cpu_s=used) for name in "abc"}))
    assert [one.uuid for one in meter.load().guests] == ["a", "b"]
