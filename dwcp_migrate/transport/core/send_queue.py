"""Send queue: segments queued, in flight, and awaiting acknowledgement.

Rule: a segment leaves the queue only when it was acknowledged. The pieces that were sent on a channel that died are
sent again on another, and only those.

    send ──> lane (urgent | bulk) ──pull──> ledger of the channel ──acknowledged──> gone
                  ^                              │
                  └───── channel lost ───────────┘   pieces not acknowledged, back to the head of their lane

A channel that can take bytes pulls a piece: at most `quantum` bytes of the segment at the head. So slow and fast
channels share one segment, and none waits long for another. When a connection turns urgent, its segments that are
queued as bulk go first, since the other QEMU can take nothing behind them before. A piece that the other QEMU waits for
and that a crawling channel does not bring goes once more on one that has nothing else to do; the receiver merges.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from dwcp_migrate.errors import LocalProtocolError, RemoteProtocolError
from dwcp_migrate.transport.core.frames import ATTEMPTS_MAX, Frame, FrameKind
from dwcp_migrate.transport.core.segment import (
    CONNECTIONS_MAX,
    PAYLOAD_BYTES_MAX,
    RAW_BYTES_MAX,
    REMARKS,
    SEGMENT_FLAGS,
    URGENT,
    Segment,
)

HEDGE_LOOK_S: Final = 0.02
"""Between two searches for a piece that is late."""
HEDGED_SEGMENTS_MAX: Final = 64
"""Of a connection, in which a late piece is looked for: what a window of the usual segments holds."""
COPIES_MAX: Final = 3
"""Of one piece: the first may have gone to another channel of the path that does not bring it."""
RETAINED_SEGMENTS_MAX: Final = 65536
"""Segments not acknowledged. With the window's charge for small ones a session stays far below."""


class _Retained:
    """A segment that is not acknowledged yet."""

    __slots__ = ("attempt", "done", "order", "payload", "refused", "segment", "sent")

    def __init__(self, segment: Segment, order: int) -> None:
        self.segment = segment
        self.payload = memoryview(segment.payload)
        self.order = order
        self.attempt = 0
        self.refused = -1
        self.done = False
        self.sent: list[_Piece] = []


class _Piece:
    """A run of a retained segment's payload: waiting in a lane or sent on a channel."""

    __slots__ = ("attempt", "begin", "channel", "copies", "end", "retained", "sent_at")

    def __init__(self, retained: _Retained, attempt: int, begin: int, end: int) -> None:
        self.retained = retained
        self.attempt = attempt
        self.begin = begin
        self.end = end
        self.channel = 0
        self.sent_at = 0.0
        self.copies = 0

    @property
    def wanted(self) -> bool:
        """Tell whether anybody still waits for it."""
        return not self.retained.done and self.attempt == self.retained.attempt


