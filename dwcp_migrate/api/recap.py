"""Sums over ended migrations: what was saved, what failed and why, how good the predictions were. No IO.

    GET /v1/recap?since=T   FleetRecap   migrations that left each host since T (since the epoch); peers are asked

The rule: what is called saved can be proven from the record. Bytes: those that QEMU sent less those on the wire.
Time: what the same bytes would have taken at the best rate that the wire showed in that very migration, less what it
took; further passes that a plain migration would have needed are not counted.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.protocol.recap import OTHERS, REASON_CHARACTERS_MAX, REASONS_MAX, MigrationRecap

OBSERVED: Final = "observe"
"""Reason in the record of a migration that its agent only observed."""

STEP_S_MIN: Final = 0.4
"""A step of the course that is shorter says little of a rate."""


class FleetRecap(msgspec.Struct, frozen=True, kw_only=True):
    """Sums by host.

    Attributes:
        since: seconds since the epoch; 0 is as far back as each host remembers.
        now: when it was asked.
        hosts: by name; this host is one of them.
        silent: hosts that did not tell, and why.
    """

    since: float
    now: float
    hosts: dict[str, MigrationRecap]
    silent: dict[str, str] = {}


def best_wire_rate(migration: Migration) -> float:
    """The highest rate over a step of the course at which the wire carried bytes; 0 where that is not recorded."""
    best, at, wire = 0.0, 0.0, 0
    for point in migration.course:
        if point.at_s - at >= STEP_S_MIN:
            best = max(best, (point.wire_bytes - wire) / (point.at_s - at))
            at, wire = point.at_s, point.wire_bytes
    return best


def saved_s(migration: Migration) -> float | None:
    """Time that an accelerated migration saved at least; None where the record does not tell its link's rate."""
    rate = best_wire_rate(migration)
    if not rate or migration.passthrough_reason:
        return None
    return max(0.0, migration.counters.raw_bytes / rate - migration.duration_s(migration.ended_at))


def recap_of(migrations: Iterable[Migration], since: float) -> MigrationRecap:
    """Sum up the migrations of guests' memory that left this host.

    Args:
        migrations: that ended, in any order.
        since: only those that ended then or later, seconds since the epoch.
    """
    known = [one for one in migrations if one.role == "source" and one.kind == "memory" and one.ended_at]
    mine = [one for one in known if one.ended_at >= since]
    completed = [one for one in mine if one.result == "completed"]
    accelerated = [one for one in completed if not one.passthrough_reason]
    saved = [found for one in accelerated if (found := saved_s(one)) is not None]
    downtimes = [one.downtime_ms for one in accelerated if one.downtime_ms >= 0]
    times = _predicted(accelerated)
    observed = _predicted(one for one in completed if one.passthrough_reason == OBSERVED)
    return MigrationRecap(
        oldest_at=min((one.ended_at for one in known), default=0.0),
        completed=len(completed),
        failed=len(mine) - len(completed),
        accelerated=len(accelerated),
        raw_bytes=sum(one.counters.raw_bytes for one in accelerated),
        wire_bytes=sum(one.counters.wire_bytes for one in accelerated),
        duration_s=sum(one.duration_s(one.ended_at) for one in accelerated),
        saved_s=sum(saved),
        saved_known=len(saved),
        downtime_ms=sum(downtimes),
        downtimes=len(downtimes),
        failures=_counted(one.reason or "no reason is known" for one in mine if one.result == "failed"),
        unaccelerated=_counted(one.passthrough_reason for one in mine if one.passthrough_reason),
        predicted=len(times),
        inside=sum(low <= seconds <= high for seconds, (low, _, high) in times),
        error=sum(abs(seconds / median - 1) for seconds, (_, median, _) in times),
        observed=len(observed),
        observed_s=sum(seconds for seconds, _ in observed),
        accelerated_s=sum(median for _, (_, median, _) in observed),
    )


def _predicted(migrations: Iterable[Migration]) -> list[tuple[float, tuple[float, float, float]]]:
    """The times of migrations that were predicted, in seconds, and the quantiles of their predictions."""
    known = [(one, one.expected.time_s) for one in migrations if one.expected is not None and one.expected.time_s[1]]
    return [(one.duration_s(one.ended_at), quantiles) for one, quantiles in known]


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    """Count reasons; the rarest beyond `REASONS_MAX` are summed up."""
    counts = Counter(reason[:REASON_CHARACTERS_MAX] for reason in reasons).most_common()
    found = dict(counts[:REASONS_MAX])
    if rest := sum(count for _, count in counts[REASONS_MAX:]):
        found[OTHERS] = found.get(OTHERS, 0) + rest
    return found


def sum_recaps(recaps: Iterable[MigrationRecap]) -> MigrationRecap:
    """Sum up several hosts'; the oldest of them is the oldest of all."""
    every = list(recaps)
    fields = ("completed", "failed", "accelerated", "raw_bytes", "wire_bytes", "duration_s", "saved_s", "saved_known")
    more = ("downtime_ms", "downtimes", "predicted", "inside", "error", "observed", "observed_s", "accelerated_s")
    sums = {name: sum(getattr(one, name) for one in every) for name in (*fields, *more)}
    failures: Counter[str] = Counter()
    unaccelerated: Counter[str] = Counter()
    for one in every:
        failures.update(one.failures)
        unaccelerated.update(one.unaccelerated)
    oldest = min((one.oldest_at for one in every if one.oldest_at), default=0.0)
    return MigrationRecap(
        oldest_at=oldest,
        failures=dict(failures.most_common(REASONS_MAX)),
        unaccelerated=dict(unaccelerated.most_common(REASONS_MAX)),
        **sums,
    )
