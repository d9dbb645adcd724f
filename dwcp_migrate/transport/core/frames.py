"""Frames of the agents' link: a fixed header, a bounded payload, every field checked before use.

Rule: every field is checked against its named limit before a byte is allocated for it. Big-endian throughout.

    preamble, in clear, once a channel, before TLS      "DWCP" | version u16 | flags u16 = 0 | session_id 16 bytes

    frame   0        1        2           4               8            12
            | kind   | flags  | attempt   | length        | connection | raw_size
            16                24                          32           36
            | sequence        | checksum                  | offset     | total      | payload (length bytes)

    HELLO  -> <- WELCOME | REFUSE          once a channel, after TLS
    SEGMENT  ACK  REJECT  PING  PONG  RETIRE  CLOSE    then, both ways
    DETACH -> <- DETACH                    the channel leaves the link and carries one connection as it is

A segment may come in several frames (pieces: offset and length within total), on several channels.
The whole table and an annotated dump: docs/wire-protocol.md.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, VersionMismatchError
from dwcp_migrate.transport.core.segment import (
    CONNECTIONS_MAX,
    PAYLOAD_BYTES_MAX,
    RAW_BYTES_MAX,
    SEGMENT_FLAGS,
    SEQUENCE_MAX,
)
from dwcp_migrate.units import KIB

MAGIC: Final = b"DWCP"
VERSION: Final = 1
TOKEN_BYTES: Final = 32
SESSION_ID_BYTES: Final = 16
DETAIL_BYTES_MAX: Final = 256
"""Text of a REFUSE or a CLOSE."""
ATTEMPTS_MAX: Final = 8
"""A segment rejected that often is no accident of the wire."""
READ_BYTES: Final = 64 * KIB
"""Buffer for headers and small frames; a TLS record holds at most 16 KiB."""

_PREAMBLE: Final = struct.Struct("!4sHH16s")
_HEADER: Final = struct.Struct("!BBHIIIQQII")
_GREETING: Final = struct.Struct("!HH")
PREAMBLE_BYTES: Final = _PREAMBLE.size
HEADER_BYTES: Final = _HEADER.size


class FrameKind(IntEnum):
    """Kind of a frame."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    SEGMENT = 4
    ACK = 5
    REJECT = 6
    PING = 7
    PONG = 8
    RETIRE = 9
    CLOSE = 10
    DETACH = 11


class Code(IntEnum):
    """Reason of a refused channel or a closed link (`raw_size` of REFUSE and CLOSE)."""

    DONE = 0
    TOKEN = 1
    VERSION = 2
    NAME = 3
    CHANNELS = 4
    ABORTED = 5


_PAYLOAD_LIMITS: Final = {
    FrameKind.HELLO: (_GREETING.size + TOKEN_BYTES, _GREETING.size + TOKEN_BYTES),
    FrameKind.WELCOME: (_GREETING.size, _GREETING.size),
    FrameKind.REFUSE: (0, DETAIL_BYTES_MAX),
    FrameKind.SEGMENT: (0, PAYLOAD_BYTES_MAX),
    FrameKind.ACK: (0, 0),
    FrameKind.REJECT: (0, 0),
    FrameKind.PING: (0, 0),
    FrameKind.PONG: (0, 0),
    FrameKind.RETIRE: (0, 0),
    FrameKind.CLOSE: (0, DETAIL_BYTES_MAX),
    FrameKind.DETACH: (0, 0),
}
"""Smallest and largest payload of each kind."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame. Fields that a kind does not use are 0.

    Attributes:
        kind: see `FrameKind`; decides which other fields count.
        connection: SEGMENT, ACK, REJECT, DETACH.
        sequence: of the segment; PING and PONG: the sender's number of the ping.
        flags: of the segment.
        attempt: 0, then one more each time that the segment was replaced after a REJECT.
        raw_size: of the segment; REFUSE and CLOSE: the `Code`.
        checksum: of the segment's raw bytes.
        offset: where this piece lies in the segment's payload.
        total: size of the segment's whole payload.
        payload: this frame's bytes.
    """

    kind: int
    connection: int = 0
    sequence: int = 0
    flags: int = 0
    attempt: int = 0
    raw_size: int = 0
    checksum: int = 0
    offset: int = 0
    total: int = 0
    payload: bytes | memoryview = b""


