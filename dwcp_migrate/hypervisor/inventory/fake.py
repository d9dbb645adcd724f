"""A stand-in for several libvirtds, see `hypervisors.Hypervisors`.

The rule: it does what they promise and nothing that they cannot do; the extra attributes play the outside world.
"""

import threading
from collections.abc import Callable, Sequence

import msgspec

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId, JobFacts
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.units import GIB, MIB


class FakeHypervisors:
    """Hosts by URI, domains on them, migrations that take effect at once.

    Args:
        hosts: by URI.

    Attributes:
        dead: URIs that do not answer.
        jobs: URI and domain of migration jobs that run, begun by nobody here; each is gone once it was asked about.
        before_migration: called with URI, domain and destination as a migration begins; what it raises fails it.
        cpu_refusals: by URI and model, why a host does not offer a CPU; every other one it does.
        cpu_time_s: by domain, CPU time so far.
        troubles: by domain, libvirt's words for one that it cannot be asked about.
        endless: domains whose migrations never converge: each goes on until it is aborted, or switched to postcopy.
        deaf: domains whose migrations cannot be ended either.
        migrations: that were asked for, with URI, domain and destination; `options` of each.
        running_most: most migrations that ran at once.
    """

    def __init__(self, hosts: dict[str, HostFacts]) -> None:
        self.hosts = hosts
        self.running: dict[str, dict[str, DomainFacts]] = {uri: {} for uri in hosts}
        self.dead: set[str] = set()
        self.jobs: dict[tuple[str, str], str] = {}
        self.before_migration: Callable[[str, str, str], None] = _nothing
        self.cpu_refusals: dict[tuple[str, str], str] = {}
        self.cpu_time_s: dict[str, float] = {}
        self.troubles: dict[str, str] = {}
        self.endless: set[str] = set()
        self.deaf: set[str] = set()
        self.migrations: list[tuple[str, str, str]] = []
        self.options: list[MigrationOptions] = []
        self._ends: dict[str, tuple[threading.Event, list[str]]] = {}
        self.running_most = 0
        self._running_now = 0
        self._lock = threading.Lock()

    def start(self, uri: str, facts: DomainFacts) -> None:
        """Let a domain run on a host.

        Args:
            uri: of the host.
            facts: of the domain; one of the same name is replaced.
        """
        self.running[uri][facts.name] = facts

    def host(self, uri: str) -> HostFacts:
        """See `hypervisors.Hypervisors.host`."""
        self._answer(uri)
        return self.hosts[uri]

    def domains(self, uri: str) -> list[DomainFacts]:
        """See `hypervisors.Hypervisors.domains`."""
        self._answer(uri)
        with self._lock:
            return [
                msgspec.structs.replace(one, trouble=self.troubles.get(one.name, ""))
                for one in self.running[uri].values()
            ]

    def ping(self, uri: str) -> None:
        """See `hypervisors.Hypervisors.ping`."""
        self._answer(uri)

    def cpu_seconds(self, uri: str) -> dict[str, float]:
        """See `hypervisors.Hypervisors.cpu_seconds`."""
        self._answer(uri)
        return {one.uuid: self.cpu_time_s.get(one.name, 0.0) for one in self.running[uri].values()}

    def cpu_refusal(self, uri: str, cpu: CpuFacts) -> str:
        """See `hypervisors.Hypervisors.cpu_refusal`."""
        self._answer(uri)
        return self.cpu_refusals.get((uri, cpu.model), "")

    def migrate(self, uri: str, guest: GuestId, destination: str, options: MigrationOptions) -> None:
        """See `hypervisors.Hypervisors.migrate`."""
        self._answer(uri)
        name = guest.name
        with self._lock:
            self.migrations.append((uri, name, destination))
            self.options.append(options)
            self._ends[name] = (threading.Event(), [])
            self._running_now += 1
            self.running_most = max(self.running_most, self._running_now)
        try:
            self.before_migration(uri, name, destination)
            self._answer(destination)
            if name in self.endless:
                self._go_on(uri, name)
            self.move(uri, name, destination)
        finally:
            with self._lock:
                self._running_now -= 1

    def move(self, uri: str, name: str, destination: str) -> None:
        """Move a domain at once, as a migration by somebody else would.

        Args:
            uri: of the host where it runs.
            name: of the domain.
            destination: URI of the host where it runs from now on.

        Raises:
            HypervisorError: it does not run there.
        """
        with self._lock:
            if name not in self.running[uri]:
                raise HypervisorError(f"{uri}: no domain {name}")
            self.running[destination][name] = self.running[uri].pop(name)

    def disk_bytes(self, uri: str, guest: GuestId, targets: Sequence[str]) -> int:
        """See `hypervisors.Hypervisors.disk_bytes`: one GiB a disk."""
        self._answer(uri)
        assert guest.name in self.running[uri]
        return GIB * len(targets)

    def job(self, uri: str, guest: GuestId) -> JobFacts | None:
        """See `hypervisors.Hypervisors.job`; one of `jobs` ends at its destination after it was seen once."""
        self._answer(uri)
        destination = self.jobs.pop((uri, guest.name), "")
        if destination:
            self.move(uri, guest.name, destination)
        busy = destination or (guest.name in self.endless and guest.name in self._ends)
        return JobFacts(passes=7, remaining_bytes=MIB, bytes_per_s=1e6, dirty_bytes_per_s=2e6) if busy else None

    def abort(self, uri: str, guest: GuestId) -> None:
        """See `hypervisors.Hypervisors.abort`."""
        self._end(uri, guest, "operation aborted: migration out job: canceled by client")

    def start_postcopy(self, uri: str, guest: GuestId) -> None:
        """See `hypervisors.Hypervisors.start_postcopy`."""
        self._end(uri, guest, "")

    def suspend(self, uri: str, guest: GuestId) -> None:
        """See `hypervisors.Hypervisors.suspend`."""
        self._end(uri, guest, "")

    def _go_on(self, uri: str, name: str) -> None:
        """Migrate until somebody ends it."""
        ended, errors = self._ends[name]
        ended.wait()
        if errors:
            raise HypervisorError(f"{uri}: {errors[0]}")

    def _end(self, uri: str, guest: GuestId, error: str) -> None:
        self._answer(uri)
        if guest.name in self.deaf:
            raise HypervisorError(f"{uri}: Timed out during operation: cannot acquire state change lock")
        if guest.name not in self._ends:
            raise HypervisorError(f"{uri}: Requested operation is not valid: no job is active on the domain")
        ended, errors = self._ends[guest.name]
        errors += [error] if error else []
        ended.set()

    def mark(self, uri: str, name: str, *, arriving: bool) -> None:
        """Set whether a domain is the destination's half of a migration that runs.

        Args:
            uri: of the host.
            name: of a domain that runs there.
            arriving: whether it is.
        """
        self.running[uri][name] = msgspec.structs.replace(self.running[uri][name], arriving=arriving)

    def _answer(self, uri: str) -> None:
        if uri in self.dead:
            raise HypervisorError(f"{uri}: no answer")


def _nothing(_uri: str, _name: str, _destination: str) -> None:
    """Let a migration be."""
