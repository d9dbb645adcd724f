"""Libvirt's descriptions of domains, as fleets have them, read as facts."""

import pytest

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory import domain_description
from dwcp_migrate.hypervisor.inventory.domain_description import DiskFacts, domain_facts, numbers
from dwcp_migrate.units import GIB, MIB

DOMAIN = """
<domain type='kvm'>
  <name>web1</name>
  <uuid>8f3c1d6e-0000-4000-8000-000000000001</uuid>
  <memory unit='KiB'>2097152</memory>
  <vcpu placement='static'>4</vcpu>
  <memoryBacking><hugepages><page size='1048576' unit='KiB'/></hugepages></memoryBacking>
  <numatune><memnode cellid='0' mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/></numatune>
  <os><type arch='x86_64' machine='pc-q35-9.2'>hvm</type></os>
  <cpu mode='custom' match='exact' check='full'><model fallback='forbid'>Skylake-Server</model><vendor>Intel</vendor>
    <topology sockets='1' dies='1' cores='4' threads='1'/><feature policy='require' name='vmx'/>
    <numa><cell id='0' cpus='0-1' memory='1048576' unit='KiB'/></numa></cpu>
  <devices>
    <disk type='volume'><source pool='ceph' volume='web1'/><target dev='vda'/></disk>
    <disk type='file'><source file='/srv/web1.raw'/><target dev='vdb'/></disk>
    <disk type='file'><source file='/srv/base.raw'/><target dev='vdc'/><readonly/></disk>
    <disk type='network'><source protocol='rbd' name='rbd/web1'><host name='mon1'/></source><target dev='vdd'/></disk>
    <disk type='file' device='cdrom'><source file='/isos/debian.iso'/><target dev='sda'/><readonly/></disk>
    <disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>
    <disk type='file' device='cdrom'><source file='/isos/x.iso' startupPolicy='optional'/><target dev='sdc'/></disk>
    <interface type='network'><source network='dmz' bridge='virbr7'/></interface>
    <interface type='bridge'><source bridge='br-vlan774'/><virtualport type='openvswitch'/></interface>
    <interface type='direct'><source dev='eth1' mode='bridge'/></interface>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices>
</domain>
"""


def with_devices(devices: str) -> str:
    return f"<domain type='kvm'><name>x</name><memory unit='GiB'>1</memory><devices>{devices}</devices></domain>"


def test_a_domain_s_description_is_read() -> None:
    facts = domain_facts(DOMAIN)
    assert (facts.name, facts.vcpus, facts.memory_bytes, facts.cells) == ("web1", 4, 2 * GIB, 2)
    assert (facts.huge_page_bytes, facts.machine, facts.has_tpm) == (GIB, "pc-q35-9.2", True)
    assert (facts.networks, facts.bridges, facts.pinned_cells) == (("dmz",), ("br-vlan774", "eth1"), (0, 1))
    assert facts.ties == ()


def test_a_disk_is_where_its_source_says_and_an_empty_drive_is_none() -> None:
    assert domain_facts(DOMAIN).disks == (
        DiskFacts(target="vda", kind="volume", source="web1", pool="ceph"),
        DiskFacts(target="vdb", source="/srv/web1.raw"),
        DiskFacts(target="vdc", source="/srv/base.raw", copied=False),
        DiskFacts(target="vdd", kind="network", source="rbd/web1"),
        DiskFacts(target="sda", device="cdrom", source="/isos/debian.iso", copied=False),
    )


def test_a_cpu_is_its_model_vendor_and_features_whatever_the_guest_s_topology() -> None:
    cpu = domain_facts(DOMAIN).cpu
    assert cpu is not None
    assert (cpu.mode, cpu.model, cpu.arch, cpu.is_hosts_own) == ("custom", "Skylake-Server", "x86_64", False)
    assert "topology" not in cpu.text
    assert "numa" not in cpu.text
    assert '<feature policy="require" name="vmx" />' in cpu.text
    assert domain_facts(DOMAIN.replace("cores='4'", "cores='2'")).cpu == cpu


@pytest.mark.parametrize("mode", ["host-passthrough", "maximum"])
def test_a_guest_that_sees_its_host_s_cpu_is_told_from_one_with_a_model(mode: str) -> None:
    cpu = domain_facts(f"<domain type='kvm'><name>x</name><cpu mode='{mode}' migratable='on'/></domain>").cpu
    assert cpu is not None
    assert (cpu.mode, cpu.is_hosts_own) == (mode, True)


def test_an_emulated_cpu_runs_anywhere() -> None:
    assert domain_facts(DOMAIN.replace("type='kvm'", "type='qemu'")).cpu is None
    assert domain_facts("<domain type='kvm'><cpu><topology sockets='1'/></cpu></domain>").cpu is None


