"""Load of this host and its guests: rates between two samples of libvirt's counters, means of minutes, quantiles.

The rule: no clock and no libvirt here; a guest that moved, began or ended between two looks has no figure for then.
Minutes are kept on disk beside the forecasters' series, so that an agent that starts knows the last hour.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dwcp_migrate.bandwidth.storage.series import Key, Kind
from dwcp_migrate.bandwidth.storage.series_store import Store
from dwcp_migrate.hypervisor.load_counters import GuestCounters, HostCounters
from dwcp_migrate.protocol.load import GuestLoad, HostLoad, LoadRange

MINUTE_S: Final = 60.0
KEPT: Final = 60
"""Minutes over which quantiles are computed."""

HIGH: Final = 0.9
"""The quantile by which guests are balanced: a guest that is busy six minutes an hour is not idle."""

LOAD_SERIES_MAX: Final = 8192
"""Files: five quantities of a host and of some 1,600 guests; sparse, 4 KiB each for 17 hours."""

LOAD_DIRECTORY: Final = "load"
HOST: Final = "host"

GUEST_QUANTITIES: Final = ("cpu", "memory", "disk", "network", "dirty")


@dataclass(slots=True)
class _Series:
    """One quantity: the minute that runs, and those before it."""

    total: float = 0.0
    count: int = 0
    minutes: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    def usage(self) -> LoadRange | None:
        values = [*self.minutes, self.total / self.count] if self.count else list(self.minutes)
        if not values:
            return None
        ordered = sorted(values)
        return LoadRange(quantile(ordered, 0.5), quantile(ordered, HIGH), values[-1])


class LoadMeter:
    """The loads of one host.

    Args:
        state: the agent's state directory; None keeps nothing.
        kept: guests that are kept in memory at most; the ones seen last.
    """

    def __init__(self, state: Path | None, kept: int = 4096) -> None:
        self._store = None if state is None else Store(state / LOAD_DIRECTORY, LOAD_SERIES_MAX, MINUTE_S)
        self._kept = kept
        self._before: tuple[float, HostCounters] | None = None
        self._series: dict[tuple[str, str], _Series] = {}
        self._minute = 0
        self.at = 0.0

    @property
    def error(self) -> str:
        """Reason for which nothing is kept on disk; empty while it is."""
        return "" if self._store is None else self._store.error

    def take(self, now: float, counters: HostCounters) -> None:
        """Take a look at the counters in.

        Args:
            now: seconds since the epoch.
            counters: of the host and its guests.
        """
        before, self._before = self._before, (now, counters)
        if before is None or now <= before[0]:
            return
        if int(now // MINUTE_S) != self._minute:
            self._end_minute(now)
            self._minute = int(now // MINUTE_S)
        seconds, then = now - before[0], before[1]
        self.at = now
        guests = list(counters.guests.items())[: self._kept]
        sums = dict.fromkeys(("disk", "network"), 0.0)
        for uuid, guest in guests:
            rates = guest_rates(then.guests.get(uuid), guest, seconds)
            for name, value in rates.items():
                self._add(uuid, name, value)
                if name in sums:
                    sums[name] += value
        host = host_rates(then, counters, seconds) | sums
        for name, value in host.items():
            self._add(HOST, name, value)
        self._forget({HOST, *(uuid for uuid, _ in guests)})

    def _add(self, subject: str, name: str, value: float) -> None:
        series = self._series.get((subject, name))
        if series is None:
            series = self._series[subject, name] = _Series()
            if self._store is not None:
                series.minutes.extend(self._store.newest(_key(subject, name), KEPT))
        series.total += value
        series.count += 1

    def _forget(self, there: set[str]) -> None:
        if gone := [key for key in self._series if key[0] not in there]:
            for key in gone:
                del self._series[key]

    def _end_minute(self, now: float) -> None:
        for (subject, name), series in self._series.items():
            if series.count:
                mean = series.total / series.count
                series.minutes.append(mean)
                if self._store is not None:
                    self._store.add(_key(subject, name), mean, now)
                series.total, series.count = 0.0, 0

    def flush(self) -> None:
        """Write what is pending; for a thread."""
        if self._store is not None:
            self._store.flush()

    def load(self, every_s: float = 0.0) -> HostLoad:
        """The loads of the host and all its guests, these in the order of their UUIDs.

        Args:
            every_s: seconds between two looks, told along.
        """
        uuids = sorted({subject for subject, _ in self._series} - {HOST})
        return HostLoad(
            at=self.at,
            every_s=every_s,
            guests=[GuestLoad(uuid, *(self._usage(uuid, name) for name in GUEST_QUANTITIES)) for uuid in uuids],
            total=len(uuids),
            cpu=self._usage(HOST, "cpu"),
            memory=self._usage(HOST, "memory"),
            stalled=self._usage(HOST, "stalled"),
            disk=self._usage(HOST, "disk"),
            network=self._usage(HOST, "network"),
        )

    def _usage(self, subject: str, name: str) -> LoadRange | None:
        series = self._series.get((subject, name))
        return None if series is None else series.usage()


def quantile(ordered: Sequence[float], share: float) -> float:
    """Compute a quantile, linear between two values; for an hour's minutes a call of numpy costs more than it saves.

    Args:
        ordered: values in ascending order, at least one.
        share: of the values that lie below, 0 to 1.
    """
    at = share * (len(ordered) - 1)
    low = int(at)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (at - low)


def _key(subject: str, name: str) -> Key:
    kind: Kind = "host" if subject == HOST else "domain"
    return Key(kind, "writes" if (kind, name) == ("domain", "dirty") else name, subject)


def guest_rates(before: GuestCounters | None, after: GuestCounters, seconds: float) -> dict[str, float]:
    """A guest's use between two samples, by quantity; what is held is as of now.

    Args:
        before: its counters then; None where it was not there.
        after: now.
        seconds: between the two.
    """
    held = {"memory": after.memory_bytes, "dirty": after.dirty_bytes_per_s}
    if before is not None:
        held["cpu"] = _rate(before.cpu_s, after.cpu_s, seconds)
        held["disk"] = _rate(before.disk_bytes, after.disk_bytes, seconds)
        held["network"] = _rate(before.network_bytes, after.network_bytes, seconds)
    return {name: value for name, value in held.items() if value is not None}


def host_rates(before: HostCounters, after: HostCounters, seconds: float) -> dict[str, float]:
    """Compute a host's use between two samples, by quantity, as `guest_rates` does.

    Args:
        before: the earlier sample.
        after: the later one.
        seconds: between the two.
    """
    found = {
        "cpu": _rate(before.busy_s, after.busy_s, seconds),
        "memory": after.memory_bytes,
        "stalled": _rate(before.stalled_s, after.stalled_s, seconds),
    }
    return {name: value for name, value in found.items() if value is not None}


def _rate(before: float | None, after: float | None, seconds: float) -> float | None:
    """None where a counter was not there, or began anew."""
    if before is None or after is None or after < before:
        return None
    return (after - before) / seconds


def merged(told: Mapping[str, HostLoad], guests: Mapping[str, list[GuestLoad]]) -> dict[str, GuestLoad]:
    """Join the guests of several hosts by UUID; of a guest that two hosts report, the later report counts.

    Args:
        told: reports by host; their times count.
        guests: of the same hosts.
    """
    found: dict[str, GuestLoad] = {}
    for name in sorted(told, key=lambda host: told[host].at):
        found |= {one.uuid: one for one in guests[name]}
    return found
