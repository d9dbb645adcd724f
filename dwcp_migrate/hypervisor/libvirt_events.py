"""Libvirt's events and statistics through libvirt-python and libvirtaio.

Events arrive on the loop; every call that may block runs on threads of its purpose (`libvirt_calls`), so that a domain
whose job lock hangs does not delay names, progress and events of the others. The list of domains is asked for without
waiting for any domain; a domain's job is asked for only where it may have one.

    start ──> connect on a thread ──> register callbacks ──> wait for the close callback ──> connect again
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

import libvirt
import libvirtaio

from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.errors import NoAnswerError
from dwcp_migrate.hypervisor import libvirt_facts as facts
from dwcp_migrate.hypervisor.base import (
    DomainEvent,
    DomainEventKind,
    DomainInfo,
    JobStatistics,
    Listener,
    WatcherState,
)
from dwcp_migrate.hypervisor.libvirt_calls import OPEN_S_MAX, LibvirtCalls
from dwcp_migrate.hypervisor.load_counters import HostCounters, busy_s, guest_counters, held_bytes
from dwcp_migrate.hypervisor.speed_limits import SpeedLimits
from dwcp_migrate.tasks import Tasks
from dwcp_migrate.units import KIB

RECONNECT_S_MIN: Final = 1.0
RECONNECT_S_MAX: Final = 10.0

CALL_S_MAX: Final = 5.0
"""For any one call; libvirt answers in under a millisecond unless the domain's job lock is taken."""

FAREWELL_S_MAX: Final = 1.0
"""Time for the events' connection to close: the agent does not wait for a libvirtd that is stuck when it ends."""

THREADS: Final = {"events": 1, "listing": 1, "jobs": 3, "sweep": 3, "commands": 2}
"""Calls at once, by purpose."""

ALONE_MAX: Final = 8
"""Jobs that are asked for one by one; more are read in a sweep, which a few threads share until the time-out."""

STUCK_S: Final = 60.0
"""A domain that a sweep waited for in vain is left out of sweeps for so long."""

DOMAINS_MAX: Final = 4096

DIRTY_RATE_S: Final = 1
"""Time in which QEMU samples pages for a dirty rate; its least."""

DIRTY_RATE_LOOKS: Final = 4
"""Reads for the result, half a second apart after that: libvirt has no event for its end."""

_LISTING: Final = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

_COUNTED: Final = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_DIRTYRATE
)


