"""Sources of a fleet: a file, or the libvirtds of this host and its peers with the operator's settings.

The rule here: placement sees one value, a `Fleet`, from any source. Facts of libvirt (hosts, domains, CPUs, pools,
networks) are asked anew each time; the others (racks, rules, maintenance) are in the settings file, which is written
whole or not at all.
"""

import contextlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from dwcp_migrate.config import Config
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import HypervisorError, NotFoundError, PlacementError
from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId, Hypervisors
from dwcp_migrate.orchestration.compatibility import Compatibility
from dwcp_migrate.orchestration.storage import CopiedDisks, StorageMap
from dwcp_migrate.placement.cost import PlacementPolicy
from dwcp_migrate.placement.fleet import (
    MEMORY,
    RULES_MAX,
    VCPUS,
    Amounts,
    Cell,
    Domain,
    Fleet,
    Host,
    Name,
    Rule,
    check_fleet,
    decode_fleet,
)
from dwcp_migrate.units import MIB

SETTINGS_NAME: Final = "placement.json"
ASKED_AT_ONCE: Final = 32
"""libvirtds that are asked at the same time, so that one that does not answer holds up few others."""

SETTINGS_BYTES_MAX: Final = 64 * MIB
OVERCOMMIT: Final = 4.0
"""vCPUs to cores where the settings name none."""

RESERVED_MIB_MIN: Final = 1024.0
"""Memory that a host keeps for itself where the settings name none; on a larger host it is RESERVED_SHARE of all."""

RESERVED_SHARE: Final = 0.02

QEMU_MIB: Final = 128.0
"""A QEMU's code, heap, device models and video memory; 80 to 150 MiB resident beside the guest's on x86-64."""

VCPU_MIB: Final = 8.0
"""A vCPU's thread and the kernel's state of it, as KubeVirt counts it."""

TABLES_SHARE: Final = 1 / 512
"""Page tables: eight bytes for each 4 KiB."""


class HostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts of a host that libvirt cannot know; see `placement.fleet.Host`."""

    rack: str = ""
    datacentre: str = ""
    region: str = ""
    overcommit: Amounts = {}
    reserve: Amounts = {}
    capacity: Amounts = {}
    state: Literal["up", "maintenance"] = "up"
    link_bytes_per_s: Annotated[float, Meta(gt=0)] = 125e6


class FleetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings file.

    Attributes:
        demand: what domains are promised beside vCPUs and memory, by domain and resource.
        shared: paths that all hosts reach the same, where libvirt cannot show it.
    """

    hosts: dict[Name, HostSettings] = {}
    demand: dict[Name, Amounts] = {}
    shared: list[str] = []
    rules: Annotated[list[Rule], Meta(max_length=RULES_MAX)] = []
    reserve_hosts: Annotated[int, Meta(ge=0)] = 0
    policy: PlacementPolicy = PlacementPolicy()


class FleetSource(Protocol):
    """Reads the fleet as it is now."""

    def snapshot(self) -> Fleet:
        """The fleet now.

        Raises:
            PlacementError: what was read contradicts itself.
        """


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A fleet described in a file."""

    path: Path

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`."""
        try:
            return decode_fleet(self.path.read_bytes())
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {self.path}") from error
        except OSError as error:
            raise PlacementError(f"cannot read {self.path}: {error.strerror}") from error


class HostAddress(NamedTuple):
    """Addresses of a host's libvirtd and QEMU.

    Attributes:
        ours: URI of its libvirtd for this host.
        theirs: for the other hosts' libvirtds.
        migrate: where its QEMU listens for migrations; empty lets libvirt choose.
    """

    ours: str
    theirs: str
    migrate: str = ""


def addresses(config: Config, own_name: str) -> dict[str, HostAddress]:
    """List the addresses of this host and its configured peers, by name.

    Args:
        config: of this host's agent.
        own_name: this host's name in the fleet; a peer of that name is left out.
    """

    def uri(name: str, address: str) -> str:
        return config.placement.uri.format(name=name, address=_in_uri(address))

    def migrate(address: str) -> str:
        return f"tcp://{_in_uri(address)}" if address else ""

    own = config.placement.address
    found = {own_name: HostAddress(config.libvirt_uri, uri(own_name, own or own_name), migrate(own))}
    for peer in config.peers:
        if peer.name != own_name:
            there = uri(peer.name, peer.addresses[0])
            found[peer.name] = HostAddress(there, there, migrate(peer.addresses[0]))
    return found


