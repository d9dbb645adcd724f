"""A classified segment, and the part of its encoding that may run beside others."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.delta import in_place
from dwcp_migrate.delta.cache import PAGE_WORDS
from dwcp_migrate.delta.codec import Codec, Coding, Compressor, Data
from dwcp_migrate.delta.payload import (
    DELTA,
    IN_PLACE,
    KNOWN,
    LOCAL,
    NEW,
    NO_SLOT,
    OPAQUE,
    PAGES,
    Head,
    Slots,
    pack_column,
)
from dwcp_migrate.qemu.layout import LITERAL, RUN_UNIT_BYTES, Bytes, Layout, Words

UNDECIDED: Final = 255
"""Stands for DELTA or NEW until `encode` has compared them."""
GROUP_PAGES: Final = 32
"""Undecided pages that are compared together: enough for a compressor to show which form is smaller."""
LEVEL_AGAIN: Final = 2
"""Least zstd level of a segment of pages sent again: level 1 is made for a first pass, where the CPU is short."""
LEVEL_CHANGED: Final = 3
"""Least zstd level of a segment with more DELTA than NEW pages: most of its body is zeros, which pass quickly at any
level, and the rest is 3 % smaller (measured, docs/hde.md)."""

NO_PAGES: Final = np.empty((0, PAGE_WORDS), np.uint64)

Ops = NDArray[np.uint8]
Column = NDArray[np.uint32]


@dataclass(slots=True)
class PageCounts:
    """Pages by the form in which they were sent; `resent` counts pages that had been sent before, in any form.

    Attributes:
        listed_zero: zero pages that QEMU itself had found; `zero` are those that came as a page of zeros.
        resent_zero: of `listed_zero`, those that had been sent before.
        known: pages that the destination takes from its store.
    """

    zero: int = 0
    duplicate: int = 0
    same: int = 0
    delta: int = 0
    new: int = 0
    listed_zero: int = 0
    resent: int = 0
    resent_zero: int = 0
    known: int = 0

    def add(self, other: "PageCounts") -> None:
        """Add another's counts to these."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def total(self) -> int:
        """Number of all pages."""
        return self.zero + self.duplicate + self.same + self.delta + self.new + self.known + self.listed_zero


@dataclass(slots=True)
class Classified:
    """The pages of a segment and the form of each.

    Attributes:
        pages: uint64[n, 512].
        op: uint8[n].
        ref: uint32[n], meaningful for ops that refer to something.
        store: uint32[n], meaningful for ops with a body.
        difference: uint64[m, 512], XOR against the version last sent, of the DELTA and UNDECIDED pages in order.
    """

    pages: Words
    op: Ops
    ref: Column
    store: Column
    difference: Words


@dataclass(slots=True)
class PageJob:
    """A segment to encode.

    Attributes:
        raw_bytes: size of the segment before encoding.
        state_sequence: 0, 1, 2.. over the segments that touch the cache; None: independent of all others.
        counts: pages by form, final after `encode`.
        flags: as in the payload.
        raw: the segment.
        digests: gives uint8[n, 16] for the pages uint64[n, 512] that are KNOWN.
    """

    raw_bytes: int
    state_sequence: int | None
    counts: PageCounts
    flags: int
    raw: Bytes
    layout: Layout | None
    classified: Classified
    digests: Callable[[Words], Bytes] | None = None

    @property
    def slots(self) -> Slots:
        """Slots that it stores pages in."""
        store = self.classified.store
        slots: Slots = store[store != NO_SLOT]
        return slots

    def encode(self, coding: Coding, compressor: Compressor) -> bytes:
        """Make the payload; may be called once.

        Args:
            coding: codec and level.
            compressor: of the calling thread.
        """
        if self.layout is None:
            return opaque_payload(self.raw, coding, compressor)
        _decide(self.classified, _at_least(LEVEL_AGAIN, coding), compressor)
        op = self.classified.op
        self.counts.delta = int(np.count_nonzero(op == DELTA))
        self.counts.new = int(np.count_nonzero(op == NEW))
        head, body = self._in_place(self.layout) or self._apart(self.layout)
        codec, result = compressor.compress(body, _for_body(coding, self.counts))
        self.classified.pages = self.classified.difference = NO_PAGES
        return b"".join((replace(head, codec=codec, body_bytes=len(body)).pack(), result))

    def _in_place(self, layout: Layout) -> tuple[Head, Data] | None:
        """Head and body of the segment as it is, but for pages that the destination has; None where that is no good."""
        classified = self.classified
        spans = in_place.spans_of(layout, classified.op, classified.store)
        if spans is None:
            return None
        body = in_place.pack(self.raw, layout, classified.op, classified.ref, spans)
        runs, holes = len(spans) // in_place.SPAN.size, len(classified.op) - self.counts.new
        return self._head(IN_PLACE, runs=runs, pages=holes), body

    def _apart(self, layout: Layout) -> tuple[Head, Data]:
        """Head and body with pages and all else apart."""
        literal = _literal(self.raw, layout)
        known = self.classified.pages[self.classified.op == KNOWN]
        digests = self.digests(known).tobytes() if self.digests is not None and len(known) else b""
        body, body_pages = _body(self.classified, _columns(layout, literal, self.classified) + digests)
        head = self._head(PAGES, runs=len(layout.kind), pages=len(self.classified.op))
        return replace(head, literal_bytes=len(literal), body_pages=body_pages), body.data

    def _head(self, form: int, runs: int, pages: int) -> Head:
        """Head of both forms; codec and size are not known yet."""
        sequence = self.state_sequence or 0
        return Head(form, Codec.NONE, self.flags, 0, state_sequence=sequence, runs=runs, pages=pages)


