"""The source's page cache: the last versions sent, which the destination holds in the same slots.

Only the source has a policy; it names slots in the stream and the destination obeys. Slots are given out in order while
there are free ones. When there are none, a page that is sent for the first time is not kept: it is less likely to come
again than one that already came twice. For that one a slot is taken by a clock that spares slots used since it passed.

The hash is 64-bit multilinear (a dot product with odd random words, modulo 2^64). It only proposes: equality is
checked byte for byte here, so it need not withstand an attacker.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.delta.payload import SLOTS_MAX, Slots
from dwcp_migrate.delta.table import NEVER, UNCACHED, PageTable, SlotNumbers
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.units import PAGE_BYTES

PAGE_WORDS: Final = PAGE_BYTES // 8
MULTIPLIERS: Final = np.random.Generator(np.random.PCG64(0xD3C9)).integers(
    0, 1 << 64, PAGE_WORDS, np.uint64
) | np.uint64(1)
"""Any odd words do; a fixed seed, so that a run can be repeated."""


def hash_pages(pages: Words) -> Words:
    """64-bit multilinear hash of each row of uint64[pages, 512]. A zero page's is 0."""
    hashes: Words = np.einsum("ij,j->i", pages, MULTIPLIERS)
    return hashes


@dataclass(slots=True)
class PageCache:
    """Slots, their pages, and the order of eviction.

    Attributes:
        slots: how many there are.
        table: which slot holds which page.
        used: slots given out so far, from 0 on.
        pages: uint64[slots, 512]; untouched slots take no memory.
    """

    slots: int
    used: int = 0
    table: PageTable = field(default_factory=PageTable)
    pages: Words = field(init=False)
    _hash: Words = field(init=False)
    _owner: Words = field(init=False)
    _hot: NDArray[np.bool_] = field(init=False)
    _by_hash: SlotNumbers = field(init=False)
    _shift: np.uint64 = field(init=False)
    _hand: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.slots <= SLOTS_MAX:
            raise ValueError(f"{self.slots} slots, at most {SLOTS_MAX}")
        bits = max(self.slots, 1).bit_length() + 1
        self.pages = np.empty((self.slots, PAGE_WORDS), np.uint64)
        self._hash = np.zeros(self.slots, np.uint64)
        self._owner = np.zeros(self.slots, np.uint64)
        self._hot = np.zeros(self.slots, np.bool_)
        self._by_hash = np.full(1 << bits, -1, np.int32)
        self._shift = np.uint64(64 - bits)

    def clear(self) -> None:
        """Empty all slots."""
        self.used = self._hand = 0
        self._hot[:] = False
        self._by_hash[:] = -1
        self.table.clear_slots()

    def forget(self, slots: Slots) -> None:
        """Note that the destination has other content in these slots."""
        slots = slots[slots < self.used]
        owners = self._owner[slots]
        current = self.table.get(owners) == slots
        self.table.put(owners[current], UNCACHED)
        self._hash[slots] = 0
        self._hot[slots] = False

    def find(self, hashes: Words) -> SlotNumbers:
        """A slot for each hash that may hold such a page, or -1."""
        found: SlotNumbers = self._by_hash[hashes >> self._shift]
        if not self.used:
            return found
        return np.where((found >= 0) & (self._hash[found] == hashes), found, np.int32(-1))

    def touch(self, slots: SlotNumbers) -> None:
        """Note that these slots were of use: the clock spares them once."""
        self._hot[slots] = True

    def store(
        self, keys: Words, hashes: Words, previous: SlotNumbers, pages: Words, rows: NDArray[np.intp]
    ) -> SlotNumbers:
        """Keep new versions; returns the slot of each, or `UNCACHED`. Keys must differ from each other.

        Args:
            keys: uint64[n].
            hashes: uint64[n].
            previous: int32[n], what the table said of the keys.
            pages: uint64[m, 512], and
            rows: int64[n], which of them are meant.
        """
        slots = np.full(len(keys), UNCACHED, np.int32)
        in_place = previous >= 0
        in_place[in_place] = self._owner[previous[in_place]] == keys[in_place]
        slots[in_place] = previous[in_place]
        self._hot[slots[in_place]] = True
        full = self.used
        self._give_free(slots, np.flatnonzero(~in_place))
        self._evict(slots, np.flatnonzero((slots < 0) & (previous != NEVER)), full)
        kept = slots >= 0
        chosen = slots[kept]
        if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1 and kept.all() and (np.diff(chosen) == 1).all():
            np.take(pages, rows, axis=0, out=self.pages[chosen[0] : chosen[-1] + 1], mode="clip")  # no copy between
        else:
            self.pages[chosen] = pages[rows[kept]]
        self._hash[chosen] = hashes[kept]
        self._owner[chosen] = keys[kept]
        self._by_hash[hashes[kept] >> self._shift] = chosen
        self.table.put(keys, slots)
        return slots

    def _give_free(self, slots: SlotNumbers, wanting: NDArray[np.intp]) -> None:
        count = min(len(wanting), self.slots - self.used)
        slots[wanting[:count]] = np.arange(self.used, self.used + count, dtype=np.int32)
        self.used += count

    def _evict(self, slots: SlotNumbers, wanting: NDArray[np.intp], full: int) -> None:
        """Turn the clock at most once around the first `full` slots for some that were not of use since it passed."""
        passed = 0
        while len(wanting) and passed < full:
            self._hand %= full
            look = min(full - self._hand, full - passed, 4 * len(wanting))
            victims = np.flatnonzero(~self._hot[self._hand : self._hand + look])[: len(wanting)] + self._hand
            if len(victims) == len(wanting):
                look = int(victims[-1]) + 1 - self._hand
            self._hot[self._hand : self._hand + look] = False
            self._hot[victims] = True
            self.table.put(self._owner[victims], UNCACHED)
            slots[wanting[: len(victims)]] = victims
            wanting = wanting[len(victims) :]
            passed += look
            self._hand += look