@pytest.mark.parametrize(("devices", "words"), [
    ("<hostdev type='pci'><source><address domain='0x0000' bus='0x65' slot='0x00' function='0x1'/></source></hostdev>",
     "a passed-through PCI device of the host (0000:65:00.1)"),
    ("<hostdev type='mdev'><source><address uuid='c2177883'/></source></hostdev>",
     "a vGPU or another mediated device of the host (c2177883)"),
    ("<interface type='hostdev'/>", "a network interface that is a device of the host"),
    ("<shmem name='s'/>", "shared memory with other guests of the host"),
    ("<filesystem type='mount'><driver type='virtiofs'/></filesystem>",
     "a directory of the host that it shares by virtiofs"),
    ("<filesystem type='mount'/>", "a directory of the host that it shares"),
    ("<tpm><backend type='passthrough'/></tpm>", "the host's own TPM"),
])  # fmt: skip
def test_what_ties_a_guest_to_its_host_is_said_in_words(devices: str, words: str) -> None:
    assert domain_facts(with_devices(devices)).ties == (words,)


@pytest.mark.parametrize("devices", [
    "<hostdev type='usb'/>", "<interface type='hostdev'><teaming type='transient'/></interface>",
    "<hostdev type='pci'><teaming type='transient'/></hostdev>", "<shmem name='s' role='master'/>",
])  # fmt: skip
def test_what_libvirt_takes_off_for_the_migration_ties_nobody(devices: str) -> None:
    assert domain_facts(with_devices(devices)).ties == ()


def test_pinned_cpus_are_those_of_vcpus_emulator_and_io_threads() -> None:
    text = "<domain><vcpu cpuset='32-34,^33'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='40'/>"
    facts = domain_facts(f"{text}<emulatorpin cpuset='1'/><iothreadpin cpuset='2-3'/></cputune></domain>")
    assert facts.pinned_cpus == (1, 2, 3, 32, 34, 40)
    assert domain_facts("<domain><vcpu placement='auto' cpuset='0-7'>2</vcpu></domain>").pinned_cpus == ()


@pytest.mark.parametrize("text", ["x", "3-1", "-1", f"0-{domain_description.CPUS_MAX}"])
def test_what_is_no_list_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        numbers(text)
    with pytest.raises(HypervisorError):
        domain_facts(f"<domain><name>x</name><vcpu cpuset='{text}'>1</vcpu></domain>")
    assert numbers(f"{domain_description.CPUS_MAX - 1}") == [domain_description.CPUS_MAX - 1]


def test_huge_pages_of_no_size_are_the_usual_ones() -> None:
    facts = domain_facts("<domain><memoryBacking><hugepages/></memoryBacking></domain>")
    assert facts.huge_page_bytes == 2 * MIB


def test_what_is_no_description_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HypervisorError, match="no XML"):
        domain_facts("<domain>")
    monkeypatch.setattr(domain_description, "XML_BYTES_MAX", len(DOMAIN))
    assert domain_facts(DOMAIN).name == "web1"
    with pytest.raises(HypervisorError, match="more than"):
        domain_facts(DOMAIN + " ")


CPU = "<cpu mode='custom'><model>Skylake-Server</model></cpu>"
OTHER = CPU.replace("Skylake", "Other")


@pytest.mark.parametrize(("description", "model"), [
    (f"<domain type='kvm'>{CPU}<devices/></domain>", "Skylake-Server"),
    (f"<domain type='kvm'><metadata><x>{OTHER}</x></metadata>{CPU}</domain>", "Skylake-Server"),
    (f"<domain type='kvm'><!-- {OTHER} -->{CPU}</domain>", "Skylake-Server"),
    (f"<domain type='kvm'><metadata><x>{CPU}</x></metadata></domain>", None),
    (f"<domain type='kvm'><metadata><x>{CPU}</x></metadata><cpu mode='custom'/></domain>", None),
])  # fmt: skip
def test_the_guest_s_own_cpu_is_read_whatever_else_is_called_so(description: str, model: str | None) -> None:
    cpu = domain_facts(description).cpu
    assert (cpu.model if cpu is not None else None) == model


def test_controllers_of_any_form_hide_no_other_device() -> None:
    disk = "<disk type='file'><source file='/srv/{0}.raw'/><target dev='{0}'/></disk>"
    controllers = ("<controller type='usb' index='0'/>", "<controller type='sata'><alias name='sata0'/></controller>")
    text = "".join(f"{controllers[n % 2]}{disk.format(f'vd{n}')}" for n in range(6))
    assert [one.target for one in domain_facts(with_devices(text)).disks] == [f"vd{n}" for n in range(6)]
    with pytest.raises(HypervisorError, match="no XML"):
        domain_facts(with_devices("<controller type='usb'>"))
