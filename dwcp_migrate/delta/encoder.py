"""The source's half of HDE: each page in the cheapest form that the destination can rebuild.

    classify (serial, in stream order)                            PageJob.encode (parallel, frees the GIL to compress)
      gather the cut's pages into one array                         body = pages in full, then XORs, then columns
      hash                                                          compress, or send as it is where that does not pay
      zero       nothing but zeros                                         no body
      same       equal to the version last sent                            no body
      duplicate  equal to another page: of the cache, or of this segment   no body
      delta      at most half of its words differ from the version last sent
      undecided  more differ: XOR or in full, whichever compresses smaller, found out by `encode`
      known      of the rest, what the destination says that it has in its store: 16 bytes
      new        everything else
      keep what has a body in the cache, and name its slots

References of a segment mean the cache as it was before the segment; what it stores takes effect after it. So both sides
work on whole arrays, and the order of pages inside a segment does not matter.

    encoder = PageEncoder(cache_bytes)                            # one per migration
    with lock: job = encoder.classify(view, cut)                  # view: what was fed to the parser
    payload = job.encode(Coding(Codec.ZSTD, 1), compressor)       # any thread, with a Compressor of its own
    job.state_sequence                                            # order in which the destination applies, or None

A cut's raw bytes must stay unchanged until `encode` returns (the caller keeps a segment's bytes anyway until it is
acknowledged: a repair is `raw_payload` of them). `encode` may be called once.
"""

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.delta.cache import PAGE_WORDS, PageCache, hash_pages
from dwcp_migrate.delta.codec import NO_CODING, Compressor
from dwcp_migrate.delta.job import NO_PAGES, UNDECIDED, Classified, PageCounts, PageJob, opaque_payload
from dwcp_migrate.delta.payload import (
    DELTA,
    DUPLICATE,
    KNOWN,
    LITERAL_RUNS_MAX,
    LOCAL,
    NEW,
    NO_SLOT,
    RAW_BYTES_MAX,
    RESET,
    SAME,
    STATE,
    ZERO,
    Slots,
)
from dwcp_migrate.delta.skeleton import windows
from dwcp_migrate.delta.table import NEVER, PageTable, SlotNumbers
from dwcp_migrate.errors import LocalProtocolError
from dwcp_migrate.qemu.layout import LITERAL, Bytes, Cut, Layout, Words
from dwcp_migrate.units import PAGE_BYTES

DELTA_WORDS_MAX: Final = PAGE_WORDS // 2
"""Changed words up to which XOR is surely the better form (measured: docs/hde.md)."""


KNOWN_MIN: Final = 4
"""Known pages of a segment from which on they are named: pages that the destination has come in company, and one that
only seems so, once in 2^16, would cost the segment a second time."""


class KnownPages(Protocol):
    """Pages that the destination said it has in its store."""

    def likely(self, hashes: Words) -> NDArray[np.bool_]:
        """Find the pages with these hashes (`cache.hash_pages`) that it has, with a few that only seem so."""

    def digests(self, pages: Words) -> Bytes:
        """Compute the names uint8[n, 16] of pages uint64[n, 512] there; from any thread."""


