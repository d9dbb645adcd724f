"""Rebuilding a segment around its pages: headers and literals from runs, as arrays, never one by one.

begin[run]  = sum of the sizes of the runs before it
item i of a run lies at begin + i * unit, its header is start + i * 4096 big-endian
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.delta.payload import LITERAL_RUNS_MAX, RAW_BYTES_MAX, ColumnReader, Head
from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.qemu.layout import (
    LITERAL,
    PAGE_RECORDS,
    PAGES,
    RUN_HAS_PAGES,
    RUN_HAS_START,
    RUN_KINDS,
    RUN_UNIT_BYTES,
    ZERO_RECORDS,
    ZEROS,
    Bytes,
    Positions,
    Words,
    join_arrays,
)
from dwcp_migrate.units import PAGE_BYTES

FEW_RUNS: Final = 64
"""Runs up to which a loop over them is quicker than arrays of all items; most segments have 2 to 20."""
RUN_UNITS: Final[list[int]] = RUN_UNIT_BYTES.tolist()
HEADER_STEPS: Final = np.arange(RAW_BYTES_MAX // 8, dtype=np.uint64) * np.uint64(PAGE_BYTES)
"""Headers of a run that begins at 0."""
PAGE_STEPS: Final = {
    unit: np.arange(RAW_BYTES_MAX // unit, dtype=np.int64) * unit for unit in (PAGE_BYTES, PAGE_BYTES + 8)
}
"""Positions at which the items of such a run begin, by the size of an item."""
RUNS_WRONG: Final = "runs do not add up to the segment's size"
LITERALS_WRONG: Final = "literal bytes do not add up"


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs that cover a segment exactly.

    Attributes:
        begin: int64[runs], where each begins.
    """

    kind: Bytes
    count: Positions
    start: Words
    begin: Positions


def place(kind: Bytes, count: Positions, start: Words, raw_bytes: int) -> Runs:
    """Check runs from the wire and lay them out.

    Args:
        kind: uint8[runs], see `qemu.layout`.
        count: int64[runs], items of each.
        start: uint64[runs], header of the first item.
        raw_bytes: size of the segment.

    Raises:
        RemoteProtocolError: an unknown kind, an empty run, or they do not add up to `raw_bytes`.
    """
    if len(kind) and int(kind.max()) >= RUN_KINDS:
        raise RemoteProtocolError(f"run of kind {int(kind.max())}")
    if len(count) and (int(count.min()) < 1 or int(count.max()) > raw_bytes):
        raise RemoteProtocolError("run with an impossible count")
    if np.count_nonzero(kind == LITERAL) > LITERAL_RUNS_MAX:
        raise LimitExceededError(f"more than {LITERAL_RUNS_MAX} literal runs")
    end = np.cumsum(count * RUN_UNIT_BYTES[kind])
    if (int(end[-1]) if len(end) else 0) != raw_bytes:
        raise RemoteProtocolError(RUNS_WRONG)
    return Runs(kind, count, start, np.concatenate((np.zeros(1, np.int64), end[:-1])))


def page_positions(runs: Runs) -> Positions:
    """Return the positions at which the pages of all runs begin."""
    chosen = RUN_HAS_PAGES[runs.kind]
    kind, count = runs.kind[chosen], runs.count[chosen]
    unit = RUN_UNIT_BYTES[kind]
    first = runs.begin[chosen] + unit - PAGE_BYTES
    positions: Positions = np.repeat(first, count) + _within(count) * np.repeat(unit, count)
    return positions


def build(head: Head, reader: ColumnReader, raw_bytes: int) -> tuple[Bytes, Positions]:
    """Make a new segment with everything in it but the pages; returns it and the positions where those begin.

    Args:
        head: of the payload.
        reader: stands at the columns of runs.
        raw_bytes: size of the segment.

    Raises:
        RemoteProtocolError: unknown or impossible runs, or sizes that do not add up.
        LimitExceededError: too many literal runs.
    """
    kind = reader.take(head.runs)
    count = reader.column(head.runs, np.uint32).astype(np.int64)
    start = reader.column(head.runs, np.uint64)
    literal = reader.take(head.literal_bytes)
    if head.runs <= FEW_RUNS:
        raw, positions = _build_few(kind, count, start, literal, raw_bytes)
    else:
        runs = place(kind, count, start, raw_bytes)
        raw, positions = _fill(runs, literal, raw_bytes), page_positions(runs)
    if len(positions) != head.pages:
        raise RemoteProtocolError(f"segment has room for {len(positions)} pages, announced were {head.pages}")
    return raw, positions


