"""The forecast loop: once a second it samples rates, updates forecasts, shares links and refreshes ETAs.

The rule: nothing here is needed for a migration to run. An error is logged and the work tried again at the next tick,
and the data processes go on at the rates that they have.

    every TICK_S    rates of running migrations -> Forecasts -> RateController -> ETA of each record
    at once         RateController, when a migration begins to send, has sent all, or its domain becomes known: the
    link waits every LOOK_S    interfaces over netlink, on a thread
    as configured   dirty rates of running domains, one at a time; training on this host's history, at lowest priority
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.forecasting.predictions import DOWNTIME_S_MAX, Predictions, Subject
from dwcp_migrate.agent.forecasting.rate_control import LimitsInForce, RateController
from dwcp_migrate.agent.forecasting.series import Forecasts
from dwcp_migrate.agent.tracking.observed import OBSERVES, without_forecast
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.hypervisor import network
from dwcp_migrate.hypervisor.network import Interface
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.tasks import Tasks, wait_within

TICK_S: Final = 1.0
"""A step of the panel."""

BOUND_MIN: Final = 0.6
"""Share of a second that a migration must have waited for the path, so that its rate counts as the path's capacity."""

LOOK_S: Final = 10.0
"""Interval of the statistics of the interfaces: 6 to 15 ms of CPU each time."""

LIMITS_S: Final = 2.0
"""Between two questions for the downtime limits of domains that migrate."""

LIMIT_S_MAX: Final = 0.3
"""A tick waits so long for the downtime limit of a domain that has begun to migrate, before it is predicted."""

PREDICTED_S_MAX: Final = 10.0
"""A migration that is tied to its domain later than that is not predicted any more: it is half over."""

LEARN_NICE: Final = 19
"""Niceness of training: it runs only on cores that are idle otherwise."""

RETRY_S: Final = 3600.0
"""Pause before training that failed is tried again."""

log = get_logger(component="planner")


@dataclass(frozen=True, slots=True)
class _Before:
    counters: MigrationCounters
    is_held: bool
    at: float


@dataclass(frozen=True, slots=True)
class _Shown:
    """One migration's use of its link since the last sample.

    Attributes:
        bytes_per_s: on the wire.
        waited: share of the time in which encoded bytes waited for a channel: it could have used more.
        bound: share of the time in which the path held it up: more was not to be had.
        is_held: it may have been the rate that it was held to.
    """

    bytes_per_s: float
    waited: float
    bound: float
    is_held: bool