def _in_uri(address: str) -> str:
    """An address as it stands in a URI: IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


@dataclass(frozen=True, slots=True)
class LibvirtFleet:
    """The fleet as its libvirtds know it.

    Attributes:
        hypervisors: asks them.
        uris: of each host, as this host reaches it.
        settings: read anew for each snapshot.
        known: facts of hosts that answered before: one that is silent now is `down` and keeps its size.
        copies_storage: migrations copy writable disks that are not shared.
    """

    hypervisors: Hypervisors
    uris: Mapping[str, str]
    settings: Callable[[], FleetSettings]
    known: dict[str, HostFacts]
    copies_storage: bool = False

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`. A host that does not answer is down, and its domains are unknown."""
        with ThreadPoolExecutor(min(ASKED_AT_ONCE, max(1, len(self.uris)))) as threads:
            answers = dict(zip(self.uris, threads.map(self._ask, self.uris.values()), strict=True))
        hosts: dict[str, HostFacts] = {}
        domains: dict[str, list[DomainFacts]] = {}
        silent: dict[str, str] = {}
        for name, answer in answers.items():
            if isinstance(answer, HypervisorError):
                silent[name] = str(answer)
            else:
                hosts[name], domains[name] = answer
                self.known[name] = answer[0]
        settings = self.settings()
        judged = Compatibility(hosts, StorageMap(hosts, settings.shared), self._cpu_refusal, self.copies_storage)
        facts = FleetFacts(hosts, domains, silent, self.known, self._copied_disks(judged, domains))
        fleet = assemble(facts, settings, judged)
        check_fleet(fleet)
        return fleet

    def _copied_disks(self, judged: Compatibility, domains: Mapping[str, list[DomainFacts]]) -> CopiedDisks:
        """Sizes of the disks that migrations copy; a guest whose libvirt has no figure is without."""
        found: dict[str, dict[str, int]] = {}
        for host, guests in domains.items():
            for one in guests:
                for path, targets in judged.copied(host, one).items():
                    with contextlib.suppress(HypervisorError):
                        guest = GuestId(one.name, one.uuid)
                        bytes_ = self.hypervisors.disk_bytes(self.uris[host], guest, targets)
                        found.setdefault(_identity(one), {})[path] = bytes_
        return CopiedDisks(found)

    def _cpu_refusal(self, host: str, cpu: CpuFacts) -> str:
        try:
            return self.hypervisors.cpu_refusal(self.uris[host], cpu)
        except HypervisorError as error:
            return str(error)  # a host that cannot say so does not offer it

    def _ask(self, uri: str) -> tuple[HostFacts, list[DomainFacts]] | HypervisorError:
        try:
            return self.hypervisors.host(uri), self.hypervisors.domains(uri)
        except HypervisorError as error:
            return error


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """Answers of the libvirtds of a fleet.

    Attributes:
        hosts: those that answered, by name; `domains` of each.
        silent: the others, and the error that came instead of an answer.
        known: facts of hosts as they last answered.
        copied: disks that migrations copy.
    """

    hosts: Mapping[str, HostFacts]
    domains: Mapping[str, list[DomainFacts]]
    silent: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, HostFacts] = field(default_factory=dict)
    copied: CopiedDisks = field(default_factory=CopiedDisks)


def assemble(facts: FleetFacts, settings: FleetSettings, judged: Compatibility) -> Fleet:
    """Make a fleet of facts and settings.

    Args:
        facts: of libvirt.
        settings: of the operator.
        judged: says which hosts cannot run a guest.
    """
    names = [*facts.hosts, *facts.silent]
    found = [_with_disks(one, facts.copied) for one in _domains(facts.domains, settings, judged)]
    called = names_of(found)
    rules = [
        msgspec.structs.replace(rule, domains=kept)
        for rule in settings.rules
        if (kept := [one for name in rule.domains for one in called.get(name, ())])
    ]
    return Fleet(
        hosts=[_host(name, facts, settings) for name in sorted(names)],
        domains=found,
        rules=rules,
        reserve_hosts=settings.reserve_hosts,
        bars=judged.bars,
    )


