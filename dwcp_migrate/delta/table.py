"""Page table: the cache slot that holds the version of each page that was sent last.

Two levels: a dictionary of chunks of 32768 pages (128 MiB of guest memory), each an int32 array, made when a page of it
is first seen. So memory follows what the guest uses, and a wild page number costs one chunk, not a huge array. When
there is no memory for a further chunk its pages stay what they were, `NEVER` sent: they are encoded as new each time.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.qemu.layout import Words

NEVER: Final = -1
"""The page was never sent."""
UNCACHED: Final = -2
"""The page was sent, its content is not in the cache."""

CHUNK_BITS: Final = 15
CHUNK_PAGES: Final = 1 << CHUNK_BITS
CHUNK_BYTES: Final = 4 * CHUNK_PAGES

SlotNumbers = NDArray[np.int32]


class PageTable:
    """Slot numbers by page key, `NEVER` and `UNCACHED` among them.

    Args:
        bytes_max: of all chunks; None is no limit.
    """

    def __init__(self, bytes_max: int | None = None) -> None:
        self._chunks_max = None if bytes_max is None else max(1, bytes_max // CHUNK_BYTES)
        self._chunks: dict[int, SlotNumbers] = {}

    def clear_slots(self) -> None:
        """Forget all slots; pages that were sent stay known as sent."""
        for chunk in self._chunks.values():
            chunk[chunk >= 0] = UNCACHED

    def get(self, keys: Words) -> SlotNumbers:
        """Look up the slots of `keys`."""
        slots = np.empty(len(keys), np.int32)
        for chunk, chosen in self._split(keys):
            slots[chosen] = chunk[keys[chosen] & np.uint64(CHUNK_PAGES - 1)]
        return slots

    def put(self, keys: Words, slots: SlotNumbers | int) -> None:
        """Remember slots; of equal keys the last counts.

        Args:
            keys: uint64[n].
            slots: int32[n], or one for all of them.
        """
        for chunk, chosen in self._split(keys):
            chunk[keys[chosen] & np.uint64(CHUNK_PAGES - 1)] = slots if isinstance(slots, int) else slots[chosen]

    def mark_sent(self, keys: Words) -> None:
        """Note pages that were sent without content (zero pages): known, unless they are cached already."""
        for chunk, chosen in self._split(keys):
            pages = keys[chosen] & np.uint64(CHUNK_PAGES - 1)
            chunk[pages] = np.where(chunk[pages] == NEVER, UNCACHED, chunk[pages])

    def _split(self, keys: Words) -> list[tuple[SlotNumbers, NDArray[np.bool_] | slice]]:
        """Chunks that `keys` fall into, each with the keys that do."""
        if not len(keys):
            return []
        chunks = keys >> np.uint64(CHUNK_BITS)
        first = int(chunks[0])
        if int(chunks[-1]) == first and not (chunks != chunks[0]).any():
            return [(self._chunk(first), slice(None))]
        return [(self._chunk(int(number)), chunks == number) for number in np.unique(chunks)]

    def _chunk(self, number: int) -> SlotNumbers:
        """The chunk of a number; beyond the bound one that nothing is remembered in."""
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = np.full(CHUNK_PAGES, NEVER, np.int32)
            if self._chunks_max is None or len(self._chunks) < self._chunks_max:
                self._chunks[number] = chunk
        return chunk
