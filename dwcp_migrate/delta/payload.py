"""The bytes of a segment between two agents, once the transport's frame is off.

    offset size
    0      1    form: 0 OPAQUE, 1 PAGES, 2 IN_PLACE
    1      1    codec of the body: 0 none, 1 lz4, 2 zstd
    2      1    flags: 1 RESET (the cache is empty before this segment), 2 STATE (touches the cache)
    3      1    0
    4      4    body size before compression
    OPAQUE: the body is the raw bytes. PAGES and IN_PLACE, 40 bytes in all:
    8      8    state sequence, 0 without STATE
    16     4    runs             R
    20     4    literal bytes    L, 0 in IN_PLACE
    24     4    pages            P, in IN_PLACE those that are not in the body
    28     4    body pages       B, 0 in IN_PLACE
    32     8    0
    then the body
        PAGES     B pages, then the columns
                  kind u8[R] | count u32[R]* | start u64[R]* | literal u8[L]
                  op u8[P] | ref u32[references]* | store u32[B + K]* | digest 16 u8[K]
        IN_PLACE  the raw bytes without the P pages that are not NEW (none is DELTA), then
                  R spans to keep: position u32, from page to page u32, pages u32, first slot u32
                  position u32[P]* | op u8[P] | ref u32[references]*; a LOCAL page's is a position

K counts the pages that the destination takes from its page store, which the agents agreed on beforehand.
All integers little-endian. A column with * holds first differences, modulo 2^32 or 2^64, its bytes transposed (all
lowest bytes first), so that what counts up regularly is nearly all zeros. `docs/hde.md` tells the whole story and has a
hex dump.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.qemu.layout import Bytes
from dwcp_migrate.units import MIB, PAGE_BYTES

RAW_BYTES_MAX: Final = 3 * MIB
"""Raw bytes of one segment: at its worst the payload still fits a frame of 4 MiB."""
BODY_BYTES_MAX: Final = 2 * RAW_BYTES_MAX
"""Body of one segment. A run of 8 bytes of stream takes 13 in the columns, so twice the raw size is never reached."""
LITERAL_RUNS_MAX: Final = 32768
"""Literal runs of one segment: they alone are copied one by one."""
SPANS_MAX: Final = 64
"""Spans of one segment in place: they alone are copied one by one."""
SLOTS_MAX: Final = 1 << 28
"""Slots of a cache: a terabyte of pages."""

OPAQUE: Final = 0
PAGES: Final = 1
IN_PLACE: Final = 2
RESET: Final = 1
STATE: Final = 2

NEW: Final = 0
DELTA: Final = 1
SAME: Final = 2
DUPLICATE: Final = 3
LOCAL: Final = 4
ZERO: Final = 5
KNOWN: Final = 6
OPS: Final = 7
"""NEW: in the body. DELTA: body XOR slot. SAME, DUPLICATE: slot. LOCAL: page of this segment. ZERO: zeros. KNOWN: in
the destination's store, named by its digest."""

DIGEST_BYTES: Final = 16
"""Of a page's name: two different pages share one by chance, or by an attacker's work, once in 2^64 pages."""

NO_SLOT: Final = 0xFFFFFFFF
"""In the store column: the page is not kept."""

HEAD: Final = struct.Struct("<BBBBI")
PAGES_HEAD: Final = struct.Struct("<QIIIIQ")

HEAD_BYTES: Final = HEAD.size
PAGES_HEAD_BYTES: Final = HEAD.size + PAGES_HEAD.size

Slots = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Head:
    """The fixed part of a payload; sizes are within limits, nothing else was checked yet."""

    form: int
    codec: int
    flags: int
    body_bytes: int
    state_sequence: int = 0
    runs: int = 0
    literal_bytes: int = 0
    pages: int = 0
    body_pages: int = 0

    def pack(self) -> bytes:
        """The head's bytes."""
        head = HEAD.pack(self.form, self.codec, self.flags, 0, self.body_bytes)
        if self.form == OPAQUE:
            return head
        return head + PAGES_HEAD.pack(
            self.state_sequence, self.runs, self.literal_bytes, self.pages, self.body_pages, 0
        )


