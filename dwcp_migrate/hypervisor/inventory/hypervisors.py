"""Interface to the libvirtds of a fleet: what they answer about hosts and domains, and what they can be told.

The rule here: libvirt is not imported, because commands that do not ask it must answer in a fraction of a second.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from dwcp_migrate.hypervisor.inventory.domain_description import CpuFacts, DomainFacts
from dwcp_migrate.hypervisor.inventory.host_description import HostFacts
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions


class GuestId(NamedTuple):
    """Identification of a domain on a host: its UUID, or where that is not known its name."""

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

    def ping(self, uri: str) -> None:
        """Ask whether it answers.

        Raises:
            HypervisorError: it does not.
        """

    def cpu_seconds(self, uri: str) -> dict[str, float]:
        """Read how much CPU time each domain took so far, in seconds by UUID.

        Raises:
            HypervisorError: it does not answer.
        """

    def cpu_refusal(self, uri: str, cpu: CpuFacts) -> str:
        """Ask whether a host's hypervisor offers a CPU to guests.

        Args:
            uri: of the host's libvirtd.
            cpu: that a guest was started with.

        Returns:
            Libvirt's reason why not; empty when it does.

        Raises:
            HypervisorError: it does not answer.
        """

    def migrate(self, uri: str, guest: GuestId, destination: str, options: MigrationOptions) -> None:
        """Migrate a domain live, host to host, and wait until it has arrived.

        Args:
            uri: of the source's libvirtd, as this host reaches it.
            guest: the domain.
            destination: URI of the destination's libvirtd, as the source reaches it.
            options: of the migration.

        Raises:
            HypervisorError: it failed, or its result is not known.
        """

    def disk_bytes(self, uri: str, guest: GuestId, targets: Sequence[str]) -> int:
        """Read how much space some disks of a domain take on its host.

        Args:
            uri: of the host's libvirtd.
            guest: the domain.
            targets: of the disks, as `vda`.

        Raises:
            HypervisorError: libvirt does not say.
        """

    def job(self, uri: str, guest: GuestId) -> JobFacts | None:
        """Read a domain's migration job.

        Args:
            uri: of the host's libvirtd.
            guest: the domain.

        Returns:
            None if it has none, or does not run there.

        Raises:
            HypervisorError: the host does not answer.
        """

    def abort(self, uri: str, guest: GuestId) -> None:
        """End a domain's migration; the guest runs on where it is.

        Args:
            uri: of the source's libvirtd.
            guest: the domain.

        Raises:
            HypervisorError: libvirt refuses, or does not answer.
        """

    def start_postcopy(self, uri: str, guest: GuestId) -> None:
        """Switch a migration with `MigrationOptions.postcopy`: the guest runs on at the destination at once.

        Args:
            uri: of the source's libvirtd.
            guest: the domain.

        Raises:
            HypervisorError: libvirt refuses, or does not answer.
        """

    def suspend(self, uri: str, guest: GuestId) -> None:
        """Pause a domain so that its migration converges; it runs again at its destination.

        Args:
            uri: of the source's libvirtd.
            guest: the domain.

        Raises:
            HypervisorError: libvirt refuses, or does not answer.
        """
