"""The forward direction at the source: QEMU's socket -> parser -> encoder -> segments.

One thread a connection reads and cuts; classification is serial over the whole migration (the page cache is one);
compression is parallel. Raw bytes stay in their receive buffer, untouched, until the other QEMU has them.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import xxhash

from dwcp_migrate.dataplane.buffers import BufferLease, BufferPool
from dwcp_migrate.dataplane.connection import Outlet, Retained
from dwcp_migrate.dataplane.direct.path import DirectPath
from dwcp_migrate.dataplane.flow_control import Gate
from dwcp_migrate.dataplane.known.misled import MisledSegments
from dwcp_migrate.dataplane.known.stated import StatedPages
from dwcp_migrate.dataplane.qemu_socket import Endpoint
from dwcp_migrate.dataplane.worker_threads import IdleClock, WorkPool
from dwcp_migrate.delta import Coding, Compressor, PageCounts, PageEncoder, PageJob
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.qemu import Cut, StreamParser
from dwcp_migrate.qemu.sniff import StreamKind
from dwcp_migrate.transport import MOVED, OPEN, URGENT, Segment
from dwcp_migrate.units import KIB

COLLECT_S: Final = 0.005
"""Time that a reader waits for more before it cuts a short segment. QEMU writes 32 to 256 KiB at a time, and larger
segments compress better; in the tail, in postcopy and on streams that are not parsed nothing is held back."""

SMALL_BYTES: Final = 16 * KIB
"""A piece so small on a stream that is not parsed is a message that the other end waits for (an NBD request),
not bulk."""
INLINE_BYTES_MAX: Final = 64 * KIB
"""An urgent cut up to that is encoded by the thread that read it: a hand-over costs more on a busy host."""
ROOM_SHARE: Final = 8
"""A buffer with less room than that part of it is changed for a fresh one."""


class PostcopyProgress:
    """A migration's progress in postcopy, as its connections show it; any thread may read and report.

    Attributes:
        begun: the guest runs at the destination.
        preempted: the pages that it asks for come on a connection of their own, so that others may wait.
    """

    def __init__(self) -> None:
        self.begun = self.preempted = False

    def asks(self, parser: StreamParser) -> bool:
        """Tell whether the running guest waits for the bytes of this connection: a preempt channel has no magic."""
        asks = self.begun and parser.kind is StreamKind.OPAQUE
        self.preempted = self.preempted or asks
        return asks

    def is_urgent(self, parser: StreamParser, cut: Cut) -> bool:
        """Tell whether a cut goes before bulk: pages that a running guest asked for, a paused one's tail, answers.

        Args:
            parser: of the connection.
            cut: the newest one of it.
        """
        self.begun = self.begun or cut.background
        if cut.urgent:
            return not (cut.background and self.preempted)
        return self.asks(parser) or (cut.layout is None and cut.end - cut.begin <= SMALL_BYTES)


class Stage:
    """Turns cuts of every connection into segments.

    Args:
        encoder: the migration's page encoder, which knows `stated` too.
        pool: compresses.
        send: gives a segment to the link.
        choose: the coding for the next segment.
        stated: what the destination has, None where it does not say.
    """

    def __init__(
        self,
        encoder: PageEncoder,
        pool: WorkPool,
        send: Callable[[Segment], None],
        choose: Callable[[], Coding],
        stated: StatedPages | None = None,
    ) -> None:
        self._encoder = encoder
        self._stated = stated
        self._pool = pool
        self._send = send
        self._choose = choose
        self._classifying = threading.Lock()
        self._thread = threading.local()
        self._classifying_s = 0.0
        self._misled = MisledSegments()
        self._counted = threading.Lock()
        self._pages = PageCounts()
        self._opaque_bytes = self._unclassified_bytes = 0

    def take(self, outlet: Outlet, view: memoryview, cut: Cut, lease: BufferLease, *, urgent: bool) -> None:
        """Classify one cut and have it compressed and sent.

        Args:
            outlet: of the connection.
            view: the bytes that were fed to the parser.
            cut: a part of them.
            lease: of the buffer that they lie in.
            urgent: ahead of bulk, in a form that takes no longer than the cheapest.
        """
        raw = view[cut.begin : cut.end]
        coding = self._choose()
        if urgent:
            coding = coding.hurried()
        job = self._classified(view, cut, coding, may_know=not urgent)
        kept = outlet.retain(raw, lease, job.state_sequence)
        if job.state_sequence is not None:
            kept.slots, kept.names_known = job.slots, job.counts.known > 0
        lease.hold()

        def encode() -> None:
            try:
                self._send(self._segment(outlet.connection, kept, URGENT if urgent else 0, job, coding))
            finally:
                lease.release()

        if urgent and len(raw) <= INLINE_BYTES_MAX:
            encode()
        else:
            self._pool.submit(encode, first=urgent)

    def _classified(self, view: memoryview, cut: Cut, coding: Coding, *, may_know: bool) -> PageJob:
        with self._classifying:
            began = time.monotonic()
            if coding.classified:
                job = self._encoder.classify(view, cut, may_know=may_know)
            else:
                job = self._encoder.pass_over(view, cut)
            if self._stated is not None and job.counts.known:
                self._stated.named()
                if job.state_sequence is not None:
                    self._misled.named(job.state_sequence)
            self._classifying_s += time.monotonic() - began
        if not coding.classified and cut.layout is not None:
            with self._counted:
                self._unclassified_bytes += cut.end - cut.begin
        return job

    @property
    def classifying_s(self) -> float:
        """Time in which one of the readers classified."""
        return self._classifying_s

    def _segment(self, connection: int, kept: Retained, flags: int, job: PageJob, coding: Coding) -> Segment:
        raw = kept.raw
        payload = job.encode(coding, self._compressor())
        with self._counted:
            self._pages.add(job.counts)
            self._opaque_bytes += len(raw) if job.layout is None and not job.counts.total else 0
        kept.checksum = xxhash.xxh3_64_intdigest(raw)
        return Segment(connection, kept.sequence, flags, len(raw), kept.checksum, payload)

    def _compressor(self) -> Compressor:
        """This thread's own: contexts cannot be shared."""
        if not hasattr(self._thread, "compressor"):
            self._thread.compressor = Compressor()
        compressor: Compressor = self._thread.compressor
        return compressor

    def before_repair(self, kept: Retained) -> None:
        """Agree with the destination again about the page caches after a segment was rejected.

        Where it named pages of the destination's store, one of them was not there: what the segment was to keep is
        forgotten. So is what those were to keep that followed before that was known, since they may refer to it; word
        of them may come first. Else both start empty from the next cut on, unless they did since that segment; one that
        does not touch them harms neither.
        """
        sequence, misses, kept.names_known = kept.state_sequence, kept.names_known, False
        if sequence is None or kept.slots is None:
            return
        with self._classifying:
            following = self._encoder.next_sequence
            if misses:
                self._misled.missed(sequence, following)
                if self._stated is not None:
                    self._stated.note_miss()
            if misses or self._misled.explain(sequence, following):
                self._encoder.forget(kept.slots)
            elif sequence >= self._encoder.reset_sequence:
                self._encoder.reset()

    def count(self, counters: MigrationCounters) -> None:
        """Add the pages and opaque bytes so far."""
        with self._counted:
            pages = self._pages
            counters.pages = {
                "zero": pages.zero + pages.listed_zero,
                "duplicate": pages.duplicate,
                "same": pages.same,
                "delta": pages.delta,
                "new": pages.new,
                "known": pages.known,
            }
            if self._stated is not None:
                counters.stated_pages, counters.missed_segments = self._stated.stated, self._stated.missed
            counters.opaque_bytes = self._opaque_bytes
            counters.unclassified_bytes = self._unclassified_bytes