def unpack(payload: memoryview, raw_bytes: int) -> tuple[Head, memoryview]:
    """Read the head of a payload.

    Args:
        payload: as it came.
        raw_bytes: that it has to decode to, as its frame says.

    Returns:
        The head and the compressed body.

    Raises:
        RemoteProtocolError: truncated, an unknown form, reserved bits set, or a reset out of order.
        LimitExceededError: the segment or its body is larger than allowed.
    """
    if not 0 <= raw_bytes <= RAW_BYTES_MAX:
        raise LimitExceededError(f"segment of {raw_bytes} raw bytes, at most {RAW_BYTES_MAX}")
    if len(payload) < HEAD_BYTES:
        raise RemoteProtocolError(f"payload of {len(payload)} bytes")
    form, codec, flags, reserved, body_bytes = HEAD.unpack_from(payload)
    if form not in (OPAQUE, PAGES, IN_PLACE) or reserved or flags not in (0, STATE, STATE | RESET):
        raise RemoteProtocolError(f"payload begins with {bytes(payload[:4]).hex()}")
    if body_bytes > BODY_BYTES_MAX:
        raise LimitExceededError(f"segment with a body of {body_bytes} bytes, at most {BODY_BYTES_MAX}")
    if form == OPAQUE:
        if body_bytes != raw_bytes or flags:
            raise RemoteProtocolError(f"opaque segment of {body_bytes} bytes, announced were {raw_bytes}")
        return Head(form, codec, flags, body_bytes), payload[HEAD_BYTES:]
    if len(payload) < PAGES_HEAD_BYTES:
        raise RemoteProtocolError(f"payload of {len(payload)} bytes")
    sequence, runs, literal_bytes, pages, body_pages, rest = PAGES_HEAD.unpack_from(payload, HEAD_BYTES)
    if rest or body_pages > pages or pages * PAGE_BYTES > raw_bytes or runs > raw_bytes or literal_bytes > raw_bytes:
        raise RemoteProtocolError("segment announces more than its raw bytes can hold")
    if form == IN_PLACE and (literal_bytes or body_pages or runs > SPANS_MAX):
        raise RemoteProtocolError("segment in place announces what it cannot have")
    head = Head(form, codec, flags, body_bytes, sequence, runs, literal_bytes, pages, body_pages)
    return head, payload[PAGES_HEAD_BYTES:]


def state_sequence(payload: memoryview) -> int | None:
    """Read the turn of a payload that cannot be prepared; None: it touches no cache.

    Raises:
        RemoteProtocolError: not even that can be read.
    """
    if len(payload) < HEAD_BYTES or payload[0] not in (OPAQUE, PAGES, IN_PLACE):
        raise RemoteProtocolError(f"payload of {len(payload)} bytes begins with {bytes(payload[:4]).hex()}")
    if payload[0] == OPAQUE or not payload[2] & STATE:
        return None
    if len(payload) < PAGES_HEAD_BYTES:
        raise RemoteProtocolError(f"payload of {len(payload)} bytes")
    sequence: int = PAGES_HEAD.unpack_from(payload, HEAD_BYTES)[0]
    return sequence


def pack_column(values: NDArray[Any]) -> bytes:
    """Encode a column of unsigned integers as first differences, bytes transposed."""
    differences = np.diff(values, prepend=values.dtype.type(0))
    return differences.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def unpack_column(data: Bytes, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Decode a column of `pack_column`.

    Args:
        data: uint8, a whole number of items.
        dtype: of the items, little-endian.
    """
    size = np.dtype(dtype).itemsize
    differences = np.ascontiguousarray(data.reshape(size, -1).T).view(dtype).reshape(-1)
    return np.cumsum(differences, dtype=dtype)


class ColumnReader:
    """Takes columns off the end of a body, in order."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> Bytes:
        """Take the next `count` bytes.

        Raises:
            RemoteProtocolError: there are fewer.
        """
        end = self._position + count
        if end > len(self._data):
            raise RemoteProtocolError("segment's columns are cut short")
        part = self._data[self._position : end]
        self._position = end
        return part

    def column(self, count: int, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
        """Take the next column. Raises as `take`.

        Args:
            count: number of integers.
            dtype: of them.
        """
        return unpack_column(self.take(count * np.dtype(dtype).itemsize), dtype)

    def finish(self) -> None:
        """Demand that nothing is left.

        Raises:
            RemoteProtocolError: something is.
        """
        if self._position != len(self._data):
            raise RemoteProtocolError(f"segment has {len(self._data) - self._position} bytes too many")
