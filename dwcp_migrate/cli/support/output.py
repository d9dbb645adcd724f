"""Output of the views: virsh-like tables and `Key: value` blocks as text, or one JSON value.

The rule: these functions turn values into strings; printing is the commands'. Plain text, no colour, no line wider than
its content, so that `| grep` and a log file see what a terminal sees. JSON is the API for scripts: the control API's
structs as they are, numbers in base units.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.units import format_bytes, format_rate

UNKNOWN = "-"

FORMAT_VERSION: Final = 1
"""Of what `--json` prints: fields are added within it, never renamed, removed or given another meaning."""

Say = Callable[[float], str]
"""Turns a number into what people read."""


def as_json(value: object) -> str:
    """Write a struct, or a list of them, as indented JSON; each object says the version of its form."""
    return msgspec.json.format(msgspec.json.encode(_versioned(value)), indent=2).decode()


def as_line(value: object) -> str:
    """Write a struct as JSON on one line, as streams have it; it says the version of its form."""
    return msgspec.json.encode(_versioned(value)).decode()


def as_cell(value: object) -> str:
    """Write a value as JSON, as a cell of a table has it."""
    return msgspec.json.encode(value).decode()


def without_version(data: bytes) -> bytes:
    """Take the version off a JSON object that `as_json` wrote; what is none is given back as it is."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return data
    if not isinstance(found, dict) or found.pop("format_version", None) is None:
        return data
    return msgspec.json.encode(found)


def _versioned(value: object) -> object:
    built = msgspec.to_builtins(value)
    if isinstance(built, dict):
        return {"format_version": FORMAT_VERSION, **built}
    return [_versioned(one) for one in built] if isinstance(built, list) else built


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows as virsh does: a header, a dashed rule, columns three spaces apart, one leading space.

    Args:
        header: of each column.
        rows: with one cell a column.
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        " " + "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([text[0], "-" * (sum(widths) + 3 * (len(widths) - 1) + 2), *text[1:]])


def fitted(header: Sequence[str], rows: Iterable[Sequence[str]], spare: Sequence[str]) -> str:
    """Lay out a table for this terminal; without a terminal no column is left out.

    Args:
        header: of each column.
        rows: with one cell a column.
        spare: headers of the columns to leave out where the terminal is too narrow, the first of them first.
    """
    return fit(header, [list(row) for row in rows], spare, shutil.get_terminal_size().columns if on_terminal() else 0)


def fit(header: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int) -> str:
    """Lay out a table of limited width, as far as leaving out columns helps.

    Args:
        header: of each column.
        rows: with one cell a column.
        spare: headers of the columns that may be left out, the first of them first.
        width: in characters; 0 for any.
    """
    text = format_table(header, rows)
    if not spare or not width or max(map(len, text.splitlines())) <= width:
        return text
    kept = [column for column, name in enumerate(header) if name != spare[0]]
    narrower = [[row[column] for column in kept] for row in rows]
    return fit([header[column] for column in kept], narrower, spare[1:], width)


def format_block(pairs: Iterable[tuple[str, str]]) -> str:
    """Lay out `Key:   value` lines as `virsh domjobinfo` does; pairs without a value are left out."""
    shown = [(f"{key}:", value) for key, value in pairs if value]
    width = max((len(key) for key, _ in shown), default=0) + 2
    return "\n".join(f"{key.ljust(width)}{value}" for key, value in shown)


def moment(at: float) -> str:
    """Say a time as local date and time: `2026-11-24 03:52:01`."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else UNKNOWN


def duration(seconds: float) -> str:
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


def progress(migration: Migration) -> float | None:
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


def progress_text(migration: Migration) -> str:
    """Say how much of the guest's memory is done, and in which pass: each pass begins anew with what was written."""
    done = percent(progress(migration))
    is_later = migration.state != "ended" and migration.iteration > 1 and migration.remaining_bytes >= 0
    return f"{done} of pass {migration.iteration}" if is_later and migration.state == "precopy" else done


def percent(fraction: float | None) -> str:
    """Say a fraction: `42 %`, or `-` for None."""
    return UNKNOWN if fraction is None else f"{fraction * 100:.0f} %"


def peer(migration: Migration) -> str:
    """Say where it goes or comes from: `to host-b`, `from host-a`."""
    other = migration.peer or migration.address
    return f"{'to' if migration.role == 'source' else 'from'} {other}"


def domain(migration: Migration) -> str:
    """Say which domain it is, as far as it is known."""
    return migration.domain or migration.uuid or UNKNOWN


def rate(migration: Migration) -> str:
    """Say how fast guest memory crosses."""
    return format_rate(migration.raw_bytes_per_s) if migration.raw_bytes_per_s else UNKNOWN


def ratio(migration: Migration) -> str:
    """Say how many raw bytes one byte on the wire stands for; `-` when unaccelerated."""
    if migration.passthrough_reason or not migration.counters.wire_bytes:
        return UNKNOWN
    return f"{migration.ratio:.1f}"


def eta(migration: Migration) -> str:
    """Say when it will be over: `42 s`, with its range where that is known: `42 s (38 s to 51 s)`; or why not."""
    if migration.eta_s < 0 and migration.eta_note:
        return migration.eta_note
    if migration.eta_range_s is None or migration.eta_s < 0:
        return duration(migration.eta_s)
    low, high = migration.eta_range_s
    return f"{duration(migration.eta_s)} ({duration(low)} to {duration(high)})"


def would_have_taken(migration: Migration) -> str:
    """Say what an observed migration would have taken accelerated: `: 12 s (9.0 s to 15 s) accelerated`."""
    if migration.expected is None:
        return ""
    low, median, high = migration.expected.time_s
    return f": accelerated {duration(median)} ({duration(low)} to {duration(high)})"


def counted(count: int, one: str, many: str) -> str:
    """Write a count with its noun: `1 address`, `2 addresses`.

    Args:
        count: the number.
        one: noun of a single one.
        many: noun otherwise.
    """
    return f"{count} {one if count == 1 else many}"


def milliseconds(value: int) -> str:
    """Say a downtime: `120 ms`, `-` while unknown (negative)."""
    return UNKNOWN if value < 0 else f"{value} ms"


def size(count: int) -> str:
    """Say a byte count; `-` while unknown (negative)."""
    return UNKNOWN if count < 0 else format_bytes(count)


def in_colour() -> bool:
    """Tell whether colour is wanted: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return on_terminal() and not os.environ.get("NO_COLOR")


def on_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout.isatty()
