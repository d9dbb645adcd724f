"""Inventory of a libvirtd's host and domains, and migration of a domain between two: for placement.

The rule here: facts as libvirt states them, in plain values; what they mean is decided by who asked. One connection a
host, opened when it is needed; a host that does not answer is an answer too.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.units import KIB, MIB, PAGE_BYTES

T = TypeVar("T")

KEEPALIVE_S: Final = 5
KEEPALIVE_COUNT: Final = 3
"""A host that dies fails our calls after 20 s instead of holding them."""

DOMAINS_MAX: Final = 4096
XML_BYTES_MAX: Final = 4 * MIB


class CellFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A NUMA cell of a host."""

    cpus: int
    memory_bytes: int


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A host: pages by their size in bytes in `huge_pages`; `pools` and `networks` are those that are active."""

    cpus: int
    memory_bytes: int
    cells: list[CellFacts] = []
    huge_pages: dict[int, int] = {}
    pools: list[str] = []
    networks: list[str] = []


class DomainFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A domain that runs, or is about to.

    Attributes:
        vcpus: that it may use, `memory_bytes` likewise.
        arriving: it is the second half of a migration to this host.
        migrating: it has a migration job on this host.
        cells: NUMA cells of the guest that are bound to the host's.
        cpu: of a guest that runs on the host's CPU: libvirt's description; `cpu_key` names it.
        pools: storage pools that its disks come from, `networks` likewise.
        huge_page_bytes: size of the pages that back its memory, 0 for normal ones.
    """

    name: str
    uuid: str
    vcpus: int
    memory_bytes: int
    arriving: bool = False
    migrating: bool = False
    persistent: bool = False
    cells: int = 0
    cpu: str = ""
    cpu_key: str = ""
    pools: list[str] = []
    networks: list[str] = []
    huge_page_bytes: int = 0


class Hypervisors(Protocol):
    """Several libvirtds, by the URI of each."""

    def host(self, uri: str) -> HostFacts:
        """Read a host.

        Raises:
            HypervisorError: it does not answer.
        """

    def domains(self, uri: str) -> list[DomainFacts]:
        """Read its domains that run.

        Raises:
            HypervisorError: it does not answer.
        """

    def accepts(self, uri: str, cpu: str) -> bool:
        """Whether the host's CPU offers what a guest's CPU needs.

        Raises:
            HypervisorError: it does not answer.
        """

    def migrate(self, uri: str, name: str, destination: str) -> None:
        """Migrate a domain live, host to host, and wait until it has arrived.

        Raises:
            HypervisorError: it did not, or nobody knows.
        """

    def job_runs(self, uri: str, name: str) -> bool:
        """Whether a domain has a migration job on a host.

        Raises:
            HypervisorError: the host does not answer.
        """


class LibvirtHypervisors:
    """See `Hypervisors`; connections are shared by threads, as libvirt allows, and opened again after a failure."""

    def __init__(self) -> None:
        libvirt.registerErrorHandler(_ignore_error, None)  # it writes to stderr otherwise
        self._connections: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._loop: threading.Thread | None = None

    def host(self, uri: str) -> HostFacts:
        """See `Hypervisors.host`."""
        return self._ask(uri, _host)

    def domains(self, uri: str) -> list[DomainFacts]:
        """See `Hypervisors.domains`."""
        return self._ask(uri, _domains)

    def accepts(self, uri: str, cpu: str) -> bool:
        """See `Hypervisors.accepts`."""
        good = (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)
        return self._ask(uri, lambda connection: bool(connection.compareCPU(cpu, 0) in good))

    def migrate(self, uri: str, name: str, destination: str) -> None:
        """See `Hypervisors.migrate`."""

        def go(connection: Any) -> None:
            domain = connection.lookupByName(name)
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
            if domain.isPersistent():
                flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
            domain.migrateToURI3(destination, {}, flags)

        self._ask(uri, go)

    def job_runs(self, uri: str, name: str) -> bool:
        """See `Hypervisors.job_runs`."""

        def asked(connection: Any) -> bool:
            try:
                return bool(connection.lookupByName(name).jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return False
                raise

        return self._ask(uri, asked)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            connections, self._connections = self._connections, {}
        for connection in connections.values():
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _ask(self, uri: str, question: Callable[[Any], T]) -> T:
        try:
            return question(self._connection(uri))
        except libvirt.libvirtError as error:
            with self._lock:
                broken = self._connections.get(uri)
                if broken is not None and not _is_alive(broken):
                    del self._connections[uri]
            raise HypervisorError(f"{uri}: {error}", hint="virsh -c URI list shows whether it answers") from error

    def _connection(self, uri: str) -> Any:
        with self._lock:
            self._start_loop()
            found = self._connections.get(uri)
        if found is None:
            found = libvirt.open(uri)
            with contextlib.suppress(libvirt.libvirtError):  # a local driver has no keepalive
                found.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
            with self._lock:
                found = self._connections.setdefault(uri, found)
        return found

    def _start_loop(self) -> None:
        """Keepalive needs an event loop: libvirt's own, on a thread, unless the process has one already."""
        if self._loop is None and libvirt.virEventRegisterDefaultImpl() == 0:
            self._loop = threading.Thread(target=_run_events, name="libvirt-events", daemon=True)
            self._loop.start()


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _ignore_error(_context: Any, _error: Any) -> None:
    """Every libvirt error is also raised."""


def _host(connection: Any) -> HostFacts:
    info, capabilities = connection.getInfo(), connection.getCapabilities()
    return HostFacts(
        cpus=info[2],
        memory_bytes=info[1] * MIB,
        cells=host_cells(capabilities),
        huge_pages=huge_pages(capabilities),
        pools=sorted(pool.name() for pool in _listed(connection.listAllStoragePools, 2)),
        networks=sorted(network.name() for network in _listed(connection.listAllNetworks, 2)),
    )


def _listed(listing: Callable[[int], list[Any]], active: int) -> list[Any]:
    """List what is active; a libvirtd without that driver has none."""
    try:
        return listing(active)
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT}:
            return []
        raise


