"""The fleet as facts of libvirtds and settings make it."""

from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.config import Config, PeerConfig
from dwcp_migrate.errors import NotFoundError, PlacementError
from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import CellFacts, HostFacts, capabilities_facts
from dwcp_migrate.orchestration.fleet_source import (
    FleetFile,
    FleetSettings,
    HostAddress,
    HostSettings,
    addresses,
    overhead_mib,
    read_settings,
    reserved_mib,
    write_settings,
)
from dwcp_migrate.placement.fleet import encode_fleet
from dwcp_migrate.units import GIB
from tests.orchestration.world import World, facts_of
from tests.placement.fleets import domain, fleet, host


def test_the_fleet_is_what_libvirt_and_the_settings_say(world: World) -> None:
    hypervisors = world.hypervisors
    hypervisors.hosts["hv1"] = HostFacts(
        cpus=8,
        memory_bytes=64 * GIB,
        cells=[CellFacts(cpus=4, memory_bytes=32 * GIB)] * 2,
        huge_pages={GIB: 4},
        huge_free={GIB: 3},
    )
    own = HostSettings(rack="r1", datacentre="dc1", overcommit={"vcpus": 2.0}, capacity={"gpu": 2.0})
    world.settings = FleetSettings(hosts={"hv1": own}, demand={"vm1": {"gpu": 1.0}})
    cpu = CpuFacts(mode="custom", model="Skylake-Server", text="<cpu/>")
    hypervisors.cpu_refusals["hv1", "Skylake-Server"] = "Host CPU does not provide required features: avx512f"
    big = DomainFacts(name="big", uuid="b", vcpus=4, memory_bytes=2 * GIB, cpu=cpu, huge_page_bytes=GIB)
    hypervisors.start("hv2", big)
    hypervisors.start("hv3", facts_of("vm2"))
    hypervisors.mark("hv3", "vm2", arriving=True)
    whole = world.source.snapshot()
    first = whole.hosts[0]
    assert (first.rack, first.capacity["gpu"], first.capacity["hugepages_1024m"], len(first.cells)) == ("r1", 2, 3, 2)
    found = {one.name: one for one in whole.domains}
    assert found["vm1"].demand["gpu"] == 1
    assert found["big"].demand == {"vcpus": 4, "hugepages_1024m": 2, "memory_mib": overhead_mib(big)}
    words = "its CPU does not offer Skylake-Server: Host CPU does not provide required features: avx512f"
    assert whole.bars[found["big"].bars[0]] == {"hv1": words}
    assert (found["vm2"].host, found["vm2"].arriving) == ("hv2", "hv3")


def test_memory_in_huge_pages_is_no_room_for_others(world: World) -> None:
    gigabytes = 256
    capabilities = capabilities_facts(
        f"<capabilities><host><topology><cells><cell id='0'><memory unit='GiB'>{gigabytes}</memory>"
        "<pages unit='KiB' size='4'>4194304</pages><pages unit='KiB' size='1048576'>240</pages><cpus/></cell></cells>"
        "</topology></host></capabilities>"
    )
    normal = gigabytes * GIB - sum(size * count for size, count in capabilities.huge_pages.items())
    world.hypervisors.hosts["hv3"] = HostFacts(cpus=64, memory_bytes=normal, huge_pages=capabilities.huge_pages)
    world.hypervisors.hosts["hv2"] = HostFacts(cpus=64, memory_bytes=4 * GIB)
    for name in ("hv1", "hv2"):
        world.hypervisors.running[name].clear()
    world.settings = FleetSettings()
    for number in range(5):
        world.hypervisors.start("hv1", facts_of(f"n{number}", 48 * GIB))
    plan = world.drain("hv1")
    assert plan.steps == []
    assert len(plan.left) == 5
    assert all("hv3: it has 15" in one.why and "memory_mib free" in one.why for one in plan.left)


def test_a_reserve_grows_with_its_host() -> None:
    assert [reserved_mib(mib) for mib in (2048, 16384, 262144)] == [512, 1024, 262144 * 0.02]


