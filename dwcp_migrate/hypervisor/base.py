"""Interfaces to the hypervisor: interception of QEMU's connections, and libvirt's reports on its domains.

The rule: each Protocol here has one real implementation and one in `fake`, and the same contract tests hold both.

    Interceptor        intercept.NftInterceptor         fake.FakeInterceptor
    DomainWatcher      libvirt_events.LibvirtWatcher    fake.FakeWatcher
"""

import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from dwcp_migrate.hypervisor.load_counters import HostCounters


@dataclass(frozen=True, slots=True)
class Exemption:
    """The sockets that the redirect lets pass: the agent's own.

    Attributes:
        user: the id of their user, where the agent has one of its own; 0 is root, whom it shares with libvirtd, and
            exempts nobody.
        mark: bits that their mark has; 0 exempts nobody.
    """

    user: int = 0
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A control group of version 2, as the kernel knows it.

    Attributes:
        level: how deep it is; 1 is directly below the root.
        number: its id, the inode number of its directory.
    """

    level: int
    number: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """Connections of this host to `addresses`, ports `port_min` to `port_max`, arrive at loopback port `to_port`.

    Attributes:
        addresses: IP addresses, each in its canonical spelling.
        exempt: sockets that pass.
        foreign: sockets of processes in these groups pass, and in groups below.
    """

    addresses: frozenset[str]
    port_min: int
    port_max: int
    to_port: int
    exempt: Exemption = Exemption()
    foreign: frozenset[Cgroup] = frozenset()


class Caught(NamedTuple):
    """Connections caught on their way to one address: first packets; the others follow by connection tracking."""

    address: str
    packets: int
    bytes: int


class Interceptor(Protocol):
    """The redirect towards peers, all of it or none in force; the kernel drops it when the process dies."""

    def arm(self, redirect: Redirect) -> None:
        """Put exactly this in force, at once. Connections that exist are not touched; addresses that stay keep counts.

        Raises:
            HypervisorError: the kernel refused; then none is in force.
        """

    def keep_alive(self) -> None:
        """Keep the redirect in force; `intercept.ALIVE_S` after the last call it catches nothing any more.

        Raises:
            HypervisorError: the kernel does not answer.
        """

    def disarm(self) -> None:
        """Take it out of force; none being there is fine."""

    def caught(self) -> list[Caught]:
        """Read from the kernel what is in force: an entry an address, IPv4 first, then by number.

        Raises:
            HypervisorError: the kernel does not answer.
        """

    def keep_translation(self) -> socket.socket:
        """Keep the translation of redirected connections while any process holds the returned socket.

        A process that is killed with it closes its other sockets first.

        Raises:
            HypervisorError: the kernel refused.
        """

    def close(self) -> None:
        """Disarm and free the socket."""


DomainEventKind = Literal[
    "iteration",  # source: `number` is the pass
    "suspended",  # source: paused for the switchover
    "paused",  # by the user or by `virsh migrate --timeout`, not for the switchover
    "unpaused",  # by the user
    "postcopy",  # either side: it switched to postcopy
    "postcopy-failed",  # either side: postcopy broke off; `virsh migrate --postcopy --postcopy-resume` goes on
    "left",  # source: stopped because it migrated away
    "returned",  # source: resumed, the migration failed after the pause
    "arrived",  # destination: resumed after an incoming migration
    "arriving",  # destination: started for an incoming migration
    "gone",  # stopped for another reason, or crashed
    "job-completed",  # source: statistics of the job that ended
]


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """A migration job as libvirt measures it; -1 where it does not say.

    Attributes:
        outgoing: this host is the source.
        memory_processed_bytes: that were sent so far.
        downtime_ms: expected while it runs, measured when it ended.
        error: libvirt's message when it failed.
    """

    outgoing: bool
    memory_total_bytes: int = -1
    memory_remaining_bytes: int = -1
    memory_processed_bytes: int = -1
    dirty_bytes_per_s: int = -1
    iteration: int = -1
    downtime_ms: int = -1
    elapsed_ms: int = -1
    success: bool | None = None
    error: str = ""


DomainCondition = Literal[
    "running",
    "paused",  # by the user, or for another reason than a migration
    "migrating",  # paused for the switchover at the source, waiting for its memory at the destination
    "postcopy",  # it runs at the destination and is paused at the source
    "postcopy-failed",  # the same, and what is missing does not come until the migration is resumed
]


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A domain that is active on this host.

    Attributes:
        memory_bytes: its configured maximum.
        job: its migration job, None when it has none that is known of.
        condition: what it does.
    """

    uuid: str
    name: str
    memory_bytes: int
    job: JobStatistics | None = None
    condition: DomainCondition = "running"

    @property
    def is_moving(self) -> bool:
        """Whether it is in the middle of a migration, from here or to here, as far as this shows."""
        return self.job is not None or self.condition in {"migrating", "postcopy", "postcopy-failed"}


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Something that libvirt says about a domain's migration."""

    kind: DomainEventKind
    uuid: str
    name: str
    number: int = 0
    job: JobStatistics | None = None