def _with_disks(domain: Domain, copied: CopiedDisks) -> Domain:
    identity = domain.uuid or domain.name
    size_mib = copied.total_mib(identity)
    if not size_mib:
        return domain
    return msgspec.structs.replace(domain, copied_mib=size_mib, demand={**copied.demand(identity), **domain.demand})


def names_of(domains: Iterable[Domain]) -> dict[str, list[str]]:
    """The domains' names in the fleet, by the name that libvirt has: several where that is not unique."""
    found: dict[str, list[str]] = {}
    for one in domains:
        found.setdefault(one.name.removesuffix(f"@{one.host}"), []).append(one.name)
    return found


def _host(name: str, fleet: FleetFacts, settings: FleetSettings) -> Host:
    facts, own = fleet.hosts.get(name) or fleet.known.get(name), settings.hosts.get(name, HostSettings())
    capacity = _capacity(facts, fleet.domains.get(name, ())) if facts is not None else {}
    if facts is not None:
        capacity |= fleet.copied.room(facts, map(_identity, fleet.domains.get(name, ())))
    cells = [Cell(vcpus=cell.cpus, memory_mib=cell.memory_bytes / MIB) for cell in facts.cells] if facts else []
    unread = [one.name for one in fleet.domains.get(name, ()) if one.trouble and not one.memory_bytes]
    return Host(
        name=name,
        rack=own.rack,
        datacentre=own.datacentre,
        region=own.region,
        capacity={**capacity, **own.capacity},
        overcommit={VCPUS: OVERCOMMIT, **own.overcommit},
        reserve={MEMORY: reserved_mib(capacity.get(MEMORY, 0.0)), **own.reserve},
        cells=cells,
        state="down" if name in fleet.silent else own.state,
        note=fleet.silent.get(name, ""),
        closed=f"how large {', '.join(unread)} is cannot be read there" if unread else "",
        link_bytes_per_s=own.link_bytes_per_s,
    )


def _capacity(facts: HostFacts, guests: Iterable[DomainFacts]) -> dict[str, float]:
    """Capacity of a host for guests: huge pages are those that guests have and those that are free."""
    taken: Counter[int] = Counter()
    for one in guests:
        if one.huge_page_bytes:
            taken[one.huge_page_bytes] += math.ceil(one.memory_bytes / one.huge_page_bytes)
    huge = {
        huge_name(bytes_): float(min(count, facts.huge_free.get(bytes_, count) + taken[bytes_]))
        for bytes_, count in facts.huge_pages.items()
    }
    return {VCPUS: float(facts.cpus), MEMORY: facts.memory_bytes / MIB, **huge}


def reserved_mib(memory_mib: float) -> float:
    """Memory that a host of a size keeps for itself where the settings name none."""
    return min(max(RESERVED_MIB_MIN, memory_mib * RESERVED_SHARE), memory_mib / 4)


def _domains(domains: Mapping[str, list[DomainFacts]], settings: FleetSettings, judged: Compatibility) -> list[Domain]:
    """The domains of a fleet, known by their UUIDs; names that several bear are told apart by the host."""
    found = [(host, facts) for host, there in domains.items() for facts in there]
    arriving = {_identity(facts): host for host, facts in found if facts.arriving}
    placed: dict[str, list[str]] = {}
    for host, facts in found:
        if not facts.arriving:
            placed.setdefault(_identity(facts), []).append(host)
    runs = [(host, facts) for host, facts in found if not facts.arriving or _identity(facts) not in placed]
    bearers: dict[str, list[str]] = {}
    for host, facts in runs:
        bearers.setdefault(facts.name, []).append(host)
    return [
        _domain(
            host,
            facts,
            arriving="" if facts.arriving else arriving.get(_identity(facts), ""),
            ambiguous=_ambiguous(facts, placed.get(_identity(facts), []), bearers[facts.name]),
            settings=settings,
            judged=judged,
        )
        for host, facts in runs
    ]


def _identity(facts: DomainFacts) -> str:
    return facts.uuid or facts.name