def _domains(connection: Any) -> list[DomainFacts]:
    """Read domains that run; one that goes away meanwhile is left out."""
    found = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[:DOMAINS_MAX]:
        with contextlib.suppress(libvirt.libvirtError):
            found.append(_domain(domain))
    return found


def _domain(domain: Any) -> DomainFacts:
    facts = domain_facts(domain.XMLDesc(0))
    job = _job(domain)
    return msgspec.structs.replace(
        facts, arriving=job == "incoming", migrating=job == "outgoing", persistent=bool(domain.isPersistent())
    )


def _job(domain: Any) -> str:
    """Say which job a domain has: `outgoing` (or any other that keeps it busy), `incoming`, or none."""
    try:
        return "outgoing" if domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE else ""
    except libvirt.libvirtError as error:
        # The destination of a migration has statistics for nobody (qemuDomainGetJobStatsInternal).
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
            return "incoming"
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ""
        raise


def host_cells(capabilities: str) -> list[CellFacts]:
    """Read the NUMA cells out of libvirt's capabilities; one cell is no topology.

    Raises:
        HypervisorError: not XML, or too large.
    """
    cells = []
    for cell in _parsed(capabilities).iterfind("./host/topology/cells/cell"):
        memory = cell.findtext("memory", "0")
        cells.append(CellFacts(cpus=len(cell.findall("./cpus/cpu")), memory_bytes=int(memory) * KIB))
    return cells if len(cells) > 1 else []


def huge_pages(capabilities: str) -> dict[int, int]:
    """Read how many pages of each size beyond the normal one a host has, by size in bytes.

    Raises:
        HypervisorError: not XML, or too large.
    """
    found: dict[int, int] = {}
    for pages in _parsed(capabilities).iterfind("./host/topology/cells/cell/pages"):
        size = _size(pages, KIB, "size")
        if size > PAGE_BYTES and int(pages.text or "0"):
            found[size] = found.get(size, 0) + int(pages.text or "0")
    return found


def domain_facts(description: str) -> DomainFacts:
    """Read what placement needs out of a domain's description.

    Raises:
        HypervisorError: not XML, or too large.
    """
    root = _parsed(description)
    cpu = root.find("cpu")
    on_host_cpu = cpu is not None and root.get("type") == "kvm"
    text = ET.tostring(cpu, "unicode") if on_host_cpu and cpu is not None else ""
    pages = root.find("./memoryBacking/hugepages/page")
    backing = root.find("./memoryBacking/hugepages")
    return DomainFacts(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        vcpus=int(root.findtext("vcpu", "1")),
        memory_bytes=_size(root.find("memory"), KIB),
        cells=len(root.findall("./numatune/memnode")),
        cpu=text,
        cpu_key=hashlib.sha256(text.encode()).hexdigest()[:16] if text else "",
        pools=sorted({source.get("pool", "") for source in root.iterfind("./devices/disk/source")} - {""}),
        networks=sorted({source.get("network", "") for source in root.iterfind("./devices/interface/source")} - {""}),
        huge_page_bytes=_size(pages, KIB, "size") if pages is not None else (2 * MIB if backing is not None else 0),
    )


_UNITS: Final = {"b": 1, "bytes": 1, "KiB": KIB, "k": KIB, "MiB": MIB, "M": MIB, "GiB": 1024 * MIB, "G": 1024 * MIB}


def _size(element: "ET.Element | None", default: int, attribute: str = "") -> int:
    if element is None:
        return 0
    text = element.get(attribute, "0") if attribute else (element.text or "0")
    return int(text) * _UNITS.get(element.get("unit", ""), default)


def _parsed(text: str) -> "ET.Element":
    if len(text) > XML_BYTES_MAX:
        raise HypervisorError(f"a description of {len(text)} bytes is more than {XML_BYTES_MAX}")
    try:
        return ET.fromstring(text)  # noqa: S314 - from the local libvirtd or a peer's, over its authenticated connection
    except ET.ParseError as error:
        raise HypervisorError(f"libvirt's description is no XML: {error}") from error
