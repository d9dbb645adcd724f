"""Answers of the libvirtds of a large fleet, in libvirt 11's formats: what the binding hands out, without libvirt.

Hosts are dual-socket machines with 64 threads and 256 GiB; guests have the CPU of their host-model, two disks in a pool
on the network and one interface. A description is as long as a real one (about 7 KB), since reading it is the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import libvirt

from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.hypervisor.inventory.libvirt_hypervisors import LibvirtHypervisors, read_domains, read_host

THREADS: Final = 64
MEMORY_KIB: Final = 256 * 1024 * 1024

FEATURES: Final = (
    "ss", "vmx", "pdcm", "hypervisor", "ss-no", "tsc_adjust", "fdp-excptn-only", "zero-fcs-fds", "mpx", "umip", "pku",
    "md-clear", "stibp", "flush-l1d", "arch-capabilities", "ssbd", "xsaves", "ibpb", "ibrs", "amd-stibp", "amd-ssbd",
    "rdctl-no", "ibrs-all", "skip-l1dfl-vmentry", "mds-no", "pschange-mc-no", "tsx-ctrl", "fb-clear", "gds-no", "hle",
)  # fmt: skip


def cpu_features(policy: str) -> str:
    """Features of a CPU as libvirt lists them."""
    return "".join(f"<feature policy='{policy}' name='{one}'/>\n    " for one in FEATURES)


_ADDRESS: Final = "<address type='pci' domain='0x0000' bus='0x0{0}' slot='0x00' function='0x0'/>"

_PORTS: Final = "".join(
    f"""
    <controller type='pci' index='{n}' model='pcie-root-port'>
      <model name='pcie-root-port'/>
      <target chassis='{n}' port='0x{15 + n:x}'/>
      <alias name='pci.{n}'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x{n % 8}'/>
    </controller>"""
    for n in range(1, 11)
)

_DISK: Final = (
    """
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' discard='unmap'/>
      <source file='/srv/images/{name}-{disk}.qcow2' index='{index}'/>
      <backingStore/>
      <target dev='{disk}' bus='virtio'/>
      <alias name='virtio-disk{index}'/>
      """
    + _ADDRESS.format(4)
    + """
    </disk>"""
)

_DOMAIN: Final = (
    """<domain type='kvm' id='{number}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>{memory}</memory>
  <currentMemory unit='KiB'>{memory}</currentMemory>
  <vcpu placement='static'>{vcpus}</vcpu>
  <resource>
    <partition>/machine</partition>
  </resource>
  <os>
    <type arch='x86_64' machine='pc-q35-9.2'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
    <vmport state='off'/>
  </features>
  <cpu mode='custom' match='exact' check='full'>
    <model fallback='forbid'>Cascadelake-Server-noTSX</model>
    <vendor>Intel</vendor>
    """
    + cpu_features("require")
    + """
  </cpu>
  <clock offset='utc'>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='pit' tickpolicy='delay'/>
    <timer name='hpet' present='no'/>
  </clock>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>"""
    + "{disks}"
    + """
    <controller type='usb' index='0' model='qemu-xhci' ports='15'>
      <alias name='usb'/>
      """
    + _ADDRESS.format(2)
    + """
    </controller>"""
    + _PORTS
    + """
    <interface type='bridge'>
      <mac address='52:54:00:11:22:33'/>
      <source bridge='br-guests'/>
      <target dev='vnet{number}'/>
      <model type='virtio'/>
      <alias name='net0'/>
      """
    + _ADDRESS.format(1)
    + """
    </interface>
    <serial type='pty'>
      <source path='/dev/pts/1'/>
      <target type='isa-serial' port='0'>
        <model name='isa-serial'/>
      </target>
      <alias name='serial0'/>
    </serial>
    <channel type='unix'>
      <source mode='bind' path='/run/libvirt/qemu/channel/1-vm/org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>
      <alias name='channel0'/>
    </channel>
    <memballoon model='virtio'>
      <stats period='5'/>
      <alias name='balloon0'/>
      """
    + _ADDRESS.format(5)
    + """
    </memballoon>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
      <alias name='rng0'/>
    </rng>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'>
    <label>+64055:+64055</label>
    <imagelabel>+64055:+64055</imagelabel>
  </seclabel>
