"""Plans carried out on hypervisors that are played: in full, resumed, refused, overtaken by events."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from dwcp_migrate.errors import HypervisorError, PlacementError, UnfinishedError
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions, TimeoutAction
from dwcp_migrate.orchestration import watched_migration
from dwcp_migrate.orchestration.executor import FRUITLESS_MAX, PlanExecutor
from dwcp_migrate.orchestration.fleet_source import FleetSettings
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.plan import Plan, Step, Unfinished
from dwcp_migrate.placement.planner import plan_rebalance
from dwcp_migrate.units import GIB
from tests.orchestration.world import World, facts_of, progress


def test_a_drain_empties_a_host_and_breaks_no_rule(world: World) -> None:
    assert world.carry_out(world.drain("hv1")) == []
    assert world.names("hv1") == set()
    assert len(world.names("hv2") | world.names("hv3")) == 8
    assert world.sound()
    assert world.hypervisors.running_most <= PlacementPolicy().outgoing_max
    assert progress(world.path).ended == "completed"
    assert world.seen.to_go == [3, 2, 1, 0]


def test_back_to_even_after_maintenance(world: World) -> None:
    world.carry_out(world.drain("hv1"))
    world.settings = FleetSettings(rules=world.settings.rules)
    assert world.carry_out(plan_rebalance(world.source.snapshot())) == []
    assert all(2 <= len(world.names(name)) <= 3 for name in ("hv1", "hv2", "hv3"))
    assert plan_rebalance(world.source.snapshot()).steps == []
    assert world.sound()


def test_a_host_that_dies_in_mid_plan_is_planned_around(world: World) -> None:
    plan = world.drain("hv1")
    begun: list[str] = []

    def die(_uri: str, name: str, destination: str) -> None:
        begun.append(name)
        if len(begun) == 2:
            world.hypervisors.dead.add(destination)

    world.hypervisors.before_migration = die
    lost = world.hypervisors.dead
    assert world.carry_out(plan) == []
    assert world.seen.plans >= 1
    alive = ({"hv2", "hv3"} - lost).pop()
    assert world.names("hv1") == set()
    assert world.names(alive)


def test_a_domain_that_is_elsewhere_by_now_is_planned_anew(world: World) -> None:
    plan = world.drain("hv1")
    moved = plan.steps[-1]
    other = ({"hv2", "hv3"} - {moved.destination}).pop()
    world.hypervisors.move("hv1", moved.domain, other)
    assert world.carry_out(plan) == []
    assert world.names("hv1") == set()
    assert world.seen.plans == 0  # nobody else's turn depends on it
    assert moved.domain in world.names(other)


def test_a_domain_that_is_refused_everywhere_is_left_with_each_reason(world: World) -> None:
    def refuse(_uri: str, name: str, destination: str) -> None:
        if name == "vm3":
            raise HypervisorError(f"no bridge br7 on {destination}")

    world.hypervisors.before_migration = refuse
    left = world.carry_out(world.drain("hv1"))
    assert [one.domain for one in left] == ["vm3"]
    assert "hv2: a migration there failed: no bridge br7 on hv2; hv3: a migration there failed" in left[0].why
    assert world.names("hv1") == {"vm3"}
    assert sorted(one.host for one in progress(world.path).failures["vm3"]) == ["hv2", "hv3"]


@pytest.mark.parametrize("refused", [1, 3, 12, 24, 40])
def test_what_libvirt_cannot_move_costs_one_attempt_and_nobody_else_its_turn(tmp_path: Path, refused: int) -> None:
    world = World(tmp_path, guests=0)
    for number in range(refused):
        world.hypervisors.start("hv1", facts_of(f"dev{number:02}", GIB * 2))
    for number in range(10):
        world.hypervisors.start("hv1", facts_of(f"web{number}"))

    def refuse(_uri: str, name: str, _destination: str) -> None:
        if name.startswith("dev"):
            raise HypervisorError("cannot migrate domain: 0000:65:00.0: VFIO migration is not supported in kernel")

    world.hypervisors.before_migration = refuse
    left = world.carry_out(world.drain("hv1"))
    assert world.names("hv1") == {f"dev{number:02}" for number in range(refused)} == {one.domain for one in left}
    assert all("VFIO migration is not supported" in one.why for one in left)
    assert len(world.hypervisors.migrations) == refused + 10


def test_where_one_host_refuses_all_the_next_best_one_takes_them(world: World) -> None:
    def refuse(_uri: str, _name: str, destination: str) -> None:
        if destination == "hv2":
            raise HypervisorError("Cannot get interface MTU on 'br-vlan774': No such device")

    world.hypervisors.before_migration = refuse
    world.settings = FleetSettings()
    assert world.carry_out(world.drain("hv1")) == []
    assert world.names("hv1") == set()


def test_a_lost_connection_is_tried_once_more(world: World) -> None:
    tried: list[str] = []

    def lose(_uri: str, name: str, destination: str) -> None:
        tried.append(name)
        if tried.count(name) == 1:
            world.hypervisors.dead.discard(destination)
            raise HypervisorError("Cannot recv data: Connection reset by peer")

    world.hypervisors.before_migration = lose
    assert world.carry_out(world.drain("hv1")) == []
    assert world.names("hv1") == set()


def test_a_silent_host_is_no_empty_host(world: World) -> None:
    world.hypervisors.dead.add("hv1")
    with pytest.raises(HypervisorError, match=r"hv1 does not answer.*no answer"):
        world.drain("hv1")


def test_a_host_that_falls_silent_while_it_is_drained_is_said_and_the_plan_can_go_on(world: World) -> None:
    plan = world.drain("hv1")
    world.hypervisors.before_migration = lambda *_: world.hypervisors.dead.add("hv1")
    with PlanJournal.begin(world.path, plan) as journal, pytest.raises(HypervisorError, match="hv1 does not answer"):
        world.executor(PlacementPolicy(running_max=1)).run(journal)
    world.hypervisors.dead.clear()
    world.hypervisors.before_migration = lambda *_: None
    resumed = PlanJournal.resume(world.path)
    assert resumed is not None
    with resumed:
        assert world.executor().run(resumed) == []
    assert world.names("hv1") == set()


def test_a_guest_that_hangs_is_left_by_name_with_libvirt_s_words(world: World) -> None:
    world.hypervisors.troubles["vm3"] = "Timed out during operation: cannot acquire state change lock"
    left = world.carry_out(world.drain("hv1"))
    assert [(one.domain, one.host) for one in left] == [("vm3", "hv1")]
    assert "cannot acquire state change lock" in left[0].why
    assert world.names("hv1") == {"vm3"}


def test_a_guest_that_arrives_while_the_host_is_drained_is_moved_too(world: World) -> None:
    def start_another(*_: str) -> None:
        world.hypervisors.before_migration = lambda *_: None
        world.hypervisors.start("hv1", facts_of("late"))

    world.hypervisors.before_migration = start_another
    assert world.carry_out(world.drain("hv1")) == []
    assert world.names("hv1") == set()
    assert world.seen.plans == 1


def test_a_drain_waits_for_migrations_that_others_began(world: World) -> None:
    hypervisors = world.hypervisors
    hypervisors.start("hv2", facts_of("vm3"))
    hypervisors.mark("hv2", "vm3", arriving=True)
    plan = world.drain("hv1")
    assert [one.domain for one in plan.left if one.in_flight] == ["vm3"]

    def arrive(left: list[Unfinished]) -> None:
        assert [one.domain for one in left] == ["vm3"]
        del hypervisors.running["hv1"]["vm3"]
        hypervisors.mark("hv2", "vm3", arriving=False)

    world.seen.on_waiting = arrive
    assert world.carry_out(plan) == []
    assert world.names("hv1") == set()


def test_a_migration_that_does_not_converge_is_aborted_at_its_bound(world: World) -> None:
    world.hypervisors.endless.add("vm3")
    with PlanJournal.begin(world.path, world.drain("hv1")) as journal:
        left = world.executor(PlacementPolicy(migration_s_max=0.2)).run(journal)
    assert [one.domain for one in left] == ["vm3"]
    assert "it did not end within 0 s (pass 7, 1.0 MiB left; it writes 16.0 Mbit/s" in left[0].why
    assert world.names("hv1") == {"vm3"}
    assert [name for _, name, _ in world.hypervisors.migrations].count("vm3") == 1


@pytest.mark.parametrize("action", ["postcopy", "suspend"])
def test_a_migration_past_its_bound_is_switched_to_what_the_options_say(world: World, action: TimeoutAction) -> None:
    world.hypervisors.endless.add("vm3")
    options = MigrationOptions(postcopy=True, timeout_s=0.2, timeout_action=action)
    executor = dataclasses.replace(world.executor(), options=options)
    with PlanJournal.begin(world.path, world.drain("hv1")) as journal:
        assert executor.run(journal) == []
    assert world.names("hv1") == set()


def test_a_migration_that_libvirt_cannot_end_is_waited_for_no_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_migration, "FAREWELL_S", 0.2)
    world.hypervisors.endless.add("vm3")
    world.hypervisors.deaf.add("vm3")
    with PlanJournal.begin(world.path, world.drain("hv1")) as journal:
        left = world.executor(PlacementPolicy(migration_s_max=0.2)).run(journal)
    assert [one.domain for one in left] == ["vm3"]
    assert "may still be under way" in left[0].why
    assert world.names("hv1") == {"vm3"}


def test_a_second_stop_leaves_what_runs_to_libvirt_and_the_plan_can_be_taken_up(world: World) -> None:
    world.hypervisors.endless.add("vm3")
    executor = world.executor()

    def press_twice(_uri: str, name: str, _destination: str) -> None:
        if name == "vm3":
            executor.stop.set()
            executor.leave.set()

    world.hypervisors.before_migration = press_twice
    with PlanJournal.begin(world.path, world.drain("hv1")) as journal, pytest.raises(UnfinishedError, match="vm3"):
        executor.run(journal)
    assert progress(world.path).ended is None
    assert "begun" in progress(world.path).states.values()
    world.hypervisors.abort("hv1", GuestId("vm3"))


def test_migrations_use_the_address_that_is_configured(world: World) -> None:
    assert world.carry_out(world.drain("hv1")) == []
    found = zip(world.hypervisors.migrations, world.hypervisors.options, strict=True)
    assert all(options.migrate_uri == f"tcp://{destination}" for (_, _, destination), options in found)


def test_a_migration_that_arrived_in_spite_of_an_error_is_done(world: World) -> None:
    def arrive_and_fail(uri: str, name: str, destination: str) -> None:
        world.hypervisors.move(uri, name, destination)
        raise HypervisorError("connection lost")

    world.hypervisors.before_migration = arrive_and_fail
    assert world.carry_out(world.drain("hv1")) == []
    assert world.seen.failures == []
    assert world.names("hv1") == set()


def killed(world: World, plan: Plan, begun: int, *, meanwhile: Callable[[Step], None]) -> None:
    """Leave a journal as SIGKILL leaves it: some steps done, one begun, half a line behind it."""
    journal = PlanJournal.begin(world.path, plan)
    for step in plan.steps[:begun]:
        journal.step(step.number, "begun", 1.0)
        world.hypervisors.move(step.source, step.domain, step.destination)
        journal.step(step.number, "done", 2.0)
    journal.step(begun, "begun", 3.0)
    meanwhile(plan.steps[begun])
    journal.close()
    with world.path.open("ab") as file:
        file.write(b'{"step": 3, "sta')


@pytest.mark.parametrize("fate", ["stayed", "arrived", "still runs"])
def test_a_plan_that_was_killed_goes_on_where_it_stopped(world: World, fate: str) -> None:
    plan = world.drain("hv1")

    def meanwhile(step: Step) -> None:
        if fate == "arrived":
            world.hypervisors.move(step.source, step.domain, step.destination)
        elif fate == "still runs":
            world.hypervisors.jobs[step.source, step.domain] = step.destination

    killed(world, plan, 1, meanwhile=meanwhile)
    journal = PlanJournal.resume(world.path)
    assert journal is not None
    with journal:
        assert world.executor().run(journal) == []
    assert world.names("hv1") == set()
    assert world.sound()
    moved = [name for _, name, _ in world.hypervisors.migrations]
    assert len(moved) == len(set(moved)) == len(plan.steps) - (1 if fate == "stayed" else 2)
    assert world.seen.plans == 0, "it is begun again, not planned anew"
    assert PlanJournal.resume(world.path) is None


def test_a_stopped_plan_begins_nothing_more_and_says_so(world: World) -> None:
    executor = world.executor(PlacementPolicy(running_max=1))
    world.hypervisors.before_migration = lambda *_: executor.stop.set()
    plan = world.drain("hv1")
    with PlanJournal.begin(world.path, plan) as journal:
        left = executor.run(journal)
    assert len(world.hypervisors.migrations) == 1
    assert progress(world.path).ended == "stopped"
    assert {one.domain for one in left} == world.names("hv1")


def test_a_fleet_that_never_holds_still_is_given_up(world: World) -> None:
    plan = world.drain("hv1")
    world.settings = FleetSettings()
    planned = [world.hypervisors.running["hv1"].pop(step.domain) for step in plan.steps]

    class Restless:
        """A fleet whose domains run on hv1 whenever it is read, and nowhere when a step begins."""

        def snapshot(self) -> Fleet:
            for facts in planned:
                world.hypervisors.start("hv1", facts)
            try:
                return world.source.snapshot()
            finally:
                world.hypervisors.running["hv1"].clear()

    executor = PlanExecutor(world.hosts, Restless(), world.seen)
    with PlanJournal.begin(world.path, plan) as journal, pytest.raises(PlacementError, match="overtaken"):
        executor.run(journal)
    assert world.seen.plans == FRUITLESS_MAX - 1
    assert progress(world.path).ended == "stopped"


def test_the_limits_of_migrations_at_once_hold_while_carrying_out(world: World) -> None:
    with PlanJournal.begin(world.path, world.drain("hv1")) as journal:
        world.executor(PlacementPolicy(running_max=1)).run(journal)
    assert world.hypervisors.running_most == 1