def opaque_payload(raw: Bytes, coding: Coding, compressor: Compressor) -> bytes:
    """Make a payload that carries the bytes as they are, or compressed: independent of all others.

    Args:
        raw: the segment.
        coding: codec and level.
        compressor: of the calling thread.
    """
    codec, result = compressor.compress(raw.data, coding)
    return b"".join((Head(form=OPAQUE, codec=codec, flags=0, body_bytes=len(raw)).pack(), result))


def _for_body(coding: Coding, counts: PageCounts) -> Coding:
    """The size asked for, or a little more where it costs nothing."""
    if counts.delta > counts.new:
        return _at_least(LEVEL_CHANGED, coding)
    return _at_least(LEVEL_AGAIN, coding) if 2 * counts.resent > counts.total else coding


def _at_least(level: int, coding: Coding) -> Coding:
    return replace(coding, level=max(coding.level, level)) if coding.raisable else coding


def _decide(classified: Classified, coding: Coding, compressor: Compressor) -> None:
    """Settle undecided pages by the compressed size of both forms, a group of pages at a time."""
    op, difference = classified.op, classified.difference
    undecided = np.flatnonzero(op == UNDECIDED)
    if not len(undecided):
        return
    has_difference = (op == DELTA) | (op == UNDECIDED)
    rows = np.cumsum(has_difference) - 1
    if coding.codec is Codec.NONE:
        op[undecided] = NEW
    else:
        for at in range(0, len(undecided), GROUP_PAGES):
            group = undecided[at : at + GROUP_PAGES]
            full = memoryview(compressor.compress(classified.pages[group].data, coding)[1]).nbytes
            xor = memoryview(compressor.compress(difference[rows[group]].data, coding)[1]).nbytes
            op[group] = DELTA if xor < full else NEW
    classified.difference = difference[op[has_difference] == DELTA]


def _body(classified: Classified, columns: bytes) -> tuple[Bytes, int]:
    """Pages in full, differences, columns, in one array; and the number of pages in it."""
    new = np.flatnonzero(classified.op == NEW)
    count = len(new) + len(classified.difference)
    body = np.empty(count * PAGE_WORDS * 8 + len(columns), np.uint8)
    pages = body[: count * PAGE_WORDS * 8].view(np.uint64).reshape(count, PAGE_WORDS)
    if len(new):
        np.take(classified.pages, new, axis=0, out=pages[: len(new)], mode="clip")
    pages[len(new) :] = classified.difference
    body[count * PAGE_WORDS * 8 :] = np.frombuffer(columns, np.uint8)
    return body, count


def _columns(layout: Layout, literal: Bytes, classified: Classified) -> bytes:
    """Everything of a body that is not pages. See `payload`."""
    op = classified.op
    refers = (op >= DELTA) & (op <= LOCAL)
    return b"".join(
        (
            layout.kind.tobytes(),
            pack_column(layout.count.astype(np.uint32)),
            pack_column(layout.start),
            literal.tobytes(),
            op.tobytes(),
            pack_column(classified.ref[refers]),
            pack_column(classified.store[(op <= DELTA) | (op == KNOWN)]),
        )
    )


def _literal(segment: Bytes, layout: Layout) -> Bytes:
    """The literal bytes of a segment, one run after the other."""
    size = layout.count * RUN_UNIT_BYTES[layout.kind]
    chosen = layout.kind == LITERAL
    begins, counts = (np.cumsum(size) - size)[chosen].tolist(), size[chosen].tolist()
    parts = [segment[begin : begin + count] for begin, count in zip(begins, counts, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)
