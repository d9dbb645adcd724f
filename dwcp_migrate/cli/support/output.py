"""Output of the views: virsh-like tables and `Key: value` blocks as text, or one JSON value.

The rule: these functions turn values into strings; printing is the commands'. Plain text, no colour, no line wider than
its content, so that `| grep` and a log file see what a terminal sees. JSON is the API for scripts: the control API's
structs as they are, numbers in base units.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from dwcp_migrate.api.words import UNKNOWN, progress_text, would_have_taken
from dwcp_migrate.api.words import measure_progress as progress
from dwcp_migrate.api.words import say_domain as domain
from dwcp_migrate.api.words import say_duration as duration
from dwcp_migrate.api.words import say_eta as eta
from dwcp_migrate.api.words import say_milliseconds as milliseconds
from dwcp_migrate.api.words import say_moment as moment
from dwcp_migrate.api.words import say_peer as peer
from dwcp_migrate.api.words import say_percent as percent
from dwcp_migrate.api.words import say_rate as rate
from dwcp_migrate.api.words import say_ratio as ratio
from dwcp_migrate.api.words import say_size as size
from dwcp_migrate.units import count_nouns as counted

__all__ = [
    "FORMAT_VERSION",
    "UNKNOWN",
    "Say",
    "as_cell",
    "as_json",
    "as_line",
    "counted",
    "domain",
    "duration",
    "eta",
    "fit",
    "fitted",
    "format_block",
    "format_table",
    "in_colour",
    "milliseconds",
    "moment",
    "on_terminal",
    "peer",
    "percent",
    "progress",
    "progress_text",
    "rate",
    "ratio",
    "size",
    "terminal_width",
    "without_version",
    "would_have_taken",
    "wrap",
]
"""The words of `api.words` among them: a view takes all that it prints from here."""

FORMAT_VERSION: Final = 1
"""Of what `--json` prints: fields are added within it, never renamed, removed or given another meaning."""

CUT_MIN: Final = 8
"""Characters that are left of a cell that is cut to fit, at least."""

CUT_MARK: Final = "..."

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
    return fit(header, [list(row) for row in rows], spare, terminal_width())


def terminal_width() -> int:
    """Columns of the terminal; 0 without one: what is piped or kept is as wide as it is."""
    return shutil.get_terminal_size().columns if on_terminal() else 0


def fit(
    header: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str], width: int, cut: Sequence[str] = ()
) -> str:
    """Lay out a table of limited width, as far as leaving out columns and cutting cells helps.

    Args:
        header: of each column.
        rows: with one cell a column.
        spare: headers of the columns that may be left out, the first of them first.
        width: in characters; 0 for any.
        cut: headers of the columns whose cells may be cut where that is not enough, the first of them first.
    """
    text = format_table(header, rows)
    excess = max(map(len, text.splitlines())) - width
    if not width or excess <= 0:
        return text
    if spare:
        kept = [column for column, name in enumerate(header) if name != spare[0]]
        narrower = [[row[column] for column in kept] for row in rows]
        return fit([header[column] for column in kept], narrower, spare[1:], width, cut)
    if not cut:
        return text
    at = list(header).index(cut[0])
    room = max(CUT_MIN, max(len(row[at]) for row in rows) - excess)
    shorter = [[_cut(cell, room) if column == at else cell for column, cell in enumerate(row)] for row in rows]
    return fit(header, shorter, (), width, cut[1:])


def _cut(cell: str, room: int) -> str:
    return cell if len(cell) <= room else cell[: room - len(CUT_MARK)] + CUT_MARK


def format_block(pairs: Iterable[tuple[str, str]], width: int = 0) -> str:
    """Lay out `Key:   value` lines as `virsh domjobinfo` does; pairs without a value are left out.

    Args:
        pairs: key and value.
        width: in characters, to wrap longer values at; 0 for any.
    """
    shown = [(f"{key}:", value) for key, value in pairs if value]
    indent = max((len(key) for key, _ in shown), default=0) + 2
    lines = [f"{key.ljust(indent)}{value}" for key, value in shown]
    return "\n".join(wrap(line, width, " " * indent) for line in lines)


def wrap(line: str, width: int, indent: str) -> str:
    """Break a line at its blanks.

    Args:
        line: of text.
        width: in characters; 0 for any.
        indent: before each line but the first.
    """
    if not width or len(line) <= width:
        return line
    return "\n".join(
        textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False, replace_whitespace=False)
    )


def in_colour() -> bool:
    """Tell whether colour is wanted: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return on_terminal() and not os.environ.get("NO_COLOR")


def on_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout.isatty()
