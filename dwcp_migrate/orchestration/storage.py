"""Storage that hosts share, identified by the sources of pools and not by their names (pure).

The rule here: a pool on the network is known by its source. A directory is shared where two hosts see one of its files
with the same change of its inode, or where the operator says so; every other one is its host's own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.hypervisor.inventory.domain_description import DiskFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import PATH_POOLS, HostFacts, PoolFacts

EVERYWHERE: Final = ("/dev/disk/by-id/", "/dev/disk/by-path/ip-", "/dev/rbd/", "/dev/mapper/mpath")
"""Block devices whose paths identify them: the same path on two hosts is the same device."""


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
