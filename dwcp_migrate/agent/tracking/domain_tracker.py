"""Tracker of domains: ties migrations to libvirt's domains, and follows libvirt's reports of progress and result.

The rule: nothing here delays a byte. Libvirt is asked outside of the data path, each question with a deadline, and
without libvirtd every answer is "unknown".
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from dwcp_migrate.agent.tracking.domain_matching import KnownDomain, UnmatchedMigration, bind
from dwcp_migrate.agent.tracking.outgoing_jobs import OutgoingJob, OutgoingJobs
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import Migration, MigrationEvent, Result, Role, append_event
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.errors import NoAnswerError
from dwcp_migrate.hypervisor.base import DomainEvent, DomainInfo, DomainWatcher, JobStatistics, WatcherState
from dwcp_migrate.hypervisor.load_counters import HostCounters
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import DOMAINS_MAX, DomainName
from dwcp_migrate.tasks import Tasks, wait_within

LEAVING_S_MAX: Final = 0.3
"""For libvirt to say which domains leave, before the peer is asked: 1 ms for each four of them, 0.25 s for a thousand.
All of it only where there are more, or where one hangs that did not before."""

ARRIVING_S_MAX: Final = 1.0
"""Time for libvirt to list the domains that wait for their memory; asked once where no hook announced a migration."""

POLL_S: Final = 1.0
"""Interval at which the jobs of running migrations are read; libvirt refreshes them as often."""

QUERY_S_MAX: Final = 5.0
"""Time-out of any other question to libvirt."""

JOBS_S_MAX: Final = 1.0
"""Part of that for the jobs of domains, so that a domain whose job lock hangs delays the others by no more."""

VERDICT_S_MAX: Final = 10.0
"""Wait for libvirt's report after the data process's end: Finish and Confirm are two round trips of its connection."""

UNTIED_S_MAX: Final = 3.0
"""The same for a migration that is tied to no domain: it may be no migration of libvirt's."""

STATISTICS_S_MAX: Final = 5.0
"""Wait for the job's statistics after libvirt's report: they are an event of their own, late only on busy hosts."""

CLOCK_SLACK_S: Final = 0.5
"""Largest difference between libvirt's time of a job and this agent's time of its record."""

_ENDINGS: Final[dict[str, tuple[Role, Result]]] = {
    "left": ("source", "completed"),
    "returned": ("source", "failed"),
    "arrived": ("destination", "completed"),
    "gone": ("destination", "failed"),
}

log = get_logger(component="domains")


@dataclass(frozen=True, slots=True)
class MigrationVerdict:
    """Libvirt's report of the end: `result` is empty where there was none, `reason` where it named none."""

    result: Result = ""
    reason: str = ""


