"""Facts out of libvirt's descriptions, and libvirt's own test driver behind the real connection."""

import pytest

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor import inventory
from dwcp_migrate.hypervisor.inventory import CellFacts, LibvirtHypervisors, domain_facts, host_cells, huge_pages
from dwcp_migrate.units import GIB, MIB

DOMAIN = """
<domain type='kvm'>
  <name>web1</name>
  <uuid>8f3c1d6e-0000-4000-8000-000000000001</uuid>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static'>4</vcpu>
  <memoryBacking><hugepages><page size='1048576' unit='KiB'/></hugepages></memoryBacking>
  <numatune><memnode cellid='0' mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/></numatune>
  <cpu mode='custom' match='exact'><model>Skylake-Server</model></cpu>
  <devices>
    <disk type='volume'><source pool='ceph' volume='web1'/></disk>
    <disk type='file'><source file='/srv/web1.raw'/></disk>
    <interface type='network'><source network='dmz'/></interface>
  </devices>
</domain>
"""

CAPABILITIES = """
<capabilities><host><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>1000</pages>
    <pages unit='KiB' size='1048576'>2</pages><cpus num='2'><cpu id='0'/><cpu id='1'/></cpus></cell>
  <cell id='1'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='1048576'>1</pages>
    <cpus num='1'><cpu id='2'/></cpus></cell>
</cells></topology></host></capabilities>
"""


def test_a_domain_s_description_is_read() -> None:
    facts = domain_facts(DOMAIN)
    assert (facts.name, facts.vcpus, facts.memory_bytes, facts.cells) == ("web1", 4, 2 * GIB, 2)
    assert (facts.pools, facts.networks, facts.huge_page_bytes) == (["ceph"], ["dmz"], GIB)
    assert "Skylake-Server" in facts.cpu
    assert len(facts.cpu_key) == 16


def test_a_guest_without_the_host_s_cpu_runs_anywhere() -> None:
    assert domain_facts(DOMAIN.replace("kvm", "qemu")).cpu_key == ""


def test_a_host_s_capabilities_are_read() -> None:
    assert host_cells(CAPABILITIES) == [
        CellFacts(cpus=2, memory_bytes=4096 * MIB),
        CellFacts(cpus=1, memory_bytes=4096 * MIB),
    ]
    assert huge_pages(CAPABILITIES) == {GIB: 3}
    one_cell = CAPABILITIES.replace("cell id='1'", "other").replace("</cell>\n</cells>", "</other>\n</cells>")
    assert host_cells(one_cell) == []


def test_what_is_no_description_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HypervisorError, match="no XML"):
        domain_facts("<domain>")
    monkeypatch.setattr(inventory, "XML_BYTES_MAX", len(DOMAIN))
    assert domain_facts(DOMAIN).name == "web1"
    with pytest.raises(HypervisorError, match="more than"):
        domain_facts(DOMAIN + " ")


def test_the_test_driver_answers_through_the_real_connection() -> None:
    hypervisors = LibvirtHypervisors()
    try:
        host = hypervisors.host("test:///default")
        assert host.cpus > 0
        assert host.memory_bytes > MIB
        assert "default" in host.networks
        assert [one.name for one in hypervisors.domains("test:///default")] == ["test"]
        with pytest.raises(HypervisorError, match="not found"):
            hypervisors.migrate("test:///default", "ghost", "test:///default")
    finally:
        hypervisors.close()


def test_a_host_that_cannot_be_reached_is_said() -> None:
    hypervisors = LibvirtHypervisors()
    with pytest.raises(HypervisorError, match="test:///nowhere"):
        hypervisors.host("test:///nowhere/at/all")