class LibvirtWatcher:
    """The local libvirtd, see `base.DomainWatcher`.

    Args:
        uri: of the local libvirtd.
        state: directory in which speed limits are kept that have to be put back after a crash; None keeps none.
    """

    def __init__(self, uri: str, state: Path | None = None) -> None:
        self._calls = {purpose: LibvirtCalls(uri, purpose, count) for purpose, count in THREADS.items()}
        self._lost = asyncio.Event()
        self._tasks = Tasks()
        self._listener: Listener | None = None
        self._state = WatcherState(connected=False, error="not connected yet")
        self._incoming: set[str] = set()
        self._callbacks: list[int] = []
        self._memory_bytes: dict[str, int] = {}
        self._sweeping: dict[str, float] = {}
        self._speeds = SpeedLimits(state / "speed-limits.json" if state else None)

    async def start(self, listener: Listener) -> None:
        """See `base.DomainWatcher.start`."""
        self._listener = listener
        libvirt.registerErrorHandler(_ignore_error, None)  # it writes to stderr otherwise
        if libvirtaio.getCurrentImpl() is None:  # once a process; libvirt has no way to take it back
            libvirtaio.virEventRegisterAsyncIOImpl(loop=asyncio.get_running_loop())
        self._tasks.keep_running("libvirt", self._keep_connected)

    async def close(self) -> None:
        """See `base.DomainWatcher.close`."""
        self._listener = None
        await self._tasks.cancel()
        await self._disconnect()
        await asyncio.gather(*(calls.close() for calls in self._calls.values()))

    def state(self) -> WatcherState:
        """See `base.DomainWatcher.state`."""
        return self._state

    # -- the connection

    async def _keep_connected(self) -> None:
        await self._disconnect()  # a fault may have ended this loop before, and left a connection
        delay_s = RECONNECT_S_MIN
        while True:
            self._lost.clear()
            try:
                await self._connect()
            except (libvirt.libvirtError, NoAnswerError) as error:
                await self._disconnect()
                self._set_down(str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(RECONNECT_S_MAX, delay_s * 2)
                continue
            delay_s = RECONNECT_S_MIN
            await self._lost.wait()
            await self._disconnect()
            self._set_down("libvirtd closed the connection")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()

        def begin(connection: Any) -> int:
            connection.registerCloseCallback(lambda *_: loop.call_soon_threadsafe(self._lost.set), None)
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._on_iteration),
                (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed),
            ):
                self._callbacks.append(connection.domainEventRegisterAny(None, event, callback, None))
            return int(connection.getLibVersion())

        version = await self._calls["events"].ask("its version", begin, OPEN_S_MAX)
        for calls in self._calls.values():
            calls.start()
        self._state = WatcherState(connected=True, version=facts.version(version))
        with contextlib.suppress(NoAnswerError):
            await self._put_back()

    def _set_down(self, error: str) -> None:
        self._state = WatcherState(connected=False, error=error)
        self._incoming.clear()

    async def _disconnect(self) -> None:
        callbacks, self._callbacks = self._callbacks, []

        def farewell(connection: Any) -> None:
            for registered in callbacks:
                connection.domainEventDeregisterAny(registered)
            connection.unregisterCloseCallback()
            connection.close()

        if callbacks:
            with contextlib.suppress(NoAnswerError, libvirt.libvirtError):
                await self._calls["events"].ask("farewell", farewell, FAREWELL_S_MAX)

    # -- events, on the loop

    def _tell(self, kind: DomainEventKind, domain: Any, number: int = 0, job: JobStatistics | None = None) -> None:
        if self._listener is not None:
            self._listener(DomainEvent(kind, domain.UUIDString(), domain.name(), number, job))

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        uuid = domain.UUIDString()
        kind = facts.LIFECYCLE.get((event, detail))
        if kind == "arriving":
            self._incoming.add(uuid)
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED and kind is None:
            kind = "gone"
        elif (event, detail) == facts.RESUMED:
            kind = "arrived" if uuid in self._incoming else "returned"
        if kind in {"arrived", "gone", "left"}:
            self._incoming.discard(uuid)
        if kind is not None:
            self._tell(kind, domain)

    def _on_iteration(self, _connection: Any, domain: Any, iteration: int, _opaque: Any) -> None:
        self._tell("iteration", domain, iteration)

    def _on_job_completed(self, _connection: Any, domain: Any, statistics: dict[str, Any], _opaque: Any) -> None:
        job = facts.job_statistics(statistics)
        if job is not None:
            self._tell("job-completed", domain, job=job)

    # -- questions

    def _asked(self, purpose: str) -> LibvirtCalls:
        if not self._state.connected:
            raise NoAnswerError(f"libvirtd is away: {self._state.error}")
        return self._calls[purpose]

    async def domains(self) -> list[DomainInfo]:
        """See `base.DomainWatcher.domains`."""
        known = self._memory_bytes

        def listed(connection: Any) -> list[DomainInfo]:
            found = []
            for domain, values in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, _LISTING)[:DOMAINS_MAX]:
                uuid = domain.UUIDString()
                memory_bytes = known.get(uuid) or _memory_bytes(domain)
                condition = facts.condition(values.get("state.state", 0), values.get("state.reason", 0))
                found.append(DomainInfo(uuid, domain.name(), memory_bytes, condition=condition))
            return found

        try:
            found = await self._asked("listing").ask("its domains", listed, CALL_S_MAX)
        except libvirt.libvirtError as error:
            raise NoAnswerError(f"libvirt does not list its domains: {error}") from error
        self._memory_bytes = {domain.uuid: domain.memory_bytes for domain in found}
        return found

    async def lookup(self, uuid: str) -> DomainInfo | None:
        """See `base.DomainWatcher.lookup`."""

        def look(connection: Any) -> DomainInfo | None:
            domain = connection.lookupByUUIDString(uuid)
            state, reason = domain.state()
            if not facts.is_active(state):
                return None
            job = _active_job(domain)
            return DomainInfo(uuid, domain.name(), domain.maxMemory() * KIB, job, facts.condition(state, reason))

        try:
            return await self._asked("jobs").ask(uuid, look, CALL_S_MAX)
        except libvirt.libvirtError as error:
            if error.get_error_code() in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}:
                return None
            raise NoAnswerError(f"libvirt does not say whether {uuid} is here: {error}") from error

    async def is_defined(self, uuid: str) -> bool:
        """See `base.DomainWatcher.is_defined`."""
        try:
            await self._asked("jobs").ask(uuid, lambda connection: connection.lookupByUUIDString(uuid), CALL_S_MAX)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return False
            raise NoAnswerError(f"libvirt does not say whether it knows {uuid}: {error}") from error
        return True

    async def jobs(self, uuids: Collection[str], timeout_s: float) -> dict[str, JobStatistics | None]:
        """See `base.DomainWatcher.jobs`."""
        found: dict[str, JobStatistics | None] = {}
        if not self._state.connected or not uuids:
            return found
        if len(uuids) <= ALONE_MAX:
            await asyncio.gather(*(self._job(uuid, timeout_s, found) for uuid in uuids))
            return found
        now = steady_clock()
        self._sweeping = {uuid: begun for uuid, begun in list(self._sweeping.items()) if now - begun < STUCK_S}
        left = deque(uuid for uuid in uuids if uuid not in self._sweeping)

        def walk(connection: Any) -> None:
            active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            handles = {domain.UUIDString(): domain for domain in active}
            while left and steady_clock() < now + timeout_s:
                with contextlib.suppress(IndexError, KeyError):  # another thread took the last, or it is gone
                    self._sweep_one(handles[left.popleft()], found)

        calls = self._asked("sweep")
        walks = (calls.ask(f"all jobs, part {part}", walk, timeout_s) for part in range(THREADS["sweep"]))
        await asyncio.gather(*walks, return_exceptions=True)
        return dict(found)  # a thread that comes back late writes into the other one

    def _sweep_one(self, domain: Any, found: dict[str, JobStatistics | None]) -> None:
        """Ask one domain on a thread of a sweep; without an answer its mark stays, and later sweeps leave it out."""
        uuid = domain.UUIDString()
        begun = self._sweeping[uuid] = steady_clock()
        with contextlib.suppress(libvirt.libvirtError):
            found[uuid] = _active_job(domain)
        if steady_clock() - begun < CALL_S_MAX:
            self._sweeping.pop(uuid, None)

    async def _job(self, uuid: str, timeout_s: float, found: dict[str, JobStatistics | None]) -> None:
        def ask(connection: Any) -> JobStatistics | None:
            return _active_job(connection.lookupByUUIDString(uuid))

        with contextlib.suppress(NoAnswerError, libvirt.libvirtError):
            found[uuid] = await self._asked("jobs").ask(uuid, ask, timeout_s)

    async def completed(self, uuid: str) -> JobStatistics | None:
        """See `base.DomainWatcher.completed`."""
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED

        def ask(connection: Any) -> JobStatistics | None:
            return facts.job_statistics(connection.lookupByUUIDString(uuid).jobStats(flags))

        try:
            return await self._asked("jobs").ask(uuid, ask, CALL_S_MAX)
        except libvirt.libvirtError:
            return None

    async def dirty_rate(self, uuid: str) -> float | None:
        """See `base.DomainWatcher.dirty_rate`."""

        def begin(connection: Any) -> None:
            connection.lookupByUUIDString(uuid).startDirtyRateCalc(DIRTY_RATE_S, 0)

        def look(connection: Any) -> float | None:
            domain, flags = connection.lookupByUUIDString(uuid), libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
            answer = connection.domainListGetStats([domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE, flags)
            return facts.dirty_bytes_per_s(answer[0][1]) if answer else None

        with contextlib.suppress(NoAnswerError, libvirt.libvirtError):
            await self._asked("commands").ask(uuid, begin, CALL_S_MAX)
            for again in range(DIRTY_RATE_LOOKS):
                await asyncio.sleep(0.5 if again else DIRTY_RATE_S)
                found = await self._asked("commands").ask(uuid, look, CALL_S_MAX)
                if found is not None:
                    return found
        return None

    async def counters(self) -> HostCounters:
        """See `base.DomainWatcher.counters`."""

        def read(connection: Any) -> HostCounters:
            answer = connection.getAllDomainStats(_COUNTED, _LISTING)[:DOMAINS_MAX]
            cpu, memory = (_optional(ask) for ask in (connection.getCPUStats, connection.getMemoryStats))
            guests = {domain.UUIDString(): guest_counters(values) for domain, values in answer}
            return HostCounters(busy_s(cpu), held_bytes(memory), None, guests)

        try:
            return await self._asked("listing").ask("loads", read, CALL_S_MAX)
        except libvirt.libvirtError as error:
            raise NoAnswerError(f"libvirt does not tell loads: {error}") from error

    async def downtime_limit(self, uuid: str) -> float | None:
        """See `base.DomainWatcher.downtime_limit`."""

        def ask(connection: Any) -> float | None:
            limit_ms = connection.lookupByUUIDString(uuid).migrateGetMaxDowntime()
            return limit_ms / 1000 if limit_ms else None

        with contextlib.suppress(NoAnswerError, libvirt.libvirtError):
            return await self._asked("commands").ask(uuid, ask, CALL_S_MAX)
        return None

    async def set_speed(self, uuid: str, bytes_per_s: float) -> None:
        """See `base.DomainWatcher.set_speed`."""

        def change(connection: Any) -> None:
            self._speeds.change(connection.lookupByUUIDString(uuid), bytes_per_s)

        try:
            await self._asked("commands").ask(uuid, change, CALL_S_MAX)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                self._speeds.forget(uuid)

    async def _put_back(self) -> None:
        """Restore the users' speed limits where an agent before this one crashed before it could."""
        for uuid in self._speeds.left_behind():
            with contextlib.suppress(NoAnswerError):
                await self.set_speed(uuid, 0.0)


def _ignore_error(_context: Any, _error: Any) -> None:
    """Every libvirt error is also raised."""


def _optional(ask: Callable[[int], dict[str, int]]) -> dict[str, int]:
    """A host's statistics, of all its CPUs or cells; empty where its driver has none."""
    with contextlib.suppress(libvirt.libvirtError):
        return ask(-1)
    return {}


def _memory_bytes(domain: Any) -> int:
    try:
        return int(domain.maxMemory()) * KIB
    except libvirt.libvirtError:  # it went away meanwhile
        return 0


def _active_job(domain: Any) -> JobStatistics | None:
    """Ask for a domain's migration job; raises libvirtError where libvirt does not say."""
    try:
        return facts.job_statistics(domain.jobStats())
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if facts.is_refusal_of_destination(code) and facts.condition(*domain.state()) not in {"running", "paused"}:
            return JobStatistics(outgoing=False)
        if code in {libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT}:
            return None
        raise
