"""The source's half: the destination's statement, as the encoder asks for it.

A page that seems to be there and is not costs its segment a second time, raw. That happens once in 2^16 pages; where it
happens to more than `MISSES_MAX` segments and one in `SEGMENTS_A_MISS`, the store at the other end is not as stated,
and no page is named any more.
"""

import threading
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu.layout import Bytes, Words
from dwcp_migrate.store.digests import PageDigest
from dwcp_migrate.store.statement import PIECE_BUCKETS, StatementTable, bits_of
from dwcp_migrate.transport import Segment

MISSES_MAX: Final = 8
SEGMENTS_A_MISS: Final = 32


class StatedPages:
    """The destination's store as the source knows it; see `delta.KnownPages`.

    Attributes:
        missed: segments that named a page which was not there.

    Args:
        key: of the destination's names, as its agent gave it.
    """

    def __init__(self, key: bytes) -> None:
        self._digest = PageDigest(key)
        self._table: StatementTable | None = None
        self._lock = threading.Lock()
        self._ahead: set[int] = set()
        self._next = 0
        self._named = 0
        self.missed = 0

    @property
    def stated(self) -> int:
        """Pages stated so far."""
        return self._table.stated if self._table is not None else 0

    def take(self, segment: Segment) -> int:
        """Take a piece of the statement; returns the last of the pieces without a gap.

        Raises:
            RemoteProtocolError: it breaks the form, or there are more than a statement has.
        """
        piece = memoryview(segment.payload)
        if xxhash.xxh3_64_intdigest(piece) != segment.checksum or len(piece) != segment.raw_size:
            raise RemoteProtocolError("piece of a statement with a wrong checksum")
        with self._lock:
            table = self._table or StatementTable(bits_of(piece))
            if segment.sequence > (1 << table.bits) // min(PIECE_BUCKETS, 1 << table.bits):
                raise RemoteProtocolError("more pieces than a statement has")
            table.take(piece)
            self._table = table
            self._ahead.add(segment.sequence)
            while self._next in self._ahead:
                self._ahead.remove(self._next)
                self._next += 1
            return self._next - 1

    def likely(self, hashes: Words) -> NDArray[np.bool_]:
        """See `delta.KnownPages`."""
        table = self._table
        if table is None or self._is_given_up:
            return np.zeros(len(hashes), np.bool_)
        return table.likely(hashes)

    def digests(self, pages: Words) -> Bytes:
        """See `delta.KnownPages`."""
        return self._digest.of(pages)

    def named(self) -> None:
        """Note that a segment names pages."""
        self._named += 1

    def note_miss(self) -> None:
        """Note that a segment that named pages was refused."""
        self.missed += 1

    @property
    def _is_given_up(self) -> bool:
        return self.missed > MISSES_MAX and self.missed * SEGMENTS_A_MISS > self._named