def encode_header(frame: Frame) -> bytes:
    """Pack everything but the payload, which follows as it is.

    Raises:
        LocalProtocolError: a field does not fit: a bug on this side.
    """
    try:
        return _HEADER.pack(
            frame.kind,
            frame.flags,
            frame.attempt,
            len(frame.payload),
            frame.connection,
            frame.raw_size,
            frame.sequence,
            frame.checksum,
            frame.offset,
            frame.total,
        )
    except struct.error as error:
        raise LocalProtocolError(f"frame does not fit its header: {error}") from error


def encode(frame: Frame) -> bytes:
    """Pack a whole frame; for small ones and for tests.

    Raises:
        LocalProtocolError: as `encode_header`.
    """
    return encode_header(frame) + frame.payload


def hello(token: bytes) -> Frame:
    """Make the first frame of the side that dialled: it proves the session's token."""
    return Frame(FrameKind.HELLO, payload=_GREETING.pack(VERSION, 0) + token)


def welcome() -> Frame:
    """Make the answer to a good HELLO: the channel is up."""
    return Frame(FrameKind.WELCOME, payload=_GREETING.pack(VERSION, 0))


def refuse(code: Code, detail: str) -> Frame:
    """Make the answer to a bad HELLO; the channel closes after it.

    Args:
        code: the reason.
        detail: for the peer's log; cut at `DETAIL_BYTES_MAX`.
    """
    return Frame(FrameKind.REFUSE, raw_size=code, payload=_detail(detail))


def close(code: Code, detail: str = "") -> Frame:
    """Make the end of the link: in order (DONE, everything was acknowledged) or not.

    Args:
        code: the reason.
        detail: for the peer's log; cut at `DETAIL_BYTES_MAX`.
    """
    return Frame(FrameKind.CLOSE, raw_size=code, payload=_detail(detail))


def read_hello(frame: Frame) -> bytes:
    """Take the token out of a HELLO.

    Raises:
        RemoteProtocolError: another frame came first.
        VersionMismatchError: it speaks another version.
    """
    if frame.kind != FrameKind.HELLO:
        raise RemoteProtocolError(f"expected HELLO, got {FrameKind(frame.kind).name}")
    _check_version(_GREETING.unpack_from(frame.payload)[0])
    return bytes(frame.payload[_GREETING.size :])


def read_detail(frame: Frame) -> str:
    """Read the text of a REFUSE or CLOSE, made fit for a log line."""
    text = bytes(frame.payload).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _detail(text: str) -> bytes:
    return text.encode()[:DETAIL_BYTES_MAX]


def _check_version(version: int) -> None:
    if version != VERSION:
        raise VersionMismatchError(
            f"the peer speaks version {version} of the link protocol, this agent {VERSION}",
            hint="upgrade the older agent; until then migrations pass through",
        )


@dataclass(frozen=True, slots=True)
class Preamble:
    """First bytes of a channel, in clear, before TLS, so that the agent knows whose it is.

    Attributes:
        session_id: routing key, no secret; all zero is a control connection.
        version: of the link protocol.
    """

    session_id: bytes
    version: int = VERSION


def encode_preamble(preamble: Preamble) -> bytes:
    """Pack the 24 bytes."""
    return _PREAMBLE.pack(MAGIC, preamble.version, 0, preamble.session_id)


def decode_preamble(data: bytes) -> Preamble:
    """Read exactly `PREAMBLE_BYTES`.

    Raises:
        RemoteProtocolError: not a preamble.
        VersionMismatchError: of another version. A listener answers that with its own preamble and closes.
    """
    if len(data) != PREAMBLE_BYTES or not data.startswith(MAGIC):
        raise RemoteProtocolError("not an agent of dwcp-migrate: bad preamble")
    _, version, flags, session_id = _PREAMBLE.unpack(data)
    _check_version(version)
    if flags:
        raise RemoteProtocolError(f"unknown preamble flags {flags:#x}")
    return Preamble(session_id, version)


