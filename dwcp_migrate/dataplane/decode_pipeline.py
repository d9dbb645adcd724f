"""The parallel and the serial half of decoding, at the destination.

Segments are decompressed on a pool in any order; those that use the page cache are then applied strictly in
`state_sequence` order, by the thread that completes the next one. Every rebuilt run is compared with its checksum
before anybody may write it.

    prepare fails ── its turn ──> skip, reject       apply fails, or the checksum differs ──> reject
    reject ──> the source sends the segment raw and empties both caches with its next one

Segments that fail until that next one arrives, since they refer to the skipped one, are rejected in the same way. The
transport bounds how often one segment may be rejected.

A segment that refers to nothing, as most of a first pass, is delivered at once; only the pages that it stores wait for
its turn. So no connection waits for another one's segments, unless its own refer to them.
"""

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import xxhash

from dwcp_migrate.dataplane.worker_threads import WorkPool
from dwcp_migrate.delta import Decompressor, PageDecoder, PreparedSegment, state_sequence
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.transport import URGENT, Segment
from dwcp_migrate.units import MIB

EARLY_BYTES_MAX: Final = 16 * MIB
"""Of segments that were delivered before their turn and hold their bytes until then; others wait, undelivered."""


@dataclass(order=True, slots=True)
class _Waiting:
    """A segment that waits for its turn; `prepared` is None where it could not be."""

    state_sequence: int
    prepared: PreparedSegment | None = field(compare=False)
    segment: Segment = field(compare=False)
    is_delivered: bool = field(compare=False, default=False)


class Rebuild:
    """Turns segments back into raw bytes.

    Args:
        decoder: the migration's page decoder.
        pool: decompresses.
        deliver: takes a segment and its verified raw bytes, from any thread.
        reject: takes a segment that cannot be rebuilt, or whose rebuilt bytes are wrong.
        early_bytes_max: of segments that were delivered before their turn.
    """

    def __init__(
        self,
        decoder: PageDecoder,
        pool: WorkPool,
        deliver: Callable[[Segment, memoryview], None],
        reject: Callable[[Segment], None],
        early_bytes_max: int = EARLY_BYTES_MAX,
    ) -> None:
        self._early_bytes_max = early_bytes_max
        self._decoder = decoder
        self._pool = pool
        self._deliver = deliver
        self._reject = reject
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._next_state = 0
        self._applying = False
        self._early_bytes = 0
        self._thread = threading.local()

    def take(self, segment: Segment) -> None:
        """Rebuild a segment, some time later."""
        self._pool.submit(lambda: self._prepare(segment), first=bool(segment.flags & URGENT))

    def _prepare(self, segment: Segment) -> None:
        prepared, sequence = self._prepared(segment)
        segment = replace(segment, payload=b"")  # a segment that waits for its turn holds its raw bytes, or none
        if sequence is None:
            self._finish(segment, prepared)
            return
        item = _Waiting(sequence, prepared, segment, self._may_go_early(segment, prepared, sequence))
        if item.is_delivered and prepared is not None:
            self._deliver(segment, prepared.raw.data)
        with self._lock:
            if sequence < self._next_state:
                raise RemoteProtocolError(f"state {sequence} came twice")
            heapq.heappush(self._waiting, item)
            if self._applying:
                return
            self._applying = True
        self._apply_ready()

    def _may_go_early(self, segment: Segment, prepared: PreparedSegment | None, sequence: int) -> bool:
        """Whether a segment's bytes are right as they are, and its turn is not now; reserves room for them."""
        if prepared is None or not prepared.is_whole or not _is_right(segment, prepared.raw.data):
            return False
        with self._lock:
            if sequence <= self._next_state or self._early_bytes + segment.raw_size > self._early_bytes_max:
                return False
            self._early_bytes += segment.raw_size
        return True

    def _prepared(self, segment: Segment) -> tuple[PreparedSegment | None, int | None]:
        """The prepared payload, None where it cannot be prepared; and the segment's turn."""
        try:
            prepared = self._decoder.prepare(segment.payload, segment.raw_size, self._decompressor())
        except RemoteProtocolError:
            return None, state_sequence(memoryview(segment.payload))
        return prepared, prepared.state_sequence

    def _decompressor(self) -> Decompressor:
        """This thread's own: contexts cannot be shared."""
        if not hasattr(self._thread, "decompressor"):
            self._thread.decompressor = Decompressor()
        decompressor: Decompressor = self._thread.decompressor
        return decompressor

    def _apply_ready(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._waiting[0].state_sequence != self._next_state:
                    self._applying = False
                    return
                item = heapq.heappop(self._waiting)
                self._next_state += 1
            if item.is_delivered and item.prepared is not None:
                self._decoder.apply(item.prepared)
                with self._lock:
                    self._early_bytes -= item.segment.raw_size
                continue
            if item.prepared is None:
                self._decoder.skip(item.state_sequence)
            self._finish(item.segment, item.prepared)

    def _finish(self, segment: Segment, prepared: PreparedSegment | None) -> None:
        """Deliver a segment whose turn it is, or ask for it again."""
        if prepared is None:
            self._reject(segment)
            return
        try:
            raw = self._decoder.apply(prepared)
        except RemoteProtocolError:
            self._reject(segment)
            return
        if _is_right(segment, raw):
            self._deliver(segment, raw)
        else:
            self._reject(segment)


def _is_right(segment: Segment, raw: memoryview) -> bool:
    return xxhash.xxh3_64_intdigest(raw) == segment.checksum and len(raw) == segment.raw_size
