"""Hosts and guests of the shape of public fault reports, from libvirt's own descriptions to what a drain says.

The descriptions are invented; each test names the kind of complaint that it answers.
"""

from typing import Any
from urllib.parse import urlsplit

import libvirt
import pytest

from dwcp_migrate.cli.fleet.planning import plan_text
from dwcp_migrate.config import Config, PeerConfig
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory.domain_description import DomainFacts, domain_facts
from dwcp_migrate.hypervisor.inventory.fake import FakeHypervisors
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts, PoolFacts
from dwcp_migrate.hypervisor.inventory.libvirt_hypervisors import read_domains
from dwcp_migrate.orchestration.fleet_source import FleetSettings, LibvirtFleet, addresses
from dwcp_migrate.placement.plan import Plan
from dwcp_migrate.placement.planner import plan_drain
from dwcp_migrate.units import GIB
from tests.hypervisor.inventory.test_hypervisors import ListedDomain, Listing, refused

BRIDGED = """<domain type='kvm'><name>app</name><uuid>6b0d9d0e-1111-4222-8333-0123456789ab</uuid>
<memory unit='KiB'>4194304</memory><vcpu>2</vcpu><devices>
<interface type='bridge'><source bridge='br-vlan774'/></interface>{more}</devices></domain>"""

LOCAL = """<disk type='file'><source file='/var/lib/libvirt/images/app.qcow2'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/isos/debian-13.iso'/><target dev='sda'/></disk>"""

DEVICE = """<hostdev mode='subsystem' type='pci' managed='yes'><source>
<address domain='0x0000' bus='0x65' slot='0' function='0'/></source></hostdev>"""


def source_of(hosts: dict[str, HostFacts], *guests: tuple[str, DomainFacts]) -> tuple[FakeHypervisors, LibvirtFleet]:
    """A fleet of played hosts with their guests."""
    played = FakeHypervisors(hosts)
    for host, facts in guests:
        played.start(host, facts)
    return played, LibvirtFleet(played, {name: name for name in hosts}, FleetSettings, {})


def drain(hosts: dict[str, HostFacts], *guests: DomainFacts) -> Plan:
    """The plan that empties hv1, where all guests run."""
    return plan_drain(source_of(hosts, *(("hv1", one) for one in guests))[1].snapshot(), "hv1")


def test_a_bridge_that_no_other_host_has_is_named_before_anything_moves() -> None:
    there, not_there = HostFacts(cpus=16, memory_bytes=64 * GIB, interfaces=["br-vlan774"]), ["br0"]
    plan = drain({"hv1": there, "hv2": HostFacts(cpus=16, memory_bytes=64 * GIB, interfaces=not_there)}, facts())
    assert [(one.domain, one.why) for one in plan.left] == [("app", "hv2: it has no bridge or interface br-vlan774")]


def facts(more: str = "") -> DomainFacts:
    return domain_facts(BRIDGED.format(more=more))


def test_a_local_disk_and_a_medium_in_the_drive_keep_a_guest_by_name() -> None:
    hosts = {name: HostFacts(cpus=16, memory_bytes=64 * GIB) for name in ("hv1", "hv2")}
    (left,) = drain(hosts, facts(LOCAL)).left
    assert (
        "disk vda (/var/lib/libvirt/images/app.qcow2), the medium in sda (/isos/debian-13.iso) are on hv1" in left.why
    )


def test_a_passed_through_device_keeps_a_guest_by_its_address() -> None:
    hosts = {name: HostFacts(cpus=16, memory_bytes=64 * GIB) for name in ("hv1", "hv2")}
    (left,) = drain(hosts, facts(DEVICE)).left
    assert left.why == "it uses a passed-through PCI device of the host (0000:65:00.0)"


