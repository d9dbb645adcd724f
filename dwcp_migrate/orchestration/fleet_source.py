"""Sources of a fleet: a file, or the libvirtds of this host and its peers with the operator's settings.

The rule here: placement sees one value, a `Fleet`, whoever made it. What libvirt knows (hosts, domains, CPUs, pools,
networks) is asked anew each time; what it cannot know (racks, rules, maintenance) stands in the settings file,
written whole or not at all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from dwcp_migrate.config import Config
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import HypervisorError, PlacementError
from dwcp_migrate.hypervisor.inventory import DomainFacts, HostFacts, Hypervisors
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
    check,
    decode,
)
from dwcp_migrate.units import MIB

SETTINGS_NAME: Final = "placement.json"
SETTINGS_BYTES_MAX: Final = 64 * MIB
OVERCOMMIT: Final = 4.0
"""vCPUs to cores where the settings name none."""

RESERVED_MIB: Final = 1024.0
"""Of a host's memory, for itself, where the settings name none."""


class HostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What libvirt cannot know of a host; see `placement.fleet.Host`."""

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
    """

    hosts: dict[Name, HostSettings] = {}
    demand: dict[Name, Amounts] = {}
    rules: Annotated[list[Rule], Meta(max_length=RULES_MAX)] = []
    reserve_hosts: Annotated[int, Meta(ge=0)] = 0
    policy: PlacementPolicy = PlacementPolicy()


class FleetSource(Protocol):
    """Says how the fleet stands now."""

    def snapshot(self) -> Fleet:
        """The fleet now.

        Raises:
            PlacementError: what was read contradicts itself.
        """


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A fleet that somebody wrote down."""

    path: Path

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`."""
        try:
            return decode(self.path.read_bytes())
        except OSError as error:
            raise PlacementError(f"cannot read {self.path}: {error.strerror}") from error


def addresses(config: Config, own_name: str) -> dict[str, tuple[str, str]]:
    """URIs of each host: as this host reaches its libvirtd, and as the others' libvirtds do."""

    def uri(name: str, address: str) -> str:
        return config.placement.uri.format(name=name, address=address)

    own = (config.libvirt_uri, uri(own_name, config.placement.address or own_name))
    found = {own_name: own}
    for peer in config.peers:
        if peer.name != own_name:
            there = uri(peer.name, peer.addresses[0])
            found[peer.name] = (there, there)
    return found


