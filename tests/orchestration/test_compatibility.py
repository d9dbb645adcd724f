"""Guests of real fleets and the hosts that cannot run them, each with its reason in words."""

from typing import Any

import msgspec
import pytest

from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DiskFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import CellFacts, HostFacts, PoolFacts
from dwcp_migrate.orchestration.compatibility import Compatibility
from dwcp_migrate.orchestration.fleet_source import FleetSettings, LibvirtFleet
from dwcp_migrate.orchestration.storage import StorageMap
from dwcp_migrate.placement.planner import plan_drain
from dwcp_migrate.units import GIB, MIB
from tests.orchestration.world import World

NAS = PoolFacts(name="nas", kind="netfs", source="netfs nas1 /export", path="/mnt/vms")
IMAGES = PoolFacts(name="default", kind="dir", path="/var/lib/libvirt/images", marks={"a.qcow2": "17.1"})
MILAN = CpuFacts(mode="custom", model="EPYC-Milan", text="<milan/>", arch="x86_64")
ROME = CpuFacts(mode="custom", model="EPYC-Rome", text="<rome/>", arch="x86_64")


def host(**more: Any) -> HostFacts:
    return HostFacts(cpus=16, memory_bytes=64 * GIB, **more)


def guest(**more: Any) -> DomainFacts:
    return DomainFacts(name="web1", uuid="1", vcpus=2, memory_bytes=4 * GIB, **more)


def judged(
    one: DomainFacts, here: HostFacts, there: HostFacts, *, shared: tuple[str, ...] = (), copies: bool = False
) -> str:
    """Why a guest of `hv1` cannot run on `hv2`, or leaves no host at all; empty when it can."""

    def refuse(name: str, cpu: CpuFacts) -> str:
        own = {"hv1": here, "hv2": there}[name].cpu
        lacks = own is not None and (cpu.model, own.model) == ("EPYC-Milan", "EPYC-Rome")
        return "Host CPU does not provide required features: pku" if lacks else ""

    hosts = {"hv1": here, "hv2": there}
    judge = Compatibility(hosts, StorageMap(hosts, shared), refuse, copies)
    if ties := judge.ties("hv1", one):
        return ties
    name = judge.judge("hv1", one)
    assert "hv1" not in judge.bars.get(name, {})
    return judge.bars[name]["hv2"] if name else ""


@pytest.mark.parametrize("mode", ["host-passthrough", "maximum"])
def test_a_guest_with_its_host_s_cpu_goes_only_where_that_cpu_is_offered(mode: str) -> None:
    one = guest(cpu=CpuFacts(mode=mode, text=f"<cpu mode='{mode}'/>"))
    words = "its CPU does not offer EPYC-Milan: Host CPU does not provide required features: pku"
    assert judged(one, host(cpu=MILAN), host(cpu=ROME)) == words
    assert judged(one, host(cpu=ROME), host(cpu=MILAN)) == ""
    assert judged(one, host(cpu=MILAN), host(cpu=MILAN)) == ""


def test_a_guest_with_its_host_s_cpu_stays_where_libvirt_cannot_describe_that() -> None:
    one = guest(cpu=CpuFacts(mode="host-passthrough"))
    assert judged(one, host(), host(cpu=MILAN)) == (
        "whether its CPU has all that hv1's has is not known, and the guest sees hv1's CPU (host-passthrough)"
    )


def test_a_guest_with_a_model_is_judged_by_the_model_and_not_by_its_host() -> None:
    assert judged(guest(cpu=ROME), host(cpu=MILAN), host(cpu=ROME)) == ""
    assert "does not offer EPYC-Milan" in judged(guest(cpu=MILAN), host(cpu=MILAN), host(cpu=ROME))


def test_a_bridge_or_interface_that_is_missing_bars_a_host() -> None:
    one = guest(bridges=("br-vlan774", "eth1"))
    assert judged(one, host(), host(interfaces=["eth1"])) == "it has no bridge or interface br-vlan774"
    assert judged(one, host(), host(interfaces=["eth1", "br-vlan774"])) == ""
    assert judged(one, host(), host(interfaces=None)) == "", "what libvirt does not say forbids nothing"
    assert judged(guest(networks=("dmz",)), host(), host(networks=["default"])) == "it has no network dmz"


