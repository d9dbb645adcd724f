"""Kept plans carried out: to their ends, paused, aborted, and taken up by another carrier."""

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.api.plans import (
    FailedMove,
    GuestWarmth,
    PlanRecord,
    PlanRequest,
    StoredPlan,
    WarmFirst,
    WarmMove,
)
from dwcp_migrate.api.warm_plan import with_outcomes
from dwcp_migrate.config import Config
from dwcp_migrate.errors import HypervisorError, PlacementError, UnfinishedError
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId
from dwcp_migrate.orchestration import carried_plan, plan_progress
from dwcp_migrate.orchestration.carried_plan import CarriedPlan
from dwcp_migrate.orchestration.plan_store import change_plan
from dwcp_migrate.orchestration.workspace import Workspace
from dwcp_migrate.placement.plan import Goal
from tests.orchestration.plan_shelf import PlanShelf
from tests.orchestration.world import World

DRAIN = PlanRequest(goal=Goal(purpose="drain", host="hv1"), reached=["hv1", "hv2", "hv3"])


class Fleet:
    """A world, a shelf with one plan, and carriers with state directories of their own."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world, self.shelf, self._directory = world, PlanShelf(), directory
        self.shelf.put(PlanRecord(request=DRAIN, by="hv1", asked_at=900.0), 0)
        world.drain("hv1")

    def carrier(self, own: str = "hv1") -> CarriedPlan:
        directory = self._directory / own
        directory.mkdir(exist_ok=True)
        ours = Workspace(Config(state_directory=directory), self.world.source, self.world.hosts)
        return CarriedPlan(ours, self.shelf, 1, own, clock=lambda: 1000.0)

    def wish(self, change: Callable[[PlanRecord], PlanRecord]) -> None:
        change_plan(self.shelf, 1, change)


@pytest.fixture
def fleet(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(carried_plan, "NOTE_S", 0.01)
    return Fleet(world, tmp_path)


def test_a_plan_is_carried_to_its_end_and_its_record_says_how(fleet: Fleet) -> None:
    fleet.carrier().carry_out()
    record = fleet.shelf.record()
    assert (record.state, record.exit_code, record.carrier, record.left) == ("completed", 0, "hv1", [])
    assert len(record.moved) == 4
    assert record.running == []
    kinds = [one.event for one in record.events]
    assert kinds[0] == "carried"
    assert kinds.count("done") == 4
    assert [one.serial for one in record.events] == list(range(1, len(kinds) + 1))
    assert fleet.world.names("hv1") == set()


def test_a_plan_that_has_ended_is_not_carried_out_again(fleet: Fleet) -> None:
    fleet.carrier().carry_out()
    before = fleet.shelf.all()
    fleet.carrier("hv2").carry_out()
    assert fleet.shelf.all() == before


def test_another_carrier_goes_on_and_knows_what_was_refused_where(fleet: Fleet) -> None:
    world = fleet.world

    def refuse(_uri: str, name: str, destination: str) -> None:
        if name == "vm1" and destination == "hv2":
            raise HypervisorError("Cannot get interface MTU on 'br0': No such device")

    world.hypervisors.before_migration = refuse
    first = plan_progress.taken(fleet.shelf.record(), "hv1", 950.0)
    failed = {"vm1": [FailedMove("hv2", "Cannot get interface MTU on 'br0': No such device")]}
    fleet.wish(lambda _: msgspec.structs.replace(first, failed=failed))
    fleet.carrier("hv3").carry_out()
    record = fleet.shelf.record()
    assert (record.state, record.carrier) == ("completed", "hv3")
    assert world.names("hv1") == set()
    assert [(name, to) for _, name, to in world.hypervisors.migrations if name == "vm1"][-1] == ("vm1", "hv3")
    assert any(one.event == "carried" and "hv1 carried it before" in one.words for one in record.events)


def warm_first(*moves: WarmMove) -> Callable[[PlanRecord], PlanRecord]:
    order = WarmFirst(begins_at=950.0, moves=list(moves))
    return lambda one: msgspec.structs.replace(one, request=msgspec.structs.replace(DRAIN, warm_first=order))


def test_guests_go_where_they_were_warmed_up_and_a_refused_warm_up_keeps_nothing_back(fleet: Fleet) -> None:
    usual = {name: to for _, name, to in drained(fleet)}
    moved = sorted(usual)
    for name in moved:
        fleet.world.hypervisors.running["hv1"][name] = fleet.world.hypervisors.running[usual[name]].pop(name)
    fleet.world.hypervisors.migrations.clear()
    fleet.shelf.plans.clear()
    fleet.shelf.put(PlanRecord(request=DRAIN, by="hv1", asked_at=900.0), 0)
    others = {name: "hv2" if to == "hv3" else "hv3" for name, to in usual.items()}
    fleet.wish(warm_first(*(WarmMove(name, "hv1", others[name]) for name in moved if name != "vm1")))
    words = "hv2 refused: it has no page store"
    fleet.wish(lambda one: with_outcomes(one, {name: GuestWarmth(at=940.0, words=words) for name in moved}))
    assert {name: to for _, name, to in drained(fleet) if name != "vm1"} == {
        name: to for name, to in others.items() if name != "vm1"
    }


def test_a_guest_that_is_refused_where_it_was_warmed_up_goes_elsewhere(fleet: Fleet) -> None:
    def refuse(_uri: str, name: str, destination: str) -> None:
        if name == "vm3" and destination == "hv2":
            raise HypervisorError("Cannot get interface MTU on 'br0': No such device")

    fleet.world.hypervisors.before_migration = refuse
    fleet.wish(warm_first(WarmMove("vm3", "hv1", "hv2"), WarmMove("vm5", "hv1", "hv2")))
    migrations = drained(fleet)
    assert [to for _, name, to in migrations if name == "vm3"] == ["hv2", "hv3"]
    assert [to for _, name, to in migrations if name == "vm5"] == ["hv2"]


def drained(fleet: Fleet) -> list[tuple[str, str, str]]:
    """Carry the plan out, to its end; the migrations."""
    fleet.carrier().carry_out()
    assert fleet.shelf.record().state == "completed"
    return list(fleet.world.hypervisors.migrations)


def test_a_plan_that_was_aborted_before_its_carrier_had_the_lease_stays_aborted(fleet: Fleet) -> None:
    look, ended = fleet.shelf.all, list[PlanRecord]()

    def look_then_abort() -> list[StoredPlan]:
        found = look()
        if not ended:
            ended.append(
                plan_progress.ended(plan_progress.wished(found[0].record, "abort", 1.0), [], 1.0, is_stopped=True)
            )
            fleet.shelf.put(ended[0], found[0].revision)
        return found

    fleet.shelf.all = look_then_abort  # type: ignore[method-assign]
    fleet.carrier().carry_out()
    assert fleet.shelf.record() == ended[0]
    assert fleet.world.hypervisors.migrations == []


def running(fleet: Fleet, *endless: str) -> tuple[CarriedPlan, threading.Thread, list[BaseException]]:
    """A carrier at work on a thread, some of whose migrations do not end by themselves."""
    fleet.world.hypervisors.endless |= set(endless)
    begun, errors = threading.Event(), list[BaseException]()
    fleet.world.hypervisors.before_migration = lambda *_: begun.set()
    carrier = fleet.carrier()

    def carry() -> None:
        try:
            carrier.carry_out()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=carry)
    thread.start()
    assert begun.wait(20)
    return carrier, thread, errors


def test_an_abort_that_comes_before_a_job_is_tried_again(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hypervisors = fleet.world.hypervisors
    names, abort, refused = fleet.world.names("hv1"), hypervisors.abort, set[str]()

    def not_yet(uri: str, guest: GuestId) -> None:
        if guest.name not in refused:
            refused.add(guest.name)
            raise HypervisorError(f"{uri}: no job is active on the domain")
        abort(uri, guest)

    monkeypatch.setattr(hypervisors, "abort", not_yet)
    _, thread, errors = running(fleet, *names)
    fleet.wish(lambda one: plan_progress.wished(one, "abort", 1000.0))
    thread.join(20)
    assert errors == []
    assert refused
    assert fleet.shelf.record().state == "aborted"


def test_an_abort_ends_what_runs_and_the_plan(fleet: Fleet) -> None:
    names = fleet.world.names("hv1")
    _, thread, errors = running(fleet, *names)
    fleet.wish(lambda one: plan_progress.wished(one, "abort", 1000.0))
    thread.join(20)
    assert errors == []
    record = fleet.shelf.record()
    assert (record.state, record.exit_code) == ("aborted", UnfinishedError.exit_code)
    assert fleet.world.names("hv1") == names
    assert len(fleet.world.hypervisors.migrations) <= 2


def test_a_pause_lets_what_runs_end_begins_nothing_and_is_resumed(fleet: Fleet) -> None:
    names = sorted(fleet.world.names("hv1"))
    _, thread, errors = running(fleet, *names)
    fleet.wish(lambda one: plan_progress.wished(one, "pause", 1000.0))
    released: set[str] = set()
    while thread.is_alive():
        for _, name, _ in list(fleet.world.hypervisors.migrations):
            if name not in released and name in fleet.world.names("hv1"):
                released.add(name)
                fleet.world.hypervisors.start_postcopy("hv1", GuestId(name))  # it ends well
        thread.join(0.02)
    assert errors == []
    record = fleet.shelf.record()
    assert (record.state, record.wish) == ("paused", "pause")
    assert 1 <= len(record.moved) <= 4
    fleet.world.hypervisors.endless.clear()
    fleet.wish(lambda one: plan_progress.wished(one, "run", 1000.0))
    assert fleet.shelf.record().state == "waiting"
    fleet.carrier("hv2").carry_out()
    assert fleet.shelf.record().state == "completed"
    assert len(fleet.shelf.record().moved) == 4


def test_a_carrier_that_is_told_to_end_leaves_what_runs_and_the_next_one_goes_on(fleet: Fleet) -> None:
    names = sorted(fleet.world.names("hv1"))
    carrier, thread, errors = running(fleet, *names)
    carrier.end_now()
    thread.join(20)
    assert [type(one) for one in errors] == [UnfinishedError]
    record = fleet.shelf.record()
    assert record.is_open
    for name in names:
        if name in {one for _, one, _ in fleet.world.hypervisors.migrations}:
            fleet.world.hypervisors.start_postcopy("hv1", GuestId(name))
    fleet.world.hypervisors.endless.clear()
    fleet.carrier().carry_out()
    assert fleet.shelf.record().state == "completed"
    assert fleet.world.names("hv1") == set()


def test_a_plan_whose_carrier_does_not_reach_a_host_is_refused_before_anything_moves(fleet: Fleet) -> None:
    fleet.world.hypervisors.dead.add("hv3")
    fleet.carrier().carry_out()
    record = fleet.shelf.record()
    assert (record.state, record.exit_code) == ("refused", PlacementError.exit_code)
    assert "its agent does not reach hv3: hv3: no answer" in record.note
    assert fleet.world.hypervisors.migrations == []


def test_a_host_that_is_silent_is_no_empty_host(fleet: Fleet) -> None:
    fleet.world.hypervisors.dead.add("hv1")
    fleet.wish(lambda one: msgspec.structs.replace(one, request=msgspec.structs.replace(DRAIN, reached=[])))
    fleet.carrier().carry_out()
    assert (fleet.shelf.record().state, fleet.shelf.record().exit_code) == ("refused", HypervisorError.exit_code)


def test_what_stays_is_named_in_the_record(fleet: Fleet) -> None:
    def refuse(_uri: str, name: str, _destination: str) -> None:
        if name == "vm3":
            raise HypervisorError("cannot migrate domain: it has a device of the host")

    fleet.world.hypervisors.before_migration = refuse
    fleet.carrier().carry_out()
    record = fleet.shelf.record()
    assert (record.state, record.exit_code) == ("partly", UnfinishedError.exit_code)
    assert [one.domain for one in record.left] == ["vm3"]
    assert "it has a device of the host" in record.left[0].why
