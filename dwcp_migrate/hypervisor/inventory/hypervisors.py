"""The libvirtds of a fleet as who plans sees them: what they answer, and what they can be told.

The rule here: no libvirt is loaded. Commands that ask none must answer in a fraction of a second.
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
        """Reason for which the host's hypervisor does not offer a CPU, in libvirt's words; empty when it does.

        Raises:
            HypervisorError: it does not answer.
        """

    def migrate(self, uri: str, guest: GuestId, destination: str, options: MigrationOptions) -> None:
        """Migrate a domain live, host to host, and wait until it has arrived.

        Raises:
            HypervisorError: it did not, or nobody knows.
        """

    def disk_bytes(self, uri: str, guest: GuestId, targets: Sequence[str]) -> int:
        """Read how much space some disks of a domain take.

        Raises:
            HypervisorError: libvirt does not say.
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
