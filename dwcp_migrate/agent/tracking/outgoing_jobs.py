"""Libvirt's outgoing migration jobs, by its events alone (pure), and those that no record of the agent follows.

Libvirt reports each pass over the memory of a domain that migrates away, and the end. A job without a caught connection
has passed the agent by; while a caught connection waits for its domain, it cannot be decided which jobs have one.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from dwcp_migrate.api.migration import Result
from dwcp_migrate.hypervisor.base import DomainEvent, JobStatistics

JOBS_MAX: Final = 4096
"""Jobs that are remembered; beyond it the oldest is forgotten."""

_RESULTS: Final[dict[str, Result]] = {"left": "completed", "returned": "failed", "gone": "failed"}


@dataclass(frozen=True, slots=True)
class OutgoingJob:
    """A migration job at its source.

    Attributes:
        since: when libvirt was first heard to speak of it.
        result: empty while it runs.
        ended: when that was heard; of the same clock as `since`.
        statistics: libvirt's, of the job that ended; None where none has come.
        reason: libvirt's message where it failed.
    """

    uuid: str
    name: str
    since: float
    result: Result = ""
    ended: float = 0.0
    statistics: JobStatistics | None = None
    reason: str = ""


class OutgoingJobs:
    """The jobs of this host."""

    def __init__(self) -> None:
        self._jobs: dict[str, OutgoingJob] = {}
        self._doubtful_until = -1.0

    def heard(self, event: DomainEvent, now: float) -> None:
        """Follow libvirt's jobs by its events.

        Args:
            event: of a domain of this host.
            now: seconds since the epoch.
        """
        job = self._jobs.get(event.uuid)
        if event.kind == "iteration":
            if job is None or job.result:
                while len(self._jobs) >= JOBS_MAX:
                    del self._jobs[next(iter(self._jobs))]
                self._jobs[event.uuid] = OutgoingJob(event.uuid, event.name, now)
        elif job is not None:
            self._jobs[event.uuid] = _heard_of(job, event, now)

    def moving(self) -> set[str]:
        """UUIDs of the domains that migrate away now."""
        return {uuid for uuid, job in self._jobs.items() if not job.result}

    def record_ended(self, uuid: str, now: float) -> None:
        """Forget the job of a migration whose record ended; libvirt has no event for a job that fails before the pause.

        Args:
            uuid: of the domain; empty, where it is not known, puts all jobs that began before in doubt.
            now: seconds since the epoch.
        """
        if uuid:
            self._jobs.pop(uuid, None)
        else:
            self._doubtful_until = now

    def unfollowed(self, tied: Collection[str], now: float, least_age_s: float) -> list[OutgoingJob]:
        """Jobs that no record follows.

        Args:
            tied: UUIDs of the domains that records follow.
            now: as in `heard`.
            least_age_s: how long a record may take to find its domain.
        """
        return [
            job
            for job in self._jobs.values()
            if job.uuid not in tied
            and job.since > self._doubtful_until
            and (job.result or now - job.since >= least_age_s)
        ]

    def forget_ended(self) -> None:
        """All that have ended were judged."""
        self._jobs = {uuid: job for uuid, job in self._jobs.items() if not job.result}


def _heard_of(job: OutgoingJob, event: DomainEvent, now: float) -> OutgoingJob:
    """A job after an event; its statistics may come before or after the word of its end."""
    statistics = event.job or job.statistics
    if job.result:
        return replace(job, statistics=statistics)
    result, reason = _RESULTS.get(event.kind, ""), ""
    if event.job is not None and event.job.success is False:
        result, reason = "failed", event.job.error
    return replace(job, result=result, reason=reason, ended=now if result else 0.0, statistics=statistics)
