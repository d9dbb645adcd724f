"""The load of guests now: two looks at libvirt's counters of all hosts, some seconds apart.

The rule here: what is used counts beside what is promised and never instead of it: a host has room by promises, and is
hot by use. CPU that is used is judged against the cores that there are, whatever the over-commit of vCPUs.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.inventory.hypervisors import Hypervisors
from dwcp_migrate.orchestration.fleet_source import ASKED_AT_ONCE, FleetSource
from dwcp_migrate.placement.fleet import VCPUS, Fleet

CPU_USED: Final = "cpu_used"
"""The resource: cores' worth of CPU time."""

MEASURE_S_MAX: Final = 600.0

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
        cores: that each guest uses, by UUID.
    """
    hosts = [
        msgspec.structs.replace(one, capacity={**one.capacity, CPU_USED: one.capacity.get(VCPUS, 0.0)})
        for one in fleet.hosts
    ]
    domains = [
        msgspec.structs.replace(one, load={**one.load, CPU_USED: cores[one.uuid]}) if one.uuid in cores else one
        for one in fleet.domains
    ]
    return msgspec.structs.replace(fleet, hosts=hosts, domains=domains, balance={**fleet.balance, CPU_USED: 1.0})


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