@dataclass(slots=True)
class _Followed:
    identity: str
    role: Role
    candidates: frozenset[str]
    uuid: str = ""
    name: str = ""
    verdict: MigrationVerdict | None = None
    has_statistics: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class DomainTracker:
    """The migrations that are followed.

    Args:
        watcher: libvirt; None runs without.
        ledger: where the records are.
    """

    def __init__(self, watcher: DomainWatcher | None, ledger: MigrationRegistry) -> None:
        self._watcher = watcher
        self._ledger = ledger
        self._followed: dict[str, _Followed] = {}
        self._announced: dict[str, DomainName] = {}
        self._jobs = OutgoingJobs()
        self._memory_bytes: dict[str, int] = {}
        self._tasks = Tasks()
        self._look_now = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen to libvirt."""
        if self._watcher is not None:
            await self._watcher.start(self.heard)
            self._tasks.keep_running("domains", self._poll)

    async def close(self) -> None:
        """Stop listening."""
        await self._tasks.cancel()
        if self._watcher is not None:
            await self._watcher.close()

    def state(self) -> WatcherState:
        """The connection to libvirt."""
        return self._watcher.state() if self._watcher else WatcherState(connected=False, error="off by configuration")

    async def here(self) -> list[DomainInfo] | None:
        """All domains that are active on this host; None when libvirt does not say, from which nothing follows."""
        return await self._domains(QUERY_S_MAX)

    async def runs(self, uuid: str) -> bool | None:
        """Whether a domain runs here for good; None while it moves, or when libvirt does not say."""
        if self._watcher is None:
            return None
        try:
            found = await self._watcher.lookup(uuid)
        except NoAnswerError:
            return None
        return None if found is not None and found.is_moving else found is not None

    async def is_defined(self, uuid: str) -> bool | None:
        """Whether libvirt knows a domain here, active or not; None when it does not say."""
        try:
            return await self._watcher.is_defined(uuid) if self._watcher is not None else None
        except NoAnswerError:
            return None

    async def leaving(self) -> tuple[DomainName, ...]:
        """Domains that migrate away now, as far as libvirt says so within `LEAVING_S_MAX`."""
        domains = await self._domains(LEAVING_S_MAX, jobs_of_all=True) or []
        leaving = [DomainName(found.uuid, found.name) for found in domains if found.job and found.job.outgoing]
        return tuple(leaving[:DOMAINS_MAX])

    def untied_names(self, leaving: Sequence[DomainName]) -> list[str]:
        """Names of the domains that leave and have no record yet; of all of them where each has one (its disks)."""
        tied = {followed.uuid for followed in self._followed.values()}
        return [found.name for found in leaving if found.uuid not in tied] or [found.name for found in leaving]

    def largest_of(self, domains: Iterable[DomainName]) -> int:
        """Memory of the largest of some domains as libvirt told it last, in bytes; 0 where it told of none."""
        return max((self._memory_bytes.get(found.uuid, 0) for found in domains), default=0)

    async def resumes_postcopy(self) -> bool:
        """Whether all that leaves now and has no record is a postcopy that broke off: nothing else can connect.

        No hook announces the resumption at the destination, and the fleet's agreement to the move still stands.
        """
        domains = await self._domains(LEAVING_S_MAX) or []
        if not any(found.condition == "postcopy-failed" for found in domains):
            return False
        domains = await self._domains(LEAVING_S_MAX, jobs_of_all=True) or []
        tied = {followed.uuid for followed in self._followed.values()}
        incoming = {found.uuid for found in domains if found.job and not found.job.outgoing}
        free = [found for found in domains if found.uuid not in tied | incoming]
        leaving = [found for found in free if found.job or found.condition == "postcopy-failed"]
        return bool(leaving) and all(found.condition == "postcopy-failed" for found in leaving)

    async def arriving(self) -> tuple[DomainName, ...]:
        """Domains that wait here for their memory, as far as libvirt says so within `ARRIVING_S_MAX`."""
        waiting = [found for found in await self._domains(ARRIVING_S_MAX) or [] if found.condition == "migrating"]
        jobs = await self._jobs_of({found.uuid for found in waiting})
        return tuple(DomainName(found.uuid, found.name) for found in waiting if not _is_outgoing(jobs.get(found.uuid)))

    async def _jobs_of(self, uuids: Collection[str]) -> Mapping[str, JobStatistics | None]:
        if self._watcher is None or not uuids:
            return {}
        return await self._watcher.jobs(uuids, ARRIVING_S_MAX)

    async def listed(self) -> list[DomainInfo]:
        """Domains that are active here, with the jobs of those that are known to move; none where libvirt is silent."""
        return await self._domains(QUERY_S_MAX) or []

    async def dirty_rate(self, uuid: str) -> float | None:
        """Have a domain's dirty rate measured, about a second; None if it cannot be."""
        if self._watcher is None:
            return None
        try:
            return await wait_within(self._watcher.dirty_rate(uuid), QUERY_S_MAX)
        except TimeoutError:
            return None

    async def counters(self) -> HostCounters | None:
        """Counters of the host and its guests; None without a libvirt. Raises NoAnswerError."""
        return await self._watcher.counters() if self._watcher is not None else None

    async def downtime_limit(self, uuid: str) -> float | None:
        """For how long a domain's migration may pause it, in seconds; None where libvirt does not say."""
        return await self._watcher.downtime_limit(uuid) if self._watcher is not None else None

    async def set_speed(self, uuid: str, bytes_per_s: float) -> None:
        """Limit the rate of a domain's migration in QEMU itself; in vain where libvirt does not answer.

        Args:
            uuid: of the domain.
            bytes_per_s: limit; 0 restores the user's own.
        """
        if self._watcher is not None:
            with contextlib.suppress(NoAnswerError):
                await self._watcher.set_speed(uuid, bytes_per_s)

    async def _domains(self, timeout_s: float, *, jobs_of_all: bool = False) -> list[DomainInfo] | None:
        """List active domains, with the jobs of those that are known to move or of all; None where libvirt is silent.

        A job that libvirt does not tell in time is missing; the domain is not.
        """
        if self._watcher is None:
            return None
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(due):
                domains = await self._watcher.domains()
        except (NoAnswerError, TimeoutError):
            return None
        self._memory_bytes = {one.uuid: one.memory_bytes for one in domains}
        tied, moving = {followed.uuid for followed in self._followed.values()}, self._jobs.moving()
        asked = [one.uuid for one in domains if jobs_of_all or one.is_moving or one.uuid in tied | moving]
        asked.sort(key=lambda uuid: uuid not in moving)
        jobs = await self._watcher.jobs(asked, max(0.0, min(JOBS_S_MAX, due - loop.time())))
        return [dataclasses.replace(one, job=jobs.get(one.uuid)) for one in domains]

    def follow(self, identity: str, role: Role, candidates: Iterable[DomainName]) -> None:
        """Begin to look for a migration's domain.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            role: of this host in it.
            candidates: domains that it may carry; none of them means any.
        """
        named = tuple(candidates)
        self._announced.update({found.uuid: found for found in named})
        self._followed[identity] = _Followed(identity, role, frozenset(found.uuid for found in named))
        self._bind([])
        self._look_now.set()

    @property
    def are_leaving(self) -> bool:
        """Whether libvirt speaks of a migration that leaves this host."""
        return bool(self._jobs.moving())

    def forget(self, identity: str) -> None:
        """The record is closed."""
        followed = self._followed.pop(identity, None)
        if followed is not None and followed.role == "source":
            self._jobs.record_ended(followed.uuid, steady_clock())
        named = {uuid for followed in self._followed.values() for uuid in followed.candidates}
        self._announced = {uuid: found for uuid, found in self._announced.items() if uuid in named}

    def tell(self, identity: str, uuid: str, name: str) -> None:
        """Tie a migration to the domain that the peer names, if it has none yet.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            uuid: of the domain; empty where the peer does not know it.
            name: of the domain.
        """
        followed = self._followed.get(identity)
        if followed is not None and uuid and not followed.uuid:
            self._tie(followed, uuid, name)

    def unfollowed(self, least_age_s: float, *, take: bool = False) -> list[OutgoingJob]:
        """Migrations that leave this host, by libvirt's events, and that no record follows.

        Nothing is said while a caught connection waits for its domain: the job may be its.

        Args:
            least_age_s: how long a record may take to find its domain.
            take: those that have ended are not told again.
        """
        waiting = any(followed.role == "source" and not followed.uuid for followed in self._followed.values())
        if waiting or self._opening("source"):
            return []
        tied = {followed.uuid for followed in self._followed.values() if followed.role == "source"}
        found = self._jobs.unfollowed(tied, steady_clock(), least_age_s)
        if take:
            self._jobs.forget_ended()
        return found

    def _bind(self, domains: list[DomainInfo]) -> None:
        """Tie what can be tied, given what libvirt lists now."""
        for role in ("source", "destination"):
            questions, taken = self._questions(role)
            if questions:
                known = self._known(domains, role)
                for identity, domain in bind(questions, known, taken, self._opening(role)).items():
                    self._tie(self._followed[identity], domain.uuid, domain.name)

    def _opening(self, role: Role | str) -> int:
        """Migrations whose ends are still agreeing."""
        return sum(one.role == role and one.id not in self._followed for one in self._ledger.running())

    def _questions(self, role: Role | str) -> tuple[list[UnmatchedMigration], dict[str, list[str]]]:
        questions: list[UnmatchedMigration] = []
        taken: dict[str, list[str]] = {}
        for followed in self._followed.values():
            record = self._ledger.get(followed.identity)
            if record is None or followed.role != role:
                continue
            lane = f"{role} {record.kind}"
            if followed.uuid:
                taken.setdefault(lane, []).append(followed.uuid)
                continue
            spoken = next((event.detail for event in record.events if event.event == "uuid" and event.detail), "")
            questions.append(
                UnmatchedMigration(followed.identity, lane, followed.candidates, spoken, record.memory_bytes)
            )
        return questions, taken

    def _known(self, domains: list[DomainInfo], role: Role | str) -> dict[str, KnownDomain]:
        known = {uuid: KnownDomain(uuid, found.name) for uuid, found in self._announced.items()}
        for domain in domains:
            moving = domain.job is not None and domain.job.outgoing == (role == "source")
            known[domain.uuid] = KnownDomain(domain.uuid, domain.name, domain.memory_bytes, moving)
        return known

    def _tie(self, followed: _Followed, uuid: str, name: str) -> None:
        followed.uuid, followed.name = uuid, name
        followed.changed.set()
        self._ledger.change(followed.identity, lambda record: replace(record, uuid=uuid, domain=name))
        log.info("migration tied to its domain", migration=followed.identity, domain=name, uuid=uuid)

    async def _poll(self) -> None:
        while True:
            if not self._followed:
                await self._look_now.wait()
            self._look_now.clear()
            is_open = any(not followed.uuid for followed in self._followed.values())
            domains = await self._domains(QUERY_S_MAX, jobs_of_all=is_open) or []
            self._bind(domains)
            for domain in domains:
                if domain.job is not None:
                    self._take_job(domain.uuid, domain.job)
            await _wait(self._look_now, POLL_S)

    def _take_job(self, uuid: str, job: JobStatistics) -> None:
        for followed in self._followed.values():
            same_side = (followed.role == "source") == job.outgoing
            if followed.uuid == uuid and same_side and not self._is_later(job, followed):
                self._ledger.change(followed.identity, lambda record: with_job(record, job, ended=False))

    def _is_later(self, job: JobStatistics, followed: _Followed) -> bool:
        """Whether a job began after the migration did: the operator has started the next one already.

        A migration's job begins before its first connection, so it has run for longer than the record.
        """
        record = self._ledger.get(followed.identity)
        if record is None or job.elapsed_ms < 0:
            return False
        return job.elapsed_ms / 1000 + CLOCK_SLACK_S < record.duration_s(wall_clock())

    def heard(self, event: DomainEvent) -> None:
        """Take in an event of libvirt's."""
        self._jobs.heard(event, steady_clock())
        if event.kind == "postcopy-failed":
            self._ledger.count_one("postcopy_failed")
        for followed in self._meant(event):
            self._ledger.change(
                followed.identity,
                lambda record: append_event(
                    record, MigrationEvent(at=wall_clock(), event=f"libvirt-{event.kind}", number=event.number)
                ),
            )
            self._take_event(followed, event)
            followed.changed.set()

    def _meant(self, event: DomainEvent) -> list[_Followed]:
        """The migrations that an event is about; one that ends may tie the only migration that has no domain yet.

        Earlier ones may not: of several that begin at once libvirt speaks of the first while another's connection is
        the only one that has come so far.
        """
        role: Role = "destination" if event.kind in {"arrived", "arriving"} else "source"
        if event.kind in {"gone", "postcopy", "postcopy-failed"}:
            return [found for found in self._followed.values() if found.uuid == event.uuid]
        mine = [found for found in self._followed.values() if found.uuid == event.uuid and found.role == role]
        if mine or event.kind not in _ENDINGS:
            return mine
        open_ones = [
            found
            for found in self._followed.values()
            if not found.uuid and found.role == role and (not found.candidates or event.uuid in found.candidates)
        ]
        if len(open_ones) != 1 or self._opening(role):
            return []
        self._tie(open_ones[0], event.uuid, event.name)
        return open_ones

    def _take_event(self, followed: _Followed, event: DomainEvent) -> None:
        job = event.job
        if job is not None:
            followed.has_statistics = True
            self._ledger.change(followed.identity, lambda record: with_job(record, job, ended=True))
            if job.success is False:
                followed.verdict = MigrationVerdict("failed", job.error)
        if event.kind == "iteration":
            self._ledger.change(
                followed.identity, lambda record: replace(record, iteration=max(record.iteration, event.number))
            )
        if event.kind in {"paused", "unpaused"}:
            is_paused = event.kind == "paused"
            self._ledger.change(followed.identity, lambda record: replace(record, guest_paused=is_paused))
        if event.kind == "postcopy-failed" and followed.verdict is None:
            followed.verdict = MigrationVerdict("failed")  # it goes on with connections, and a record, of its own
        ending = _ENDINGS.get(event.kind)
        if ending is not None and ending[0] == followed.role and followed.verdict is None:
            result = ending[1]
            followed.verdict = MigrationVerdict(result)

    async def verdict(self, identity: str) -> MigrationVerdict:
        """Libvirt's report of the end, awaited for at most `VERDICT_S_MAX`, and only while libvirt is connected."""
        followed = self._followed.get(identity)
        if followed is None or not self.state().connected:
            return MigrationVerdict()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (VERDICT_S_MAX if followed.uuid else UNTIED_S_MAX)
        while followed.verdict is None and loop.time() < deadline and self.state().connected:
            followed.changed.clear()
            await _wait(followed.changed, POLL_S)
            if followed.verdict is None:
                followed.verdict = await self._asked(followed)
        if followed.verdict is None:
            return MigrationVerdict()
        if followed.role == "source" and followed.verdict.result == "completed":
            await self._statistics(followed)
        return followed.verdict

    async def _statistics(self, followed: _Followed) -> None:
        """Wait for the job's statistics; other events meanwhile do not end the wait."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STATISTICS_S_MAX
        while not followed.has_statistics and loop.time() < deadline and self.state().connected:
            followed.changed.clear()
            await _wait(followed.changed, deadline - loop.time())

    async def _asked(self, followed: _Followed) -> MigrationVerdict | None:
        """No event came: a source domain that is here and has no job, or a later one, did not leave in this one.

        A job that was cancelled or failed before the pause is silent.
        """
        if self._watcher is None or followed.role != "source" or not followed.uuid:
            return None
        try:
            domain = await self._watcher.lookup(followed.uuid)
            if domain is None:
                return None
            if domain.job is not None:
                return MigrationVerdict("failed") if self._is_later(domain.job, followed) else None
            job = await self._watcher.completed(followed.uuid)
        except NoAnswerError:
            return None
        error = job.error if job and job.success is False else ""
        return MigrationVerdict("failed", error)


def _is_outgoing(job: JobStatistics | None) -> bool:
    return job is not None and job.outgoing


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await wait_within(event.wait(), timeout_s)
    except TimeoutError:
        return


def with_job(record: Migration, job: JobStatistics, *, ended: bool) -> Migration:
    """Take libvirt's measures of a job into its record.

    Args:
        record: of the migration.
        job: libvirt's word.
        ended: the job has; what it says of the downtime before is an expectation.
    """
    return replace(
        record,
        memory_bytes=record.memory_bytes or max(0, job.memory_total_bytes),
        remaining_bytes=job.memory_remaining_bytes,
        processed_bytes=max(record.processed_bytes, job.memory_processed_bytes),
        dirty_bytes_per_s=float(job.dirty_bytes_per_s),
        iteration=max(record.iteration, job.iteration),
        downtime_ms=job.downtime_ms if ended else record.downtime_ms,
    )