</domain>
"""
)

_MACHINES: Final = "".join(
    f"<machine maxCpus='{most}'>{kind}-{major}.{minor}</machine>\n      "
    for kind, most in (("pc-q35", 4096), ("pc-i440fx", 255))
    for major in range(5, 10)
    for minor in range(3)
)


def _cell(number: int) -> str:
    cpus = "".join(
        f"<cpu id='{cpu}' socket_id='{number}' die_id='0' cluster_id='0' core_id='{cpu // 4}' "
        f"siblings='{cpu},{cpu + THREADS // 2}'/>\n          "
        for cpu in range(number, THREADS, 2)
    )
    return f"""<cell id='{number}'>
        <memory unit='KiB'>{MEMORY_KIB // 2}</memory>
        <pages unit='KiB' size='4'>{MEMORY_KIB // 8}</pages>
        <pages unit='KiB' size='2048'>0</pages>
        <pages unit='KiB' size='1048576'>0</pages>
        <distances>
          <sibling id='{number}' value='10'/>
          <sibling id='{1 - number}' value='21'/>
        </distances>
        <cpus num='{THREADS // 2}'>
          {cpus}
        </cpus>
      </cell>"""


CAPABILITIES: Final = f"""<capabilities>
  <host>
    <uuid>{{uuid}}</uuid>
    <cpu>
      <arch>x86_64</arch>
      <model>Cascadelake-Server-noTSX</model>
      <vendor>Intel</vendor>
      <microcode version='83898371'/>
      <topology sockets='1' dies='1' clusters='1' cores='16' threads='2'/>
      {cpu_features("require")}
    </cpu>
    <topology>
      <cells num='2'>
        {_cell(0)}
        {_cell(1)}
      </cells>
    </topology>
  </host>
  <guest>
    <os_type>hvm</os_type>
    <arch name='x86_64'>
      <wordsize>64</wordsize>
      <emulator>/usr/bin/qemu-system-x86_64</emulator>
      {_MACHINES}
      <domain type='qemu'/>
      <domain type='kvm'/>
    </arch>
  </guest>
</capabilities>
"""

DOMAIN_CAPABILITIES: Final = f"""<domainCapabilities>
  <path>/usr/bin/qemu-system-x86_64</path>
  <domain>kvm</domain>
  <machine>pc-q35-9.2</machine>
  <arch>x86_64</arch>
  <vcpu max='4096'/>
  <cpu>
    <mode name='host-passthrough' supported='yes'/>
    <mode name='host-model' supported='yes'>
      <model fallback='forbid'>Cascadelake-Server-noTSX</model>
      <vendor>Intel</vendor>
      {cpu_features("require")}
    </mode>
    <mode name='custom' supported='yes'>
      {"".join(f"<model usable='yes' vendor='Intel' canonical='x{n}'>Model-{n}</model>" for n in range(120))}
    </mode>
  </cpu>
  <devices>
    <tpm supported='yes'>
      <enum name='backendModel'><value>passthrough</value><value>emulator</value></enum>
    </tpm>
  </devices>
</domainCapabilities>
"""

_POOL: Final = """<pool type='netfs'><name>images</name><source>
<host name='filer'/><dir path='/export/images'/></source><target><path>/srv/images</path></target></pool>"""


@dataclass(frozen=True, slots=True)
class AnsweringDomain:
    """A domain as the binding has it.

    Attributes:
        number: libvirt's id.
        title: its name.
        uuid: as text.
        vcpus: that it has.
        memory_mib: that it has.
    """

    number: int
    title: str
    uuid: str
    vcpus: int
    memory_mib: int

    def name(self) -> str:
        """Return its name."""
        return self.title

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        """Return its UUID."""
        return self.uuid

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        """Describe it."""
        disks = "".join(_DISK.format(name=self.title, disk=disk, index=n) for n, disk in enumerate(("vda", "vdb"), 1))
        return _DOMAIN.format(
            number=self.number,
            name=self.title,
            uuid=self.uuid,
            memory=self.memory_mib * 1024,
            vcpus=self.vcpus,
            disks=disks,
        )

    def jobInfo(self) -> list[int]:  # noqa: N802
        """Tell of no job."""
        return [libvirt.VIR_DOMAIN_JOB_NONE]

    def isPersistent(self) -> bool:  # noqa: N802
        """Say that it is defined."""
        return True


class _Named:
    """A network, or an interface."""

    def __init__(self, title: str) -> None:
        self._title = title

    def name(self) -> str:
        """Return its name."""
        return self._title


class _Pool:
    """A pool on the network."""

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802
        """Describe it."""
        return _POOL


@dataclass(slots=True)
class AnsweringHost:
    """A connection to a host's libvirtd.

    Attributes:
        uuid: of the host.
        guests: that run there.
    """

    uuid: str
    guests: list[AnsweringDomain] = field(default_factory=list)

    def getInfo(self) -> list[Any]:  # noqa: N802
        """Return model, MiB, CPUs and more."""
        return ["x86_64", MEMORY_KIB // 1024, THREADS, 2900, 2, 1, 16, 2]

    def getCapabilities(self) -> str:  # noqa: N802
        """Describe the host."""
        return CAPABILITIES.format(uuid=self.uuid)

    def getDomainCapabilities(self, *_: object) -> str:  # noqa: N802
        """Describe what its QEMU offers."""
        return DOMAIN_CAPABILITIES

    def listAllStoragePools(self, _flags: int) -> list[_Pool]:  # noqa: N802
        """List one."""
        return [_Pool()]

    def listAllNetworks(self, _flags: int) -> list[_Named]:  # noqa: N802
        """List one."""
        return [_Named("default")]

    def listAllInterfaces(self, _flags: int) -> list[_Named]:  # noqa: N802
        """List two."""
        return [_Named("lo"), _Named("br-guests")]

    def listAllDomains(self, flags: int) -> list[AnsweringDomain]:  # noqa: N802
        """List those that run."""
        return [] if flags == libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE else list(self.guests)


class AnsweringHypervisors(LibvirtHypervisors):
    """Asks answering hosts by the functions that ask real connections.

    Args:
        hosts: by URI.
    """

    def __init__(self, hosts: dict[str, AnsweringHost]) -> None:
        super().__init__()
        self._hosts = hosts

    def host(self, uri: str) -> HostFacts:
        """See `Hypervisors.host`."""
        return read_host(self._hosts[uri])

    def domains(self, uri: str) -> list[DomainFacts]:
        """See `Hypervisors.domains`."""
        return read_domains(self._hosts[uri])

    def cpu_refusal(self, uri: str, cpu: CpuFacts) -> str:
        """Offer every CPU: all hosts are of one kind."""
        return "" if uri in self._hosts else f"{uri} does not offer {cpu.model}"


def answering_hosts(sizes: Sequence[Sequence[tuple[str, int, int]]]) -> dict[str, AnsweringHost]:
    """Make hosts `h0`, `h1` and so on.

    Args:
        sizes: UUID, vCPUs and MiB of each guest, by host.
    """
    return {
        f"h{host}": AnsweringHost(
            f"{host:08x}-0000-4000-8000-00000000aaaa",
            [AnsweringDomain(n + 1, f"g{host}-{n}", *size) for n, size in enumerate(guests)],
        )
        for host, guests in enumerate(sizes)
    }
