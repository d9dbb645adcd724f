"""Inventory of a libvirtd's host and domains, and migration of a domain between two: for placement.

The rule here: facts as libvirt states them, in plain values; what they mean is decided by who asked. One connection a
host, opened when it is needed; a host that does not answer is an answer too.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.migration_options import MigrationOptions, flags, parameters
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
        trouble: libvirt's own words where it could not be asked about it; then sizes may be missing (0).
    """

    name: str
    uuid: str
    vcpus: int = 0
    memory_bytes: int = 0
    arriving: bool = False
    migrating: bool = False
    persistent: bool = False
    cells: int = 0
    cpu: str = ""
    cpu_key: str = ""
    pools: list[str] = []
    networks: list[str] = []
    huge_page_bytes: int = 0
    trouble: str = ""


class GuestId(NamedTuple):
    """How a domain is found on a host: by its UUID, or where that is not known by its name."""

    name: str
    uuid: str = ""


class JobFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A domain's migration job.

    Attributes:
        passes: over its memory so far, 0 where libvirt does not say.
        remaining_bytes: of memory and disks.
        bytes_per_s: that are sent, `dirty_bytes_per_s` that the guest writes meanwhile.
    """

    passes: int = 0
    remaining_bytes: int = 0
    bytes_per_s: float = 0.0
    dirty_bytes_per_s: float = 0.0


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

    def migrate(self, uri: str, guest: GuestId, destination: str, options: MigrationOptions) -> None:
        """Migrate a domain live, host to host, and wait until it has arrived.

        Raises:
            HypervisorError: it did not, or nobody knows.
        """

    def job(self, uri: str, guest: GuestId) -> JobFacts | None:
        """Read a domain's job on a host; None if it has none, or does not run there.

        Raises:
            HypervisorError: the host does not answer.
        """

    def abort(self, uri: str, guest: GuestId) -> None:
        """End a domain's migration; it runs on where it is.

        Raises:
            HypervisorError: libvirt refuses, or does not answer.
        """

    def start_postcopy(self, uri: str, guest: GuestId) -> None:
        """Let a domain that migrates with `MigrationOptions.postcopy` run on at its destination at once.

        Raises:
            HypervisorError: libvirt refuses, or does not answer.
        """

    def suspend(self, uri: str, guest: GuestId) -> None:
        """Pause a domain, so that its migration comes to its end; it runs again at its destination.

        Raises:
            HypervisorError: libvirt refuses, or does not answer.
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
        return self._ask(uri, read_domains)

    def accepts(self, uri: str, cpu: str) -> bool:
        """See `Hypervisors.accepts`."""
        good = (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)
        return self._ask(uri, lambda connection: bool(connection.compareCPU(cpu, 0) in good))

    def migrate(self, uri: str, guest: GuestId, destination: str, options: MigrationOptions) -> None:
        """See `Hypervisors.migrate`."""

        def go(connection: Any) -> None:
            domain = _find(connection, guest)
            domain.migrateToURI3(
                destination, parameters(options), flags(options, persistent=bool(domain.isPersistent()))
            )

        self._ask(uri, go)

    def job(self, uri: str, guest: GuestId) -> JobFacts | None:
        """See `Hypervisors.job`."""

        def asked(connection: Any) -> JobFacts | None:
            try:
                return job_facts(_find(connection, guest).jobStats())
            except libvirt.libvirtError as error:
                if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}:
                    return None
                raise

        return self._ask(uri, asked)

    def abort(self, uri: str, guest: GuestId) -> None:
        """See `Hypervisors.abort`."""
        self._ask(uri, lambda connection: _find(connection, guest).abortJob())

    def start_postcopy(self, uri: str, guest: GuestId) -> None:
        """See `Hypervisors.start_postcopy`."""
        self._ask(uri, lambda connection: _find(connection, guest).migrateStartPostCopy())

    def suspend(self, uri: str, guest: GuestId) -> None:
        """See `Hypervisors.suspend`."""
        self._ask(uri, lambda connection: _find(connection, guest).suspend())

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
            raise HypervisorError(f"{uri}: {error}", hint=f"`virsh -c {uri} list` shows whether it answers") from error

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


def _find(connection: Any, guest: GuestId) -> Any:
    return connection.lookupByUUIDString(guest.uuid) if guest.uuid else connection.lookupByName(guest.name)


def job_facts(stats: Mapping[str, Any]) -> JobFacts | None:
    """Read libvirt's statistics of a job; None where there is none."""
    if stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return JobFacts(
        passes=stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_ITERATION, 0),
        remaining_bytes=stats.get("data_remaining", 0),
        bytes_per_s=float(stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_BPS, 0)),
        dirty_bytes_per_s=float(
            stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE, 0)
            * stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE, PAGE_BYTES)
        ),
    )


def read_domains(connection: Any) -> list[DomainFacts]:
    """Read the domains that run on a libvirt connection.

    One that went away meanwhile is left out. One that libvirt cannot be asked about is among them, with libvirt's
    words as its `trouble`: it runs there, whatever its state.

    Raises:
        HypervisorError: more than DOMAINS_MAX.
    """
    domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    if len(domains) > DOMAINS_MAX:
        raise HypervisorError(f"{len(domains)} domains on one host are more than {DOMAINS_MAX}")
    return [facts for domain in domains if (facts := _domain(domain)) is not None]


def _domain(domain: Any) -> DomainFacts | None:
    """Read a domain; None once it does not run any more."""
    facts = DomainFacts(name=domain.name(), uuid=domain.UUIDString())
    try:
        facts = domain_facts(domain.XMLDesc(0))
        job = _job(domain)
        persistent = bool(domain.isPersistent())
    except HypervisorError as error:
        return msgspec.structs.replace(facts, trouble=str(error))
    except libvirt.libvirtError as error:
        return None if _is_gone(domain, error) else msgspec.structs.replace(facts, trouble=str(error))
    return msgspec.structs.replace(
        facts, arriving=job == "incoming", migrating=job == "outgoing", persistent=persistent
    )


def _is_gone(domain: Any, error: libvirt.libvirtError) -> bool:
    """Whether an error means that a domain ended or moved away while it was read."""
    if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
        return True
    return error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and not _is_active(domain)


def _is_active(domain: Any) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN)


def _job(domain: Any) -> str:
    """Say which job a domain has: `outgoing` (or any other that keeps it busy), `incoming`, or none."""
    try:
        return "outgoing" if domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE else ""
    except libvirt.libvirtError as error:
        # The destination of a migration has statistics for nobody: "available only on the source host".
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return "incoming"
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and _is_active(domain):
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