class PageEncoder:
    """Encoder of one migration, all its connections. Not thread-safe: the caller holds a lock around each method.

    Args:
        cache_bytes: pages that are kept.
        table_bytes: of the table of all pages that were sent; None is as much as the guest needs.
        known: pages that the destination has in its store; None where it has none.

    Attributes:
        reset_sequence: state sequence from which on segments know nothing of the time before the last reset.
    """

    def __init__(self, cache_bytes: int, table_bytes: int | None = None, known: KnownPages | None = None) -> None:
        self._cache = PageCache(cache_bytes // PAGE_BYTES, table=PageTable(table_bytes))
        self._sequence = 0
        self._reset = False
        self.reset_sequence = 0
        self._known = known

    @property
    def next_sequence(self) -> int:
        """`state_sequence` of the next job that touches the cache."""
        return self._sequence

    def reset(self) -> None:
        """Begin with an empty cache on both sides from the next job on: the destination's is in doubt."""
        self._cache.clear()
        self._reset = True
        self.reset_sequence = self._sequence

    def forget(self, slots: Slots) -> None:
        """Refer to these slots no more: the destination could not fill them, and all others are as they were."""
        self._cache.forget(slots)

    def kept_pages(self) -> Words:
        """Return the pages that are in slots now, uint64[n, 512], not to be written to."""
        return self._cache.pages[: self._cache.used]

    def prefault(self) -> None:
        """Touch all of the cache's memory, so that a measurement does not count page faults."""
        self._cache.pages.fill(0)

    def classify(self, raw: memoryview | Bytes, cut: Cut, *, may_know: bool = True) -> PageJob:
        """Decide the form of each page of `raw[cut.begin:cut.end]`, and keep the pages' content.

        Args:
            raw: what was fed to the parser.
            cut: part of it.
            may_know: pages of the destination's store may be named; not where a running guest waits, since one that is
                not there after all costs a round trip.

        Raises:
            LocalProtocolError: the cut is larger than `RAW_BYTES_MAX`.
        """
        segment = np.frombuffer(raw, np.uint8)[cut.begin : cut.end]
        if len(segment) > RAW_BYTES_MAX:
            raise LocalProtocolError(f"cut of {len(segment)} bytes, at most {RAW_BYTES_MAX}")
        layout = cut.layout
        if layout is None or not _worth_it(layout):
            return PageJob(len(segment), None, PageCounts(), 0, segment, None, _unclassified(NO_PAGES))
        counts = PageCounts(listed_zero=len(layout.zero_key))
        if len(layout.zero_key):
            counts.resent_zero = int(np.count_nonzero(self._cache.table.get(layout.zero_key) != NEVER))
            self._cache.table.mark_sent(layout.zero_key)
        pages = windows(segment, PAGE_BYTES)[layout.page_position].view(np.uint64)
        known = self._known if may_know else None
        classified = self._classify(pages, layout.page_key, counts, known)
        sequence, flags = self._sequence_flags(classified)
        digests = known.digests if known is not None else None
        return PageJob(len(segment), sequence, counts, flags, segment, layout, classified, digests)

    def pass_over(self, raw: memoryview | Bytes, cut: Cut) -> PageJob:
        """Take `raw[cut.begin:cut.end]` as it is and only note which pages were sent: nothing is read, kept or changed.

        The versions in both caches stay what they are, so later differences against them stay right.

        Args:
            raw: the bytes that were fed to the parser.
            cut: a part of them.
        """
        segment = np.frombuffer(raw, np.uint8)[cut.begin : cut.end]
        counts = PageCounts()
        if cut.layout is not None:
            table, layout = self._cache.table, cut.layout
            counts.listed_zero, counts.new = len(layout.zero_key), len(layout.page_key)
            counts.resent_zero = int(np.count_nonzero(table.get(layout.zero_key) != NEVER))
            counts.resent = int(np.count_nonzero(table.get(layout.page_key) != NEVER))
            table.mark_sent(layout.zero_key)
            table.mark_sent(layout.page_key)
        return PageJob(len(segment), None, counts, 0, segment, None, _unclassified(NO_PAGES))

    def _sequence_flags(self, classified: Classified) -> tuple[int | None, int]:
        """A place in the order of segments that touch the cache, for those that do."""
        op = classified.op
        reads = ((op == SAME) | (op == DUPLICATE) | (op == DELTA) | (op == UNDECIDED)).any()
        if not reads and not (classified.store != NO_SLOT).any():
            return None, 0
        flags = STATE | (RESET if self._reset else 0)
        self._reset = False
        self._sequence += 1
        return self._sequence - 1, flags

    def _classify(self, pages: Words, keys: Words, counts: PageCounts, known: KnownPages | None) -> Classified:
        result = _unclassified(pages)
        if not len(keys):
            return result
        hashes = hash_pages(pages)
        previous = self._cache.table.get(keys)
        counts.resent = int(np.count_nonzero(previous != NEVER))
        self._compare(result, previous)
        _find_zeros(result, hashes)
        self._find_duplicates(result, hashes)
        if known is not None:
            _find_known(result, hashes, known)
        _find_local(result, hashes)
        if len(result.difference):
            result.difference = result.difference[_has_difference(result.op)[previous >= 0]]
        self._keep(result, keys, hashes, previous)
        op = result.op
        counts.zero, counts.same = int(np.count_nonzero(op == ZERO)), int(np.count_nonzero(op == SAME))
        counts.duplicate = int(np.count_nonzero((op == DUPLICATE) | (op == LOCAL)))
        counts.known = int(np.count_nonzero(op == KNOWN))
        return result

    def _compare(self, result: Classified, previous: SlotNumbers) -> None:
        """Pages whose last version is cached: SAME, DELTA or UNDECIDED, and their differences."""
        cached = np.flatnonzero(previous >= 0)
        if not len(cached):
            return
        slots = previous[cached]
        difference = self._cache.pages[slots]
        np.bitwise_xor(difference, result.pages[cached], out=difference)
        changed = np.count_nonzero(difference, axis=1)
        result.op[cached] = np.where(changed <= DELTA_WORDS_MAX, np.where(changed, DELTA, SAME), UNDECIDED)
        result.ref[cached] = slots
        result.difference = difference
        self._cache.touch(slots[changed == 0])

    def _find_duplicates(self, result: Classified, hashes: Words) -> None:
        """Pages that another slot holds, compared byte for byte."""
        open_pages = np.flatnonzero(_has_body(result.op))
        slots = self._cache.find(hashes[open_pages])
        hit = slots >= 0
        open_pages, slots = open_pages[hit], slots[hit]
        if not len(open_pages):
            return
        equal = (result.pages[open_pages] == self._cache.pages[slots]).all(axis=1)
        result.op[open_pages[equal]] = DUPLICATE
        result.ref[open_pages[equal]] = slots[equal]

    def _keep(self, result: Classified, keys: Words, hashes: Words, previous: SlotNumbers) -> None:
        """Store the pages that have a body, and remember the slot of each page."""
        table = self._cache.table
        duplicate = result.op == DUPLICATE
        if duplicate.any():
            table.put(keys[duplicate], result.ref[duplicate].astype(np.int32))
        table.mark_sent(keys)
        body = np.flatnonzero(_has_body(result.op) | (result.op == KNOWN))
        body = body[_last_of_equal(keys[body])]
        if not len(body):
            return
        slots = self._cache.store(keys[body], hashes[body], previous[body], result.pages, body)
        result.store[body] = np.where(slots >= 0, slots, -1).astype(np.uint32)  # -1 wraps to NO_SLOT


def _unclassified(pages: Words) -> Classified:
    """All pages new, none kept."""
    count = len(pages)
    return Classified(
        pages=pages,
        op=np.full(count, NEW, np.uint8),
        ref=np.zeros(count, np.uint32),
        store=np.full(count, NO_SLOT, np.uint32),
        difference=NO_PAGES,
    )


def raw_payload(raw: memoryview | Bytes) -> bytes:
    """Make the payload of a segment as it is, for a repair: it depends on nothing."""
    return opaque_payload(np.frombuffer(raw, np.uint8), NO_CODING, Compressor())


def _worth_it(layout: Layout) -> bool:
    """False for a cut that is only literal, or has more literal runs than a segment may have."""
    literal_runs = np.count_nonzero(layout.kind == LITERAL)
    return bool(literal_runs < len(layout.kind) and literal_runs <= LITERAL_RUNS_MAX)


def _has_body(op: Bytes) -> NDArray[np.bool_]:
    has: NDArray[np.bool_] = (op == NEW) | _has_difference(op)
    return has


def _has_difference(op: Bytes) -> NDArray[np.bool_]:
    has: NDArray[np.bool_] = (op == DELTA) | (op == UNDECIDED)
    return has


def _find_zeros(result: Classified, hashes: Words) -> None:
    """Pages of zeros that QEMU did not recognise as such."""
    candidates = np.flatnonzero((hashes == 0) & (result.op != SAME))
    if len(candidates):
        result.op[candidates[~result.pages[candidates].any(axis=1)]] = ZERO


def _find_known(result: Classified, hashes: Words, known: KnownPages) -> None:
    """Pages of the destination's store, among those that would have to be sent in full."""
    new = np.flatnonzero(result.op == NEW)
    new = new[known.likely(hashes[new])]
    if len(new) >= KNOWN_MIN:
        result.op[new] = KNOWN


def _find_local(result: Classified, hashes: Words) -> None:
    """Pages equal to an earlier one of this segment that has a body."""
    body = np.flatnonzero(_has_body(result.op))
    _, first, inverse = np.unique(hashes[body], return_index=True, return_inverse=True)
    if len(first) == len(body):
        return
    earlier = body[first[inverse]]
    later = earlier != body
    body, earlier = body[later], earlier[later]
    equal = (result.pages[body] == result.pages[earlier]).all(axis=1)
    result.op[body[equal]] = LOCAL
    result.ref[body[equal]] = earlier[equal]


def _last_of_equal(keys: Words) -> NDArray[np.bool_] | slice:
    """Indexes of `keys` to keep so that none comes twice: the last of each."""
    if (keys[1:] > keys[:-1]).all():
        return slice(None)
    _, last = np.unique(keys[::-1], return_index=True)
    chosen = np.zeros(len(keys), np.bool_)
    chosen[len(keys) - 1 - last] = True
    return chosen
