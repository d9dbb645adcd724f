"""Libvirt's descriptions of hosts, read as facts."""

from dwcp_migrate.hypervisor.inventory.host_description import (
    CellFacts,
    capabilities_facts,
    hypervisor_cpu,
    pool_facts,
    volume_mark,
)
from dwcp_migrate.units import GIB, MIB

CAPABILITIES = """
<capabilities><host><topology><cells num='2'>
  <cell id='0'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>1000</pages>
    <pages unit='KiB' size='1048576'>2</pages><cpus num='2'><cpu id='0'/><cpu id='1'/></cpus></cell>
  <cell id='1'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='1048576'>1</pages>
    <cpus num='1'><cpu id='8'/></cpus></cell>
</cells></topology></host>
<guest><arch name='x86_64'><machine canonical='pc-q35-9.2'>q35</machine><machine>pc-i440fx-8.0</machine></arch></guest>
</capabilities>
"""

DOMAIN_CAPABILITIES = """
<domainCapabilities><arch>x86_64</arch><machine>pc-i440fx-9.2</machine>
<cpu><mode name='host-passthrough' supported='yes'/>
<mode name='host-model' supported='yes'><model fallback='allow'>EPYC-Milan</model><vendor>AMD</vendor>
  <maxphysaddr mode='passthrough'/><feature policy='require' name='x2apic'/></mode></cpu>
<devices><tpm supported='yes'><enum name='backendModel'><value>passthrough</value><value>emulator</value></enum></tpm>
</devices></domainCapabilities>
"""


def test_a_host_s_memory_is_what_huge_pages_leave() -> None:
    facts = capabilities_facts(CAPABILITIES)
    assert facts.cells == [
        CellFacts(cpus=2, memory_bytes=2048 * MIB, number=0),
        CellFacts(cpus=1, memory_bytes=3072 * MIB, number=1),
    ]
    assert (facts.huge_pages, facts.cpu_numbers) == ({GIB: 3}, (0, 1, 8))
    assert facts.machines == {"q35", "pc-q35-9.2", "pc-i440fx-8.0"}


def test_one_cell_is_no_topology() -> None:
    one = CAPABILITIES.replace("cell id='1'", "other").replace("</cell>\n</cells>", "</other>\n</cells>")
    assert capabilities_facts(one).cells == []


def test_a_hypervisor_s_cpu_is_that_of_its_host_model() -> None:
    cpu, has_tpm = hypervisor_cpu(DOMAIN_CAPABILITIES)
    assert cpu is not None
    assert (cpu.mode, cpu.model, cpu.arch, has_tpm) == ("custom", "EPYC-Milan", "x86_64", True)
    assert '<model fallback="forbid">EPYC-Milan</model>' in cpu.text
    assert "x2apic" in cpu.text
    assert "maxphysaddr" not in cpu.text
    without = DOMAIN_CAPABILITIES.replace("'host-model' supported='yes'", "'host-model' supported='no'")
    assert hypervisor_cpu(without.replace("<value>emulator</value>", "")) == (None, False)


def test_a_pool_on_the_network_is_known_by_its_source_and_a_directory_by_nothing() -> None:
    netfs = "<pool type='netfs'><name>n</name><source><host name='nas1'/><dir path='/export'/><format type='nfs'/>"
    found = pool_facts(netfs + "</source><target><path>/mnt/vms/</path></target></pool>")
    assert (found.kind, found.source, found.path) == ("netfs", "netfs nas1 /export", "/mnt/vms")
    rbd = "<pool type='rbd'><name>n</name><source><host name='m2'/><host name='m1' port='6789'/><name>vms</name>"
    assert pool_facts(rbd + "</source></pool>").source == "rbd m1:6789,m2 vms"
    directory = pool_facts("<pool type='dir'><name>default</name><target><path>/images</path></target></pool>")
    assert (directory.source, directory.path) == ("", "/images")


def test_the_mark_of_a_volume_is_the_time_at_which_its_inode_changed() -> None:
    text = "<volume><target><timestamps><mtime>5.1</mtime><ctime>1790000000.123456789</ctime></timestamps></target>"
    mark = volume_mark(text + "</volume>")
    assert mark == "1790000000.123456789"


def test_a_pool_says_what_it_has_free_or_nothing() -> None:
    pool = "<pool type='dir'><name>p</name><capacity unit='bytes'>9</capacity>{}<target><path>/p</path></target></pool>"
    assert pool_facts(pool.format("<available unit='bytes'>5368709120</available>")).available_bytes == 5 * GIB
    assert pool_facts(pool.format("")).available_bytes is None
