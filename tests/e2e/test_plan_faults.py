"""Plans that meet what goes wrong on real hosts: each ends as docs/placement.md says, by exit code, and loses nobody.

Three hosts with shared state, eight guests; the commands run on hv1, the agents carry the plans. Every test takes the
guests where the one before left them, and makes whole what it broke.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import pytest

from dwcp_migrate.api.watch import WatchRecord
from dwcp_migrate.errors import HypervisorError, PlacementError, UnfinishedError
from dwcp_migrate.lab.guest import LabGuest
from dwcp_migrate.lab.hosts.hypervisor import END_LIBVIRTD, Hypervisor, start_libvirtd
from dwcp_migrate.lab.lab import Lab, LabOptions
from tests.e2e.plan_lab import COMMAND_S_MAX, WAN, PlanLab, busiest, small_guest
from tests.e2e.world import DOWNTIME_MS_NEVER, SLOW

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(900)]

NAMES: Final = ("hv1", "hv2", "hv3")
CUT_S: Final = 8.0
"""Long enough for every channel to notice, shorter than libvirt's keepalive."""

NEVER_S: Final = 40
"""Bound of a migration that does not converge; its first pass over SLOW takes ten."""

REFUSAL: Final = "/etc/libvirt/hooks/qemu.d/refuse"
LOOKS_AFTER: Final = 6


@pytest.fixture(scope="module")
def standing() -> Iterator[PlanLab]:
    with Lab.up(LabOptions(name=f"faults-{os.getpid()}", hosts=len(NAMES), link=WAN, owned=True)) as lab:
        made = PlanLab(lab, {"coordination": {"voters": list(NAMES), "timeout_s": 5.0}})
        made.until(lambda: all(lab.agents[name].get("/v1/cluster")["engine"]["leader"] for name in NAMES))
        yield made


@pytest.fixture
def place(standing: PlanLab) -> Iterator[PlanLab]:
    """The lab, whole, with every host open and all guests where they run well."""
    yield standing
    standing.lab.wan.heal()
    standing.lab.wan.set(WAN)
    for name in NAMES:
        done = standing.say("undrain", name)
        assert done.returncode == 0, done.stdout + done.stderr
    standing.check()


@contextmanager
def silent(host: Hypervisor) -> Iterator[None]:
    """While the block lasts, a host's libvirtd does not run; its guests do."""
    host.run(["sh", "-c", END_LIBVIRTD])
    try:
        yield
    finally:
        start_libvirtd(host)


@contextmanager
def extra(place: PlanLab, host: Hypervisor, *guests: LabGuest) -> Iterator[None]:
    """While the block lasts, there are more guests."""
    for guest in guests:
        guest.start(host)
    try:
        yield
    finally:
        for guest in guests:
            guest.destroy(*place.lab.hypervisors)


def said(done: "subprocess.CompletedProcess[str]") -> str:
    return f"{done.returncode}: {done.stdout}{done.stderr}"


def drained(place: PlanLab, host: str, *options: str) -> dict[str, list[str]]:
    """Drain a host, which has to succeed; who runs where then."""
    done = place.say("drain", host, *options)
    assert done.returncode == 0, said(done)
    assert f"{host} is empty" in done.stdout
    where = place.where()
    assert where[host] == [], where
    return where


def test_a_drain_of_a_host_whose_libvirtd_is_stopped_fails_in_words_and_later_goes_on(place: PlanLab) -> None:
    before = place.check()
    source = busiest(before, but="hv1")
    with silent(place.lab[source]):
        done = place.say("drain", source)
        assert done.returncode == HypervisorError.exit_code, said(done)
        assert source in done.stderr
        assert "is empty" not in done.stdout
    assert place.where() == before
    drained(place, source)


def test_a_drain_goes_around_another_host_whose_libvirtd_is_stopped(place: PlanLab) -> None:
    before = place.check()
    source = busiest(before, but="hv1")
    (other,) = set(NAMES) - {"hv1", source}
    with silent(place.lab[other]):
        done = place.say("drain", source)
        assert done.returncode == 0, said(done)
    assert place.where() == {"hv1": sorted([*before["hv1"], *before[source]]), source: [], other: before[other]}


def test_a_guest_whose_qemu_hangs_is_named_and_the_others_leave(place: PlanLab) -> None:
    source = busiest(place.check())
    host = place.lab[source]
    hung, *others = place.where()[source]
    assert others
    host.run(["sh", "-c", f"kill -STOP $(cat /run/libvirt/qemu/{hung}.pid)"])
    waiting = host.popen(["virsh", "qemu-monitor-command", hung, "--hmp", "info status"])  # holds the domain's lock
    try:
        done = place.say("drain", source)
        assert done.returncode == UnfinishedError.exit_code, said(done)
        assert f"{hung} stays on {source}: " in done.stderr
        assert "state change lock" in done.stderr
        assert host.domains() == [hung]
    finally:
        host.run(["sh", "-c", f"kill -CONT $(cat /run/libvirt/qemu/{hung}.pid)"])
        waiting.communicate(timeout=60)
    place.check()
    drained(place, source)