def test_a_disk_on_the_network_is_reached_through_a_pool_of_the_same_source_at_the_same_path() -> None:
    one = guest(disks=(DiskFacts(target="vda", source="/mnt/vms/web1.raw"),))
    assert judged(one, host(pools=[NAS]), host(pools=[msgspec.structs.replace(NAS, name="another")])) == ""
    other = msgspec.structs.replace(NAS, source="netfs nas2 /export")
    assert judged(one, host(pools=[NAS]), host(pools=[other])) == (
        "it does not reach netfs nas1 /export as /mnt/vms, where disk vda is"
    )
    moved = msgspec.structs.replace(NAS, path="/mnt/other")
    assert "it does not reach" in judged(one, host(pools=[NAS]), host(pools=[moved]))
    network = guest(disks=(DiskFacts(target="vda", kind="network", source="rbd/web1"),))
    assert judged(network, host(), host()) == ""


def test_a_volume_is_found_by_the_name_of_its_pool_and_its_source() -> None:
    one = guest(disks=(DiskFacts(target="vda", kind="volume", source="web1", pool="nas"),))
    assert judged(one, host(pools=[NAS]), host(pools=[NAS])) == ""
    named = msgspec.structs.replace(NAS, name="another")
    assert "as pool nas" in judged(one, host(pools=[NAS]), host(pools=[named]))


def test_a_directory_of_the_same_name_is_not_the_same_storage() -> None:
    one = guest(disks=(DiskFacts(target="vda", kind="volume", source="web1", pool="default"),))
    other = msgspec.structs.replace(IMAGES, marks={"a.qcow2": "17.2"})
    assert judged(one, host(pools=[IMAGES]), host(pools=[other])) == (
        "disk vda (web1) is on hv1 alone as far as libvirt shows: --copy-storage-all copies disks, "
        "`shared` in placement.json names paths that all hosts share"
    )
    assert judged(one, host(pools=[IMAGES]), host(pools=[other]), copies=True) == ""
    assert judged(one, host(pools=[IMAGES]), host(pools=[other]), shared=("/var/lib/libvirt/images",)) == ""


def test_a_directory_in_which_both_hosts_see_the_same_file_is_the_same_storage() -> None:
    one = guest(disks=(DiskFacts(target="vda", source=f"{IMAGES.path}/web1.qcow2"),))
    same = msgspec.structs.replace(IMAGES, name="images", marks={"a.qcow2": "17.1", "b.qcow2": "18.0"})
    assert judged(one, host(pools=[IMAGES]), host(pools=[same])) == ""


def test_a_medium_is_never_copied_and_a_disk_without_a_pool_is_local() -> None:
    iso = guest(disks=(DiskFacts(target="sda", device="cdrom", source="/isos/debian.iso", copied=False),))
    words = judged(iso, host(), host(), copies=True)
    assert words.startswith("the medium in sda (/isos/debian.iso) is on hv1 alone")
    assert judged(iso, host(), host(), shared=("/isos/",)) == ""
    both = guest(
        disks=(DiskFacts(target="vda", source="/a/x"), DiskFacts(target="vdb", kind="block", source="/dev/vg/x"))
    )
    assert judged(both, host(), host()).startswith("disk vda (/a/x), disk vdb (/dev/vg/x) are on hv1 alone")
    by_id = guest(disks=(DiskFacts(target="vda", kind="block", source="/dev/disk/by-id/wwn-0x5000"),))
    assert judged(by_id, host(), host()) == ""


def test_a_machine_type_a_tpm_and_pinned_cpus_are_needed_there_too() -> None:
    assert judged(guest(machine="pc-q35-9.2"), host(), host(machines=frozenset({"pc-q35-8.0"}))) == (
        "its QEMU does not know machine type pc-q35-9.2"
    )
    assert judged(guest(machine="pc-q35-9.2"), host(), host()) == ""
    assert judged(guest(has_tpm=True), host(), host(has_tpm=False)) == "it cannot emulate a TPM"
    assert judged(guest(pinned_cpus=(3, 32, 33)), host(), host()) == (
        "it has no CPU 32, 33, to which the guest is pinned"
    )
    cells = [CellFacts(cpus=8, memory_bytes=GIB, number=number) for number in (0, 1)]
    assert judged(guest(pinned_cells=(1,)), host(cells=cells), host(cells=cells)) == ""
    assert judged(guest(pinned_cells=(1,)), host(cells=cells), host()) == (
        "it has no NUMA cell 1, to which the guest's memory is bound"
    )


