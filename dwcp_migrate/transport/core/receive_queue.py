"""Receive queue: each segment delivered exactly once, whatever the channels doubled or cut short.

Rule: nothing is given out twice and nothing that was given out is forgotten; memory is bounded by named limits.

A connection's state is a watermark (all below it were received) and the sequences received ahead of it. A segment that
the session rejected is taken again, but only a newer attempt of it.
"""

from typing import Final

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError
from dwcp_migrate.transport.core.frames import Frame
from dwcp_migrate.transport.core.segment import Segment
from dwcp_migrate.transport.core.send_queue import RETAINED_SEGMENTS_MAX
from dwcp_migrate.units import MIB

AHEAD_MAX: Final = RETAINED_SEGMENTS_MAX
"""Distance that a sequence may lie beyond the first missing one, and number that may have come out of turn on all
connections together; an honest sender, who retains no more, cannot exceed either."""
PARTIAL_BYTES_MAX: Final = 256 * MIB
"""Payload bytes of segments of which pieces are missing, where nothing less was agreed on."""
RUNS_MAX: Final = 1024
"""Separate runs of one incomplete segment; honest pieces are at least 16 KiB, so 256 are the most."""


class _Partial:
    """A segment of which pieces are missing."""

    __slots__ = ("buffer", "first", "runs")

    def __init__(self, first: Frame) -> None:
        self.first = first
        self.buffer = memoryview(bytearray(first.total))
        self.runs: list[tuple[int, int]] = []

    def add(self, frame: Frame) -> bool:
        """Place a piece; returns whether the segment is whole now."""
        end = frame.offset + len(frame.payload)
        self.buffer[frame.offset : end] = frame.payload
        self.runs = _merge(self.runs, frame.offset, end)
        if len(self.runs) > RUNS_MAX:
            raise LimitExceededError(f"segment in more than {RUNS_MAX} separate runs")
        return self.runs == [(0, frame.total)]


