"""Extents of the guest's blocks in a disk image: raw, or qcow2 by its tables. Bytes in, extents out.

Of qcow2 (versions 2 and 3, docs/interop/qcow2.rst of QEMU) only clusters that lie in the image as the guest wrote them
count: not compressed, not zero, in no encrypted image and none with external data or extended entries. Other clusters
are no fault: their blocks are merely not found.

    header -> L1 table -> L2 tables -> host offset of each cluster; neighbours are joined to one extent
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from dwcp_migrate.errors import StoreError
from dwcp_migrate.units import MIB, PAGE_BYTES

MAGIC: Final = b"QFI\xfb"
HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")
"""Magic, version, backing file's name (offset, size), cluster bits, size, encryption, L1 entries, L1 offset, ..."""
HEADER_BYTES_MAX: Final = 112
L1_ENTRIES_MAX: Final = 4 * MIB // 8
"""As QEMU's own limit is 32 MiB of table: this is 2 TiB at the usual cluster size."""
CLUSTER_BITS_MIN: Final = 12
CLUSTER_BITS_MAX: Final = 21
OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
COMPRESSED: Final = 1 << 62
ZERO: Final = 1
INCOMPATIBLE_USABLE: Final = 0b11
"""Features that change nothing for a reader: dirty, corrupt (then blocks do not fit their names later)."""


class Extent(NamedTuple):
    """Bytes of an image that are the guest's as they stand there; both a multiple of a page."""

    offset: int
    size: int


ReadAt = Callable[[int, int], bytes]
"""Gives so many bytes from an offset, fewer at the end of the file."""


def extents(read: ReadAt, image_bytes: int) -> Iterator[Extent]:
    """Find the positions of the guest's blocks.

    Args:
        read: gives bytes of the image.
        image_bytes: its size.

    Yields:
        Extents in the order of the guest's addresses; of a raw image one.

    Raises:
        StoreError: a qcow2 image that cannot be read in this way, and why.
    """
    head = read(0, HEADER_BYTES_MAX)
    if head[:4] != MAGIC:
        yield Extent(0, image_bytes // PAGE_BYTES * PAGE_BYTES)
        return
    yield from _joined(_clusters(read, head, image_bytes))


def _clusters(read: ReadAt, head: bytes, image_bytes: int) -> Iterator[Extent]:
    bits, l1_entries, l1_offset = _header(head)
    l1_table = _table(read, l1_offset, l1_entries)
    entries = 1 << (bits - 3)
    for l1 in l1_table.tolist():
        if not l1 & OFFSET_MASK:
            continue
        l2_table = _table(read, l1 & OFFSET_MASK, entries)
        plain = (l2_table & np.uint64(COMPRESSED | ZERO)) == 0
        for offset in (l2_table[plain] & np.uint64(OFFSET_MASK)).tolist():
            if offset and offset + (1 << bits) <= image_bytes:
                yield Extent(offset, 1 << bits)


def _header(head: bytes) -> tuple[int, int, int]:
    if len(head) < HEADER.size:
        raise StoreError("it ends within its qcow2 header")
    _, version, _, _, bits, _, encryption, l1_entries, l1_offset, *_ = HEADER.unpack_from(head)
    if version not in (2, 3):
        raise StoreError(f"it is qcow2 of version {version}")
    if not CLUSTER_BITS_MIN <= bits <= CLUSTER_BITS_MAX:
        raise StoreError(f"it has clusters of 2^{bits} bytes")
    if encryption:
        raise StoreError("it is encrypted")
    incompatible = int.from_bytes(head[72:80], "big") if version == 3 else 0  # noqa: PLR2004 - the version
    if incompatible & ~INCOMPATIBLE_USABLE:
        raise StoreError(f"it uses features (0x{incompatible:x}) that move its blocks elsewhere")
    if l1_entries > L1_ENTRIES_MAX:
        raise StoreError(f"its L1 table has {l1_entries} entries, at most {L1_ENTRIES_MAX}")
    return bits, l1_entries, l1_offset


def _table(read: ReadAt, offset: int, entries: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    data = read(offset, entries * 8)
    if len(data) != entries * 8:
        raise StoreError("it ends within one of its tables")
    return np.frombuffer(data, ">u8").astype(np.uint64)


def _joined(found: Iterator[Extent]) -> Iterator[Extent]:
    begin = size = 0
    for extent in found:
        if size and extent.offset == begin + size:
            size += extent.size
            continue
        if size:
            yield Extent(begin, size)
        begin, size = extent
    if size:
        yield Extent(begin, size)