class FrameReader:
    """Turns received bytes into frames, whatever the cuts between them (sans-IO).

    Ask `buffer()` for the memory of the next bytes, put some there, report how many with `received()`.
    A payload that is not complete yet is allocated once, at its final size, and filled in place.
    After an error the reader stays broken: nothing behind a bad frame is believed.
    """

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(READ_BYTES))
        self._begin = 0
        self._end = 0
        self._pending: Frame | None = None
        self._payload = memoryview(b"")
        self._filled = 0
        self._error: RemoteProtocolError | None = None

    @property
    def has_rest(self) -> bool:
        """Tell whether bytes of a frame are there that is not complete."""
        return self._pending is not None or self._begin < self._end

    def buffer(self) -> memoryview:
        """Return the memory for the next bytes; never empty."""
        if self._pending is not None:
            return self._payload[self._filled :]
        if self._begin == self._end:
            self._begin = self._end = 0
        elif READ_BYTES - self._end < HEADER_BYTES:
            rest = bytes(self._scratch[self._begin : self._end])
            self._scratch[: len(rest)] = rest
            self._begin, self._end = 0, len(rest)
        return self._scratch[self._end :]

    def received(self, count: int) -> list[Frame]:
        """Take `count` bytes that were put into `buffer()`.

        Raises:
            RemoteProtocolError: an unknown kind, flag or an impossible field.
            LimitExceededError: a size or a number past its limit.
        """
        if self._error is not None:
            raise self._error
        if self._pending is not None:
            return self._fill(count)
        self._end += count
        try:
            return self._parse()
        except RemoteProtocolError as error:
            self._error = error
            raise

    def receive(self, data: bytes | memoryview) -> list[Frame]:
        """Copy `data` in and return the frames that it completes. Raises as `received`."""
        frames: list[Frame] = []
        rest = memoryview(data)
        while rest:
            space = self.buffer()
            taken = min(len(space), len(rest))
            space[:taken] = rest[:taken]
            rest = rest[taken:]
            frames += self.received(taken)
        return frames

    def _fill(self, count: int) -> list[Frame]:
        self._filled += count
        if self._filled < len(self._payload):
            return []
        assert self._pending is not None  # narrows the type; the caller looked
        frame = msgspec.structs.replace(self._pending, payload=self._payload)
        self._pending, self._payload = None, memoryview(b"")
        return [frame]

    def _parse(self) -> list[Frame]:
        frames: list[Frame] = []
        while self._end - self._begin >= HEADER_BYTES:
            frame, length = _decode_header(self._scratch[self._begin : self._begin + HEADER_BYTES])
            self._begin += HEADER_BYTES
            have = self._scratch[self._begin : min(self._end, self._begin + length)]
            self._begin += len(have)
            if len(have) < length:
                self._payload = memoryview(bytearray(length))
                self._payload[: len(have)] = have
                self._pending, self._filled = frame, len(have)
                break
            frames.append(msgspec.structs.replace(frame, payload=bytes(have)) if length else frame)
        return frames


def _decode_header(header: memoryview) -> tuple[Frame, int]:
    """Check one header; returns the frame without its payload, and the payload's length."""
    kind, flags, attempt, length, connection, raw_size, sequence, checksum, offset, total = _HEADER.unpack(header)
    limits = _PAYLOAD_LIMITS.get(kind)
    if limits is None:
        raise RemoteProtocolError(f"unknown frame kind {kind}")
    if not limits[0] <= length <= limits[1]:
        raise LimitExceededError(f"{FrameKind(kind).name} of {length} bytes, allowed {limits[0]} to {limits[1]}")
    if connection >= CONNECTIONS_MAX:
        raise LimitExceededError(f"connection {connection}, at most {CONNECTIONS_MAX} of them")
    if sequence >= SEQUENCE_MAX:
        raise LimitExceededError(f"sequence {sequence} is past {SEQUENCE_MAX}")
    if attempt > ATTEMPTS_MAX:
        raise LimitExceededError(f"attempt {attempt} at one segment, at most {ATTEMPTS_MAX}")
    frame = Frame(kind, connection, sequence, flags, attempt, raw_size, checksum, offset, total)
    if kind == FrameKind.SEGMENT:
        _check_piece(frame, length)
    elif flags or offset or total or checksum:
        raise RemoteProtocolError(f"{FrameKind(kind).name} with fields of a segment")
    return frame, length


def _check_piece(frame: Frame, length: int) -> None:
    """Hold the rules of SEGMENT: known flags, sizes within limits, a piece that lies inside its segment."""
    if frame.flags & ~SEGMENT_FLAGS:
        raise RemoteProtocolError(f"unknown segment flags {frame.flags:#x}")
    if frame.total > PAYLOAD_BYTES_MAX or frame.raw_size > RAW_BYTES_MAX:
        raise LimitExceededError(f"segment of {frame.total} bytes for {frame.raw_size} raw bytes")
    if frame.offset + length > frame.total:
        raise RemoteProtocolError(f"piece {frame.offset}+{length} lies outside its segment of {frame.total} bytes")
    if length == 0 and frame.total:
        raise RemoteProtocolError("empty piece of a segment that has bytes")
