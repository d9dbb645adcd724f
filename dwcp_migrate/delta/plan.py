"""Plan of a segment: its pages grouped by form and checked, as arrays that only need to be carried out.

    op       NEW NEW DELTA SAME NEW LOCAL ..      one for each page, in stream order
    new_at   0   1              4                 where the NEW pages go (here page numbers; really positions in bytes)
    changed_at       2                            changed_from: the slot that its difference is against
    copied_at              3                      copied_from: the slot that it equals

All of it belongs to the parallel half of decoding. Forms that a segment does not use cost nothing: most segments of a
first pass are NEW and nothing else.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.delta.payload import (
    DELTA,
    DIGEST_BYTES,
    DUPLICATE,
    KNOWN,
    LOCAL,
    NEW,
    NO_SLOT,
    OPS,
    SAME,
    STATE,
    ZERO,
    ColumnReader,
    Head,
    Slots,
)
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu.layout import Bytes, Positions, Words

Rows = NDArray[np.intp]

NO_ROWS: Final[Rows] = np.empty(0, np.intp)
NO_SLOTS: Final[Slots] = np.empty(0, np.uint32)
NO_DIGESTS: Final[Bytes] = np.empty((0, DIGEST_BYTES), np.uint8)
ALL: Final = slice(None)


@dataclass(frozen=True, slots=True)
class Kept:
    """Pages of an array that are to be kept, and their slots. Slices where they do: they copy in one go."""

    rows: Rows | slice
    slots: Slots | slice

    @property
    def any(self) -> bool:
        """Tell whether any page is to be kept."""
        return isinstance(self.slots, slice) or len(self.slots) > 0


NONE_KEPT: Final = Kept(ALL, NO_SLOTS)


@dataclass(frozen=True, slots=True)
class PagePlan:
    """Sources and destinations of pages; positions are in bytes of the raw segment.

    Attributes:
        new: uint64[n, 512], goes to `new_at`.
        difference: uint64[m, 512], XOR the slots `changed_from`, goes to `changed_at`.
        copied_from: slots whose pages go to `copied_at`.
        local_from: positions whose pages, once they are there, go to `local_at`.
        zero_at: positions of pages of zeros.
        new_kept: pages of `new` to store, and their slots.
        changed_kept: the same of the changed pages.
        known_digests: uint8[k, 16], of pages that come from this host's store, go to `known_at`.
        known_kept: the same of those.
    """

    new: Words
    new_at: Positions
    new_kept: Kept
    difference: Words
    changed_at: Positions
    changed_from: Slots
    changed_kept: Kept
    copied_at: Positions
    copied_from: Slots
    local_at: Positions
    local_from: Positions
    zero_at: Positions
    known_digests: Bytes
    known_at: Positions
    known_kept: Kept


@dataclass(frozen=True, slots=True)
class _Columns:
    """The pages' columns as they came, and how often each operation occurs."""

    op: Bytes
    count: list[int]
    ref: Slots
    store: Slots
    digest: Bytes


def read_plan(head: Head, reader: ColumnReader, pages: Words, positions: Positions, slots: int) -> PagePlan:
    """Take the pages' columns off the body and check them.

    Args:
        head: of the payload.
        reader: stands at the column of operations.
        pages: uint64[body pages, 512], the body's.
        positions: int64[pages], of all pages of the segment.
        slots: how many the cache has.

    Raises:
        RemoteProtocolError: an unknown operation, a number out of range, or state out of order.
    """
    op = reader.take(head.pages)
    count = np.bincount(op, minlength=OPS).tolist()
    if len(count) > OPS:
        raise RemoteProtocolError(f"unknown operation {len(count) - 1}")
    if count[NEW] + count[DELTA] != head.body_pages:
        raise RemoteProtocolError("segment's operations do not match the pages in its body")
    ref = reader.column(count[DELTA] + count[SAME] + count[DUPLICATE] + count[LOCAL], np.uint32)
    store = reader.column(head.body_pages + count[KNOWN], np.uint32)
    digest = reader.take(count[KNOWN] * DIGEST_BYTES).reshape(-1, DIGEST_BYTES)
    reader.finish()
    if count[NEW] == len(op):
        plan = _only_new(pages, positions, store, slots)
    else:
        plan = _grouped(_Columns(op, count, ref, store, digest), pages, positions, slots)
    kept = plan.new_kept.any or plan.changed_kept.any or plan.known_kept.any
    uses_cache = len(plan.changed_from) or len(plan.copied_from) or kept
    if uses_cache and not head.flags & STATE:
        raise RemoteProtocolError("segment uses the cache out of order")
    return plan


