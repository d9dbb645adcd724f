"""A stand-in for several libvirtds, see `inventory.Hypervisors`.

The rule: it does what they promise and nothing that they cannot do; the extra attributes play the outside world.
"""

import threading
from collections.abc import Callable  # noqa: TC003 - an attribute that others set

import msgspec

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory import DomainFacts, HostFacts


class FakeHypervisors:
    """Hosts by URI, domains on them, migrations that take effect at once.

    Args:
        hosts: by URI.

    Attributes:
        dead: URIs that do not answer.
        jobs: URI and domain of migration jobs that run, begun by nobody here; each is gone once it was asked about.
        before_migration: called with URI, domain and destination as a migration begins; what it raises fails it.
        migrations: that were asked for.
        running_most: most migrations that ran at once.
    """

    def __init__(self, hosts: dict[str, HostFacts]) -> None:
        self.hosts = hosts
        self.running: dict[str, dict[str, DomainFacts]] = {uri: {} for uri in hosts}
        self.dead: set[str] = set()
        self.jobs: dict[tuple[str, str], str] = {}
        self.before_migration: Callable[[str, str, str], None] = _nothing
        self.migrations: list[tuple[str, str, str]] = []
        self.running_most = 0
        self._running_now = 0
        self._lock = threading.Lock()

    def start(self, uri: str, facts: DomainFacts) -> None:
        """Let a domain run on a host."""
        self.running[uri][facts.name] = facts

    def host(self, uri: str) -> HostFacts:
        """See `inventory.Hypervisors.host`."""
        self._answer(uri)
        return self.hosts[uri]

    def domains(self, uri: str) -> list[DomainFacts]:
        """See `inventory.Hypervisors.domains`."""
        self._answer(uri)
        with self._lock:
            return list(self.running[uri].values())

    def accepts(self, uri: str, cpu: str) -> bool:
        """See `inventory.Hypervisors.accepts`: a host whose facts name a pool `no:CPU` does not."""
        self._answer(uri)
        return f"no:{cpu}" not in self.hosts[uri].pools

    def migrate(self, uri: str, name: str, destination: str) -> None:
        """See `inventory.Hypervisors.migrate`."""
        self._answer(uri)
        with self._lock:
            self.migrations.append((uri, name, destination))
            self._running_now += 1
            self.running_most = max(self.running_most, self._running_now)
        try:
            self.before_migration(uri, name, destination)
            self._answer(destination)
            self.move(uri, name, destination)
        finally:
            with self._lock:
                self._running_now -= 1

    def move(self, uri: str, name: str, destination: str) -> None:
        """Let a domain have moved.

        Raises:
            HypervisorError: it does not run there.
        """
        with self._lock:
            if name not in self.running[uri]:
                raise HypervisorError(f"{uri}: no domain {name}")
            self.running[destination][name] = self.running[uri].pop(name)

    def job_runs(self, uri: str, name: str) -> bool:
        """See `inventory.Hypervisors.job_runs`; a job ends at its destination after it was seen once."""
        self._answer(uri)
        destination = self.jobs.pop((uri, name), "")
        if destination:
            self.move(uri, name, destination)
        return bool(destination)

    def mark(self, uri: str, name: str, *, arriving: bool) -> None:
        """Let a domain be the second half of a migration."""
        self.running[uri][name] = msgspec.structs.replace(self.running[uri][name], arriving=arriving)

    def _answer(self, uri: str) -> None:
        if uri in self.dead:
            raise HypervisorError(f"{uri}: no answer")


def _nothing(_uri: str, _name: str, _destination: str) -> None:
    """Let a migration be."""
