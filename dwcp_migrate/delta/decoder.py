"""The destination's half of HDE: the segment's raw bytes from its payload, and a mirror of the source's page cache.

    prepare (parallel)     sizes and counts checked, body decompressed, headers, literals and pages in full laid out,
                           and those of this host's page store fetched
    apply (serial)         in the order of `state_sequence`, over all connections: changed and repeated pages;
                           then the slots that the segment names take their new content

Nothing from the wire is trusted: every size, count, slot and page number is checked before it is used, and a
decompressed body is bounded by the size that the head announced. The segment's checksum tells whether the bytes are
right.

    decoder = PageDecoder(cache_bytes)                        # as many as the source was told
    prepared = decoder.prepare(payload, raw_bytes, decompressor)    # any thread, with a Decompressor of its own
    raw = decoder.apply(prepared)                             # one thread; None as state_sequence: at any time

After an error of `prepare` or `apply`, or bytes with a wrong checksum, the segment is asked for again raw (`skip` its
state sequence if `apply` was not reached) and the source resets its cache.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dwcp_migrate.delta import in_place
from dwcp_migrate.delta.cache import PAGE_WORDS
from dwcp_migrate.delta.codec import Decompressor
from dwcp_migrate.delta.in_place import Holes, InPlace
from dwcp_migrate.delta.payload import IN_PLACE, OPAQUE, RESET, SLOTS_MAX, STATE, ColumnReader, Head, Slots, unpack
from dwcp_migrate.delta.plan import Kept, PagePlan, read_plan
from dwcp_migrate.delta.skeleton import build, windows
from dwcp_migrate.errors import LocalProtocolError, RemoteProtocolError
from dwcp_migrate.qemu.layout import Bytes, Words
from dwcp_migrate.units import PAGE_BYTES

Fetch = Callable[[Bytes], Words]


@dataclass(frozen=True, slots=True)
class PreparedSegment:
    """A segment that waits for its turn.

    Attributes:
        state_sequence: its place among the segments that touch the cache; None: it touches nothing.
        reset: the cache is to be emptied first.
    """

    state_sequence: int | None
    reset: bool
    raw: Bytes
    plan: PagePlan | InPlace | None

    @property
    def is_whole(self) -> bool:
        """Tell whether its bytes are there already: it refers to nothing, and only its stored pages have a turn."""
        return isinstance(self.plan, InPlace) and self.plan.holes is None


class PageDecoder:
    """Decoder of one migration, all its connections.

    `prepare` may run in many threads; `apply` and `skip` in one at a time.

    Args:
        cache_bytes: pages that are kept; as many as the encoder has.
        fetch: gives the pages uint64[n, 512] of digests uint8[n, 16] out of this host's store, from any thread, and
            raises RemoteProtocolError where one is not there; None: a segment may name none.
    """

    def __init__(self, cache_bytes: int, fetch: Fetch | None = None) -> None:
        slots = cache_bytes // PAGE_BYTES
        if not 0 <= slots <= SLOTS_MAX:
            raise ValueError(f"{slots} slots, at most {SLOTS_MAX}")
        self._pages: Words = np.empty((slots, PAGE_WORDS), np.uint64)
        self._rows: Bytes = self._pages.view(np.uint8)
        self._filled = np.zeros(slots, np.bool_)
        self._next = 0
        self._fetch = fetch

    def prefault(self) -> None:
        """Touch all of the cache's memory, so that a measurement does not count page faults."""
        self._pages.fill(0)

    def prepare(self, payload: bytes | memoryview, raw_bytes: int, decompressor: Decompressor) -> PreparedSegment:
        """Do all the work that does not need the cache.

        Args:
            payload: of the segment, as it came.
            raw_bytes: that it has to decode to, as its frame says.
            decompressor: of the calling thread.

        Raises:
            RemoteProtocolError: the payload breaks the format, or names a page that this host's store has not.
            LimitExceededError: a size beyond its limit.
        """
        head, packed = unpack(memoryview(payload), raw_bytes)
        body = memoryview(decompressor.decompress(head.codec, packed, head.body_bytes))
        if head.form == OPAQUE:
            return PreparedSegment(None, False, np.frombuffer(body, np.uint8), None)
        prepare = in_place.read if head.form == IN_PLACE else _read_apart
        raw, plan = prepare(head, body, raw_bytes, len(self._filled))
        if isinstance(plan, PagePlan) and len(plan.known_at):
            self._place_known(plan, raw)
        return PreparedSegment(head.state_sequence if head.flags & STATE else None, bool(head.flags & RESET), raw, plan)

    def _place_known(self, plan: PagePlan, raw: Bytes) -> None:
        if self._fetch is None:
            raise RemoteProtocolError("segment names pages of a store that was not agreed on")
        windows(raw, PAGE_BYTES)[plan.known_at] = self._fetch(plan.known_digests).view(np.uint8)

    def apply(self, prepared: PreparedSegment) -> memoryview:
        """Put the pages in and store those that are to be kept; returns the segment's raw bytes.

        Raises:
            RemoteProtocolError: it refers to a slot that nothing was stored in.
            LocalProtocolError: it is not this segment's turn.
        """
        if prepared.state_sequence is not None:
            self._take_turn(prepared.state_sequence)
        if prepared.reset:
            self._filled[:] = False
        if isinstance(prepared.plan, InPlace):
            self._fill(prepared.plan, prepared.raw)
        elif prepared.plan is not None:
            self._carry_out(prepared.plan, prepared.raw)
        return prepared.raw.data

    def skip(self, state_sequence: int) -> None:
        """Pass over a segment that could not be prepared; later ones may fail until the source's reset arrives.

        Raises:
            LocalProtocolError: it is not this segment's turn.
        """
        self._take_turn(state_sequence)

    def _take_turn(self, state_sequence: int) -> None:
        if state_sequence != self._next:
            raise LocalProtocolError(f"segment {state_sequence} was applied where {self._next} was due")
        self._next += 1

    def _carry_out(self, plan: PagePlan, raw: Bytes) -> None:
        """Do all that needs the cache as it was before this segment; then store the segment's pages."""
        target = windows(raw, PAGE_BYTES)
        changed = plan.difference
        if len(changed):
            changed = self._read(plan.changed_from)
            np.bitwise_xor(changed, plan.difference, out=changed)
            target[plan.changed_at] = changed.view(np.uint8)
        if len(plan.copied_at):
            target[plan.copied_at] = self._read(plan.copied_from).view(np.uint8)
        if len(plan.local_at):
            target[plan.local_at] = target[plan.local_from]
        self._store(plan.new_kept, plan.new)
        self._store(plan.changed_kept, changed)
        if plan.known_kept.any:
            self._store(plan.known_kept, target[plan.known_at].view(np.uint64))

    def kept_pages(self) -> Words:
        """Return the pages in slots now, uint64[n, 512], without a copy as far as the slots are filled in order."""
        slots = np.flatnonzero(self._filled)
        if len(slots) and int(slots[-1]) + 1 == len(slots):
            return self._pages[: len(slots)]
        return self._pages[slots]

    def _fill(self, plan: InPlace, raw: Bytes) -> None:
        """The same for a segment in place."""
        if plan.holes is not None:
            self._fill_holes(plan.holes, raw)
        for position, unit, count, slot in plan.spans:
            pages = np.ndarray((count, PAGE_BYTES), np.uint8, raw, position, (unit, 1))
            self._rows[slot : slot + count] = pages
            self._filled[slot : slot + count] = True

    def _fill_holes(self, holes: Holes, raw: Bytes) -> None:
        target = windows(raw, PAGE_BYTES)
        target[holes.copied_at] = self._read(holes.copied_from).view(np.uint8)
        target[holes.zero_at] = 0
        target[holes.local_at] = target[holes.local_from]

    def _read(self, slots: Slots) -> Words:
        if not self._filled[slots].all():
            raise RemoteProtocolError("segment refers to an empty slot")
        return self._pages[slots]

    def _store(self, kept: Kept, pages: Words) -> None:
        if kept.any:
            self._pages[kept.slots] = pages[kept.rows]
            self._filled[kept.slots] = True


def _read_apart(head: Head, body: memoryview, raw_bytes: int, slots: int) -> tuple[Bytes, PagePlan]:
    """The segment with all in it but what needs the cache, and what is left to do. See `in_place.read`."""
    data = np.frombuffer(body, np.uint8)
    split = head.body_pages * PAGE_BYTES
    if split > len(data):
        raise RemoteProtocolError("segment's pages are cut short")
    reader = ColumnReader(data[split:])
    raw, positions = build(head, reader, raw_bytes)
    pages = data[:split].view(np.uint64).reshape(-1, PAGE_WORDS)
    plan = read_plan(head, reader, pages, positions, slots)
    _place(plan, raw)
    return raw, plan


def _place(plan: PagePlan, raw: Bytes) -> None:
    """Pages that need no cache."""
    target = windows(raw, PAGE_BYTES)
    if len(plan.new_at):
        target[plan.new_at] = plan.new.view(np.uint8)
    if len(plan.zero_at):
        target[plan.zero_at] = 0
