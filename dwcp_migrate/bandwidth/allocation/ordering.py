"""Order in which migrations over one link are soonest done (pure).

The rule: least sum of completion times, weighted, among the orders that keep all deadlines, if any order does. That is
Smith's backward scheduling (W. E. Smith, Various optimizers for single-stage production, 1956): the last place goes to
the longest of those whose deadline lets it end last, then the same for the place before. Without deadlines it is
shortest first. It is exact for equal weights; with weights the ratio of time to weight takes the place of time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.bandwidth.prediction.precopy_model import DOWNTIME_S

PASSES_MAX: Final = 20
"""By then each pass is as long as the one before."""

UTILIZATION_MAX: Final = 0.95
"""A guest that writes as fast as the link carries never ends; for the order it counts as nearly so."""


@dataclass(frozen=True, slots=True)
class OrderedJob:
    """One migration in a queue.

    Attributes:
        identity: of the migration.
        remaining_bytes: on the wire, without what its guest will still write.
        deadline_s: from now; None without one.
        weight: of its completion time.
        dirty_bytes_per_s: what its guest adds while it runs, on the wire.
        working_set_bytes: what it writes to again and again, on the wire: a pass adds no more, however fast it writes.
    """

    identity: str
    remaining_bytes: float
    deadline_s: float | None = None
    weight: float = 1.0
    dirty_bytes_per_s: float = 0.0
    working_set_bytes: float = math.inf

    def duration_s(self, rate_bytes_per_s: float) -> float:
        """Return the seconds that it takes alone: passes, each with the bytes written during the one before."""
        if rate_bytes_per_s <= 0:
            return math.inf
        dirty = min(self.dirty_bytes_per_s, UTILIZATION_MAX * rate_bytes_per_s)
        if math.isinf(self.working_set_bytes):  # a geometric series
            return self.remaining_bytes / rate_bytes_per_s / (1 - dirty / rate_bytes_per_s)
        working_set_bytes = max(self.working_set_bytes, 1.0)
        seconds, total_s = self.remaining_bytes / rate_bytes_per_s, 0.0
        for _ in range(PASSES_MAX):
            total_s += seconds
            seconds = working_set_bytes * -math.expm1(-dirty * seconds / working_set_bytes) / rate_bytes_per_s
            if seconds <= DOWNTIME_S:
                break
        return total_s + seconds


def order(jobs: Sequence[OrderedJob], rate_bytes_per_s: float) -> list[str]:
    """Order migrations that have the link one after the other.

    Args:
        jobs: what waits or runs; an identity once.
        rate_bytes_per_s: what the one that runs gets.

    Returns:
        Identities, the first to run first. Where no order keeps every deadline, the latest deadline goes last.
    """
    left = {job.identity: (job, job.duration_s(rate_bytes_per_s)) for job in jobs}
    backwards: list[str] = []
    while left:
        end = sum(duration for _, duration in left.values())
        may_be_last = [entry for entry in left.values() if _deadline(entry[0]) >= end]
        if may_be_last:
            last = max(may_be_last, key=lambda entry: (entry[1] / entry[0].weight, entry[0].identity))[0]
        else:
            last = max(left.values(), key=lambda entry: (_deadline(entry[0]), entry[1], entry[0].identity))[0]
        backwards.append(last.identity)
        del left[last.identity]
    return backwards[::-1]


def late(jobs: Sequence[OrderedJob], ordered: Sequence[str], rate_bytes_per_s: float) -> set[str]:
    """Find the jobs that end after their deadline if they run in this order.

    Args:
        jobs: an identity once.
        ordered: identities of all of them, the first to run first.
        rate_bytes_per_s: of the one that runs.

    Returns:
        Identities.
    """
    by_identity = {job.identity: job for job in jobs}
    end, found = 0.0, set()
    for identity in ordered:
        job = by_identity[identity]
        end += job.duration_s(rate_bytes_per_s)
        if end > _deadline(job):
            found.add(identity)
    return found


def _deadline(job: OrderedJob) -> float:
    return float("inf") if job.deadline_s is None else job.deadline_s
