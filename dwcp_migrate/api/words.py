"""Values in the words that people read: times, durations, sizes, and what a migration's record says.

The rule: each function turns a value into a string; what is not known is `-`. The CLI and the agent's page say a value
in the same words.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from dwcp_migrate.units import count_nouns, format_bytes, format_rate

if TYPE_CHECKING:
    from dwcp_migrate.api.migration import Migration

UNKNOWN: Final = "-"


def say_moment(at: float) -> str:
    """Say a time as local date and time: `2026-11-24 03:52:01`."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else UNKNOWN


def say_duration(seconds: float) -> str:
    """Say a duration: `0.4 s`, `42 s`, `3 min 05 s`, `2 h 10 min`, `12 d 3 h`; `-` when negative (unknown)."""
    if seconds < 0:
        return UNKNOWN
    if seconds < 10:  # noqa: PLR2004 - one digit before the point leaves room for one after it
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if not minutes:
        return f"{whole} s"
    if not hours:
        return f"{minutes} min {whole % 60:02d} s"
    return f"{days} d {hours % 24} h" if days else f"{hours} h {minutes % 60} min"


def measure_progress(migration: "Migration") -> float | None:
    """Say how much of the guest's memory is done, 0 to 1, or None while that is not known.

    libvirt's figure of what remains where there is one, else bytes taken against the size of memory; dirtied pages are
    sent again, so the latter stops at 0.99.
    """
    if migration.state == "ended":
        return 1.0 if migration.result == "completed" else None
    if not migration.memory_bytes:
        return None
    if migration.remaining_bytes >= 0:
        return min(1.0, max(0.0, 1 - migration.remaining_bytes / migration.memory_bytes))
    return min(0.99, migration.counters.raw_bytes / migration.memory_bytes)


def progress_text(migration: "Migration") -> str:
    """Say how much of the guest's memory is done, and in which pass: each pass begins anew with what was written."""
    done = say_percent(measure_progress(migration))
    is_later = migration.state != "ended" and migration.iteration > 1 and migration.remaining_bytes >= 0
    return f"{done} of pass {migration.iteration}" if is_later and migration.state == "precopy" else done


def say_percent(fraction: float | None) -> str:
    """Say a fraction: `42 %`, or `-` for None."""
    return UNKNOWN if fraction is None else f"{fraction * 100:.0f} %"


def say_peer(migration: "Migration") -> str:
    """Say where it goes or comes from: `to host-b`, `from host-a`."""
    other = migration.peer or migration.address
    return f"{'to' if migration.role == 'source' else 'from'} {other}"


def say_domain(migration: "Migration") -> str:
    """Say which domain it is, as far as it is known."""
    return migration.domain or migration.uuid or UNKNOWN


def say_rate(migration: "Migration") -> str:
    """Say how fast guest memory crosses."""
    return format_rate(migration.raw_bytes_per_s) if migration.raw_bytes_per_s else UNKNOWN


def say_ratio(migration: "Migration") -> str:
    """Say how many raw bytes one byte on the wire stands for; `-` when unaccelerated."""
    if migration.passthrough_reason or not migration.counters.wire_bytes:
        return UNKNOWN
    return f"{migration.ratio:.1f}"


def say_eta(migration: "Migration") -> str:
    """Say when it will be over: `42 s`, with its range where that is known: `42 s (38 s to 51 s)`; or why not."""
    if migration.eta_s < 0 and migration.eta_note:
        return migration.eta_note
    if migration.eta_range_s is None or migration.eta_s < 0:
        return say_duration(migration.eta_s)
    low, high = migration.eta_range_s
    return f"{say_duration(migration.eta_s)} ({say_duration(low)} to {say_duration(high)})"


def would_have_taken(migration: "Migration") -> str:
    """Say what an observed migration would have taken accelerated: `: 12 s (9.0 s to 15 s) accelerated`."""
    if migration.expected is None:
        return ""
    low, median, high = migration.expected.time_s
    return f": accelerated {say_duration(median)} ({say_duration(low)} to {say_duration(high)})"


def say_running(count: int) -> str:
    """Say how many migrations go on: `no migration is under way`, `1 migration runs on`, `2 migrations run on`."""
    return f"{count_nouns(count, 'migration runs', 'migrations run')} on" if count else "no migration is under way"


def say_milliseconds(value: int) -> str:
    """Say a downtime: `120 ms`, `-` while unknown (negative)."""
    return UNKNOWN if value < 0 else f"{value} ms"


def say_size(count: int) -> str:
    """Say a byte count; `-` while unknown (negative)."""
    return UNKNOWN if count < 0 else format_bytes(count)
