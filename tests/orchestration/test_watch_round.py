"""Looks of the service that relieves the fleet: observed, done by a plan, and left alone."""

from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api import watch
from dwcp_migrate.api.plans import PlanRecord, PlanRequest, WarmFirst
from dwcp_migrate.api.watch import StoredWatch, WatchRecord, WatchRound, decode_watch, encode_watch
from dwcp_migrate.cli.plans.watching import settings_with, watch_words
from dwcp_migrate.config import Config
from dwcp_migrate.errors import PlacementError, StalePlanError
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.orchestration import carried_plan
from dwcp_migrate.orchestration.carried_plan import CarriedPlan
from dwcp_migrate.orchestration.fleet_source import FleetSettings, FleetSource
from dwcp_migrate.orchestration.measured_load import loaded
from dwcp_migrate.orchestration.watch_round import FleetLook
from dwcp_migrate.orchestration.workspace import Workspace
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.plan import Goal
from dwcp_migrate.placement.watch_settings import WatchMode, WatchSettings
from dwcp_migrate.units import GIB
from tests.orchestration.plan_shelf import PlanShelf
from tests.orchestration.world import World, facts_of


class WatchShelf:
    """The service's record, kept in memory."""

    def __init__(self, mode: WatchMode) -> None:
        self.stored = StoredWatch(revision=1, record=WatchRecord(settings=WatchSettings(mode=mode)))

    def read(self) -> StoredWatch:
        return self.stored

    def put(self, record: WatchRecord, revision: int) -> StoredWatch:
        if revision != self.stored.revision:
            raise StalePlanError("stale")
        self.stored = StoredWatch(revision=revision + 1, record=decode_watch(encode_watch(record)))
        return self.stored


class Busy:
    """A world of three hosts of eight cores whose use is set; a `FleetSource`."""

    def __init__(self, world: World, directory: Path) -> None:
        world.settings = FleetSettings()
        for name in world.hypervisors.hosts:
            world.hypervisors.hosts[name] = HostFacts(cpus=8, memory_bytes=64 * GIB)
            world.hypervisors.running[name].clear()
            for number in range(3):
                world.hypervisors.start(name, facts_of(f"{name}-{number}"))
        self.world, self.shelf = world, PlanShelf()
        self.cores: dict[str, float] | None = dict.fromkeys(("hv1-0", "hv1-1", "hv1-2"), 2.4)
        self.ours = Workspace(Config(state_directory=directory), self, world.hosts)
        self.now = 1000.0

    def snapshot(self) -> Fleet:
        fleet = self.world.source.snapshot()
        if self.cores is None:
            return fleet
        return loaded(fleet, {one.uuid: self.cores.get(one.name, 0.1) for one in fleet.domains})

    def look(self, watched: WatchShelf, times: int = 1) -> WatchRecord:
        for _ in range(times):
            FleetLook(self.ours, watched, self.shelf, "hv1", clock=lambda: self.now).look()
            self.now += 300.0
        return watched.stored.record

    def carry(self) -> None:
        number = max(self.shelf.plans)
        CarriedPlan(self.ours, self.shelf, number, "hv1", clock=lambda: self.now).carry_out()


@pytest.fixture
def busy(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Busy:
    monkeypatch.setattr(carried_plan, "NOTE_S", 0.01)
    found = Busy(world, tmp_path)
    source: FleetSource = found
    assert source is found
    return found


def test_off_asks_nobody_anything(busy: Busy) -> None:
    watched = WatchShelf("off")
    busy.cores = None
    assert busy.look(watched).looks == 0
    assert watched.stored.revision == 1


def test_observe_notes_what_it_would_have_done_and_moves_nobody(busy: Busy) -> None:
    watched = WatchShelf("observe")
    record = busy.look(watched, 4)
    assert [one.words for one in record.rounds[:3]] == ["not for 900 s yet"] * 3
    last = record.rounds[-1]
    assert (last.due, last.words, last.plan) == (["hv1"], "observed, not done", 0)
    assert len(last.moves) == 1
    assert last.hot == {"hv1": pytest.approx(0.9)}
    assert busy.shelf.plans == {}
    assert len(busy.world.names("hv1")) == 3
    again = busy.look(watched).rounds[-1]
    assert set(again.moves).isdisjoint(last.moves)  # who would have moved rests as if he had


def test_on_hands_its_moves_to_the_agents_and_says_what_came_of_them(busy: Busy) -> None:
    watched = WatchShelf("on")
    first = busy.look(watched, 4).rounds[-1]
    assert first.plan == 1
    assert busy.look(watched).rounds[-1].words == "plan 1 has not ended"
    busy.carry()
    assert len(busy.world.names("hv1")) == 2
    record = busy.look(watched, 10)
    assert record.rounds[3].outcome == "completed: 1 moved, 0 left"
    assert list(busy.shelf.plans) == [1]  # nothing more after that: no host is hot any more
    assert "completed: 1 moved, 0 left" in watch_words(record)


def test_a_plan_that_waits_for_its_time_is_no_hindrance_until_then(busy: Busy) -> None:
    order = WarmFirst(begins_at=busy.now + 4 * 300.0, waits=True)
    busy.shelf.put(PlanRecord(request=PlanRequest(goal=Goal(purpose="drain", host="hv3"), warm_first=order)), 0)
    watched = WatchShelf("on")
    assert busy.look(watched, 4).rounds[-1].plan == 2
    busy.shelf.plans.pop(2)
    assert busy.look(watched).rounds[-1].words == "plan 1 has not ended"


def test_a_fleet_whose_loads_are_not_known_is_not_judged_and_that_is_said(busy: Busy) -> None:
    watched = WatchShelf("on")
    busy.look(watched, 3)
    busy.cores = None
    record = busy.look(watched, 2)
    assert record.since == {}
    assert "not all hosts that are up told what they use" in record.words
    assert busy.shelf.plans == {}


def test_outside_of_its_windows_nothing_begins(busy: Busy) -> None:
    watched = WatchShelf("on")
    settings = settings_with(WatchSettings(), "on", ["windows=sun 23:00-23:05"])
    watched.stored = StoredWatch(revision=1, record=WatchRecord(settings=settings))
    assert busy.look(watched, 4).rounds[-1].words == "outside of the windows"
    assert busy.shelf.plans == {}


def test_settings_are_changed_by_name_and_what_is_none_is_refused() -> None:
    changed = settings_with(WatchSettings(), "on", ["threshold=0.9", "windows=mon-fri 22:00-06:00, sat 00:00-24:00"])
    assert (changed.mode, changed.threshold, len(changed.windows)) == ("on", 0.9, 2)
    for wrong in ("threshold=2", "speed=1", "threshold", "windows=always", "mode=off"):
        with pytest.raises(PlacementError):
            settings_with(WatchSettings(), "on", [wrong])


def test_the_record_keeps_its_newest_rounds_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [WatchRound(at=float(number), hot={"hv1": 0.9}) for number in range(watch.ROUNDS_KEPT + 1)]
    record = WatchRecord(rounds=rounds)
    assert decode_watch(encode_watch(record)).rounds == rounds[1:]
    monkeypatch.setattr(watch, "WATCH_BYTES_MAX", 2000)
    kept = decode_watch(encode_watch(record))
    assert 0 < len(kept.rounds) < watch.ROUNDS_KEPT
    assert kept.rounds[-1] == rounds[-1]
    with pytest.raises(PlacementError):
        decode_watch(b" " * 2001)
    assert msgspec.json.decode(encode_watch(WatchRecord())) is not None
