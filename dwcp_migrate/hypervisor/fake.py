"""Stand-ins for the hypervisor, held by the same contract tests as the real ones.

The rule: they do what the real ones promise and nothing that those cannot do; the extra methods play the outside world.
"""

import socket
from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import ip_address

from dwcp_migrate.errors import HypervisorError, NoAnswerError
from dwcp_migrate.hypervisor.base import (
    Caught,
    Cgroup,
    DomainEvent,
    DomainInfo,
    JobStatistics,
    Listener,
    Redirect,
    WatcherState,
)
from dwcp_migrate.hypervisor.load_counters import GuestCounters, HostCounters


class FakeInterceptor:
    """Redirects that nothing redirects, see `base.Interceptor`."""

    def __init__(self) -> None:
        self.redirect: Redirect | None = None
        self.refuses = ""
        self._caught: dict[str, int] = {}

    def arm(self, redirect: Redirect) -> None:
        """See `base.Interceptor.arm`."""
        if self.refuses:
            self.disarm()
            raise HypervisorError(self.refuses)
        self.redirect = redirect
        self._caught = {address: self._caught.get(address, 0) for address in redirect.addresses}

    def keep_alive(self) -> None:
        """See `base.Interceptor.keep_alive`; the fake's clock stands."""

    def disarm(self) -> None:
        """See `base.Interceptor.disarm`."""
        self.redirect = None
        self._caught = {}

    def caught(self) -> list[Caught]:
        """See `base.Interceptor.caught`."""
        by_number = sorted(self._caught, key=lambda address: (":" in address, ip_address(address).packed))
        return [Caught(address, self._caught[address], 60 * self._caught[address]) for address in by_number]

    def keep_translation(self) -> socket.socket:
        """See `base.Interceptor.keep_translation`."""
        kept, far = socket.socketpair()
        far.close()
        return kept

    def close(self) -> None:
        """See `base.Interceptor.close`."""
        self.disarm()

    def connect(self, address: str, port: int, *, mark: int = 0, user: int = 0, groups: Iterable[Cgroup] = ()) -> int:
        """Play a connection of this host.

        Args:
            address: it goes to.
            port: likewise.
            mark: SO_MARK of the socket.
            user: id of the socket's user.
            groups: control groups that the process is in.

        Returns:
            Loopback port that it reaches; 0 if it is not redirected.
        """
        redirect = self.redirect
        if redirect is None or address not in redirect.addresses:
            return 0
        exempt = redirect.exempt
        passes = (
            not redirect.port_min <= port <= redirect.port_max
            or (exempt.user and user == exempt.user)
            or (exempt.mark and mark & exempt.mark == exempt.mark)
            or not redirect.foreign.isdisjoint(groups)
        )
        if passes:
            return 0
        self._caught[address] += 1
        return redirect.to_port


class FakeWatcher:
    """A libvirtd whose domains are as they are set, see `base.DomainWatcher`; those in `hung` never answer."""

    def __init__(self, domains: Iterable[DomainInfo] = ()) -> None:
        self.running = {domain.uuid: domain for domain in domains}
        self.completed_jobs: dict[str, JobStatistics] = {}
        self.dirty_rates: dict[str, float] = {}
        self.downtime_limits: dict[str, float] = {}
        self.speeds: dict[str, float] = {}
        self.used: dict[str, GuestCounters] = {}
        self.hung: set[str] = set()
        self.shut_off: set[str] = set()
        self.connected = False
        self._listener: Listener | None = None

    async def start(self, listener: Listener) -> None:
        """See `base.DomainWatcher.start`."""
        self._listener = listener
        self.connected = True

    async def close(self) -> None:
        """See `base.DomainWatcher.close`."""
        self._listener = None
        self.connected = False

    def state(self) -> WatcherState:
        """See `base.DomainWatcher.state`."""
        return WatcherState(connected=self.connected, version="11.3.0" if self.connected else "")

    def _answers(self, uuid: str = "") -> None:
        """Raise NoAnswerError where libvirt is away, or the domain's job lock hangs."""
        if not self.connected or uuid in self.hung:
            raise NoAnswerError(f"libvirt gave no answer on {uuid or 'its domains'}")

    async def domains(self) -> list[DomainInfo]:
        """See `base.DomainWatcher.domains`."""
        self._answers()
        return [replace(domain, job=None) for domain in self.running.values()]

    async def lookup(self, uuid: str) -> DomainInfo | None:
        """See `base.DomainWatcher.lookup`."""
        self._answers(uuid)
        return self.running.get(uuid)

    async def is_defined(self, uuid: str) -> bool:
        """See `base.DomainWatcher.is_defined`."""
        self._answers(uuid)
        return uuid in self.running or uuid in self.shut_off

    async def jobs(self, uuids: Collection[str], timeout_s: float) -> dict[str, JobStatistics | None]:
        """See `base.DomainWatcher.jobs`."""
        del timeout_s  # it answers at once or not at all
        asked = [uuid for uuid in uuids if self.connected and uuid in self.running and uuid not in self.hung]
        return {uuid: self.running[uuid].job for uuid in asked}

    async def completed(self, uuid: str) -> JobStatistics | None:
        """See `base.DomainWatcher.completed`."""
        self._answers(uuid)
        return self.completed_jobs.get(uuid)

    async def dirty_rate(self, uuid: str) -> float | None:
        """See `base.DomainWatcher.dirty_rate`."""
        return self.dirty_rates.get(uuid) if self.connected and uuid in self.running else None

    async def counters(self) -> HostCounters:
        """See `base.DomainWatcher.counters`."""
        self._answers()
        return HostCounters(guests={uuid: self.used[uuid] for uuid in self.running if uuid in self.used})

    async def downtime_limit(self, uuid: str) -> float | None:
        """See `base.DomainWatcher.downtime_limit`."""
        return self.downtime_limits.get(uuid) if self.connected and uuid in self.running else None

    async def set_speed(self, uuid: str, bytes_per_s: float) -> None:
        """See `base.DomainWatcher.set_speed`."""
        self._answers(uuid)
        if uuid in self.running:
            self.speeds[uuid] = bytes_per_s

    def say(self, event: DomainEvent) -> None:
        """Play an event of libvirt's."""
        if self._listener is not None:
            self._listener(event)
