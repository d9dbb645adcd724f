"""The bytes of a volume: an index file, and blocks of pages in a file beside it or in a disk image.

    index file   magic 8 | size of the head u32 | head, msgpack | hash u64[n] | key u64[n] | number u32[n] |
                 block's end u64[blocks] | xxh3_64 of all before u64
    pages file   blocks one after the other: at most `BLOCK_PAGES` pages each, as they are or one lz4 block

Little-endian; the columns are sorted by key. A page's number is `BLOCK_PAGES` times that of its block, and its place in
there. Of an image there is the index alone: a page's number is its offset in the image, in pages.
The checksum finds what is torn; a page is compared with its name each time that it is read.
"""

import struct
from dataclasses import dataclass
from typing import Final

import lz4.block
import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from dwcp_migrate.errors import StoreError
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.units import KIB, PAGE_BYTES

MAGIC: Final = b"DWCPVOL\x01"
BLOCK_PAGES: Final = 16
"""Pages that are compressed together: 64 KiB give lz4 nine tenths of what it makes of megabytes, and one page that is
read alone costs 20 µs."""
BLOCK_BYTES: Final = BLOCK_PAGES * PAGE_BYTES
VOLUME_PAGES_MAX: Final = 1 << 16
"""Pages of a volume: 256 MiB, the unit of eviction."""
IMAGE_PAGES_MAX: Final = 1 << 25
"""Blocks of one image: 128 GiB of data."""
HEAD_BYTES_MAX: Final = 16 * KIB
COMPRESSED_SHARE_MAX: Final = 7 / 8
"""Of its size, above which a block is kept as it is: it would be read slower and hardly smaller."""

PageNumbers = NDArray[np.uint32]

_SIZE: Final = struct.Struct("<I")
_SUM: Final = struct.Struct("<Q")


class VolumeHead(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a volume states of itself.

    Attributes:
        pages: in it.
        blocks: of the pages file; 0 of an image.
        made_at: seconds since the epoch.
        fill: where its pages came from: `sent`, `received` or `image`.
        scope: whose they are.
        image: its path; empty for pages of a guest.
        image_bytes: its size when it was read; it must still have it.
        image_changed_ns: its time of change, likewise.
        image_inode: its number, likewise.
    """

    pages: int
    blocks: int = 0
    made_at: float
    fill: str
    scope: str
    image: str = ""
    image_bytes: int = 0
    image_changed_ns: int = 0
    image_inode: int = 0


@dataclass(frozen=True, slots=True)
class VolumeIndex:
    """A volume's index.

    Attributes:
        hashes: uint64[n], of the pages as an encoder computes them, in the order of the keys.
        keys: uint64[n], sorted.
        numbers: uint32[n], where each page lies.
        ends: uint64[blocks], where each block ends.
    """

    head: VolumeHead
    hashes: Words
    keys: Words
    numbers: PageNumbers
    ends: Words


def pack_index(index: VolumeIndex) -> bytes:
    """The index file, its columns sorted."""
    order = np.argsort(index.keys, kind="stable")
    head = msgspec.msgpack.encode(index.head)
    body = b"".join(
        (
            MAGIC,
            _SIZE.pack(len(head)),
            head,
            index.hashes[order].astype("<u8").tobytes(),
            index.keys[order].astype("<u8").tobytes(),
            index.numbers[order].astype("<u4").tobytes(),
            index.ends.astype("<u8").tobytes(),
        )
    )
    return body + _SUM.pack(xxhash.xxh3_64_intdigest(body))


def read_head(data: memoryview) -> tuple[VolumeHead, int]:
    """The head of an index file, and where its columns begin; the rest is not looked at.

    Raises:
        StoreError: it is no index file.
    """
    begin = len(MAGIC) + _SIZE.size
    if len(data) < begin or bytes(data[: len(MAGIC)]) != MAGIC:
        raise StoreError("it is no index of a volume")
    (size,) = _SIZE.unpack_from(data, len(MAGIC))
    if size > HEAD_BYTES_MAX or begin + size > len(data):
        raise StoreError(f"its head is cut short, or of {size} bytes")
    try:
        head = msgspec.msgpack.decode(data[begin : begin + size], type=VolumeHead)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"its head cannot be read: {error}") from error
    if not (0 <= head.pages <= IMAGE_PAGES_MAX and 0 <= head.blocks <= VOLUME_PAGES_MAX):
        raise StoreError(f"it says {head.pages} pages in {head.blocks} blocks")
    return head, begin + size


def unpack_index(data: bytes) -> VolumeIndex:
    """Read an index file.

    Raises:
        StoreError: it is torn, or was never one.
    """
    view = memoryview(data)
    head, begin = read_head(view)
    end = begin + head.pages * 20 + head.blocks * 8
    if len(data) != end + _SUM.size:
        raise StoreError(f"its index has {len(data)} bytes, not {end + _SUM.size}")
    if xxhash.xxh3_64_intdigest(view[:end]) != _SUM.unpack_from(data, end)[0]:
        raise StoreError("its index is damaged")
    hashes_end = begin + head.pages * 8
    keys_end = hashes_end + head.pages * 8
    numbers_end = keys_end + head.pages * 4
    return VolumeIndex(
        head,
        np.frombuffer(data[begin:hashes_end], "<u8").astype(np.uint64, copy=False),
        np.frombuffer(data[hashes_end:keys_end], "<u8").astype(np.uint64, copy=False),
        np.frombuffer(data[keys_end:numbers_end], "<u4").astype(np.uint32, copy=False),
        np.frombuffer(data[numbers_end:end], "<u8").astype(np.uint64, copy=False),
    )


def pack_block(pages: Words) -> bytes:
    """A block of at most `BLOCK_PAGES` pages uint64[n, 512]."""
    raw = pages.tobytes()
    packed: bytes = lz4.block.compress(raw, store_size=False)
    return packed if len(packed) <= len(raw) * COMPRESSED_SHARE_MAX else raw


def unpack_block(data: bytes, pages: int) -> Words:
    """Read the pages of a block.

    Args:
        data: of the block, as it is or as one lz4 block.
        pages: in it, at most `BLOCK_PAGES`.

    Returns:
        uint64[pages, 512].

    Raises:
        StoreError: it is damaged.
    """
    size = pages * PAGE_BYTES
    if len(data) != size:
        try:
            data = lz4.block.decompress(data, uncompressed_size=size)
        except (lz4.block.LZ4BlockError, ValueError) as error:
            raise StoreError(f"a block is damaged: {error}") from error
    if len(data) != size:
        raise StoreError(f"a block holds {len(data)} bytes, not {size}")
    return np.frombuffer(data, np.uint64).reshape(pages, -1)