def _ambiguous(facts: DomainFacts, places: list[str], bearers: list[str]) -> str:
    """Reason for which a name fits several domains, in words; empty where it is clear."""
    if len(places) > 1:
        return f"it runs on {' and on '.join(places)} at once: one of them may be left over from a failed migration"
    if len(bearers) > 1:
        return f"guests named {facts.name} run on {' and on '.join(bearers)}: give them names of their own"
    return ""


def _domain(
    host: str,
    facts: DomainFacts,
    *,
    arriving: str,
    ambiguous: str,
    settings: FleetSettings,
    judged: Compatibility,
) -> Domain:
    stays = ambiguous or judged.ties(host, facts)
    if facts.trouble:
        stays = f"libvirt cannot be asked about it: {facts.trouble}"
    elif facts.arriving:
        stays = "it is arriving there"
    elif facts.migrating and not arriving:
        stays = "it has a job already: a migration to a host that is not of this fleet, a backup, or the like"
    return Domain(
        name=f"{facts.name}@{host}" if ambiguous else facts.name,
        uuid=facts.uuid,
        host=host,
        arriving="" if ambiguous else arriving,
        demand={**_demand(facts), **settings.demand.get(facts.name, {})},
        bars=[] if stays else [name for name in (judged.judge(host, facts), judged.clash(host, facts)) if name],
        cells=facts.cells,
        movable=not stays and not facts.migrating,
        stays=stays,
    )


def huge_name(size_bytes: int) -> str:
    """Name of the resource that pages of a size are: `hugepages_2m`, `hugepages_1024m`."""
    return f"hugepages_{size_bytes // MIB}m"


def _demand(facts: DomainFacts) -> dict[str, float]:
    """Resources promised to a domain; backed by huge pages, its memory is these; only QEMU's own is normal memory."""
    own_mib = overhead_mib(facts)
    if facts.huge_page_bytes:
        pages = math.ceil(facts.memory_bytes / facts.huge_page_bytes)
        return {VCPUS: float(facts.vcpus), MEMORY: own_mib, huge_name(facts.huge_page_bytes): float(pages)}
    return {VCPUS: float(facts.vcpus), MEMORY: facts.memory_bytes / MIB + own_mib}


def overhead_mib(facts: DomainFacts) -> float:
    """Memory that QEMU and the kernel need for a domain beside its own."""
    if not facts.memory_bytes:
        return 0.0
    return QEMU_MIB + VCPU_MIB * facts.vcpus + facts.memory_bytes / MIB * TABLES_SHARE


def read_settings(path: Path) -> FleetSettings:
    """Read the settings; a file that is not there is an empty one.

    Raises:
        PlacementError: it cannot be read, or is wrong.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return FleetSettings()
    except OSError as error:
        raise PlacementError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > SETTINGS_BYTES_MAX:
        raise PlacementError(f"{path}: {len(data)} bytes are more than {SETTINGS_BYTES_MAX}")
    try:
        return msgspec.json.decode(data, type=FleetSettings)
    except msgspec.MsgspecError as error:
        raise PlacementError(f"{path}: {error}", hint="see docs/placement.md") from error


def with_state(settings: FleetSettings, host: str, state: Literal["up", "maintenance"]) -> FleetSettings:
    """Set the state of a host in the settings.

    Args:
        settings: as they are.
        host: its name; one that the settings do not have is added.
        state: `maintenance` takes no domains.
    """
    own = msgspec.structs.replace(settings.hosts.get(host, HostSettings()), state=state)
    return msgspec.structs.replace(settings, hosts={**settings.hosts, host: own})


def write_settings(path: Path, settings: FleetSettings) -> None:
    """Write the settings, whole or not at all.

    Args:
        path: of the file; its directory is made if it is not there.
        settings: all of them; on disk when this returns, owned by the directory's owner.

    Raises:
        PlacementError: they cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(settings), indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        there = path.parent.stat()
        with contextlib.suppress(PermissionError):
            os.chown(path, there.st_uid, there.st_gid)  # root writes what the agent's user has to read
    except OSError as error:
        raise PlacementError(f"cannot write {path}: {error.strerror}", hint="it needs root") from error