@dataclass(frozen=True, slots=True)
class WatcherState:
    """The connection to libvirtd: `error` says why it is down, `version` is libvirt's (`11.3.0`)."""

    connected: bool
    error: str = ""
    version: str = field(default="")


Listener = Callable[[DomainEvent], None]


class DomainWatcher(Protocol):
    """Libvirt's events and statistics; it lives without libvirtd, comes back with it and never blocks the loop."""

    async def start(self, listener: Listener) -> None:
        """Begin to connect; events go to `listener` on the loop's thread. Does not wait for libvirtd."""

    async def close(self) -> None:
        """Stop; no event follows."""

    def state(self) -> WatcherState:
        """Say where the connection stands."""

    async def domains(self) -> list[DomainInfo]:
        """List active domains without waiting for any of them; the list is whole, jobs are not in it.

        Raises:
            NoAnswerError: libvirt does not say; nothing follows from that.
        """

    async def lookup(self, uuid: str) -> DomainInfo | None:
        """Look at one domain, its job included; None where libvirt says that it is not active on this host.

        Raises:
            NoAnswerError: libvirt does not say; nothing follows from that.
        """

    async def is_defined(self, uuid: str) -> bool:
        """Say whether libvirt knows a domain on this host, active or not.

        Raises:
            NoAnswerError: libvirt does not say; nothing follows from that.
        """

    async def jobs(self, uuids: Collection[str], timeout_s: float) -> Mapping[str, JobStatistics | None]:
        """Read domains' migration jobs.

        Args:
            uuids: of the domains.
            timeout_s: for all of them together, in seconds.

        Returns:
            The job by UUID, None for a domain without one. A domain that did not answer in time, or is gone, is
            missing.
        """

    async def completed(self, uuid: str) -> JobStatistics | None:
        """Read the statistics of the domain's last job that ended; None where libvirt has none.

        Raises:
            NoAnswerError: libvirt does not say.
        """

    async def dirty_rate(self, uuid: str) -> float | None:
        """Measure for about a second how many bytes of memory a domain writes to, per second; None if it cannot be."""

    async def counters(self) -> HostCounters:
        """Read what the host and its guests used so far, in one bulk call that waits for no domain.

        Raises:
            NoAnswerError: libvirt does not say.
        """

    async def downtime_limit(self, uuid: str) -> float | None:
        """Read for how long a domain's migration may pause it, in seconds; None if it cannot be read."""

    async def set_speed(self, uuid: str, bytes_per_s: float) -> None:
        """Limit the rate at which QEMU itself sends a domain's migration; no error where there is no such domain.

        Args:
            uuid: of the domain.
            bytes_per_s: new limit, of which the user's own counts where it is lower; 0 restores the user's own.

        Raises:
            NoAnswerError: libvirt does not say whether it did.
        """