class ForecastLoop:
    """Samples rates, updates forecasts and divides links, once a second.

    Args:
        runtime: the shared parts.
        pace: holds a migration's data process to a rate on the wire, 0 for none.
        look: reads the interfaces that lead to some addresses.
    """

    def __init__(
        self,
        runtime: Runtime,
        pace: Callable[[str, float], None],
        look: Callable[[list[str]], list[Interface]] = network.look,
    ) -> None:
        self._runtime = runtime
        self._look = look
        self.forecasts = Forecasts(runtime.config.state_directory)
        self.predictions = Predictions(self.forecasts, runtime.ledger.recent())
        self.sharing = RateController(
            runtime.ledger,
            self.forecasts,
            pace,
            self._set_speed,
            LimitsInForce(runtime.link_ceiling, runtime.domain_ceiling, runtime.limit_words),
        )
        self._before: dict[str, _Before] = {}
        self._watched: set[str] = set()
        self._interfaces: dict[str, tuple[Interface, float]] = {}
        self._wire_bytes = 0
        self._wire_at_look = 0
        self._other_bytes_per_s = 0.0
        self._downtime_limits: dict[str, float] = {}
        self._due = {"look": 0.0, "limits": 0.0, "dirty": 0.0, "learn": steady_clock() + RETRY_S}
        self._tasks = Tasks()
        self._turned = asyncio.Event()
        runtime.ledger.observe(self._heard)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self._thread.submit(int).result()  # it is there from the start: an agent's threads do not grow with its age

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            try:
                await self.tick(wall_clock())
            except (OSError, ValueError, ArithmeticError) as error:
                log.warning("tick failed", error=repr(error))
            await self._share_until(steady_clock() + TICK_S)

    async def _share_until(self, due: float) -> None:
        """Wait for the next tick; meanwhile share again whenever the migrations on a link change."""
        while (left := due - steady_clock()) > 0:
            try:
                await wait_within(self._turned.wait(), left)
            except TimeoutError:
                return
            self._turned.clear()
            self._share(wall_clock())

    def _heard(self, before: Migration | None, after: Migration) -> None:
        """Whether it may be somebody else's turn on a link now."""
        if after.role == "source" and (before is None or _standing(before) != _standing(after)):
            self._turned.set()

    def _share(self, now: float) -> None:
        self.sharing.update(self._runtime.config.bandwidth, self._other_bytes_per_s, now)

    async def close(self) -> None:
        """Write what is pending; what runs beside the loop is ended."""
        await self._tasks.cancel()
        await self.forecasts.flush(wall_clock(), self._thread, at_once=True)
        self._thread.shutdown()

    async def tick(self, now: float) -> None:
        """Do one second's work. `now` is seconds since the epoch."""
        running = [record for record in self._runtime.ledger.running() if record.role == "source"]
        self._measure(running, now)
        self.forecasts.step(now)
        self._share(now)
        if any(record.uuid and record.uuid not in self._downtime_limits for record in running):
            await self._ask_downtime_limits()
        for record in running:
            self._estimate(record, now)
        self._take_ended({record.id for record in running})
        await self.forecasts.flush(now, self._thread)
        self._begin_what_is_due()

    # -- measuring

    def _measure(self, running: list[Migration], now: float) -> None:
        by_peer: dict[str, list[_Shown]] = {}
        for record in running:
            shown = self._show(record, now)
            if shown is not None and record.peer:
                self.sharing.usage.saw(
                    record.id, shown.bytes_per_s, shown.waited, held_bytes_per_s=self.sharing.rate(record.id)
                )
                if shown.bound >= BOUND_MIN and not shown.is_held:
                    self.predictions.carried(record, shown.bytes_per_s)
                by_peer.setdefault(record.peer, []).append(shown)
        self._before = {key: value for key, value in self._before.items() if key in {one.id for one in running}}
        for peer, found in by_peer.items():
            value = sum(shown.bytes_per_s for shown in found)
            free = [shown for shown in found if not shown.is_held]
            fills = max(shown.bound for shown in free or found) >= BOUND_MIN  # if not, the link carries at least that
            if value > 0:
                self.forecasts.seen(peer, value, now, fills=fills)
            if fills:  # a second in which nothing crossed although all waited is one of the link's too
                if value > 0 and not free:  # it was held: the link carries at least that
                    value = max(value, self.predictions.link_median(peer))
                self.forecasts.sample(Key("link", "rate", peer), value, now)

    def _show(self, record: Migration, now: float) -> _Shown | None:
        """A migration's use of its link since the last sample; None where it did not send plainly."""
        counters, before = record.counters, self._before.get(record.id)
        if before is not None and _says_nothing_new(counters, before.counters):
            return None  # the data process reports every `PROGRESS_S`: wait for the next one
        is_held = self.sharing.holds(record.id)
        self._before[record.id] = _Before(counters, is_held, now)
        if before is None or now <= before.at or record.state not in {"precopy", "postcopy"}:
            return None
        then, seconds = before.counters, now - before.at
        self._wire_bytes += counters.wire_bytes - then.wire_bytes
        if record.peer and counters.rtt_s > 0:
            self.forecasts.note(Key("link", "rtt", record.peer), counters.rtt_s, now)
            again = max(0, counters.retransmits - then.retransmits) / seconds
            self.forecasts.note(Key("link", "retransmits", record.peer), again, now)
        if record.uuid and record.dirty_bytes_per_s > 0:
            self.forecasts.sample(Key("domain", "rewritten", record.uuid), record.dirty_bytes_per_s, now)
        return _Shown(
            bytes_per_s=max(0, counters.wire_bytes - then.wire_bytes) / seconds,
            waited=(counters.link_waiting_s - then.link_waiting_s) / seconds,
            bound=(counters.path_waiting_s - then.path_waiting_s) / seconds,
            is_held=is_held or before.is_held,
        )

    # -- records

    def _estimate(self, record: Migration, now: float) -> None:
        self._watched.add(record.id)
        self.predictions.watch(record, now)
        ledger = self._runtime.ledger
        fresh = record.duration_s(now) <= PREDICTED_S_MAX
        if record.expected is None and record.uuid and record.memory_bytes and record.kind == "memory" and fresh:
            told = self.predictions.tell(self.subject(record))
            if record.passthrough_reason == OBSERVES and not told.link_known:
                ledger.change(record.id, without_forecast)
            else:
                ledger.change(record.id, lambda found: replace(found, expected=told.expected))
        limit = self._downtime_limits.get(record.uuid, DOWNTIME_S_MAX)
        ledger.change(record.id, lambda found: self.predictions.estimate(found, limit))

    def subject(self, record: Migration) -> Subject:
        """The subject of the prediction for a migration that begins."""
        due_at = self.sharing.wished(record.domain).due_at
        return Subject(
            uuid=record.uuid,
            memory_bytes=record.memory_bytes,
            peer=record.peer,
            rtt_s=record.counters.rtt_s,
            deadline_s=max(0.0, due_at - record.started_at) if due_at else 0.0,
            downtime_s_max=self._downtime_limits.get(record.uuid, DOWNTIME_S_MAX),
        )

    def link_carried(self, peer: str, bytes_per_s: float) -> None:
        """Take in what the link to a peer was seen to carry at least, in a second of a measurement.

        Args:
            peer: its name.
            bytes_per_s: on the wire.
        """
        self.forecasts.seen(peer, bytes_per_s, wall_clock(), fills=False)

    def _take_ended(self, running: set[str]) -> None:
        gone = self._watched - running
        if not gone:
            return
        for record in self._runtime.ledger.recent():
            if record.id in gone and record.role == "source":
                self.predictions.ended(record)
                gone.discard(record.id)
                self._watched.discard(record.id)
        self._watched -= gone

    # -- beside the loop

    def _begin_what_is_due(self) -> None:
        now, config = steady_clock(), self._runtime.config.bandwidth
        for name, every, work in (
            ("look", LOOK_S, self._look_at_network),
            ("limits", LIMITS_S, self._ask_downtime_limits),
            ("dirty", config.dirty_rate_interval_s, self._measure_dirty_rates),
            ("learn", config.learn_interval_s, self._learn),
        ):
            if every > 0 and now >= self._due[name]:
                self._due[name] = now + every
                self._tasks.begin(work())

    async def _look_at_network(self) -> None:
        addresses = [address for address, _ in self._runtime.directory.redirected()]
        if not addresses:
            return
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._look, addresses)
        now, sent = wall_clock(), self._wire_bytes - self._wire_at_look
        self._wire_at_look = self._wire_bytes
        others = 0.0
        for interface in found:
            before = self._interfaces.get(interface.name)
            self._interfaces[interface.name] = (interface, now)
            if interface.speed_bytes_per_s:
                self.forecasts.note(Key("interface", "speed", interface.name), interface.speed_bytes_per_s, now)
            self.forecasts.note(Key("interface", "backlog", interface.name), float(interface.backlog_bytes), now)
            if before is not None and now > before[1]:
                all_of_it = interface.sent_bytes - before[0].sent_bytes
                other = max(0.0, all_of_it - sent) / (now - before[1])
                self.forecasts.note(Key("interface", "other", interface.name), other, now)
                others += other
        self._other_bytes_per_s = others

    async def downtime_limit(self, uuid: str) -> float:
        """For how long a domain's migration may pause it; QEMU's own limit where libvirt does not say."""
        return await self._runtime.domains.downtime_limit(uuid) or DOWNTIME_S_MAX

    async def _ask_downtime_limits(self) -> None:
        """Ask for the limits of the domains that migrate: the user may change one at any time."""
        running = self._runtime.ledger.running()
        uuids = {record.uuid for record in running if record.role == "source" and record.uuid}
        known = {uuid: self._downtime_limits.get(uuid, DOWNTIME_S_MAX) for uuid in uuids}

        async def ask(uuid: str) -> None:
            known[uuid] = await self.downtime_limit(uuid)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S_MAX):
                await asyncio.gather(*map(ask, uuids))
        self._downtime_limits = known

    async def _measure_dirty_rates(self) -> None:
        for domain in await self._runtime.domains.listed():
            if not domain.is_moving:
                await self.dirty_rate(domain.uuid)

    async def dirty_rate(self, uuid: str) -> float | None:
        """Measure a domain's dirty rate now, about a second, and keep it; None if it cannot be."""
        found = await self._runtime.domains.dirty_rate(uuid)
        if found is not None:
            self.forecasts.note(Key("domain", "dirty", uuid), found, wall_clock())
        return found

    def _set_speed(self, uuid: str, bytes_per_s: float) -> None:
        self._tasks.begin(self._runtime.domains.set_speed(uuid, bytes_per_s))

    async def _learn(self) -> None:
        """Train on this host's history in a process of its own, at the lowest priority; then read what is in use."""
        await self.forecasts.flush(wall_clock(), self._thread, at_once=True)
        command = [sys.executable, "-m", "dwcp_migrate", "train", "--json"]
        command += ["--state", str(self._runtime.config.state_directory)]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, LEARN_NICE)
            said, errors = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode:
            self._due["learn"] = max(self._due["learn"], steady_clock() + RETRY_S)
            log.warning("training failed", said=errors.decode(errors="replace")[-300:].strip())
            return
        log.info("training ended", said=said.decode(errors="replace")[-300:].strip())
        self.forecasts.reload()


def _says_nothing_new(counters: MigrationCounters, before: MigrationCounters) -> bool:
    """Whether nothing has crossed, nor waited to cross: no report has come since."""
    return (counters.wire_bytes, counters.path_waiting_s) == (before.wire_bytes, before.path_waiting_s)


def _standing(record: Migration) -> tuple[str, str, bool]:
    """The properties that decide whether a migration takes part in the sharing of its link."""
    return record.state, record.uuid, record.is_delivered