@dataclass(frozen=True, slots=True)
class LibvirtFleet:
    """The fleet as its libvirtds know it.

    Attributes:
        hypervisors: asks them.
        uris: of each host, as this host reaches it.
        settings: read anew for each snapshot.
        known: facts of hosts that answered before: one that is silent now is `down` and keeps its size.
    """

    hypervisors: Hypervisors
    uris: Mapping[str, str]
    settings: Callable[[], FleetSettings]
    known: dict[str, HostFacts]

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`. A host that does not answer is down, and its domains are unknown."""
        hosts: dict[str, HostFacts] = {}
        domains: dict[str, list[DomainFacts]] = {}
        for name, uri in self.uris.items():
            try:
                hosts[name] = self.known[name] = self.hypervisors.host(uri)
                domains[name] = self.hypervisors.domains(uri)
            except HypervisorError:
                hosts.pop(name, None)
        models = self._cpu_models(hosts, domains)
        settings = self.settings()
        fleet = assemble(self.uris, hosts, domains, settings, models, self.known)
        check(fleet)
        return fleet

    def _cpu_models(
        self, hosts: Mapping[str, HostFacts], domains: Mapping[str, list[DomainFacts]]
    ) -> dict[str, list[str]]:
        """Keys of the guests' CPUs that each host offers; asked once for each CPU and host."""
        cpus = {one.cpu_key: one.cpu for found in domains.values() for one in found if one.cpu_key}
        offered: dict[str, list[str]] = {}
        for name in hosts:
            offered[name] = []
            for key, cpu in cpus.items():
                own = any(one.cpu_key == key and not one.arriving for one in domains.get(name, ()))
                try:
                    if own or self.hypervisors.accepts(self.uris[name], cpu):
                        offered[name].append(key)
                except HypervisorError:
                    continue  # a host that cannot say so does not offer it
        return offered


def assemble(
    names: Iterable[str],
    hosts: Mapping[str, HostFacts],
    domains: Mapping[str, list[DomainFacts]],
    settings: FleetSettings,
    models: Mapping[str, list[str]],
    known: Mapping[str, HostFacts],
) -> Fleet:
    """Make a fleet of facts and settings. No IO.

    Raises:
        PlacementError: two domains of one name run on different hosts.
    """
    made = [_host(name, hosts, settings, models, known) for name in names]
    found = _domains(domains, settings)
    there = {one.name for one in found}
    rules = [
        msgspec.structs.replace(rule, domains=kept)
        for rule in settings.rules
        if (kept := [name for name in rule.domains if name in there])
    ]
    return Fleet(hosts=made, domains=found, rules=rules, reserve_hosts=settings.reserve_hosts)


def _host(
    name: str,
    hosts: Mapping[str, HostFacts],
    settings: FleetSettings,
    models: Mapping[str, list[str]],
    known: Mapping[str, HostFacts],
) -> Host:
    facts, own = hosts.get(name) or known.get(name), settings.hosts.get(name, HostSettings())
    capacity: dict[str, float] = {}
    if facts is not None:
        huge = {huge_name(size): float(count) for size, count in facts.huge_pages.items()}
        capacity = {VCPUS: float(facts.cpus), MEMORY: facts.memory_bytes / MIB, **huge}
    cells = [Cell(vcpus=cell.cpus, memory_mib=cell.memory_bytes / MIB) for cell in facts.cells] if facts else []
    return Host(
        name=name,
        rack=own.rack,
        datacentre=own.datacentre,
        region=own.region,
        capacity={**capacity, **own.capacity},
        overcommit={VCPUS: OVERCOMMIT, **own.overcommit},
        reserve={MEMORY: min(RESERVED_MIB, capacity.get(MEMORY, 0.0) / 4), **own.reserve},
        cells=cells,
        cpu_models=models.get(name, []) or ["none"],
        storage=facts.pools if facts else [],
        networks=facts.networks if facts else [],
        state=own.state if name in hosts else "down",
        link_bytes_per_s=own.link_bytes_per_s,
    )


def _domains(domains: Mapping[str, list[DomainFacts]], settings: FleetSettings) -> list[Domain]:
    running: dict[str, tuple[str, DomainFacts]] = {}
    arriving: dict[str, str] = {}
    for host, found in domains.items():
        for facts in found:
            if facts.arriving:
                arriving[facts.name] = host
            elif facts.name in running:
                other = running[facts.name][0]
                raise PlacementError(
                    f"{facts.name} runs on {other} and on {host}", hint="names must be unique in the fleet: rename one"
                )
            else:
                running[facts.name] = (host, facts)
    return [
        Domain(
            name=name,
            host=host,
            arriving=arriving.get(name, ""),
            demand={**_demand(facts), **settings.demand.get(name, {})},
            cpu_model=facts.cpu_key,
            storage=facts.pools,
            networks=facts.networks,
            cells=facts.cells,
            movable=not facts.migrating,
        )
        for name, (host, facts) in running.items()
    ]


def huge_name(size_bytes: int) -> str:
    """Name of the resource that pages of a size are: `hugepages_2m`, `hugepages_1024m`."""
    return f"hugepages_{size_bytes // MIB}m"


def _demand(facts: DomainFacts) -> dict[str, float]:
    """What a domain is promised; backed by huge pages, its memory is these and no other."""
    if facts.huge_page_bytes:
        return {VCPUS: float(facts.vcpus), huge_name(facts.huge_page_bytes): facts.memory_bytes / facts.huge_page_bytes}
    return {VCPUS: float(facts.vcpus), MEMORY: facts.memory_bytes / MIB}


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


def write_settings(path: Path, settings: FleetSettings) -> None:
    """Write the settings, whole or not at all.

    Raises:
        PlacementError: they cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(settings), indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        raise PlacementError(f"cannot write {path}: {error.strerror}", hint="it needs root") from error