def _merge(runs: list[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """Union of sorted, disjoint runs with one more."""
    before = [run for run in runs if run[1] < begin]
    after = [run for run in runs if run[0] > end]
    touching = runs[len(before) : len(runs) - len(after)]
    if touching:
        begin, end = min(begin, touching[0][0]), max(end, touching[-1][1])
    return [*before, (begin, end), *after]


class _Received:
    """Segments received on one connection."""

    __slots__ = ("acknowledged", "ahead", "partials", "rejected", "watermark")

    def __init__(self) -> None:
        self.watermark = 0
        self.acknowledged = -1
        self.ahead: dict[int, int] = {}
        self.partials: dict[int, _Partial] = {}
        self.rejected: dict[int, int] = {}


class Inbox:
    """Received segments of one direction, all connections.

    Args:
        partial_bytes_max: bounds `partial_bytes`.

    Attributes:
        partial_bytes: allocated for segments of which pieces are missing.
        duplicates: pieces that had come before.
    """

    def __init__(self, partial_bytes_max: int = PARTIAL_BYTES_MAX) -> None:
        self._partial_bytes_max = partial_bytes_max
        self.partial_bytes = 0
        self.duplicates = 0
        self._ahead = 0
        self._connections: dict[int, _Received] = {}
        self._attempts: dict[tuple[int, int], int] = {}

    def receive(self, frame: Frame) -> Segment | None:
        """Take one SEGMENT frame; returns the segment when this made it whole and it is new.

        Raises:
            LimitExceededError: too far ahead, or too much of it incomplete.
            RemoteProtocolError: pieces of one segment disagree.
        """
        connection = self._connections.setdefault(frame.connection, _Received())
        if frame.sequence >= connection.watermark + AHEAD_MAX:
            raise LimitExceededError(f"segment {frame.sequence} while {connection.watermark} is missing")
        if self._ahead >= AHEAD_MAX and frame.sequence != connection.watermark:
            raise LimitExceededError(f"{self._ahead} segments came out of turn")
        if not _is_wanted(connection, frame):
            self.duplicates += 1
            return None
        payload = frame.payload if len(frame.payload) == frame.total else self._assemble(connection, frame)
        if payload is None:
            return None
        self._forget_partial(connection, frame.sequence)
        self._mark(connection, frame)
        return Segment(frame.connection, frame.sequence, frame.flags, frame.raw_size, frame.checksum, payload)

    def acknowledge(self, connection: int, sequence: int) -> bool:
        """Acknowledge everything up to a segment: our QEMU took it.

        Args:
            connection: of QEMU.
            sequence: the last one that it took.

        Returns:
            Whether that is news for the peer.

        Raises:
            LocalProtocolError: not all of that was received.
        """
        received = self._connections.get(connection)
        if received is None or sequence >= received.watermark:
            raise LocalProtocolError(f"acknowledged segment {sequence} of connection {connection}, not received")
        if sequence <= received.acknowledged:
            return False
        if any(refused <= sequence for refused in received.rejected):
            raise LocalProtocolError(f"acknowledged segment {sequence} of connection {connection}, one was rejected")
        for number in range(received.acknowledged + 1, sequence + 1):
            self._attempts.pop((connection, number), None)
        received.acknowledged = sequence
        return True

    def reject(self, connection: int, sequence: int) -> int:
        """Reject a segment: the session found its bytes wrong.

        Args:
            connection: of QEMU.
            sequence: of the segment.

        Returns:
            The attempt that is rejected.

        Raises:
            LocalProtocolError: it was not received, or is acknowledged already.
        """
        received = self._connections.get(connection)
        if received is None or sequence <= received.acknowledged or not _has(received, sequence):
            raise LocalProtocolError(f"rejected segment {sequence} of connection {connection}, not received")
        attempt = self._attempts.get((connection, sequence), 0)
        received.rejected[sequence] = attempt
        return attempt

    def acknowledgements(self) -> dict[int, int]:
        """Return the last sequence acknowledged of each connection that has one."""
        return {
            number: connection.acknowledged
            for number, connection in self._connections.items()
            if connection.acknowledged >= 0
        }

    def rejections(self) -> dict[tuple[int, int], int]:
        """Return the attempts rejected for which no newer one has come, by (connection, sequence)."""
        return {
            (number, sequence): attempt
            for number, connection in self._connections.items()
            for sequence, attempt in connection.rejected.items()
        }

    def _assemble(self, connection: _Received, frame: Frame) -> memoryview | None:
        partial = connection.partials.get(frame.sequence)
        if partial is not None and partial.first.attempt < frame.attempt:
            self._forget_partial(connection, frame.sequence)
            partial = None
        if partial is None:
            if self.partial_bytes + frame.total > self._partial_bytes_max:
                raise LimitExceededError(f"more than {self._partial_bytes_max} bytes of incomplete segments")
            partial = connection.partials[frame.sequence] = _Partial(frame)
            self.partial_bytes += frame.total
        elif frame.attempt < partial.first.attempt:
            self.duplicates += 1
            return None
        elif not _agree(partial.first, frame):
            raise RemoteProtocolError(f"pieces of segment {frame.sequence} disagree about it")
        return partial.buffer if partial.add(frame) else None

    def _forget_partial(self, connection: _Received, sequence: int) -> None:
        partial = connection.partials.pop(sequence, None)
        if partial is not None:
            self.partial_bytes -= partial.first.total

    def _mark(self, connection: _Received, frame: Frame) -> None:
        """Note it as received and move the watermark over what is contiguous."""
        if frame.attempt:
            self._attempts[(frame.connection, frame.sequence)] = frame.attempt
        if connection.rejected.pop(frame.sequence, None) is not None:
            return
        connection.ahead[frame.sequence] = frame.attempt
        self._ahead += 1
        while connection.ahead.pop(connection.watermark, None) is not None:
            connection.watermark += 1
            self._ahead -= 1


def _has(received: _Received, sequence: int) -> bool:
    return sequence < received.watermark or sequence in received.ahead


def _is_wanted(connection: _Received, frame: Frame) -> bool:
    """A segment is wanted until it was received; a rejected one if this attempt is newer."""
    refused = connection.rejected.get(frame.sequence)
    if refused is not None:
        return frame.attempt > refused
    return not _has(connection, frame.sequence)


def _agree(one: Frame, other: Frame) -> bool:
    return (one.flags, one.raw_size, one.checksum, one.total) == (
        other.flags,
        other.raw_size,
        other.checksum,
        other.total,
    )
