"""Libvirt's events and statistics through libvirt-python and libvirtaio.

The rule: events arrive on the loop, every call that may block runs on threads of its own, and libvirtd may come and go:
the agent is as useful without it, only with fewer names and figures.

    start ──> connect on a thread ──> register callbacks ──> wait for the close callback ──> connect again
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

import libvirt
import libvirtaio

from dwcp_migrate.hypervisor.base import (
    DomainEvent,
    DomainEventKind,
    DomainInfo,
    JobStatistics,
    Listener,
    WatcherState,
)
from dwcp_migrate.units import KIB, MIB

RECONNECT_S_MIN: Final = 1.0
RECONNECT_S_MAX: Final = 10.0

KEEPALIVE_S: Final = 5
KEEPALIVE_COUNT: Final = 3
"""A libvirtd that is stuck fails our calls after 20 s instead of holding their threads."""

THREADS: Final = 2
"""One more than the poller needs, so that a verdict does not wait behind it."""

DOMAINS_MAX: Final = 4096

DIRTY_RATE_S: Final = 1
"""How long QEMU samples pages for a dirty rate; its least."""

DIRTY_RATE_LOOKS: Final = 4
"""Looks for the result, half a second apart after that: libvirt tells its end by no event."""

_LIFECYCLE: Final[dict[tuple[int, int], DomainEventKind]] = {
    (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED): "arriving",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED): "suspended",
    (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY): "postcopy",
    (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED): "left",
}
"""What a lifecycle event means to a migration, where that does not depend on the side."""

_RESUMED: Final = (libvirt.VIR_DOMAIN_EVENT_RESUMED, libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)
"""At the destination the domain arrived, at the source it came back."""

P = ParamSpec("P")
T = TypeVar("T")


class LibvirtWatcher:
    """The local libvirtd, see `base.DomainWatcher`.

    Args:
        uri: of the local libvirtd.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="libvirt")
        self._connection: Any = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._state = WatcherState(connected=False, error="not connected yet")
        self._incoming: set[str] = set()
        self._callbacks: list[int] = []
        self._speeds: dict[str, int] = {}

    async def start(self, listener: Listener) -> None:
        """See `base.DomainWatcher.start`."""
        self._listener = listener
        libvirt.registerErrorHandler(_ignore_error, None)  # it writes to stderr otherwise
        if libvirtaio.getCurrentImpl() is None:  # once a process; libvirt has no way to take it back
            libvirtaio.virEventRegisterAsyncIOImpl(loop=asyncio.get_running_loop())
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def close(self) -> None:
        """See `base.DomainWatcher.close`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def state(self) -> WatcherState:
        """See `base.DomainWatcher.state`."""
        return self._state

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **kwargs))

    # -- the connection

    async def _keep_connected(self) -> None:
        delay_s = RECONNECT_S_MIN
        while True:
            self._lost.clear()
            try:
                await self._connect()
            except libvirt.libvirtError as error:
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
        self._connection = connection = await self._call(libvirt.open, self._uri)
        loop = asyncio.get_running_loop()
        connection.registerCloseCallback(lambda *_: loop.call_soon_threadsafe(self._lost.set), None)
        with contextlib.suppress(libvirt.libvirtError):  # a local driver has no keepalive
            await self._call(connection.setKeepAlive, KEEPALIVE_S, KEEPALIVE_COUNT)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, self._on_iteration),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed),
        ):
            registered = await self._call(connection.domainEventRegisterAny, None, event, callback, None)
            self._callbacks.append(registered)
        version = await self._call(connection.getLibVersion)
        self._state = WatcherState(connected=True, version=_version(version))

    def _set_down(self, error: str) -> None:
        self._state = WatcherState(connected=False, error=error)
        self._incoming.clear()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        callbacks, self._callbacks = self._callbacks, []
        if connection is None:
            return
        with contextlib.suppress(libvirt.libvirtError):
            for registered in callbacks:
                connection.domainEventDeregisterAny(registered)
            connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            await self._call(connection.close)

    # -- events, on the loop

    def _tell(self, kind: DomainEventKind, domain: Any, number: int = 0, job: JobStatistics | None = None) -> None:
        if self._listener is not None:
            self._listener(DomainEvent(kind, domain.UUIDString(), domain.name(), number, job))

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        uuid = domain.UUIDString()
        kind = _LIFECYCLE.get((event, detail))
        if kind == "arriving":
            self._incoming.add(uuid)
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED and kind is None:
            kind = "gone"
        elif (event, detail) == _RESUMED:
            kind = "arrived" if uuid in self._incoming else "returned"
        if kind in {"arrived", "gone", "left"}:
            self._incoming.discard(uuid)
        if kind is not None:
            self._tell(kind, domain)

    def _on_iteration(self, _connection: Any, domain: Any, iteration: int, _opaque: Any) -> None:
        self._tell("iteration", domain, iteration)

    def _on_job_completed(self, _connection: Any, domain: Any, statistics: dict[str, Any], _opaque: Any) -> None:
        job = job_statistics(statistics)
        if job is not None:
            self._tell("job-completed", domain, job=job)

    # -- questions

    async def domains(self) -> list[DomainInfo]:
        """See `base.DomainWatcher.domains`."""
        connection = self._connection
        if connection is None or not self._state.connected:
            return []
        try:
            return await self._call(_domains, connection)
        except libvirt.libvirtError:
            return []

    async def job(self, uuid: str) -> JobStatistics | None:
        """See `base.DomainWatcher.job`."""
        return await self._job(uuid, 0)

    async def completed(self, uuid: str) -> JobStatistics | None:
        """See `base.DomainWatcher.completed`."""
        return await self._job(uuid, libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)

    async def dirty_rate(self, uuid: str) -> float | None:
        """See `base.DomainWatcher.dirty_rate`."""
        connection = self._connection
        if connection is None or not self._state.connected:
            return None
        try:
            domain = await self._call(connection.lookupByUUIDString, uuid)
            await self._call(domain.startDirtyRateCalc, DIRTY_RATE_S, 0)
            for look in range(DIRTY_RATE_LOOKS):
                await asyncio.sleep(0.5 if look else DIRTY_RATE_S)
                answer = await self._call(connection.domainListGetStats, [domain], libvirt.VIR_DOMAIN_STATS_DIRTYRATE)
                found = _measured(answer[0][1]) if answer else None
                if found is not None:
                    return found
        except libvirt.libvirtError:
            return None
        return None

    async def set_speed(self, uuid: str, bytes_per_s: float) -> None:
        """See `base.DomainWatcher.set_speed`."""
        connection = self._connection
        if connection is None or not self._state.connected:
            return
        before = self._speeds.get(uuid) if bytes_per_s else self._speeds.pop(uuid, None)
        if before is None and not bytes_per_s:
            return
        with contextlib.suppress(libvirt.libvirtError):
            domain = await self._call(connection.lookupByUUIDString, uuid)
            if before is None:  # libvirt keeps the limit for the domain's next migrations too
                self._speeds[uuid] = await self._call(domain.migrateGetMaxSpeed, 0)
            mib_per_s = max(1, round(bytes_per_s / MIB)) if bytes_per_s else before
            await self._call(domain.migrateSetMaxSpeed, mib_per_s, 0)

    async def _job(self, uuid: str, flags: int) -> JobStatistics | None:
        connection = self._connection
        if connection is None or not self._state.connected:
            return None
        try:
            return await self._call(lambda: job_statistics(connection.lookupByUUIDString(uuid).jobStats(flags)))
        except libvirt.libvirtError:
            return None


def _measured(statistics: dict[str, Any]) -> float | None:
    """Read a finished measurement of virConnectGetAllDomainStats; libvirt gives whole MiB a second."""
    if statistics.get("dirtyrate.calc_status") != libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED:
        return None
    rate = statistics.get("dirtyrate.megabytes_per_second", -1)
    return float(rate * MIB) if rate >= 0 else None


def _ignore_error(_context: Any, _error: Any) -> None:
    """Every libvirt error is also raised."""


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _domains(connection: Any) -> list[DomainInfo]:
    """List active domains; one that goes away meanwhile is left out."""
    found = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)[:DOMAINS_MAX]:
        with contextlib.suppress(libvirt.libvirtError):
            found.append(DomainInfo(domain.UUIDString(), domain.name(), domain.maxMemory() * KIB, _active_job(domain)))
    return found


def _active_job(domain: Any) -> JobStatistics | None:
    try:
        return job_statistics(domain.jobStats())
    except libvirt.libvirtError as error:
        # The destination of a migration has statistics for nobody (qemuDomainGetJobStatsInternal).
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and _is_incoming(domain):
            return JobStatistics(outgoing=False)
        return None


def _is_incoming(domain: Any) -> bool:
    state, reason = domain.state()
    return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION)


def job_statistics(raw: dict[str, Any]) -> JobStatistics | None:
    """Read libvirt's typed parameters of a job (virDomainGetJobStats); None if it is no migration.

    Libvirt gives the dirty rate in pages a second and leaves out what it does not know.
    """
    operation = raw.get("operation")
    outgoing = operation == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    if not outgoing and operation != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
        return None
    dirty_pages = raw.get("memory_dirty_rate", -1)
    page_bytes = raw.get("memory_page_size", 4 * KIB)
    return JobStatistics(
        outgoing=outgoing,
        memory_total_bytes=raw.get("memory_total", -1),
        memory_remaining_bytes=raw.get("memory_remaining", -1),
        dirty_bytes_per_s=dirty_pages * page_bytes if dirty_pages >= 0 else -1,
        iteration=raw.get("memory_iteration", -1),
        downtime_ms=raw.get("downtime", -1),
        elapsed_ms=raw.get("time_elapsed", -1),
        success=bool(raw["success"]) if "success" in raw else None,
        error=str(raw.get("errmsg", "")),
    )
