"""Hosts emptied after their guests were warmed up: from the word to an empty host, in order, with nothing lost.

Three hosts with shared state and page stores; the commands run on hv1, for other hosts, whose agents do the warm-ups.
"""

import datetime as dt
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.plans import PlanRecord
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.units import MIB
from tests.e2e.plan_lab import WAN, PlanLab, busiest

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1200)]

NAMES: Final = ("hv1", "hv2", "hv3")
AHEAD_S: Final = 150
"""From the command to the time of its plan: enough to warm up three guests, and to wait after that."""

DRAIN_S_MAX: Final = 720.0
"""For a drain with its warm-ups: three passes for each guest, one guest after the other, on a machine that is busy."""


@pytest.fixture(scope="module")
def standing() -> Iterator[PlanLab]:
    with Lab.up(LabOptions(name=f"warmplan-{os.getpid()}", hosts=len(NAMES), link=WAN, owned=True)) as lab:
        changes: dict[str, dict[str, Any]] = {
            "coordination": {"voters": list(NAMES), "timeout_s": 5.0},
            "store": {"bytes_max": 512 * MIB},
        }
        made = PlanLab(lab, changes)
        made.until(lambda: all(lab.agents[name].get("/v1/cluster")["engine"]["leader"] for name in NAMES))
        yield made


@pytest.fixture
def place(standing: PlanLab) -> Iterator[PlanLab]:
    """The lab with every host open and all guests where they run well."""
    yield standing
    for name in NAMES:
        assert standing.say("undrain", name).returncode == 0
    standing.check()


def begun(place: PlanLab, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(place.argv(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(command: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a command; its exit code and what it said."""
    said, _ = command.communicate(timeout=DRAIN_S_MAX)
    return command.returncode, said


def newest(place: PlanLab) -> PlanRecord:
    return msgspec.json.decode(place.say("plans", "--json").stdout, type=list[PlanRecord])[-1]


def begins(record: PlanRecord) -> list[float]:
    return [one.at for one in record.events if one.event == "begun"]


def known_pages(place: PlanLab, host: str, since: float) -> int:
    """Pages that the migrations from a host named since then."""
    found = msgspec.convert(place.lab.agents[host].get("/v1/history?limit=20")["migrations"], list[Migration])
    return sum(one.counters.pages.get("known", 0) for one in found if one.role == "source" and one.started_at >= since)


def test_a_host_is_emptied_once_its_guests_are_warm(place: PlanLab) -> None:
    before, since = place.check(), time.time()
    source = busiest(before, but="hv1")
    code, said = ended(begun(place, "drain", source, "--warm", "--warm-for", "8min"))
    assert code == 0, said
    assert f"warming 1 of {len(before[source])}" in said
    assert f"{source} is empty" in said
    where = place.check()
    assert where[source] == []
    record = newest(place)
    assert record.request.warm_first is not None
    moves = record.request.warm_first.moves
    assert sorted(one.domain for one in moves) == before[source]
    assert {name: one.words for name, one in record.warmed.items() if not one.is_warm} == {}
    assert sorted(record.warmed, key=lambda name: record.warmed[name].at) == [one.domain for one in moves]
    assert min(begins(record)) >= max(one.at for one in record.warmed.values())
    assert all(one.domain in where[one.destination] for one in moves)
    assert known_pages(place, source, since) > 0


def test_a_host_is_emptied_at_its_time_and_not_before(place: PlanLab) -> None:
    before = place.check()
    source = busiest(before, but="hv1")
    at = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=AHEAD_S)
    command = begun(place, "drain", source, "--at", at.isoformat())
    place.until(lambda: "waits until" in place.say("plans").stdout)
    assert place.where() == before
    code, said = ended(command)
    assert code == 0, said
    record = newest(place)
    assert min(begins(record)) >= at.timestamp()
    assert place.check()[source] == []
