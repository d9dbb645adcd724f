"""Plans on hypervisors that are played: the fleet as facts, the journal, carrying out, resuming, planning again."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.errors import HypervisorError, PlacementError
from dwcp_migrate.hypervisor.fake_inventory import FakeHypervisors
from dwcp_migrate.hypervisor.inventory import CellFacts, DomainFacts, HostFacts
from dwcp_migrate.orchestration import plan_journal as journals
from dwcp_migrate.orchestration.executor import FAILURES_MAX, PLANS_MAX, Hosts, PlanExecutor
from dwcp_migrate.orchestration.fleet_source import (
    FleetFile,
    FleetSettings,
    HostSettings,
    LibvirtFleet,
    read_settings,
    write_settings,
)
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import Rule, encode
from dwcp_migrate.placement.plan import Plan, Step, Unfinished
from dwcp_migrate.placement.planner import plan_drain, plan_rebalance
from dwcp_migrate.units import GIB
from tests.placement.fleets import domain, fleet, host


class Seen:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.failures: list[str] = []
        self.plans = 0

    def begun(self, step: Step) -> None:
        self.steps.append(step.domain)

    def ended(self, step: Step, error: str) -> None:
        if error:
            self.failures.append(step.domain)

    def planned_again(self, plan: Plan, why: str) -> None:
        del plan, why
        self.plans += 1


class World:
    """Three hosts, eight domains on the first two, and a state directory."""

    def __init__(self, directory: Path) -> None:
        facts = HostFacts(cpus=8, memory_bytes=64 * GIB)
        self.hypervisors = FakeHypervisors(dict.fromkeys(("hv1", "hv2", "hv3"), facts))
        self.settings = FleetSettings(rules=[Rule(name="pair", kind="apart", domains=["vm0", "vm1"])])
        for number in range(8):
            self.hypervisors.start("hv1" if number % 2 else "hv2", facts_of(f"vm{number}"))
        self.path = directory / "plan.journal"
        uris = {name: name for name in self.hypervisors.hosts}
        self.source = LibvirtFleet(self.hypervisors, uris, lambda: self.settings, {})
        self.hosts = Hosts(self.hypervisors, {name: (name, name) for name in uris})
        self.seen = Seen()

    def drain(self, name: str) -> Plan:
        own = {**self.settings.hosts, name: HostSettings(state="maintenance")}
        self.settings = msgspec.structs.replace(self.settings, hosts=own)
        return plan_drain(self.source.snapshot(), name)

    def executor(self, policy: PlacementPolicy | None = None) -> PlanExecutor:
        return PlanExecutor(self.hosts, self.source, self.seen, policy or PlacementPolicy(), clock=lambda: 1000.0)

    def carry_out(self, plan: Plan) -> list[Unfinished]:
        with PlanJournal.begin(self.path, plan) as journal:
            return self.executor().run(journal)

    def names(self, name: str) -> set[str]:
        return set(self.hypervisors.running[name])

    def sound(self) -> bool:
        whole = self.source.snapshot()
        return violations(whole, {one.name: one.host for one in whole.domains}) == []


def facts_of(name: str) -> DomainFacts:
    return DomainFacts(name=name, uuid=name, vcpus=2, memory_bytes=GIB)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def progress(path: Path) -> journals.PlanProgress:
    found = journals.read(path)
    assert found is not None
    return found


def test_a_drain_empties_a_host_and_breaks_no_rule(world: World) -> None:
    assert world.carry_out(world.drain("hv1")) == []
    assert world.names("hv1") == set()
    assert len(world.names("hv2") | world.names("hv3")) == 8
    assert world.sound()
    assert world.hypervisors.running_most <= PlacementPolicy().outgoing_max
    assert progress(world.path).ended == "completed"


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
    assert world.seen.plans == 1
    assert moved.domain in world.names(other)


def test_a_domain_that_fails_too_often_is_left_with_the_reason(world: World) -> None:
    def refuse(_uri: str, name: str, _destination: str) -> None:
        if name == "vm3":
            raise HypervisorError("vm3: internal error")

    world.hypervisors.before_migration = refuse
    left = world.carry_out(world.drain("hv1"))
    assert [one.domain for one in left] == ["vm3"]
    assert world.names("hv1") == {"vm3"}
    assert world.seen.failures == ["vm3"] * FAILURES_MAX
    assert progress(world.path).failures == {"vm3": FAILURES_MAX}


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
    assert world.seen.plans == (1 if fate == "stayed" else 0)
    assert PlanJournal.resume(world.path) is None


def test_a_stopped_plan_begins_nothing_more_and_says_so(world: World) -> None:
    executor = world.executor(PlacementPolicy(running_max=1))
    world.hypervisors.before_migration = lambda *_: executor.stop.set()
    plan = world.drain("hv1")
    with PlanJournal.begin(world.path, plan) as journal:
        executor.run(journal)
    assert len(world.hypervisors.migrations) == 1
    assert progress(world.path).ended == "stopped"


def test_a_fleet_that_never_holds_still_is_given_up(world: World) -> None:
    plan = world.drain("hv1")

    def shuffle(uri: str, name: str, _destination: str) -> None:
        del name
        raise HypervisorError(f"{uri}: always")

    world.hypervisors.before_migration = shuffle
    for number in range(8, 8 + FAILURES_MAX * PLANS_MAX):
        world.hypervisors.start("hv1", facts_of(f"vm{number}"))
    with PlanJournal.begin(world.path, plan) as journal, pytest.raises(PlacementError, match="overtaken"):
        world.executor(PlacementPolicy(running_max=1)).run(journal)
    assert progress(world.path).plans == PLANS_MAX
    assert progress(world.path).ended == "stopped"


def test_the_limits_of_migrations_at_once_hold_while_carrying_out(world: World) -> None:
    with PlanJournal.begin(world.path, world.drain("hv1")) as journal:
        world.executor(PlacementPolicy(running_max=1)).run(journal)
    assert world.hypervisors.running_most == 1


def test_one_process_holds_the_journal(world: World) -> None:
    plan = world.drain("hv1")
    with PlanJournal.begin(world.path, plan):
        with pytest.raises(PlacementError, match="has not ended"):
            PlanJournal.begin(world.path, plan)
        with pytest.raises(PlacementError, match="another process"):
            PlanJournal.resume(world.path)
    journal = PlanJournal.resume(world.path)
    assert journal is not None
    with journal:
        journal.end("abandoned")
    assert PlanJournal.resume(world.path) is None
    PlanJournal.begin(world.path, plan).close()


@pytest.mark.parametrize("text", ["", "nonsense\n", '{"step": 0, "state": "done"}\n', '{"ended": "completed"}\n'])
def test_what_is_no_journal_is_refused_or_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal"
    path.write_text(text)
    if text:
        with pytest.raises(PlacementError, match="journal"):
            journals.read(path)
    else:
        assert journals.read(path) is None
    assert journals.read(tmp_path / "absent") is None


def test_a_journal_that_speaks_of_a_step_it_does_not_have_is_refused(world: World) -> None:
    with PlanJournal.begin(world.path, world.drain("hv1")):
        pass
    with world.path.open("ab") as file:
        file.write(b'{"step": 99, "state": "done"}\n')
    with pytest.raises(PlacementError, match="step 99"):
        journals.read(world.path)


def test_the_journal_has_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with PlanJournal.begin(world.path, world.drain("hv1")):
        pass
    size = world.path.stat().st_size
    monkeypatch.setattr(journals, "JOURNAL_BYTES_MAX", size)
    assert journals.read(world.path)
    monkeypatch.setattr(journals, "JOURNAL_BYTES_MAX", size - 1)
    with pytest.raises(PlacementError, match="more than"):
        journals.read(world.path)


def test_the_fleet_is_what_libvirt_and_the_settings_say(world: World) -> None:
    hypervisors = world.hypervisors
    hypervisors.hosts["hv1"] = HostFacts(
        cpus=8,
        memory_bytes=64 * GIB,
        cells=[CellFacts(cpus=4, memory_bytes=32 * GIB)] * 2,
        huge_pages={GIB: 4},
        pools=["ceph", "no:big"],
    )
    own = HostSettings(rack="r1", datacentre="dc1", overcommit={"vcpus": 2.0}, capacity={"gpu": 2.0})
    world.settings = FleetSettings(hosts={"hv1": own}, demand={"vm1": {"gpu": 1.0}})
    big = DomainFacts(
        name="big", uuid="b", vcpus=4, memory_bytes=2 * GIB, cpu="big", cpu_key="key", huge_page_bytes=GIB
    )
    hypervisors.start("hv2", big)
    hypervisors.start("hv3", facts_of("vm2"))
    hypervisors.mark("hv3", "vm2", arriving=True)
    hypervisors.dead.add("hv9")
    whole = world.source.snapshot()
    first = whole.hosts[0]
    assert (first.rack, first.capacity["gpu"], first.capacity["hugepages_1024m"], len(first.cells)) == ("r1", 2, 4, 2)
    assert [one.cpu_models for one in whole.hosts] == [["none"], ["key"], ["key"]]
    found = {one.name: one for one in whole.domains}
    assert found["vm1"].demand["gpu"] == 1
    assert found["big"].demand == {"vcpus": 4, "hugepages_1024m": 2}
    assert (found["vm2"].host, found["vm2"].arriving) == ("hv2", "hv3")


def test_a_silent_host_is_down_and_keeps_its_size(world: World) -> None:
    world.source.snapshot()
    world.hypervisors.dead.add("hv2")
    whole = world.source.snapshot()
    assert {one.name: one.state for one in whole.hosts} == {"hv1": "up", "hv2": "down", "hv3": "up"}
    assert whole.hosts[1].capacity["vcpus"] == 8
    assert {one.host for one in whole.domains} == {"hv1"}
    assert [rule.domains for rule in whole.rules] == [["vm1"]]


def test_two_domains_of_one_name_are_refused(world: World) -> None:
    world.hypervisors.start("hv3", facts_of("vm1"))
    with pytest.raises(PlacementError, match="vm1 runs on hv1 and on hv3"):
        world.source.snapshot()


def test_settings_survive_their_file_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state" / "placement.json"
    assert read_settings(path) == FleetSettings()
    settings = FleetSettings(hosts={"a": HostSettings(state="maintenance")}, reserve_hosts=1)
    write_settings(path, settings)
    assert read_settings(path) == settings
    assert [one.name for one in path.parent.iterdir()] == ["placement.json"]
    path.write_text('{"hosts": {"a": {"state": "broken"}}}')
    with pytest.raises(PlacementError, match=r"hosts\[\.\.\.\]\.state"):
        read_settings(path)


def test_a_fleet_file_is_a_source(tmp_path: Path) -> None:
    whole = fleet([host("a")], [domain("x", "a")])
    path = tmp_path / "fleet.json"
    with pytest.raises(PlacementError, match="cannot read"):
        FleetFile(path).snapshot()
    path.write_bytes(encode(whole))
    assert FleetFile(path).snapshot() == whole
