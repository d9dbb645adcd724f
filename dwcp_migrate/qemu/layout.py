"""Positions of the guest's pages in a run of stream bytes.

A `Cut` covers raw bytes completely and in order: its `Layout` is a list of runs, each of one kind, whose sizes add up
to the cut's size. Everything that is a regular progression (page headers that count up by one page, a packet's list of
offsets, runs of zero-page records) is kept as a start and a count, so that it costs next to nothing to send. Bytes
without such a form are literal.

    kind           | `count` of                                            | bytes of one
    LITERAL        | bytes, kept verbatim                                  | 1
    PAGES          | pages, dense                                          | 4096
    PAGE_RECORDS   | be64 `start + i*4096`, then the page                  | 4104
    ZERO_RECORDS   | be64 `start + i*4096`, then one zero byte             | 9
    WORDS          | be64 `start + i*4096`                                 | 8
    ZEROS          | zero bytes                                            | 1

No Python object stands for one page: pages and zero pages are arrays of positions and keys.
"""

from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.units import PAGE_BYTES

LITERAL: Final = 0
PAGES: Final = 1
PAGE_RECORDS: Final = 2
ZERO_RECORDS: Final = 3
WORDS: Final = 4
ZEROS: Final = 5
RUN_KINDS: Final = 6

RUN_UNIT_BYTES: Final = np.array([1, PAGE_BYTES, PAGE_BYTES + 8, 9, 8, 1], np.int64)
"""Size of one item of a run, by kind."""

RUN_HAS_START: Final = np.array([False, False, True, True, True, False])
RUN_HAS_PAGES: Final = np.array([False, True, True, False, False, False])

BLOCK_SHIFT: Final = 36
"""A page key is `block << BLOCK_SHIFT | page number`: 2^36 pages are 256 TiB of one RAM block."""

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Positions = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Layout:
    """The runs of one cut, and its pages.

    Attributes:
        kind: uint8[runs], one of the kinds above.
        count: int64[runs], all positive.
        start: uint64[runs], zero where the kind has none.
        page_position: int64[pages], where each page begins, relative to the cut.
        page_key: uint64[pages], which page of which RAM block.
        zero_key: uint64[zero pages], those that travel as a record or as an entry of a packet's list.
    """

    kind: Bytes
    count: Positions
    start: Words
    page_position: Positions
    page_key: Words
    zero_key: Words


@dataclass(frozen=True, slots=True)
class Cut:
    """Raw bytes `[begin, end)` of those that were fed, the unit that is encoded and sent.

    Attributes:
        layout: None where the bytes are opaque.
        urgent: nothing may wait to be batched with it: the guest is paused, or runs at the destination.
        background: the latter, and these are pages that it has not asked for, unless it asks on this connection.
    """

    begin: int
    end: int
    layout: Layout | None
    urgent: bool = False
    background: bool = False


@dataclass(slots=True)
class LayoutBuilder:
    """Collects runs in stream order; neighbouring literal runs become one."""

    kinds: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    positions: list[Positions] = field(default_factory=list)
    keys: list[Words] = field(default_factory=list)
    zero_keys: list[Words] = field(default_factory=list)
    literal_bytes: int = 0

    def literal(self, count: int) -> None:
        """Add `count` bytes without a form of their own."""
        self.literal_bytes += count

    def zeros(self, count: int) -> None:
        """Add `count` zero bytes."""
        self._single(ZEROS, count)

    def pages(self, position: int, keys: Words) -> None:
        """Add dense pages.

        Args:
            position: of the first, in bytes of the cut.
            keys: uint64[pages].
        """
        if not len(keys):
            return
        self._single(PAGES, len(keys))
        self.positions.append(position + np.arange(len(keys), dtype=np.int64) * PAGE_BYTES)
        self.keys.append(keys)

    def page_records(self, position: int, headers: Words, keys: Words) -> None:
        """Add records of an 8-byte header and a page.

        Args:
            position: of the first, in bytes of the cut.
            headers: uint64[records], as numbers.
            keys: uint64[records].
        """
        self._progressions(PAGE_RECORDS, headers)
        self.positions.append(position + 8 + np.arange(len(headers), dtype=np.int64) * (PAGE_BYTES + 8))
        self.keys.append(keys)

    def zero_records(self, headers: Words, keys: Words) -> None:
        """Add records of an 8-byte header and a zero byte.

        Args:
            headers: uint64[records], as numbers.
            keys: uint64[records].
        """
        self._progressions(ZERO_RECORDS, headers)
        self.zero_keys.append(keys)

    def words(self, words: Words) -> None:
        """Add big-endian 64-bit words, mostly counting up by one page."""
        self._progressions(WORDS, words)

    def zero_pages(self, keys: Words) -> None:
        """Note zero pages that a packet's header lists; the header's own bytes are added apart."""
        self.zero_keys.append(keys)

    def build(self) -> Layout:
        """Return the finished layout."""
        self._end_literal()
        return Layout(
            np.array(self.kinds, np.uint8),
            np.array(self.counts, np.int64),
            np.array(self.starts, np.uint64),
            join_arrays(self.positions, np.int64),
            join_arrays(self.keys, np.uint64),
            join_arrays(self.zero_keys, np.uint64),
        )

    def _end_literal(self) -> None:
        if self.literal_bytes:
            count, self.literal_bytes = self.literal_bytes, 0
            self._append(LITERAL, count, 0)

    def _single(self, kind: int, count: int) -> None:
        if count:
            self._end_literal()
            self._append(kind, count, 0)

    def _progressions(self, kind: int, words: Words) -> None:
        self._end_literal()
        breaks = (words[1:] - words[:-1] != PAGE_BYTES).nonzero()[0]
        if not len(breaks):
            self._append(kind, len(words), int(words[0]))
            return
        begins = np.concatenate(([0], breaks + 1, [len(words)]))
        self.kinds += [kind] * (len(begins) - 1)
        self.counts += (begins[1:] - begins[:-1]).tolist()
        self.starts += words[begins[:-1]].tolist()

    def _append(self, kind: int, count: int, start: int) -> None:
        self.kinds.append(kind)
        self.counts.append(count)
        self.starts.append(start)


def join_arrays(parts: list[NDArray[Scalar]], dtype: type[Scalar]) -> NDArray[Scalar]:
    """Join arrays to one, in their order.

    Args:
        parts: of one type; none gives an empty array.
        dtype: of it.
    """
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)