class Outbox:
    """Segments of one direction of the link, all connections.

    Attributes:
        queued_bytes: payload bytes that no channel has taken yet.
        retained_segments: sent or queued, not acknowledged.
        retained_bytes: their payload bytes.
        acknowledged_bytes: payload bytes acknowledged since the start.
        resent_pieces: sent a second time because their channel died.
        hedged_pieces: sent once more because their channel did not bring them.
        rescued: bytes of those, by the channel that did not bring them.
    """

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.retained_segments = 0
        self.retained_bytes = 0
        self.acknowledged_bytes = 0
        self.resent_pieces = 0
        self.hedged_pieces = 0
        self.rescued: Counter[int] = Counter()
        self._hedge_at = 0.0
        self._urgent: deque[_Piece] = deque()
        self._bulk: deque[_Piece] = deque()
        self._retained: dict[int, dict[int, _Retained]] = {}
        self._acknowledged: dict[int, int] = {}
        self._urgent_sequences: dict[int, int] = {}
        self._ledgers: dict[int, deque[_Piece]] = {}
        self._order = 0

    @property
    def waiting(self) -> bool:
        """Tell whether a pull may find something."""
        return bool(self._urgent or self._bulk)

    @property
    def waiting_urgent(self) -> bool:
        """Tell whether something urgent waits."""
        return bool(self._urgent)

    @property
    def is_settled(self) -> bool:
        """Tell whether everything that belongs to QEMU's connections was acknowledged."""
        return self.retained_segments == len(self._retained.get(REMARKS, ()))

    def send(self, segment: Segment) -> None:
        """Queue a segment; sequences of a connection may come in any order, each once.

        Raises:
            LocalProtocolError: the segment breaks a limit, was sent before, or too many are unacknowledged.
        """
        _check(segment)
        of_connection = self._retained.setdefault(segment.connection, {})
        if segment.sequence in of_connection or segment.sequence <= self._acknowledged.get(segment.connection, -1):
            raise LocalProtocolError(f"segment {segment.sequence} of connection {segment.connection} sent twice")
        if self.retained_segments >= RETAINED_SEGMENTS_MAX:
            raise LocalProtocolError(
                f"{RETAINED_SEGMENTS_MAX} segments are not acknowledged; the window must bound them"
            )
        self._order += 1
        retained = of_connection[segment.sequence] = _Retained(segment, self._order)
        self.retained_segments += 1
        self.retained_bytes += len(retained.payload)
        self._queue(self._lane(segment), [_Piece(retained, 0, 0, len(retained.payload))])

    def _lane(self, segment: Segment) -> deque[_Piece]:
        """Choose the lane of a new segment: urgent too if an urgent one of its connection has overtaken it."""
        overtaken_below = self._overtaken_below(segment)
        if not segment.flags & URGENT:
            return self._urgent if segment.sequence < overtaken_below else self._bulk
        self._urgent_sequences[segment.connection] = max(overtaken_below, segment.sequence)
        if any(_precedes(piece, segment) for piece in self._bulk):
            self._urgent.extend(piece for piece in self._bulk if _precedes(piece, segment))
            self._bulk = deque(piece for piece in self._bulk if not _precedes(piece, segment))
        return self._urgent

    def _overtaken_below(self, segment: Segment) -> int:
        """Segments of the same connection before this one go ahead of bulk, since an urgent one waits for them."""
        return self._urgent_sequences.get(segment.connection, -1)

    def replace(self, segment: Segment) -> None:
        """Send other bytes for a segment that the peer rejected, ahead of bulk.

        Raises:
            LocalProtocolError: it is not unacknowledged, breaks a limit, or was replaced `ATTEMPTS_MAX` times.
        """
        _check(segment)
        retained = self._retained.get(segment.connection, {}).get(segment.sequence)
        if retained is None:
            raise LocalProtocolError(f"segment {segment.sequence} of connection {segment.connection} is not retained")
        if retained.attempt >= ATTEMPTS_MAX:
            raise LocalProtocolError(f"segment {segment.sequence} was replaced {ATTEMPTS_MAX} times")
        self.retained_bytes += len(segment.payload) - len(retained.payload)
        retained.attempt += 1
        retained.segment = segment
        retained.payload = memoryview(segment.payload)
        retained.sent = []
        self._queue(self._urgent, [_Piece(retained, retained.attempt, 0, len(retained.payload))])

    def pull(self, channel: int, quantum: int, *, bulk: bool = True, now: float = 0.0) -> Frame | None:
        """Give a channel its next frame, urgent before bulk.

        Args:
            channel: its number.
            quantum: payload bytes at most.
            bulk: bulk may go too.
            now: the clock, monotonic seconds; only a channel's ledger keeps it.

        Returns:
            None when nothing waits.
        """
        for lane in (self._urgent, self._bulk) if bulk else (self._urgent,):
            while lane:
                piece = lane[0]
                if not piece.wanted:
                    self.queued_bytes -= piece.end - piece.begin
                    lane.popleft()
                    continue
                return self._take(lane, piece, channel, quantum, now)
        return None

    def hedge(self, channel: int, now: float, late_s: float, is_silent: Callable[[int], bool]) -> Frame | None:
        """Give a channel that has nothing else to do a piece that is late elsewhere; None when there is none.

        A piece that its connection waits for goes once more however its channel does: what it waits behind may be a
        lost packet. One that is on a silent channel, or whose copy is, goes again up to `COPIES_MAX` times.

        Args:
            channel: which.
            now: the clock.
            late_s: so long after it was sent a piece is late.
            is_silent: tells whether a channel has not answered for so long.
        """
        if now < self._hedge_at:
            return None
        has_it_itself = False
        for piece, is_next in self._under_way():
            if not piece.wanted or now - piece.sent_at <= late_s:
                continue
            copies_max = COPIES_MAX if is_silent(piece.channel) else 1 if is_next else 0
            if piece.copies >= copies_max:
                continue
            if piece.channel == channel:
                has_it_itself = True
                continue
            return self._copy(piece, channel, now)
        if not has_it_itself:  # nor has any other channel to look again soon
            self._hedge_at = now + HEDGE_LOOK_S
        return None

    def _under_way(self) -> Iterator[tuple["_Piece", bool]]:
        """Pieces that were sent, of each connection's first segments, and whether they belong to the very first."""
        for connection, segments in self._retained.items():
            first = self._acknowledged.get(connection, -1) + 1
            for sequence in range(first, first + HEDGED_SEGMENTS_MAX):
                retained = segments.get(sequence)
                if retained is None:
                    break
                for piece in retained.sent:
                    yield piece, sequence == first

    def acknowledge(self, connection: int, sequence: int) -> bool:
        """Take an acknowledgement: the peer's QEMU took everything up to a segment.

        Args:
            connection: of QEMU.
            sequence: the last one that it took.

        Returns:
            Whether that was news.

        Raises:
            RemoteProtocolError: it acknowledges what was never sent.
        """
        last = self._acknowledged.get(connection, -1)
        if sequence <= last:
            return False
        of_connection = self._retained.get(connection, {})
        if sequence - last > len(of_connection) or sequence not in of_connection:
            raise RemoteProtocolError(
                f"the peer acknowledged segment {sequence} of connection {connection}, never sent"
            )
        if any(piece.copies for piece in of_connection[last + 1].sent):
            self._hedge_at = 0.0  # the next one may have been late for as long
        for number in range(last + 1, sequence + 1):
            self._release(of_connection, connection, number)
        self._acknowledged[connection] = sequence
        return True

    def reject(self, connection: int, sequence: int, attempt: int) -> bool:
        """Take a rejection.

        Args:
            connection: of QEMU.
            sequence: of the segment.
            attempt: that the peer rejects.

        Returns:
            Whether that is news: False when repeated, or of an older attempt.

        Raises:
            RemoteProtocolError: it rejects what was never sent.
        """
        if sequence <= self._acknowledged.get(connection, -1):
            return False
        retained = self._retained.get(connection, {}).get(sequence)
        if retained is None or attempt > retained.attempt:
            raise RemoteProtocolError(f"the peer rejected segment {sequence} of connection {connection}, never sent")
        news = attempt == retained.attempt and attempt > retained.refused
        retained.refused = attempt
        return news

    def received(self, channel: int, mark: int) -> None:
        """Strike pieces off a channel's ledger: the peer's link holds them, so that a dead channel cannot lose them.

        Args:
            channel: its number.
            mark: number of pieces, from the start of the ledger.
        """
        ledger = self._ledgers.get(channel, ())
        for _ in range(min(mark, len(ledger))):
            self._ledgers[channel].popleft()

    def ledger_length(self, channel: int) -> int:
        """Count the pieces sent on this channel that it could still lose."""
        return len(self._ledgers.get(channel, ()))

    def channel_lost(self, channel: int) -> None:
        """Put the pieces that the channel may have lost back to the head of their lane, oldest first."""
        self.rescued.pop(channel, None)
        pieces = [piece for piece in self._ledgers.pop(channel, ()) if piece.wanted]
        pieces.sort(key=lambda piece: (piece.retained.order, piece.begin), reverse=True)
        self.resent_pieces += len(pieces)
        for piece in pieces:
            segment = piece.retained.segment
            urgent = segment.flags & URGENT or piece.attempt or segment.sequence < self._overtaken_below(segment)
            lane = self._urgent if urgent else self._bulk
            lane.appendleft(piece)
            self.queued_bytes += piece.end - piece.begin

    def _queue(self, lane: deque[_Piece], pieces: Iterable[_Piece]) -> None:
        for piece in pieces:
            lane.append(piece)
            self.queued_bytes += piece.end - piece.begin

    def _take(self, lane: deque[_Piece], piece: _Piece, channel: int, quantum: int, now: float) -> Frame:
        begin, end = piece.begin, min(piece.end, piece.begin + quantum)
        if end == piece.end:
            taken = lane.popleft()
        else:
            taken = _Piece(piece.retained, piece.attempt, begin, end)
            piece.begin = end
        self.queued_bytes -= end - begin
        taken.retained.sent.append(taken)
        return self._note(taken, channel, now)

    def _copy(self, piece: _Piece, channel: int, now: float) -> Frame:
        """Send a late piece once more; from now on it is late by its copy."""
        size = piece.end - piece.begin
        self.rescued[piece.channel] += size
        self.hedged_pieces += 1
        piece.copies += 1
        piece.channel, piece.sent_at = channel, now
        return self._note(_Piece(piece.retained, piece.attempt, piece.begin, piece.end), channel, now)

    def _note(self, taken: _Piece, channel: int, now: float) -> Frame:
        """Write a piece down in its channel's ledger."""
        taken.channel, taken.sent_at = channel, now
        self._ledgers.setdefault(channel, deque()).append(taken)
        return _frame(taken)

    def _release(self, of_connection: dict[int, _Retained], connection: int, sequence: int) -> None:
        retained = of_connection.pop(sequence, None)
        if retained is None:
            raise RemoteProtocolError(
                f"the peer acknowledged segment {sequence} of connection {connection}, never sent"
            )
        self.retained_segments -= 1
        self.retained_bytes -= len(retained.payload)
        self.acknowledged_bytes += len(retained.payload)
        retained.done = True
        retained.sent = []
        retained.payload = memoryview(b"")
        retained.segment = Segment(connection, sequence)