def test_guests_that_need_the_same_are_judged_once() -> None:
    asked: list[str] = []

    def refuse(name: str, _cpu: CpuFacts) -> str:
        asked.append(name)
        return "no"

    hosts = {f"hv{number}": host() for number in range(4)}
    judge = Compatibility(hosts, StorageMap(hosts, ()), refuse)
    names = {judge.judge("hv0", guest(cpu=MILAN)) for _ in range(50)}
    assert (len(names), len(asked)) == (1, 4)


def test_a_guest_that_stays_anyway_is_not_judged_host_by_host(world: World) -> None:
    for name in ("vm1", "vm3"):
        facts = world.hypervisors.running["hv1"][name]
        local = DiskFacts(target="vda", source=f"/srv/{name}.raw")
        world.hypervisors.start("hv1", msgspec.structs.replace(facts, disks=(local,), bridges=("br9",)))
    whole = world.source.snapshot()
    assert whole.bars == {}
    assert [one.name for one in whole.domains if not one.movable] == ["vm1", "vm3"]


def test_a_guest_that_uses_a_device_of_its_host_stays_with_the_reason(world: World) -> None:
    facts = world.hypervisors.running["hv1"]["vm3"]
    tied = msgspec.structs.replace(facts, ties=("a passed-through PCI device of the host (0000:65:00.0)",))
    world.hypervisors.start("hv1", tied)
    left = world.carry_out(world.drain("hv1"))
    assert [(one.domain, one.why) for one in left] == [
        ("vm3", "it uses a passed-through PCI device of the host (0000:65:00.0)")
    ]
    assert "vm3" not in {name for _, name, _ in world.hypervisors.migrations}


def test_a_guest_with_a_local_disk_is_drained_when_it_is_copied(world: World) -> None:
    facts = world.hypervisors.running["hv1"]["vm3"]
    disk = DiskFacts(target="vda", source="/var/lib/libvirt/images/vm3.qcow2")
    world.hypervisors.start("hv1", msgspec.structs.replace(facts, disks=(disk,)))
    assert [one.domain for one in world.drain("hv1").left] == ["vm3"]
    copying = LibvirtFleet(world.hypervisors, world.source.uris, lambda: world.settings, {}, copies_storage=True)
    plan = plan_drain(copying.snapshot(), "hv1")
    assert plan.left == []
    copied, other = (next(step for step in plan.steps if step.domain == name) for name in ("vm3", "vm5"))
    assert copied.wire_bytes == other.wire_bytes + GIB, "the copy is part of the plan's cost"
    assert copied.seconds > other.seconds
    world.settings = FleetSettings(shared=["/var/lib/libvirt/images"])
    assert world.drain("hv1").left == []


def test_a_copied_disk_goes_only_where_its_pool_has_room_and_two_do_not_share_it(world: World) -> None:
    images = "/var/lib/libvirt/images"
    for name in ("vm3", "vm5"):
        disk = DiskFacts(target="vda", source=f"{images}/{name}.qcow2")
        world.hypervisors.start("hv1", msgspec.structs.replace(world.hypervisors.running["hv1"][name], disks=(disk,)))

    def left(**free: int | None) -> dict[str, str]:
        for host, facts in world.hypervisors.hosts.items():
            pool = PoolFacts(name="default", kind="dir", path=images, available_bytes=free.get(host))
            world.hypervisors.hosts[host] = msgspec.structs.replace(facts, pools=[pool])
        copying = LibvirtFleet(world.hypervisors, world.source.uris, lambda: world.settings, {}, copies_storage=True)
        plan = plan_drain(copying.snapshot(), "hv1")
        return {one.domain: one.why for one in plan.left}

    assert left() == {}  # what no pool says forbids nothing
    assert left(hv1=0, hv2=GIB, hv3=GIB) == {}
    (why,) = left(hv1=0, hv2=GIB, hv3=GIB - MIB).values()
    assert f"hv3: it has 1023 storage_mib in {images} free, 1024 are needed" in why
    assert set(left(hv1=10 * GIB, hv2=0, hv3=0)) == {"vm3", "vm5"}
