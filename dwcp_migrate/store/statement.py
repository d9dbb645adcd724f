"""Statement of a destination's pages: a filter over the hashes that an encoder computes anyway.

    bucket      the hash's upper bits, mixed; 2^bits buckets, about one a page
    mark        16 more bits of it, never 0; a page is likely there if its bucket holds its mark
    piece       a range of buckets: how many marks each holds, then the marks

Both sides hold four marks a bucket at most, so that a look-up is one read of eight bytes. A page whose bucket is full
is not stated (one in 250 at most): it is sent as if it were not there. A page that is not there seems to be with a
probability of 2^-16 at one page a bucket. On the wire a page costs 2 bytes and its share of the counts, which zstd
takes to a quarter of a byte.
"""

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.qemu.layout import Words

PAGES_STATED_MAX: Final = 1 << 25
"""Pages of one statement: 128 GiB of them, 75 MB on the wire and 256 MiB at either end."""
BITS_MAX: Final = 25
BITS_MIN: Final = 8
MARKS: Final = 4
"""Marks that a bucket holds."""
PIECE_BUCKETS: Final = 1 << 16
"""Buckets of a piece: 150 KB on the wire, built in a few milliseconds."""
PIECE_BYTES_MAX: Final = PIECE_BUCKETS * (MARKS * 2 + 1) + 1024
"""Of a piece, however full it is."""

HEAD: Final = struct.Struct("<BBHIII")
"""Version, bits, 0, first bucket, buckets, bytes of the compressed counts."""
VERSION: Final = 1

_MIX: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_HALF: Final = np.uint64(32)

Marks = NDArray[np.uint16]


def bits_for(pages: int) -> int:
    """Return the number of buckets for so many pages, as a power of two: between half a page and one page each."""
    return min(max(max(pages - 1, 0).bit_length(), BITS_MIN), BITS_MAX)


def _mixed(hashes: Words) -> Words:
    """Every bit of a hash in the upper ones: a multilinear hash is weak in its lower bits."""
    mixed: Words = (hashes ^ (hashes >> _HALF)) * _MIX
    return mixed ^ (mixed >> _HALF) * _MIX


def _places(hashes: Words, bits: int) -> tuple[NDArray[np.int64], Marks]:
    mixed = _mixed(hashes)
    marks = (mixed & np.uint64(0xFFFF)).astype(np.uint16)
    return (mixed >> np.uint64(64 - bits)).astype(np.int64), np.maximum(marks, np.uint16(1))


class StatementTable:
    """The marks of a statement, as both sides hold them.

    Attributes:
        bits: of a bucket's number.
        stated: pages in it.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.stated = 0
        self._rows: NDArray[np.uint16] = np.zeros((1 << bits, MARKS), np.uint16)

    def add(self, hashes: Words) -> None:
        """State pages; those whose bucket is full are left out."""
        buckets, marks = _places(hashes, self.bits)
        order = np.argsort(buckets, kind="stable")
        buckets, marks = buckets[order], marks[order]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        rank = np.arange(len(buckets)) - np.repeat(first, np.diff(first, append=len(buckets)))
        column = rank + np.count_nonzero(self._rows[buckets], axis=1)
        fits = column < MARKS
        self._rows[buckets[fits], column[fits]] = marks[fits]
        self.stated += int(np.count_nonzero(fits))

    def likely(self, hashes: Words) -> NDArray[np.bool_]:
        """Pages among these that were stated, or seem so."""
        buckets, marks = _places(hashes, self.bits)
        found: NDArray[np.bool_] = (self._rows[buckets] == marks[:, None]).any(axis=1)
        return found

    def pieces(self) -> Iterator[bytes]:
        """The whole table, piece by piece; empty ones too, so that the other side sees the end."""
        step = min(PIECE_BUCKETS, 1 << self.bits)
        compressor = zstandard.ZstdCompressor(level=1)
        for begin in range(0, 1 << self.bits, step):
            rows = self._rows[begin : begin + step]
            used = rows != 0
            counts = compressor.compress(used.sum(axis=1, dtype=np.uint8).tobytes())
            yield HEAD.pack(VERSION, self.bits, 0, begin, step, len(counts)) + counts + rows[used].tobytes()

    def take(self, piece: memoryview) -> None:
        """Take over a piece of the other side's.

        Raises:
            RemoteProtocolError: it breaks the form, or is of another table.
        """
        bits, begin, buckets, counts_end = _read_head(piece)
        if bits != self.bits:
            raise RemoteProtocolError(f"piece of a statement of 2^{bits} buckets in one of 2^{self.bits}")
        counts = _counts(piece[HEAD.size : counts_end], buckets)
        marks = piece[counts_end:]
        if len(marks) != 2 * int(counts.sum()):
            raise RemoteProtocolError(f"piece of a statement with {len(marks)} bytes of marks")
        rows = np.zeros((buckets, MARKS), np.uint16)
        rows[np.arange(MARKS) < counts[:, None]] = np.frombuffer(marks, "<u2")
        self._rows[begin : begin + buckets] = rows
        self.stated += int(counts.sum())


def bits_of(piece: memoryview) -> int:
    """Read the size of the table that a piece belongs to. Raises as `StatementTable.take`."""
    return _read_head(piece)[0]


def _read_head(piece: memoryview) -> tuple[int, int, int, int]:
    if not HEAD.size <= len(piece) <= PIECE_BYTES_MAX:
        raise LimitExceededError(f"piece of a statement of {len(piece)} bytes")
    version, bits, reserved, begin, buckets, counts_bytes = HEAD.unpack_from(piece)
    fits = BITS_MIN <= bits <= BITS_MAX and 1 <= buckets <= PIECE_BUCKETS and begin + buckets <= 1 << bits
    if version != VERSION or reserved or not fits or HEAD.size + counts_bytes > len(piece):
        raise RemoteProtocolError(f"piece of a statement begins with {bytes(piece[: HEAD.size]).hex()}")
    return bits, begin, buckets, HEAD.size + counts_bytes


def _counts(packed: memoryview, buckets: int) -> NDArray[np.uint8]:
    try:
        size = zstandard.get_frame_parameters(packed).content_size
        if size != buckets:
            raise RemoteProtocolError(f"piece of a statement with counts of {size} buckets, not {buckets}")
        counts = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"piece of a statement: {error}") from error
    if int(counts.max()) > MARKS:
        raise RemoteProtocolError("piece of a statement with too many marks in a bucket")
    return counts