def _precedes(piece: _Piece, segment: Segment) -> bool:
    """Whether a piece belongs to an earlier segment of the same connection."""
    earlier = piece.retained.segment
    return earlier.connection == segment.connection and earlier.sequence < segment.sequence


def _frame(piece: _Piece) -> Frame:
    segment = piece.retained.segment
    return Frame(
        FrameKind.SEGMENT,
        segment.connection,
        segment.sequence,
        segment.flags,
        piece.attempt,
        segment.raw_size,
        segment.checksum,
        piece.begin,
        len(piece.retained.payload),
        piece.retained.payload[piece.begin : piece.end],
    )


def _check(segment: Segment) -> None:
    """Check a segment against the limits that the peer holds."""
    if not 0 <= segment.connection < CONNECTIONS_MAX:
        raise LocalProtocolError(f"connection {segment.connection}, at most {CONNECTIONS_MAX} of them")
    if len(segment.payload) > PAYLOAD_BYTES_MAX or not 0 <= segment.raw_size <= RAW_BYTES_MAX:
        raise LocalProtocolError(f"segment of {len(segment.payload)} bytes for {segment.raw_size} raw bytes")
    if segment.flags & ~SEGMENT_FLAGS or segment.sequence < 0:
        raise LocalProtocolError(f"segment with flags {segment.flags:#x}, sequence {segment.sequence}")
