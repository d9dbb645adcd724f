"""Inventory of a libvirtd's host and domains, and migration of a domain between two: for placement.

The rule here: facts as libvirt states them, in plain values; the caller decides what they mean. One connection a host,
opened when it is needed; no answer is a fact too, and raised as an error.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import libvirt
import msgspec

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory.connection import is_alive, keep_alive, open_connection, run_events
from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts, domain_facts
from dwcp_migrate.hypervisor.inventory.host_description import (
    HostFacts,
    PoolFacts,
    capabilities_facts,
    hypervisor_cpu,
    pool_facts,
    volume_mark,
)
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId, JobFacts
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions, flags, parameters
from dwcp_migrate.units import KIB, MIB, PAGE_BYTES

T = TypeVar("T")

ACTIVE: Final = 2
"""The flag by which libvirt lists active pools, networks and interfaces."""

UNANSWERABLE: Final = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_INVALID_ARG,
    }
)
"""Codes of a libvirtd that lacks a driver, or has no KVM."""

DOMAINS_MAX: Final = 4096

FEATURES_MAX: Final = 8
"""Missing features of a CPU that are named; a CPU of another maker lacks a hundred."""

NANOSECONDS: Final = 1e9

ALLOCATION: Final = 1
"""Place of what a disk takes on its host among the figures of virDomainGetBlockInfo."""

MARKS_MAX: Final = 32
"""Files of a directory pool whose inodes are compared with the other hosts', the first by name."""


class LibvirtHypervisors:
    """See `Hypervisors`; connections are shared by threads, as libvirt allows, and opened again after a failure."""

    def __init__(self) -> None:
        libvirt.registerErrorHandler(_ignore_error, None)  # it writes to stderr otherwise
        self._connections: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._loop: threading.Thread | None = None

    def host(self, uri: str) -> HostFacts:
        """See `Hypervisors.host`."""
        return self._ask(uri, read_host)

    def domains(self, uri: str) -> list[DomainFacts]:
        """See `Hypervisors.domains`."""
        return self._ask(uri, read_domains)

    def ping(self, uri: str) -> None:
        """See `Hypervisors.ping`."""
        self._ask(uri, lambda connection: connection.getInfo())

    def cpu_seconds(self, uri: str) -> dict[str, float]:
        """See `Hypervisors.cpu_seconds`; one call for all domains, which waits for none that hangs."""
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

        def asked(connection: Any) -> dict[str, float]:
            answer = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_CPU_TOTAL, flags)
            return {
                domain.UUIDString(): values["cpu.time"] / NANOSECONDS
                for domain, values in answer[:DOMAINS_MAX]
                if "cpu.time" in values
            }

        return self._ask(uri, asked)

    def cpu_refusal(self, uri: str, cpu: CpuFacts) -> str:
        """See `Hypervisors.cpu_refusal`."""
        return self._ask(uri, lambda connection: cpu_refusal(connection, cpu))

    def migrate(self, uri: str, guest: GuestId, destination: str, options: MigrationOptions) -> None:
        """See `Hypervisors.migrate`."""

        def go(connection: Any) -> None:
            domain = _find(connection, guest)
            domain.migrateToURI3(
                destination, parameters(options), flags(options, persistent=bool(domain.isPersistent()))
            )

        self._ask(uri, go)

    def disk_bytes(self, uri: str, guest: GuestId, targets: Sequence[str]) -> int:
        """See `Hypervisors.disk_bytes`."""

        def asked(connection: Any) -> int:
            domain = _find(connection, guest)
            return sum(int(domain.blockInfo(target)[ALLOCATION]) for target in targets)

        return self._ask(uri, asked)

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
                if broken is not None and not is_alive(broken):
                    del self._connections[uri]
            raise HypervisorError(f"{uri}: {error}", hint=f"`virsh -c {uri} list` shows whether it answers") from error

    def _connection(self, uri: str) -> Any:
        with self._lock:
            self._start_loop()
            found = self._connections.get(uri)
        if found is None:
            found = open_connection(uri)
            keep_alive(found)
            with self._lock:
                found = self._connections.setdefault(uri, found)
        return found

    def _start_loop(self) -> None:
        """Keepalive needs an event loop: libvirt's own, on a thread, unless the process has one already."""
        if self._loop is None and libvirt.virEventRegisterDefaultImpl() == 0:
            self._loop = threading.Thread(target=run_events, name="libvirt-events", daemon=True)
            self._loop.start()