def test_a_guest_that_cannot_move_is_named_before_anything_moves_and_the_others_leave(place: PlanLab) -> None:
    source = busiest(place.check())
    kept = LabGuest(small_guest("kept", 20, disk_mib=16))
    with extra(place, place.lab[source], kept):
        shown = place.say("drain", source, "--dry-run")
        assert (shown.returncode, "kept stays on" in shown.stdout) == (PlacementError.exit_code, True), said(shown)
        done = place.say("drain", source)
        assert done.returncode == UnfinishedError.exit_code, said(done)
        assert f"kept stays on {source}: disk vda" in done.stderr
        assert place.where()[source] == ["kept"]
        again = place.say("drain", source)
        assert again.returncode == PlacementError.exit_code, said(again)  # nothing could be moved any more


def test_a_guest_that_never_converges_is_given_up_with_its_figures_and_runs_on(place: PlanLab) -> None:
    source = busiest(place.check())
    drained(place, source)
    assert place.say("undrain", source).returncode == 0
    host, busy = place.lab[source], LabGuest(small_guest("busy", 21, fill_mib=32, dirty_pages_per_s=300))
    with extra(place, host, busy):
        place.lab.wan.set(SLOW)
        command = subprocess.Popen(
            place.argv("drain", source, "--timeout", str(NEVER_S)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        limit = ("migrate-setmaxdowntime", busy.name, str(DOWNTIME_MS_NEVER))
        place.until(lambda: "Outgoing migration" in host.virsh("domjobinfo", busy.name, check=False).stdout)
        place.until(lambda: host.virsh(*limit, check=False).returncode == 0)
        output, errors = command.communicate(timeout=COMMAND_S_MAX)
        assert command.returncode == PlacementError.exit_code, output + errors
        assert f"busy stays on {source}: " in errors
        assert f"did not end within {NEVER_S} s" in errors
        assert busy.running_on(*place.lab.hypervisors) == [source]
        busy.wait_report(host, after=busy.report(host))


def test_a_destination_that_refuses_is_left_out_and_the_next_one_takes_them(place: PlanLab) -> None:
    before = place.check()
    source = busiest(before)
    taking, refusing = (name for name in NAMES if name != source)
    script = f"printf '#!/bin/sh\\n[ \"$2\" != migrate ]\\n' > {REFUSAL} && chmod 755 {REFUSAL}"
    place.lab[refusing].run(["sh", "-c", script])
    try:
        where = drained(place, source)
    finally:
        place.lab[refusing].run(["rm", "-f", REFUSAL])
    assert where == {taking: sorted([*before[taking], *before[source]]), source: [], refusing: before[refusing]}


def test_a_link_cut_in_the_middle_costs_time_and_the_drain_comes_to_its_end(place: PlanLab) -> None:
    source = busiest(place.check(), but="hv1")
    command = place.begin("drain", source)
    place.lab.wan.cut(source)
    time.sleep(CUT_S)  # the cut itself: nothing tells when it was long enough
    place.lab.wan.heal(source)
    output, _ = command.communicate(timeout=COMMAND_S_MAX)
    assert command.returncode == 0, output
    assert place.where()[source] == []


def test_the_next_agent_goes_on_when_terminal_and_carrier_are_gone(place: PlanLab) -> None:
    source = busiest(place.check(), but="hv1")
    command = place.begin("drain", source)
    number = json.loads(place.say("plans", "--json").stdout)[-1]["id"]
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    place.lab.agents["hv1"].kill()
    try:
        done = place.say("plan", "show", str(number), "--follow", on="hv2")
        assert done.returncode == 0, said(done)
        assert place.where()[source] == []
    finally:
        place.start_agent(place.lab["hv1"])
        place.until(lambda: place.lab.agents["hv1"].get("/v1/cluster")["engine"]["leader"])


def test_a_hot_guest_is_moved_by_the_watch_and_nothing_after_that(place: PlanLab) -> None:
    evened = place.say("rebalance", "--apply")
    assert evened.returncode == 0, said(evened)
    hot = busiest(place.check())
    warm = [LabGuest(small_guest(f"warm{n}", 30 + n, fill_mib=16, check_pages_per_s=6000)) for n in range(3)]
    with extra(place, place.lab[hot], *warm):
        place.until(lambda: level(place, hot) > 2 * max(level(place, name) for name in NAMES if name != hot))
        settings = {"threshold": f"{0.7 * level(place, hot):.3f}", "margin": 0.02, "hold_s": 20, "every_s": 10}
        changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        assert place.say("rebalance", "--watch", "on", *changes).returncode == 0
        try:
            place.until(lambda: any(one.outcome for one in report(place).rounds), COMMAND_S_MAX)
            (done,) = [one for one in report(place).rounds if one.plan]
            assert done.outcome.startswith("completed"), done
            assert 1 <= len(done.moves) <= 2, done
            assert all(f"{hot} -> " in move for move in done.moves), done
            settled, looks = place.where(), report(place).looks
            place.until(lambda: report(place).looks >= looks + LOOKS_AFTER, COMMAND_S_MAX)
            assert [one for one in report(place).rounds if one.plan] == [done]
            assert place.where() == settled
        finally:
            assert place.say("rebalance", "--watch", "off").returncode == 0


def level(place: PlanLab, host: str) -> float:
    """Share of a host's cores that its guests use, as its agents measured it; 0 while nobody has."""
    (row,) = [one for one in json.loads(place.say("hosts", "--json").stdout) if one["name"] == host]
    return float(row["cores_used"] or 0.0) / float(row["cores"])


def report(place: PlanLab) -> WatchRecord:
    """The watch's record."""
    return msgspec.json.decode(place.say("rebalance", "--report", "--json").stdout, type=WatchRecord)