def test_a_host_on_which_another_domain_of_that_name_is_defined_is_not_planned_for(world: World) -> None:
    facts = msgspec.structs.replace(world.hypervisors.hosts["hv3"], defined={"vm3": "another", "vm5": "vm5"})
    world.hypervisors.hosts["hv3"] = facts
    plan = world.drain("hv1")
    assert {step.destination for step in plan.steps if step.domain == "vm3"} == {"hv2"}
    assert list(world.source.snapshot().bars.values()) == [{"hv3": "another domain named vm3 is defined there"}]


def test_a_silent_host_is_down_and_keeps_its_size(world: World) -> None:
    world.source.snapshot()
    world.hypervisors.dead.add("hv2")
    whole = world.source.snapshot()
    assert {one.name: one.state for one in whole.hosts} == {"hv1": "up", "hv2": "down", "hv3": "up"}
    assert whole.hosts[1].capacity["vcpus"] == 8
    assert {one.host for one in whole.domains} == {"hv1"}
    assert [rule.domains for rule in whole.rules] == [["vm1"]]


def test_two_guests_of_one_name_are_left_alone_and_do_not_block_the_rest(world: World) -> None:
    other = msgspec.structs.replace(facts_of("vm1"), uuid="another")
    world.hypervisors.start("hv3", other)
    whole = world.source.snapshot()
    found = {one.name: one for one in whole.domains if one.name.startswith("vm1")}
    assert set(found) == {"vm1@hv1", "vm1@hv3"}
    assert not any(one.movable for one in found.values())
    assert whole.rules[0].domains == ["vm0", "vm1@hv1", "vm1@hv3"]
    left = world.carry_out(world.drain("hv1"))
    assert [(one.domain, one.why) for one in left] == [
        ("vm1@hv1", "guests named vm1 run on hv1 and on hv3: give them names of their own")
    ]
    assert world.names("hv1") == {"vm1"}


def test_a_guest_that_is_left_over_on_a_second_host_is_said_to_be(world: World) -> None:
    world.hypervisors.start("hv3", facts_of("vm1"))
    why = {one.name: one.stays for one in world.source.snapshot().domains}["vm1@hv3"]
    assert why == "it runs on hv1 and on hv3 at once: one of them may be left over from a failed migration"


def test_a_host_with_a_guest_of_unknown_size_takes_nobody(world: World) -> None:
    world.hypervisors.start("hv2", DomainFacts(name="hung", uuid="h"))
    world.hypervisors.troubles["hung"] = "no reply"
    plan = world.drain("hv1")
    assert {step.destination for step in plan.steps} == {"hv3"}
    assert world.source.snapshot().hosts[1].closed == "how large hung is cannot be read there"


def test_a_guest_that_arrives_from_outside_the_fleet_stays_and_counts(world: World) -> None:
    world.hypervisors.start("hv3", facts_of("guest"))
    world.hypervisors.mark("hv3", "guest", arriving=True)
    found = {one.name: one for one in world.source.snapshot().domains}["guest"]
    assert (found.host, found.movable, found.stays) == ("hv3", False, "it is arriving there")


def test_addresses_are_those_that_are_configured_and_ipv6_is_in_brackets() -> None:
    config = Config(
        name="hv1",
        peers=[PeerConfig(name="hv2", addresses=["2001:db8::12"]), PeerConfig(name="hv3", addresses=["192.0.2.3"])],
    )
    found = addresses(config, "hv1")
    assert found["hv2"] == HostAddress(
        "qemu+ssh://[2001:db8::12]/system", "qemu+ssh://[2001:db8::12]/system", "tcp://[2001:db8::12]"
    )
    assert found["hv3"].migrate == "tcp://192.0.2.3"
    assert found["hv1"].migrate == ""


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
    with pytest.raises(NotFoundError, match="there is no file"):
        FleetFile(path).snapshot()
    with pytest.raises(PlacementError, match="cannot read"):
        FleetFile(tmp_path).snapshot()
    path.write_bytes(encode_fleet(whole))
    assert FleetFile(path).snapshot() == whole
