"""Load of domains from libvirt's counters, and plans by it."""

import msgspec
import pytest

from dwcp_migrate.cli.fleet.hosts import host_rows
from dwcp_migrate.errors import AgentUnreachableError
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.orchestration.fleet_source import FleetSettings
from dwcp_migrate.orchestration.measured_load import (
    OLD_S,
    LoadedFleet,
    MeasuredFleet,
    by_agents,
    loaded,
    rates,
)
from dwcp_migrate.placement.fleet import CPU_USED
from dwcp_migrate.placement.planner import plan_rebalance
from dwcp_migrate.protocol.load import FleetLoad, GuestLoad, HostLoad, LoadRange
from dwcp_migrate.units import GIB
from tests.orchestration.world import World, facts_of


def burning(world: World, *names: str, seconds: float = 10.0, cores: float = 2.5) -> MeasuredFleet:
    """The world's fleet, in which some domains use so many cores while it is measured."""

    def wait(_seconds: float) -> None:
        for name in names:
            world.hypervisors.cpu_time_s[name] = world.hypervisors.cpu_time_s.get(name, 0.0) + cores * seconds

    return MeasuredFleet(world.source, world.hypervisors, world.source.uris, seconds, wait)


def even(world: World) -> None:
    """Three hosts with three equal domains each."""
    world.settings = FleetSettings()
    for name in world.hypervisors.hosts:
        world.hypervisors.hosts[name] = HostFacts(cpus=8, memory_bytes=64 * GIB)
        world.hypervisors.running[name].clear()
        for number in range(3):
            world.hypervisors.start(name, facts_of(f"{name}-{number}"))


def test_a_host_that_is_hot_by_what_its_domains_use_is_relieved_though_promises_are_even(world: World) -> None:
    even(world)
    assert plan_rebalance(world.source.snapshot()).steps == []
    plan = plan_rebalance(burning(world, "hv1-0", "hv1-1", "hv1-2").snapshot())
    assert len(plan.steps) == 2
    assert {step.source for step in plan.steps} == {"hv1"}
    assert {step.destination for step in plan.steps} == {"hv2", "hv3"}


def test_a_fleet_that_is_used_evenly_is_left_alone(world: World) -> None:
    even(world)
    assert plan_rebalance(burning(world, "hv1-0", "hv2-0", "hv3-0").snapshot()).steps == []


def test_load_is_measured_once_however_often_a_plan_is_made_anew(world: World) -> None:
    waited: list[float] = []
    measured = MeasuredFleet(world.source, world.hypervisors, world.source.uris, 5.0, waited.append)
    measured.snapshot()
    measured.snapshot()
    assert waited == [5.0]


def test_a_domain_that_moved_or_began_meanwhile_has_no_figure_and_a_counter_that_fell_is_no_load() -> None:
    before = {"hv1": {"a": 10.0, "b": 10.0, "c": 10.0}}
    after = {"hv1": {"a": 30.0, "c": 5.0}, "hv2": {"b": 90.0, "new": 1.0}}
    assert rates(before, after, 10.0) == {"a": 2.0, "c": 0.0}


def test_what_is_used_never_counts_as_room(world: World) -> None:
    whole = world.source.snapshot()
    busy = loaded(whole, {one.uuid: 100.0 for one in whole.domains})
    assert all(CPU_USED not in one.demand for one in busy.domains)
    assert [one.capacity[CPU_USED] for one in busy.hosts] == [8.0, 8.0, 8.0]


def test_a_silent_host_costs_the_others_no_figure(world: World) -> None:
    world.hypervisors.dead.add("hv2")
    rows = {row.name: row for row in host_rows(burning(world, "vm1").snapshot())}
    assert (rows["hv1"].domains, rows["hv1"].cores_used) == (4, 2.5)
    assert (rows["hv2"].state, rows["hv2"].note, rows["hv2"].cores_used) == ("down", "hv2: no answer", None)


def test_rows_of_hosts_say_what_is_promised_of_what(world: World) -> None:
    row = host_rows(world.source.snapshot())[0]
    assert (row.name, row.domains, row.vcpus_promised, row.vcpus, row.cores) == ("hv1", 4, 8, 32, 8)
    assert 4096 < row.memory_mib_promised < 4096 * 1.2
    assert msgspec.to_builtins(row)["cores_used"] is None


def told(world: World, cores: float, *names: str, at: float = 1000.0, silent: str = "") -> FleetLoad:
    """What the agents say: some domains use so many cores, the others nearly none."""
    guests = {
        one.uuid: GuestLoad(
            one.uuid, cpu=usage(cores if name in names else 0.1), dirty=usage(5e6) if name in names else None
        )
        for there in world.hypervisors.running.values()
        for name, one in there.items()
    }
    hosts = {name: HostLoad(at=at, every_s=10.0) for name in world.hypervisors.hosts if name != silent}
    return FleetLoad(hosts=hosts, guests=guests)


def usage(value: float) -> LoadRange:
    return LoadRange(value / 2, value, value)


def test_what_agents_know_of_the_last_hour_decides_without_being_asked_to_measure(world: World) -> None:
    even(world)
    said = told(world, 2.5, "hv1-0", "hv1-1", "hv1-2")
    fleet = by_agents(world.source.snapshot(), said, 1010.0)
    plan = plan_rebalance(fleet)
    assert {step.source for step in plan.steps} == {"hv1"}
    assert len(plan.steps) == 2
    assert {one.dirty_bytes_per_s for one in fleet.domains if one.name.startswith("hv1")} == {5e6}


@pytest.mark.parametrize("how", ["silent", "old"])
def test_where_a_host_that_is_up_tells_nothing_of_now_use_counts_nowhere(world: World, how: str) -> None:
    even(world)
    plain = world.source.snapshot()
    said = told(world, 2.5, "hv1-0", silent="hv2" if how == "silent" else "")
    assert by_agents(plain, said, 1010.0 if how == "silent" else 1000.0 + OLD_S) == plain


def test_a_domain_that_was_not_measured_is_taken_for_as_busy_as_most(world: World) -> None:
    even(world)
    found = loaded(world.source.snapshot(), {"hv1-0": 1.0, "hv1-1": 1.0})  # of two vCPUs each
    assert {one.load[CPU_USED] for one in found.domains} == {1.0}


def test_without_an_agent_promises_count(world: World) -> None:
    def nobody() -> FleetLoad:
        raise AgentUnreachableError("no agent")

    assert LoadedFleet(world.source, nobody).snapshot() == world.source.snapshot()