def _build_few(kind: Bytes, count: Positions, start: Words, literal: Bytes, raw_bytes: int) -> tuple[Bytes, Positions]:
    """Run by run: headers as one strided array each."""
    raw: Bytes = np.empty(raw_bytes, np.uint8)
    positions: list[Positions] = []
    begin = taken = 0
    for form, items, first in zip(kind.tolist(), count.tolist(), start.tolist(), strict=True):
        unit = _unit(form, items, raw_bytes)
        end = begin + items * unit
        if end > raw_bytes:
            break
        if form == LITERAL:
            if taken + items > len(literal):
                raise RemoteProtocolError(LITERALS_WRONG)
            raw[begin:end] = literal[taken : taken + items]
            taken += items
        elif form == ZEROS:
            raw[begin:end] = 0
        else:
            _fill_run(raw[begin:end], form, items, first)
        if form in (PAGES, PAGE_RECORDS):
            positions.append(PAGE_STEPS[unit][:items] + (begin + unit - PAGE_BYTES))
        begin = end
    if begin != raw_bytes:
        raise RemoteProtocolError(RUNS_WRONG)
    if taken != len(literal):
        raise RemoteProtocolError(LITERALS_WRONG)
    return raw, join_arrays(positions, np.int64)


def _unit(form: int, items: int, raw_bytes: int) -> int:
    """Bytes of one item of a run from the wire."""
    if form >= RUN_KINDS:
        raise RemoteProtocolError(f"run of kind {form}")
    if not 1 <= items <= raw_bytes:
        raise RemoteProtocolError("run with an impossible count")
    return RUN_UNITS[form]


def _fill_run(raw: Bytes, form: int, items: int, first: int) -> None:
    """The headers of one run, and the zero bytes of records of zero pages."""
    if form == PAGES:
        return
    unit = RUN_UNITS[form]
    np.ndarray(items, ">u8", raw, 0, (unit,))[:] = HEADER_STEPS[:items] + np.uint64(first)
    if form == ZERO_RECORDS:
        raw[8::unit] = 0


def _fill(runs: Runs, literal: Bytes, raw_bytes: int) -> Bytes:
    """The same for any number of runs."""
    chosen = runs.kind == LITERAL
    counts = runs.count[chosen]
    if int(counts.sum()) != len(literal):
        raise RemoteProtocolError(LITERALS_WRONG)
    raw: Bytes = np.zeros(raw_bytes, np.uint8)
    position = 0
    for begin, count in zip(runs.begin[chosen].tolist(), counts.tolist(), strict=True):
        raw[begin : begin + count] = literal[position : position + count]
        position += count
    _fill_many(raw, runs)
    return raw


def _fill_many(raw: Bytes, runs: Runs) -> None:
    """Write the headers of all runs at once; zero bytes are zero already."""
    chosen = RUN_HAS_START[runs.kind]
    if not chosen.any():
        return
    kind, count = runs.kind[chosen], runs.count[chosen]
    within = _within(count)
    headers = np.repeat(runs.start[chosen], count) + within.astype(np.uint64) * np.uint64(PAGE_BYTES)
    positions = np.repeat(runs.begin[chosen], count) + within * np.repeat(RUN_UNIT_BYTES[kind], count)
    windows(raw, 8)[positions] = headers.astype(">u8").view(np.uint8).reshape(-1, 8)


def windows(raw: Bytes, size: int) -> Bytes:
    """View all windows of some bytes, one for each position, without a copy.

    Args:
        raw: uint8[n].
        size: bytes of a window.

    Returns:
        uint8[n - size + 1, size]; no window if `raw` is shorter.
    """
    return np.ndarray((max(len(raw) - size + 1, 0), size), np.uint8, raw, 0, (1, 1))


def _within(count: Positions) -> Positions:
    """0..count-1 for each count, one after the other."""
    total = int(count.sum())
    return np.arange(total, dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