def _ignore_error(_context: Any, _error: Any) -> None:
    """Every libvirt error is also raised."""


def read_host(connection: Any) -> HostFacts:
    """Read the host of a libvirt connection."""
    info, known = connection.getInfo(), capabilities_facts(connection.getCapabilities())
    cpu, has_tpm = _hypervisor_cpu(connection)
    huge = sum(bytes_ * count for bytes_, count in known.huge_pages.items())
    return HostFacts(
        cpus=info[2],
        memory_bytes=max(0, info[1] * MIB - huge),
        cpu_numbers=known.cpu_numbers,
        cells=known.cells,
        huge_pages=known.huge_pages,
        huge_free=_free_pages(connection, known.huge_pages),
        cpu=cpu,
        machines=known.machines,
        pools=[_pool(pool) for pool in _listed(connection.listAllStoragePools, ACTIVE)],
        networks=sorted(network.name() for network in _listed(connection.listAllNetworks, ACTIVE)),
        interfaces=_interfaces(connection),
        has_tpm=has_tpm,
        defined={
            one.name(): one.UUIDString() for one in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE)
        },
    )


def _listed(listing: Callable[[int], list[Any]], active: int) -> list[Any]:
    """List what is active; a libvirtd without that driver has none."""
    return _optional(lambda: listing(active)) or []


def _optional(question: Callable[[], T]) -> T | None:
    """Ask what not every libvirtd can answer; None where it cannot."""
    try:
        return question()
    except libvirt.libvirtError as error:
        if error.get_error_code() in UNANSWERABLE:
            return None
        raise


def _hypervisor_cpu(connection: Any) -> tuple[CpuFacts | None, bool | None]:
    text = _optional(lambda: connection.getDomainCapabilities(None, None, None, "kvm", 0))
    return (None, None) if text is None else hypervisor_cpu(text)


def _free_pages(connection: Any, pages: Mapping[int, int]) -> dict[int, int]:
    """Huge pages that are free, by size in bytes; all of them where libvirt does not say."""
    if not pages:
        return {}
    sizes = [bytes_ // KIB for bytes_ in pages]
    found = _optional(lambda: connection.getFreePages(sizes, -1, 1, 0))
    if found is None:
        return dict(pages)
    return {kib * KIB: sum(cell.get(kib, 0) for cell in found.values()) for kib in sizes}


def _interfaces(connection: Any) -> list[str] | None:
    """Names of the host's network interfaces that are up; None where libvirt has no driver that knows them."""
    found = _optional(lambda: connection.listAllInterfaces(ACTIVE))
    return None if found is None else sorted(one.name() for one in found)


def _pool(pool: Any) -> PoolFacts:
    facts = pool_facts(pool.XMLDesc(0))
    if facts.kind not in {"dir", "fs"}:
        return facts
    volumes = sorted(_listed(pool.listAllVolumes, 0), key=lambda volume: str(volume.name()))[:MARKS_MAX]
    marks: dict[str, str] = {}
    for volume in volumes:
        with contextlib.suppress(libvirt.libvirtError):  # it was removed meanwhile
            marks[volume.name()] = volume_mark(volume.XMLDesc(0))
    return msgspec.structs.replace(facts, marks=marks)


def cpu_refusal(connection: Any, cpu: CpuFacts) -> str:
    """Ask whether a host's hypervisor offers a CPU to guests.

    Args:
        connection: to the host's libvirtd (libvirt.virConnect).
        cpu: that a guest was started with.

    Returns:
        Libvirt's reason why not, shortened; empty when it does.

    Raises:
        libvirt.libvirtError: any other answer than yes and no.
    """
    flags = libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
    try:
        try:
            connection.compareHypervisorCPU(None, cpu.arch or None, None, "kvm", cpu.text, flags)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in UNANSWERABLE:
                raise
            connection.compareCPU(cpu.text, flags)  # the host's CPU without what the hypervisor adds
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_CPU_INCOMPATIBLE:
            return shortened(str(error))
        raise
    return ""


def shortened(words: str) -> str:
    """Libvirt's words about a CPU with the first few of the features that they list."""
    said, colon, names = words.rpartition(": ")
    features = names.split(", ")
    if not colon or len(features) <= FEATURES_MAX:
        return words
    return f"{said}: {', '.join(features[:FEATURES_MAX])} and {len(features) - FEATURES_MAX} more"


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
        # Libvirt refuses statistics at a migration's destination: "available only on the source host".
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return "incoming"
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and _is_active(domain):
            return "incoming"
        if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return ""
        raise
