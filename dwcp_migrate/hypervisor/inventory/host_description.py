"""Libvirt's descriptions of a host as placement's facts (pure): its memory, cells, CPU, machine types and pools.

Hosts of one kind offer guests the same word for word: what a QEMU offers is parsed once and remembered.
"""

from functools import lru_cache
from typing import Final

import msgspec

from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, cpu_text, parsed, size
from dwcp_migrate.units import KIB, MIB

HUGE_BYTES_MIN: Final = MIB
"""Smallest page that counts as huge; smaller ones may be a kernel's normal pages (64 KiB on some aarch64)."""

SHARED_POOLS: Final = frozenset({"netfs", "rbd", "iscsi", "iscsi-direct", "gluster", "sheepdog", "vstorage"})
"""Types of pools whose source is on the network: pools with the same source are the same storage."""

PATH_POOLS: Final = frozenset({"dir", "fs", "netfs", "vstorage"})
"""Types of pools whose volumes are files below the target path."""


OFFERS_KEPT: Final = 64
"""Different domain capabilities that are remembered; some 10 KB each."""


class CellFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A NUMA cell of a host.

    Attributes:
        cpus: how many it has.
        memory_bytes: that are not huge pages.
        number: libvirt's.
    """

    cpus: int
    memory_bytes: int
    number: int = 0


class PoolFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An active storage pool.

    Attributes:
        kind: libvirt's type.
        source: where its storage is, the same text for the same storage; empty for a directory of the host's own.
        path: that volumes are below of, where they have paths.
        marks: of a directory: when the inodes of some of its files changed, by name. A file system that two hosts share
            shows both the same; such a time has nanoseconds, and nobody can set it.
        available_bytes: free for new volumes when libvirt looked last; None where it does not say.
    """

    name: str
    kind: str
    source: str = ""
    path: str = ""
    marks: dict[str, str] = {}
    available_bytes: int | None = None


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a host, from its capabilities.

    Attributes:
        cpus: it has, and `cpu_numbers` are what the kernel calls them; empty where libvirt does not say.
        memory_bytes: without its huge pages.
        cells: NUMA cells, none where there is only one.
        huge_pages: by size in bytes, `huge_free` those of them that nobody uses now.
        cpu: that its hypervisor offers to guests, as libvirt describes it for migration; None where it does not say.
        machines: machine types that its QEMU knows; empty where libvirt does not say.
        pools: active ones.
        networks: libvirt's active ones, `interfaces` the host's own; None where libvirt does not say.
        has_tpm: it can emulate TPMs; None where libvirt does not say.
        defined: UUIDs of the domains that are defined but do not run, by name.
    """

    cpus: int
    memory_bytes: int
    cpu_numbers: tuple[int, ...] = ()
    cells: list[CellFacts] = []
    huge_pages: dict[int, int] = {}
    huge_free: dict[int, int] = {}
    cpu: CpuFacts | None = None
    machines: frozenset[str] = frozenset()
    pools: list[PoolFacts] = []
    networks: list[str] = []
    interfaces: list[str] | None = None
    has_tpm: bool | None = None
    defined: dict[str, str] = {}


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a host's capabilities; see `HostFacts`."""

    cells: list[CellFacts]
    cpu_numbers: tuple[int, ...]
    huge_pages: dict[int, int]
    machines: frozenset[str]


def capabilities_facts(text: str) -> Capabilities:
    """Read a host's capabilities.

    Raises:
        HypervisorError: not XML, or too large.
    """
    root = parsed(text)
    huge: dict[int, int] = {}
    cells, numbers = [], []
    for cell in root.iterfind("./host/topology/cells/cell"):
        pages = {size(one, KIB, "size"): int(one.text or "0") for one in cell.iterfind("pages")}
        own = {bytes_: count for bytes_, count in pages.items() if bytes_ >= HUGE_BYTES_MIN and count}
        for bytes_, count in own.items():
            huge[bytes_] = huge.get(bytes_, 0) + count
        memory = size(cell.find("memory"), KIB) - sum(bytes_ * count for bytes_, count in own.items())
        cpus = [int(one.get("id", "0")) for one in cell.iterfind("./cpus/cpu")]
        numbers += cpus
        cells.append(CellFacts(cpus=len(cpus), memory_bytes=max(0, memory), number=int(cell.get("id", "0"))))
    machines = {one.text or "" for one in root.iterfind("./guest/arch/machine")}
    machines |= {one.get("canonical", "") for one in root.iterfind("./guest/arch/machine")}
    return Capabilities(
        cells=cells if len(cells) > 1 else [],
        cpu_numbers=tuple(sorted(numbers)),
        huge_pages=huge,
        machines=frozenset(machines - {""}),
    )


@lru_cache(maxsize=OFFERS_KEPT)
def hypervisor_cpu(text: str) -> tuple[CpuFacts | None, bool | None]:
    """Read a host's domain capabilities: the CPU of its host-model, and whether it can emulate TPMs.

    Raises:
        HypervisorError: not XML, or too large.
    """
    root = parsed(text)
    tpm = root.find("./devices/tpm")
    backends = {one.text for one in root.iterfind("./devices/tpm/enum[@name='backendModel']/value")}
    has_tpm = None if tpm is None else tpm.get("supported") == "yes" and "emulator" in backends
    mode = root.find("./cpu/mode[@name='host-model']")
    if mode is None or mode.get("supported") != "yes" or not mode.findtext("model"):
        return None, has_tpm
    for part in mode.iterfind("model"):
        part.set("fallback", "forbid")
    model = mode.findtext("model", "")
    return CpuFacts(mode="custom", model=model, text=cpu_text(mode, "custom"), arch=root.findtext("arch", "")), has_tpm


def pool_facts(text: str) -> PoolFacts:
    """Read a storage pool's description.

    Raises:
        HypervisorError: not XML, or too large.
    """
    root = parsed(text)
    kind = root.get("type", "")
    hosts = sorted(f"{one.get('name', '')}:{one.get('port', '')}".rstrip(":") for one in root.iterfind("./source/host"))
    parts = [
        *(one.get("path", "") for one in root.iterfind("./source/dir")),
        *(one.get("path", "") for one in root.iterfind("./source/device")),
        root.findtext("./source/name", ""),
        *(one.get("name", "") for one in root.iterfind("./source/initiator/iqn")),
    ]
    source = f"{kind} {','.join(hosts)} {' '.join(filter(None, parts))}".strip() if kind in SHARED_POOLS else ""
    path = root.findtext("./target/path", "").rstrip("/")
    free = root.findtext("available", "")
    available = int(free) if free.isdecimal() else None
    return PoolFacts(name=root.findtext("name", ""), kind=kind, source=source, path=path, available_bytes=available)


def volume_mark(text: str) -> str:
    """Time at which a volume's inode changed, as its description says; empty where it does not.

    Raises:
        HypervisorError: not XML, or too large.
    """
    return parsed(text).findtext("./target/timestamps/ctime", "")