def _only_new(pages: Words, positions: Positions, store: Slots, slots: int) -> PagePlan:
    nowhere = positions[:0]
    return PagePlan(
        new=pages,
        new_at=positions,
        new_kept=_kept(store, slots),
        difference=pages[:0],
        changed_at=nowhere,
        changed_from=NO_SLOTS,
        changed_kept=NONE_KEPT,
        copied_at=nowhere,
        copied_from=NO_SLOTS,
        local_at=nowhere,
        local_from=nowhere,
        zero_at=nowhere,
        known_digests=NO_DIGESTS,
        known_at=nowhere,
        known_kept=NONE_KEPT,
    )


def _grouped(columns: _Columns, pages: Words, positions: Positions, slots: int) -> PagePlan:
    op, count, store = columns.op, columns.count, columns.store
    rows = [np.flatnonzero(op == form) if number else NO_ROWS for form, number in enumerate(count)]
    new, changed, local, known = rows[NEW], rows[DELTA], rows[LOCAL], rows[KNOWN]
    spread = len(changed) or len(known)
    copied = np.concatenate((rows[SAME], rows[DUPLICATE]))
    refs = _by_page(columns.ref, (op >= DELTA) & (op <= LOCAL))
    stores = _by_page(store, (op <= DELTA) | (op == KNOWN)) if spread else store
    changed_from, copied_from = refs[changed], refs[copied]
    _check_slots(changed_from, slots)
    _check_slots(copied_from, slots)
    return PagePlan(
        new=pages[: count[NEW]],
        new_at=positions[new],
        new_kept=_kept(stores[new] if spread else store, slots),
        difference=pages[count[NEW] :],
        changed_at=positions[changed],
        changed_from=changed_from,
        changed_kept=_kept(stores[changed], slots),
        copied_at=positions[copied],
        copied_from=copied_from,
        local_at=positions[local],
        local_from=_local(refs[local], op, positions),
        zero_at=positions[rows[ZERO]],
        known_digests=columns.digest,
        known_at=positions[known],
        known_kept=_kept(stores[known], slots),
    )


def _by_page(values: Slots, chosen: NDArray[np.bool_]) -> Slots:
    """A value for each page: those of the chosen ones in order, anything elsewhere."""
    result = np.zeros(len(chosen), np.uint32)
    if len(values):
        result[chosen] = values
    return result


def _check_slots(named: Slots, slots: int) -> None:
    if len(named) and int(named.max()) >= slots:
        raise RemoteProtocolError(f"segment names a slot beyond {slots}")


def _local(page: Slots, op: Bytes, positions: Positions) -> Positions:
    """Positions of the pages that others of their segment repeat."""
    if len(page) and (int(page.max()) >= len(op) or (op[page] > DELTA).any()):
        raise RemoteProtocolError("segment refers to a page of its own that has no content")
    return positions[page]


def _kept(store: Slots, slots: int) -> Kept:
    """The store column of one form, checked."""
    if not len(store):
        return NONE_KEPT
    if int(store.max()) < slots:
        first, count = int(store[0]), len(store)
        if int(store[-1]) - first == count - 1 and (store[1:] - store[:-1] == 1).all():
            return Kept(ALL, slice(first, first + count))
        return Kept(ALL, store)
    rows = np.flatnonzero(store != NO_SLOT)
    kept = store[rows]
    _check_slots(kept, slots)
    return Kept(rows, kept)