def test_the_pool_default_of_one_host_is_not_that_of_another() -> None:
    pool = PoolFacts(name="default", kind="dir", path="/var/lib/libvirt/images")
    hosts = {name: HostFacts(cpus=16, memory_bytes=64 * GIB, pools=[pool]) for name in ("hv1", "hv2")}
    (left,) = drain(hosts, facts(LOCAL.partition("\n")[0])).left
    assert "is on hv1 alone as far as libvirt shows" in left.why


def test_memory_in_huge_pages_takes_no_normal_guest() -> None:
    hosts = {
        "hv1": HostFacts(cpus=64, memory_bytes=256 * GIB),
        "hv2": HostFacts(cpus=64, memory_bytes=16 * GIB, huge_pages={GIB: 240}),
    }
    guests = [DomainFacts(name=f"n{number}", uuid=str(number), vcpus=4, memory_bytes=48 * GIB) for number in range(5)]
    plan = drain(hosts, *guests)
    assert plan.steps == []
    assert {one.why.partition(",")[0] for one in plan.left} == {"hv2: it has 15360 memory_mib free"}


def test_two_guests_of_one_name_leave_the_rest_of_the_fleet_to_be_planned() -> None:
    one = [DomainFacts(name="test", uuid=uuid, vcpus=2, memory_bytes=4 * GIB) for uuid in ("2", "3")]
    web = DomainFacts(name="web1", uuid="1", vcpus=2, memory_bytes=4 * GIB)
    hosts = {name: HostFacts(cpus=16, memory_bytes=64 * GIB) for name in ("hv1", "hv2", "hv3")}
    _, source = source_of(hosts, ("hv1", web), ("hv2", one[0]), ("hv3", one[1]))
    assert [step.domain for step in plan_drain(source.snapshot(), "hv1").steps] == ["web1"]


class HungDomains(FakeHypervisors):
    """Hosts of which the first has one guest whose lock libvirt cannot get, read as it is from a real libvirt."""

    def domains(self, uri: str) -> list[DomainFacts]:
        lock = "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatch)"
        listed = Listing(ListedDomain(refused(libvirt.VIR_ERR_OPERATION_TIMEOUT, lock)))
        return read_domains(listed) if uri == "hv1" else []


def test_a_guest_that_hangs_fails_the_drain_by_its_name_and_libvirt_s_words() -> None:
    hosts = {name: HostFacts(cpus=16, memory_bytes=64 * GIB) for name in ("hv1", "hv2")}
    plan = plan_drain(
        LibvirtFleet(HungDomains(hosts), {name: name for name in hosts}, FleetSettings, {}).snapshot(), "hv1"
    )
    (left,) = plan.left
    assert (left.domain, plan.steps) == ("web1", [])
    assert "cannot acquire state change lock" in plan_text(plan)


def test_a_destination_that_ssh_does_not_reach_is_said_in_ssh_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {name: HostFacts(cpus=16, memory_bytes=64 * GIB) for name in ("hv1", "hv2")}
    played, source = source_of(hosts, ("hv1", DomainFacts(name="web1", uuid="1", vcpus=2, memory_bytes=4 * GIB)))
    answer = played.host

    def no(uri: str) -> Any:
        if uri == "hv2":
            raise HypervisorError("hv2: Cannot recv data: Host key verification failed.")
        return answer(uri)

    monkeypatch.setattr(played, "host", no)
    said = plan_text(plan_drain(source.snapshot(), "hv1"))
    assert "web1 stays on hv1: hv2:" in said
    assert "Host key verification failed" in said


def test_a_peer_of_ipv6_is_reached_by_a_uri_that_has_a_host() -> None:
    peer = PeerConfig(name="hv2.example.net", addresses=["2001:db8:0:7::12"])
    found = addresses(Config(name="hv1.example.net", peers=[peer]), "hv1.example.net")["hv2.example.net"]
    assert urlsplit(found.ours).hostname == "2001:db8:0:7::12"
    assert found.migrate == "tcp://[2001:db8:0:7::12]"
