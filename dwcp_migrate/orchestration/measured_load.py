"""The load of guests: as their hosts' agents kept it over the last hour, or by two readings of libvirt's counters.

The rule here: used resources count beside promised ones and never instead of them: promises decide whether a host has
room, use decides whether it is hot. CPU use is compared with the physical cores, whatever the over-commit of vCPUs.
Where one host that is up reports no use, use counts nowhere: that host would seem idle, and be filled.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.errors import DwcpError, HypervisorError
from dwcp_migrate.hypervisor.inventory.hypervisors import Hypervisors
from dwcp_migrate.orchestration.fleet_source import ASKED_AT_ONCE, FleetSource
from dwcp_migrate.placement.fleet import CPU_USED, VCPUS, Fleet
from dwcp_migrate.protocol.load import FleetLoad

OLD_S: Final = 120.0
"""Age from which a measured load is not used; three of its intervals, where these are longer."""

Counters = dict[str, float]
"""Seconds of CPU time so far, by UUID of the guest."""


def rates(before: Mapping[str, Counters], after: Mapping[str, Counters], seconds: float) -> dict[str, float]:
    """Cores that each guest used, by UUID; one that moved, began or ended meanwhile has no figure.

    Args:
        before: counters by host.
        after: the same hosts' later.
        seconds: between the two.
    """
    return {
        uuid: max(0.0, cpu_s - before[host][uuid]) / seconds
        for host, counters in after.items()
        for uuid, cpu_s in counters.items()
        if uuid in before.get(host, {})
    }


def loaded(fleet: Fleet, cores: Mapping[str, float]) -> Fleet:
    """The fleet in which CPU that is used is balanced too.

    Args:
        fleet: by promises.
        cores: that each guest uses, by UUID; one without a figure is taken to use as much of its vCPUs as most do.
    """
    cores = {**_guessed(fleet, cores), **cores}
    hosts = [
        msgspec.structs.replace(one, capacity={**one.capacity, CPU_USED: one.capacity.get(VCPUS, 0.0)})
        for one in fleet.hosts
    ]
    domains = [
        msgspec.structs.replace(one, load={**one.load, CPU_USED: cores[one.uuid]}) if one.uuid in cores else one
        for one in fleet.domains
    ]
    return msgspec.structs.replace(fleet, hosts=hosts, domains=domains, balance={**fleet.balance, CPU_USED: 1.0})


def _guessed(fleet: Fleet, cores: Mapping[str, float]) -> dict[str, float]:
    """Cores of guests that were not measured: they began, or moved, just now."""
    vcpus = {one.uuid: one.demand.get(VCPUS, 0.0) for one in fleet.domains if one.uuid}
    shares = [cores[uuid] / count for uuid, count in vcpus.items() if uuid in cores and count > 0]
    share = statistics.median(shares) if shares else 0.0
    return {uuid: share * count for uuid, count in vcpus.items() if uuid not in cores}


def by_agents(fleet: Fleet, told: FleetLoad, now: float) -> Fleet:
    """Add the use of guests that the agents report: CPU use is balanced, dirty rates count in forecasts.

    Args:
        fleet: by promises.
        told: by the agents.
        now: seconds since the epoch; what is older than `OLD_S` does not count.

    Returns:
        The fleet; as it was, where a host that is up reported nothing recent.
    """
    fresh = {name for name, load in told.hosts.items() if load.at > now - max(OLD_S, 3 * load.every_s)}
    if any(host.state != "down" and host.name not in fresh for host in fleet.hosts):
        return fleet
    cores = {uuid: one.cpu.high for uuid, one in told.guests.items() if one.cpu is not None}
    writing = {uuid: one.dirty.high for uuid, one in told.guests.items() if one.dirty is not None}
    found = loaded(fleet, cores)
    domains = [
        msgspec.structs.replace(one, dirty_bytes_per_s=writing[one.uuid]) if one.uuid in writing else one
        for one in found.domains
    ]
    return msgspec.structs.replace(found, domains=domains)


@dataclass(frozen=True, slots=True)
class LoadedFleet:
    """A fleet with the loads that its agents know; a `FleetSource`. Without an agent it is as it was.

    Attributes:
        inner: the fleet by promises.
        ask: the agents, by way of this host's.
    """

    inner: FleetSource
    ask: Callable[[], FleetLoad]

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`."""
        fleet = self.inner.snapshot()
        try:
            told = self.ask()
        except DwcpError:  # no agent, or one that knows no loads
            return fleet
        return by_agents(fleet, told, wall_clock())


@dataclass(slots=True)
class MeasuredFleet:
    """A fleet with its load, measured once; a `FleetSource`.

    Attributes:
        inner: the fleet by promises.
        hypervisors: asks libvirtds.
        uris: of each host.
        seconds: that are measured.
        wait: lets time pass.
    """

    inner: FleetSource
    hypervisors: Hypervisors
    uris: Mapping[str, str]
    seconds: float
    wait: Callable[[float], None] = time.sleep
    _cores: dict[str, float] | None = field(default=None, init=False)

    def snapshot(self) -> Fleet:
        """See `FleetSource.snapshot`."""
        if self._cores is None:
            began = steady_clock()
            before = self._counters()
            self.wait(self.seconds)
            self._cores = rates(before, self._counters(), max(self.seconds, steady_clock() - began))
        return loaded(self.inner.snapshot(), self._cores)

    def _counters(self) -> dict[str, Counters]:
        """Counters of the hosts that answer."""
        with ThreadPoolExecutor(min(ASKED_AT_ONCE, max(1, len(self.uris)))) as threads:
            answers = zip(self.uris, threads.map(self._ask, self.uris.values()), strict=True)
            return {name: counters for name, counters in answers if counters is not None}

    def _ask(self, uri: str) -> Counters | None:
        with suppress(HypervisorError):  # the snapshot says that it is silent, and why
            return self.hypervisors.cpu_seconds(uri)
        return None
