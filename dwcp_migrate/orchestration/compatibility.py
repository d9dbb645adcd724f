"""Compatibility of guests and hosts (pure): CPU, machine type, networks, media, pinned CPUs.

The rule here: a fact that libvirt does not tell forbids nothing; libvirt itself then judges when the migration begins.
Guests with equal needs are judged once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.orchestration.storage import DiskPlace, StorageMap, local_words

CpuRefusal = Callable[[str, CpuFacts], str]
"""Reason for which a host does not offer a CPU, in words; empty when it does."""


@dataclass(frozen=True, slots=True)
class Needs:
    """A guest's requirements of a host beside room; equal ones are one class."""

    cpu: CpuFacts | None
    cpu_of: str
    machine: str
    networks: tuple[str, ...]
    bridges: tuple[str, ...]
    pinned_cpus: tuple[int, ...]
    pinned_cells: tuple[int, ...]
    has_tpm: bool
    media: tuple[tuple[DiskPlace, str], ...]


@dataclass(slots=True)
class Compatibility:
    """The judgement of a fleet's guests.

    Attributes:
        hosts: that answered.
        storage: of them.
        cpu_refusal: asks libvirt.
        copies: migrations copy writable disks that are not shared.
        bars: by class, the hosts that cannot run its guests, and why.
    """

    hosts: Mapping[str, HostFacts]
    storage: StorageMap
    cpu_refusal: CpuRefusal
    copies: bool = False
    bars: dict[str, dict[str, str]] = field(default_factory=dict)
    _names: dict[Needs, str] = field(default_factory=dict)
    _defined: dict[str, list[tuple[str, str]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Note where each name is defined."""
        for host, facts in self.hosts.items():
            for name, uuid in facts.defined.items():
                self._defined.setdefault(name, []).append((host, uuid))

    def judge(self, host: str, guest: DomainFacts) -> str:
        """Name the class of a guest by what it needs of a host; the hosts that cannot run it are entered in `bars`.

        Args:
            host: on which it runs; that one can run it, whatever the comparison says.
            guest: as libvirt describes it.

        Returns:
            Key of `bars`; empty where every host can run the guest.
        """
        needs = self._needs(host, guest)
        if needs not in self._names:
            barred = {name: why for name, facts in self.hosts.items() if (why := self._obstacle(needs, name, facts))}
            self._names[needs] = f"needs {len(self._names)}" if barred else ""
            if barred:
                self.bars[self._names[needs]] = barred
        name = self._names[needs]
        if name:
            self.bars[name].pop(host, None)  # it does run there, whatever the comparison says
        return name

    def copied(self, host: str, guest: DomainFacts) -> dict[str, list[str]]:
        """List the disks of a guest that its migration copies.

        Args:
            host: on which it runs.
            guest: as libvirt describes it.

        Returns:
            Targets, as `vda`, by the path of the pool that they are in, empty for none; nothing unless `copies` is set.
        """
        found: dict[str, list[str]] = {}
        paths = {pool.path for pool in self.hosts[host].pools}
        for disk in guest.disks if self.copies else ():
            place = self.storage.place(host, disk)
            if disk.copied and not self.storage.is_shared(place):
                found.setdefault(place.at if place.at in paths else "", []).append(disk.target)
        return found

    def clash(self, host: str, guest: DomainFacts) -> str:
        """Find the hosts on which another domain of a guest's name is defined; they are entered in `bars`.

        Args:
            host: on which the guest runs.
            guest: as libvirt describes it.

        Returns:
            Key of `bars`; empty where there is no such host.
        """
        other = {
            name: f"another domain named {guest.name} is defined there"
            for name, uuid in self._defined.get(guest.name, ())
            if name != host and uuid != guest.uuid
        }
        if not other:
            return ""
        self.bars[f"name {guest.name}"] = other
        return f"name {guest.name}"

    def ties(self, host: str, guest: DomainFacts) -> str:
        """Say what keeps a guest on its host, whatever the other hosts are.

        Args:
            host: on which it runs.
            guest: as libvirt describes it.

        Returns:
            Text for people; empty where nothing does.
        """
        if guest.ties:
            return f"it uses {', '.join(guest.ties)}"
        if media := local_words(self.storage, host, guest, copies=self.copies):
            are = "is" if len(media) == 1 else "are"
            return (
                f"{', '.join(media)} {are} on {host} alone as far as libvirt shows: --copy-storage-all copies disks, "
                "`shared` in placement.json names paths that all hosts share"
            )
        return ""

    def _needs(self, host: str, guest: DomainFacts) -> Needs:
        cpu, cpu_of = guest.cpu, ""
        if cpu is not None and cpu.is_hosts_own:
            own = self.hosts[host].cpu
            cpu, cpu_of = (own, "") if own is not None else (cpu, host)
        places = [self.storage.place(host, one) for one in guest.disks if not (self.copies and one.copied)]
        return Needs(
            cpu=cpu,
            cpu_of=cpu_of,
            machine=guest.machine,
            networks=guest.networks,
            bridges=guest.bridges,
            pinned_cpus=guest.pinned_cpus,
            pinned_cells=guest.pinned_cells,
            has_tpm=guest.has_tpm,
            media=tuple(
                (DiskPlace(one.storage, one.at, ""), one.words.split(" (")[0]) for one in places if one.storage
            ),
        )

    def _obstacle(self, needs: Needs, name: str, facts: HostFacts) -> str:
        found = (
            _missing("network", needs.networks, facts.networks),
            _missing("bridge or interface", needs.bridges, facts.interfaces),
            self._media_obstacle(needs, name),
            _machine_obstacle(needs, facts),
            _pin_obstacle(needs, facts),
            "it cannot emulate a TPM" if needs.has_tpm and facts.has_tpm is False else "",
        )
        return next(filter(None, found), "") or self._cpu_obstacle(needs, name)

    def _media_obstacle(self, needs: Needs, name: str) -> str:
        for place, words in needs.media:
            if not self.storage.reaches(name, place):
                return f"it does not reach {place.storage} as {place.at}, where {words} is"
        return ""

    def _cpu_obstacle(self, needs: Needs, name: str) -> str:
        cpu = needs.cpu
        if cpu is None:
            return ""
        if needs.cpu_of == name:
            return ""
        if needs.cpu_of:
            guests = f"the guest sees {needs.cpu_of}'s CPU ({cpu.mode})"
            return f"whether its CPU has all that {needs.cpu_of}'s has is not known, and {guests}"
        why = self.cpu_refusal(name, cpu)
        return f"its CPU does not offer {cpu.model}: {why}" if why else ""


def _missing(what: str, needed: Sequence[str], there: Sequence[str] | None) -> str:
    missing = [] if there is None else [one for one in needed if one not in there]
    return f"it has no {what} {', '.join(missing)}" if missing else ""


def _machine_obstacle(needs: Needs, facts: HostFacts) -> str:
    if needs.machine and facts.machines and needs.machine not in facts.machines:
        return f"its QEMU does not know machine type {needs.machine}"
    return ""


def _pin_obstacle(needs: Needs, facts: HostFacts) -> str:
    numbers = facts.cpu_numbers or tuple(range(facts.cpus))
    if gone := [cpu for cpu in needs.pinned_cpus if cpu not in numbers]:
        return f"it has no CPU {', '.join(map(str, gone[:8]))}, to which the guest is pinned"
    cells = {cell.number for cell in facts.cells} or {0}
    if lost := [cell for cell in needs.pinned_cells if cell not in cells]:
        return f"it has no NUMA cell {', '.join(map(str, lost))}, to which the guest's memory is bound"
    return ""
