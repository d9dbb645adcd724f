"""Storage that hosts share, identified by the sources of pools and not by their names (pure).

The rule here: a pool on the network is known by its source. A directory is shared where two hosts see one of its files
with the same change of its inode, or where the operator says so; every other one is its host's own. A disk that a
migration copies lies at its destination where it lies now, so that it takes room in the pool at the same path; a host
without a pool there, or whose pool does not say what is free, is not judged: libvirt finds out.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dwcp_migrate.hypervisor.inventory.domain_description import DiskFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import PATH_POOLS, HostFacts, PoolFacts
from dwcp_migrate.units import MIB

EVERYWHERE: Final = ("/dev/disk/by-id/", "/dev/disk/by-path/ip-", "/dev/rbd/", "/dev/mapper/mpath")
"""Block devices whose paths identify them: the same path on two hosts is the same device."""


NOT_JUDGED_MIB: Final = 1e12
"""Room of a host that is not judged: more than any disk."""

POOLS_MAX: Final = 8
"""Pools that are counted, the first ones by path: each is a resource of the fleet, of which there are 32 at most."""

PATH_CHARACTERS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class DiskPlace:
    """Place of a disk.

    Attributes:
        storage: identity of the storage; empty where every host reaches it.
        at: how a host must reach it for libvirt to find the disk: `pool NAME` or a path.
        words: the disk, for the operator.
    """

    storage: str
    at: str
    words: str


class StorageMap:
    """The storage of some hosts.

    Args:
        hosts: by name.
        shared: paths that all hosts reach the same, as the operator says.
    """

    def __init__(self, hosts: Mapping[str, HostFacts], shared: Sequence[str]) -> None:
        self._hosts = hosts
        self._shared = tuple(one.rstrip("/") for one in shared)
        self._on_network = {pool.source for facts in hosts.values() for pool in facts.pools if pool.source}
        self._directories = _groups(hosts)
        self._reached = {name: self._reach(name) for name in hosts}
        self._reaching = Counter(way for ways in self._reached.values() for way in ways)

    def place(self, host: str, disk: DiskFacts) -> DiskPlace:
        """Say on which storage a disk is.

        Args:
            host: on which its domain runs.
            disk: as the domain's description has it.
        """
        what = "the medium in" if disk.device in {"cdrom", "floppy"} else "disk"
        words = f"{what} {disk.target} ({disk.source or disk.kind})"
        pools = self._hosts[host].pools
        if disk.kind == "volume":
            pool = next((one for one in pools if one.name == disk.pool), None)
            storage = self._identity(host, pool) if pool else f"a pool of {host} that is not active"
            return DiskPlace(storage, f"pool {disk.pool}", words)
        if disk.kind not in {"file", "block", "dir"} or self._is_everywhere(disk.source):
            return DiskPlace("", "", words)
        below = [one for one in pools if one.path and disk.source.startswith(one.path + "/")]
        pool = max(below, key=lambda one: len(one.path), default=None)
        if pool is None:
            return DiskPlace(f"{disk.source} of {host}", disk.source, words)
        return DiskPlace(self._identity(host, pool), pool.path, words)

    def reaches(self, host: str, place: DiskPlace) -> bool:
        """Whether a host reaches a disk where libvirt will look for it.

        Args:
            host: its name.
            place: of the disk.
        """
        return not place.storage or (place.storage, place.at) in self._reached[host]

    def is_shared(self, place: DiskPlace) -> bool:
        """Whether a disk is on the network, or more than one host reaches it."""
        if not place.storage or place.storage in self._on_network:
            return True
        return self._reaching[place.storage, place.at] > 1

    def _is_everywhere(self, path: str) -> bool:
        return path.startswith(EVERYWHERE) or any(path == one or path.startswith(one + "/") for one in self._shared)

    def _identity(self, host: str, pool: PoolFacts) -> str:
        if pool.source:
            return pool.source
        if pool.path and self._is_everywhere(pool.path):
            return ""
        return self._directories.get((host, pool.path), f"{pool.path or pool.name} of {host}")

    def _reach(self, host: str) -> set[tuple[str, str]]:
        found = set()
        for pool in self._hosts[host].pools:
            identity = self._identity(host, pool)
            found.add((identity, f"pool {pool.name}"))
            if pool.kind in PATH_POOLS or pool.path:
                found.add((identity, pool.path))
        return found


def _groups(hosts: Mapping[str, HostFacts]) -> dict[tuple[str, str], str]:
    """Identities of directories, by host and path: hosts that show one file alike have one directory."""
    found: dict[tuple[str, str], str] = {}
    seen: dict[tuple[str, str, str], str] = {}
    for name, facts in hosts.items():
        for pool in facts.pools:
            if pool.kind not in {"dir", "fs"} or not pool.marks:
                continue
            keys = [(pool.path, file, mark) for file, mark in pool.marks.items() if mark]
            identity = next((seen[key] for key in keys if key in seen), f"{pool.path} as {name} has it")
            found[name, pool.path] = identity
            seen |= dict.fromkeys(keys, identity)
    return found


def local_words(storage: StorageMap, host: str, guest: DomainFacts, *, copies: bool) -> list[str]:
    """The media of a domain that only its own host reaches, in words.

    Args:
        storage: of all hosts.
        host: of the domain.
        guest: the domain.
        copies: its migration copies writable disks.
    """
    places = [storage.place(host, disk) for disk in guest.disks if not (copies and disk.copied)]
    return [place.words for place in places if not storage.is_shared(place)]


@dataclass(frozen=True, slots=True)
class CopiedDisks:
    """The disks of all guests that their migrations copy.

    Attributes:
        bytes_by_pool: by guest (UUID, or name where it has none) and path of the pool; empty for those in no pool.
    """

    bytes_by_pool: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def total_mib(self, guest: str) -> float:
        """Size of all that a guest's migration copies."""
        return sum(self.bytes_by_pool.get(guest, {}).values()) / MIB

    def demand(self, guest: str) -> dict[str, float]:
        """Room that a guest's disks take in each pool, as amounts of resources."""
        sizes = self.bytes_by_pool.get(guest, {})
        return {room_name(path): sizes[path] / MIB for path in self._paths() if path in sizes}

    def room(self, host: HostFacts, guests: Iterable[str]) -> dict[str, float]:
        """Room that a host has for such disks, those of its own guests included.

        Args:
            host: its pools count.
            guests: that run there.
        """
        there, free = list(guests), {pool.path: pool.available_bytes for pool in host.pools if pool.path}
        found = {}
        for path in self._paths():
            available = free.get(path)
            own = sum(self.bytes_by_pool.get(one, {}).get(path, 0) for one in there)
            found[room_name(path)] = NOT_JUDGED_MIB if available is None else (available + own) / MIB
        return found

    def _paths(self) -> Collection[str]:
        paths = {path for sizes in self.bytes_by_pool.values() for path in sizes}
        return sorted(path for path in paths if 0 < len(path) <= PATH_CHARACTERS_MAX)[:POOLS_MAX]


def room_name(path: str) -> str:
    """Name of the resource that room in the pool at a path is."""
    return f"storage_mib in {path}"
