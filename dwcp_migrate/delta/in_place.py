"""Segments that travel as they are, but for the pages that the destination has already: most of a first pass.

    raw      header page header page header PAGE header page     PAGE is a duplicate: a hole
    dense    header page header page header header page          compressed, with the columns behind it
    decoded  is the raw segment where there is no hole: only the pages that the cache keeps are copied

Headers and literals stay among the pages: they cost a few bytes each, and both sides save the passes over memory that
take pages out and put them back. Pages to keep are named by spans, so that nothing is done for each page: right after
decompression every call of numpy finds the processor's caches cold and takes ten times as long (measured, docs/hde.md).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.delta.payload import (
    DELTA,
    DUPLICATE,
    KNOWN,
    LOCAL,
    NEW,
    NO_SLOT,
    SAME,
    SPANS_MAX,
    STATE,
    ZERO,
    ColumnReader,
    Head,
    Slots,
    pack_column,
)
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu.layout import Bytes, Layout, Positions
from dwcp_migrate.units import PAGE_BYTES

SPAN: Final = struct.Struct("<IIII")
"""Position of the first page, distance from page to page, pages, slot of the first."""
LISTED_ZERO_MAX: Final = 1024
"""Listed zero pages of a segment in place: each costs 4 bytes there, and next to nothing as part of a run."""
FORMS: Final = (SAME, DUPLICATE, LOCAL, ZERO)
"""Sources of a hole."""

Span = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Holes:
    """Pages that are not in the body; positions are in bytes of the segment, ascending in `at`.

    Attributes:
        copied_from: slots whose pages go to `copied_at`.
        local_from: positions whose pages, once they are there, go to `local_at`.
        zero_at: positions of pages of zeros.
    """

    at: Positions
    copied_at: Positions
    copied_from: Slots
    local_at: Positions
    local_from: Positions
    zero_at: Positions


@dataclass(frozen=True, slots=True)
class InPlace:
    """Work that is left once the body is decompressed.

    Attributes:
        spans: pages to keep.
        holes: None where there are none.
    """

    spans: list[Span]
    holes: Holes | None


def spans_of(layout: Layout, op: Bytes, store: Slots) -> bytes | None:
    """Describe the pages to keep as spans.

    It is where a page is a difference or one of the destination's store, where hardly any is in full, where headers
    without pages abound, or slots are scattered as they are once the cache is full.

    Args:
        layout: of the segment.
        op: uint8[pages], the form of each page (`payload.NEW` and so on).
        store: uint32[pages], slot that each is kept in, or `NO_SLOT`.

    Returns:
        The encoded spans; None: the segment is better off apart.
    """
    if (
        ((op == DELTA) | (op == KNOWN)).any()
        or 2 * np.count_nonzero(op == NEW) <= len(op)
        or len(layout.zero_key) > LISTED_ZERO_MAX
    ):
        return None
    kept = (op == NEW) & (store != NO_SLOT)
    position, slot = layout.page_position[kept], store[kept].astype(np.int64)
    if not len(slot):
        return b""
    distance = np.diff(position)
    unit = int(distance.min()) if len(distance) else PAGE_BYTES
    first = np.concatenate((np.zeros(1, np.int64), np.flatnonzero((distance != unit) | (np.diff(slot) != 1)) + 1))
    if len(first) > SPANS_MAX:
        return None
    count = np.diff(first, append=len(slot))
    columns = (position[first], np.full(len(first), unit), count, slot[first])
    return np.stack(columns, axis=1).astype("<u4").tobytes()


def pack(raw: Bytes, layout: Layout, op: Bytes, ref: Slots, spans: bytes) -> bytes:
    """Lay out the body of a segment in place.

    Args:
        raw: the segment.
        layout: of it.
        op: uint8[pages], the form of each page.
        ref: uint32[pages], slot or page that it refers to; any number for NEW and ZERO.
        spans: of `spans_of`.
    """
    hole = op != NEW
    at = layout.page_position[hole]
    begins, ends = [0, *(at + PAGE_BYTES).tolist()], [*at.tolist(), len(raw)]
    parts = [raw[begin:end].data for begin, end in zip(begins, ends, strict=True)]
    op, ref = op[hole], ref[hole]
    ref = np.where(op == LOCAL, layout.page_position[np.where(op == LOCAL, ref, 0)], ref)
    columns = pack_column(at.astype(np.uint32)), op.tobytes(), pack_column(ref[op != ZERO].astype(np.uint32))
    return b"".join((*parts, spans, *columns))


def read(head: Head, body: memoryview, raw_bytes: int, slots: int) -> tuple[Bytes, InPlace]:
    """Lay out the segment with all in it but its holes, and the work that is left.

    Args:
        head: of the payload.
        body: decompressed.
        raw_bytes: size of the segment.
        slots: how many the cache has.

    Raises:
        RemoteProtocolError: sizes that do not add up, or what lies outside of the segment or the cache.
    """
    dense_bytes = raw_bytes - head.pages * PAGE_BYTES
    spans_end = dense_bytes + head.runs * SPAN.size
    if spans_end > len(body):
        raise RemoteProtocolError("segment's pages are cut short")
    spans = list(_spans(body[dense_bytes:spans_end], raw_bytes, slots))
    reader = ColumnReader(np.frombuffer(body, np.uint8)[spans_end:])
    holes = _holes(head.pages, reader, raw_bytes, slots) if head.pages else None
    reader.finish()
    if (spans or (holes is not None and len(holes.copied_at))) and not head.flags & STATE:
        raise RemoteProtocolError("segment uses the cache out of order")
    raw = np.frombuffer(body, np.uint8)
    return raw[:raw_bytes] if holes is None else _spread(raw, holes, raw_bytes), InPlace(spans, holes)


def _spans(packed: memoryview, raw_bytes: int, slots: int) -> Iterator[Span]:
    for position, unit, count, slot in SPAN.iter_unpack(packed):
        if not count or unit < PAGE_BYTES or position + (count - 1) * unit + PAGE_BYTES > raw_bytes:
            raise RemoteProtocolError("segment keeps pages that lie outside of it")
        if slot + count > slots:
            raise RemoteProtocolError(f"segment names a slot beyond {slots}")
        yield position, unit, count, slot


def _holes(count: int, reader: ColumnReader, raw_bytes: int, slots: int) -> Holes:
    at = reader.column(count, np.uint32).astype(np.int64)
    op = reader.take(count)
    if int(at[-1]) > raw_bytes - PAGE_BYTES or (np.diff(at) < PAGE_BYTES).any():
        raise RemoteProtocolError("segment's pages overlap or lie outside of it")
    if not np.isin(op, FORMS).all():
        raise RemoteProtocolError("segment in place has a hole of an unknown form")
    refers, local = op != ZERO, op == LOCAL
    ref = np.zeros(count, np.uint32)
    ref[refers] = reader.column(int(np.count_nonzero(refers)), np.uint32)
    copied = refers & ~local
    if int(ref[copied].max(initial=0)) >= slots and copied.any():
        raise RemoteProtocolError(f"segment names a slot beyond {slots}")
    if int(ref[local].max(initial=0)) > raw_bytes - PAGE_BYTES:
        raise RemoteProtocolError("segment refers to a page of its own that lies outside of it")
    return Holes(at, at[copied], ref[copied], at[local], ref[local].astype(np.int64), at[~refers])


def _spread(body: Bytes, holes: Holes, raw_bytes: int) -> Bytes:
    """The body's bytes around the holes, whose own bytes are undefined as yet."""
    raw: Bytes = np.empty(raw_bytes, np.uint8)
    at = taken = 0
    for hole in [*holes.at.tolist(), raw_bytes]:
        if hole > at:
            raw[at:hole] = body[taken : taken + hole - at]
            taken += hole - at
        at = hole + PAGE_BYTES
    return raw
