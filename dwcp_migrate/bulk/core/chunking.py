"""Cutting of an object into chunks, at places that its content decides.

An index or a snapshot that gains one entry moves everything behind it. Chunks of a fixed size would then all be new;
these keep their content, because a cut depends on the eight bytes before it and on nothing else.

The rule of a cut:

    behind a byte whose lower six bits are 0x2c (a comma in text), if the last eight bytes, multiplied, begin with
    enough zeros; never before half the mean size, always at four times the mean size

The byte is compared in one pass of numpy; only one place in 64 is looked at again. That is a gigabyte a second a core,
where a rolling hash over every byte in numpy would be a sixth of it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.errors import LocalProtocolError
from dwcp_migrate.units import KIB

MEAN_BYTES_MIN: Final = 2 * KIB
"""Smaller chunks would make the list of chunks a noticeable part of the object."""
MEAN_BYTES_MAX: Final = 512 * KIB
"""Larger ones would make one changed byte, and one request, dear."""
CHUNK_BYTES_MAX: Final = 4 * MEAN_BYTES_MAX
"""Largest chunk of all: what a peer makes this host hold for one answer."""
CHUNKS_AIMED_AT: Final = 512
"""Most chunks, in the mean, of an object whose chunks can be larger: one that changes is some 0.3 % of the object."""

_SLICE_BYTES: Final = 64 * KIB
"""Looked at in one go: numpy's temporaries stay in the processor's cache."""
_WINDOW: Final = 8
_LOW_BITS: Final = 6
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_LOW_VALUE: Final = 0x2C
_MULTIPLIER: Final = np.uint64(0x9E37_79B9_7F4A_7C15)

Octets = NDArray[np.uint8]


def choose_mean_bytes(size: int) -> int:
    """Choose the mean size of the chunks of an object: a power of two, a 512th of it or somewhat more.

    Args:
        size: bytes of the object.
    """
    mean = MEAN_BYTES_MIN
    while mean < MEAN_BYTES_MAX and mean * CHUNKS_AIMED_AT < size:
        mean *= 2
    return mean


class ChunkCutter:
    """Cuts the bytes of one object as they come; where the blocks end that are fed makes no difference.

    Args:
        mean_bytes: a power of two between `MEAN_BYTES_MIN` and `MEAN_BYTES_MAX`.

    Raises:
        LocalProtocolError: it is none.
    """

    def __init__(self, mean_bytes: int) -> None:
        if not MEAN_BYTES_MIN <= mean_bytes <= MEAN_BYTES_MAX or mean_bytes & (mean_bytes - 1):
            raise LocalProtocolError(f"chunks of {mean_bytes} bytes in the mean")
        self._least = mean_bytes // 2
        self._most = mean_bytes * 4
        self._shift = np.uint64(64 - (self._least.bit_length() - 1 - _LOW_BITS))
        self._tail = np.empty(0, np.uint8)
        self._start = 0
        self._end = 0

    def feed(self, block: bytes | memoryview) -> list[int]:
        """Take the next bytes; returns the lengths of the chunks that are complete with them."""
        with memoryview(block) as view:
            return [
                length
                for at in range(0, len(view), _SLICE_BYTES)
                for length in self._feed(np.frombuffer(view[at : at + _SLICE_BYTES], np.uint8))
            ]

    def _feed(self, fresh: Octets) -> list[int]:
        data = np.concatenate((self._tail, fresh)) if len(self._tail) else fresh
        base = self._end - len(self._tail)
        self._end += len(fresh)
        lengths: list[int] = []
        for place in self._places(data, first=len(self._tail)):
            end = base + place
            while end - self._start > self._most:
                lengths.append(self._cut(self._start + self._most))
            if end - self._start >= self._least:
                lengths.append(self._cut(end))
        while self._end - self._start >= self._most:
            lengths.append(self._cut(self._start + self._most))
        self._tail = data[-(_WINDOW - 1) :].copy()
        return lengths

    def finish(self) -> list[int]:
        """End the object; returns the length of its last chunk, nothing if it ended with a cut."""
        return [self._cut(self._end)] if self._end > self._start else []

    def _places(self, data: Octets, first: int) -> list[int]:
        """Offsets in the data behind which it may be cut, in order.

        Args:
            data: bytes.
            first: offset of those that were not looked at yet.
        """
        likely = np.flatnonzero((data[first:] & _LOW_MASK) == _LOW_VALUE) + first
        likely = likely[likely >= _WINDOW - 1]
        if not len(likely):
            return []
        windows = np.ndarray((len(data) - _WINDOW + 1,), "<u8", np.ascontiguousarray(data), strides=(1,))
        mixed = windows[likely - (_WINDOW - 1)] * _MULTIPLIER
        return [int(place) + 1 for place in likely[mixed >> self._shift == 0]]

    def _cut(self, end: int) -> int:
        length = end - self._start
        self._start = end
        return length