@dataclass(frozen=True, slots=True)
class SharedPipeline:
    """Parts that all readers of a migration share."""

    gate: Gate
    stage: Stage
    buffers: BufferPool
    qemu_idle: IdleClock
    postcopy: PostcopyProgress
    stands_aside: Callable[[], bool]


class ForwardReader:
    """Reads one connection of QEMU's (see `connection.Reader`).

    Args:
        record: takes the raw bytes as they come, or None.
        path: takes over where the link outruns the pipeline; None where there is none.
        observe: called after each cut with the parser, to report what it saw.
    """

    def __init__(
        self,
        outlet: Outlet,
        parser: StreamParser,
        shared: "SharedPipeline",
        observe: Callable[[StreamParser], None],
        record: Callable[[memoryview], None] | None = None,
        path: DirectPath | None = None,
    ) -> None:
        self._outlet = outlet
        self._path = path
        self._stands_aside = shared.stands_aside
        self._parser = parser
        self._gate = shared.gate
        self._stage = shared.stage
        self._buffers = shared.buffers
        self._idle = shared.qemu_idle
        self._postcopy = shared.postcopy
        self._observe = observe
        self._record = record
        self._lease = self._buffers.lease()
        self._begin = 0
        self._end = 0

    def pump(self, endpoint: Endpoint) -> None:
        """See `connection.Reader`."""
        self._outlet.signal(OPEN)
        connection = self._outlet.connection
        path = None
        try:
            ended = False
            with self._idle.member():
                while not ended and (path := self._way_past()) is None:
                    if self._begin == self._end:  # bytes reserved at the gate must not wait
                        self._wait_readable(endpoint, None)
                    room = self._gate.wait(connection, urgent=self._postcopy.asks(self._parser))
                    ended, idle = self._fill(endpoint, room)
                    self._cut(flush=ended or idle)
                    self._gate.settle(connection)
        finally:
            self._gate.settle(connection)
            self._lease.release()
        if path is not None:
            self._outlet.signal(MOVED)
            path.send_from(endpoint)

    def _way_past(self) -> DirectPath | None:
        """The path that takes over now, all before it cut and sent; None as long as the link carries this."""
        path = self._path
        if path is None or not self._outlet.sent_bytes or not self._stands_aside():
            return None  # the head of each stream tells the parser what it is
        path.ask()
        if not path.is_there:
            return None
        self._cut(flush=True)
        return path

    def _wait_readable(self, endpoint: Endpoint, timeout_s: float | None) -> bool:
        with self._idle.waiting():
            return endpoint.wait_readable(timeout_s)

    def _fill(self, endpoint: Endpoint, room: int) -> tuple[bool, bool]:
        """Read what QEMU has, at most `room` bytes.

        Returns:
            Whether the stream ended, and whether QEMU has nothing more at the moment.
        """
        view = self._lease.view
        limit = min(len(view), self._end + room)
        while self._end < limit:
            count = endpoint.read_into(view[self._end : limit])
            if count == 0:
                return True, True
            if count is not None:
                self._take(view[self._end : self._end + count])
            elif self._begin == self._end or not (self._bulk and self._wait_readable(endpoint, COLLECT_S)):
                return False, True
        return False, False

    @property
    def _bulk(self) -> bool:
        """Whether waiting a little for a larger segment is worth it and harms nobody."""
        parser = self._parser
        return parser.kind in (StreamKind.MAIN, StreamKind.MULTIFD) and not parser.opaque_reason and not parser.urgent

    def _take(self, data: memoryview) -> None:
        if self._record is not None:
            self._record(data)
        self._end += len(data)

    def _cut(self, *, flush: bool) -> None:
        view = self._lease.view[self._begin : self._end]
        fed = self._parser.feed(view, flush=flush or len(view) == len(self._lease.view))
        for cut in fed.cuts:
            urgent = self._postcopy.is_urgent(self._parser, cut)
            self._stage.take(self._outlet, view, cut, self._lease, urgent=urgent)
        self._begin += fed.consumed
        self._observe(self._parser)
        if len(self._lease.view) - self._end < len(self._lease.view) // ROOM_SHARE:
            self._change_buffer()

    def _change_buffer(self) -> None:
        """Go on in a fresh buffer; bytes that are not cut yet move along."""
        rest = self._lease.view[self._begin : self._end]
        fresh = self._buffers.lease(2 * len(rest))
        fresh.view[: len(rest)] = rest
        self._lease.release()
        self._lease, self._begin, self._end = fresh, 0, len(rest)
