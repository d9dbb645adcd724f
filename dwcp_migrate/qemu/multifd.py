"""A multifd channel: packets of up to 128 pages of one RAM block.

    first     be32 11223344, be32 1, uuid[16], u8 channel, zeros to 64 bytes
    packet    be32 11223344, be32 1, be32 flags, be32 pages_alloc, be32 normal, be32 next_packet_size, be64 number,
              be32 zero, 28 bytes, ram_block[256] NUL-terminated, be64 offset[128]       1344 bytes
              then `normal` pages in the order of the offsets, or next_packet_size bytes where flags name a compression
    device    flags & 40: 276 bytes in place of the 1344, then next_packet_size bytes of device state

`next_packet_size` is stale where `normal` is 0 (7.2), `pages_alloc` is 0 in SYNC packets (10.x): neither says how long
a packet is. Zero pages are the offsets behind the normal ones. Source: QEMU, migration/multifd.h, multifd.c.
"""

import uuid
from typing import Final

import numpy as np

from dwcp_migrate.qemu.blocks import RamBlocks
from dwcp_migrate.qemu.events import Event, GuestUuid
from dwcp_migrate.qemu.layout import BLOCK_SHIFT, LayoutBuilder, Words
from dwcp_migrate.qemu.sniff import MULTIFD_MAGIC, MULTIFD_VERSION
from dwcp_migrate.qemu.window import ParseWindow, Surprise
from dwcp_migrate.units import MIB, PAGE_BYTES

HELLO_BYTES: Final = 64
HEAD_BYTES: Final = 320
PACKET_PAGES: Final = 128
PACKET_BYTES: Final = HEAD_BYTES + 8 * PACKET_PAGES
DEVICE_BYTES: Final = 276
NAME_AT: Final = 64
NAME_BYTES: Final = 256

SYNC: Final = 0x01
DEVICE_STATE: Final = 0x40
COMPRESSION: Final = 0x3E
FLAGS: Final = SYNC | COMPRESSION | DEVICE_STATE

COMPRESSED_BYTES_MAX: Final = 2 * PACKET_PAGES * PAGE_BYTES
"""Bound of a compressed packet: QEMU's own buffers are compressBound of 512 KiB."""
DEVICE_STATE_BYTES_MAX: Final = 64 * MIB
"""Bound of one device-state packet. QEMU's vfio sends 1 MiB (VFIO_MIG_DEFAULT_DATA_BUFFER_SIZE)."""

SCATTERED: Final = 64
"""Progressions in a list of offsets beyond which it is sent literally: 13 bytes each against 8 an offset."""


class MultifdChannel:
    """Steps over a multifd channel from its first byte. See `window.Machine`."""

    urgent = False
    opaque = False

    def __init__(self, blocks: RamBlocks) -> None:
        self.pages = 0
        self.zero_pages = 0
        self._blocks = blocks
        self._greeted = False
        self._keys: Words = np.empty(0, np.uint64)
        self._left = 0
        self._events: list[Event] = []

    @property
    def unfinished(self) -> str:
        """See `window.Machine`; a channel may end behind any packet."""
        return "the rest of a packet" if self._left or len(self._keys) else ""

    def take_events(self) -> list[Event]:
        """Take the events since the last call."""
        events, self._events = self._events, []
        return events

    def step(self, window: ParseWindow, position: int) -> int:
        """See `window.Machine`."""
        if self._left:
            return self._skip(window, position)
        if len(self._keys):
            return self._pages(window, position)
        if not self._greeted:
            return self._hello(window, position)
        return self._packet(window, position)

    def _hello(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, HELLO_BYTES):
            return position
        self._greeted = True
        self._events.append(GuestUuid(str(uuid.UUID(bytes=window.bytes(position + 8, 16)))))
        window.builder.literal(HELLO_BYTES)
        return position + HELLO_BYTES

    def _skip(self, window: ParseWindow, position: int) -> int:
        count = min(self._left, window.end - position)
        self._left -= count
        window.builder.literal(count)
        return position + count

    def _pages(self, window: ParseWindow, position: int) -> int:
        count = min(len(self._keys), (window.end - position) // PAGE_BYTES)
        if window.single:
            count = min(count, 1)
        window.builder.pages(position - window.base, self._keys[:count])
        self._keys = self._keys[count:]
        self.pages += count
        return position + count * PAGE_BYTES

    def _packet(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, 12):
            return position
        if window.bytes(position, 4) != MULTIFD_MAGIC or window.integer(position + 4, 4) != MULTIFD_VERSION:
            raise Surprise("a packet without its magic number and version")
        flags = window.integer(position + 8, 4)
        if flags & ~FLAGS:
            raise Surprise(f"a packet with flags {flags:#x}")
        if flags & DEVICE_STATE:
            return self._device_state(window, position)
        if not window.has(position, PACKET_BYTES):
            return position
        return self._ram(window, position, flags)

    def _device_state(self, window: ParseWindow, position: int) -> int:
        if not window.has(position, DEVICE_BYTES):
            return position
        self._left = window.integer(position + DEVICE_BYTES - 4, 4)
        if self._left > DEVICE_STATE_BYTES_MAX:
            raise Surprise(f"a device state packet of {self._left} bytes")
        window.builder.literal(DEVICE_BYTES)
        return position + DEVICE_BYTES

    def _ram(self, window: ParseWindow, position: int, flags: int) -> int:
        normal, size = window.integer(position + 16, 4), window.integer(position + 20, 4)
        zero = window.integer(position + 32, 4)
        if normal + zero > PACKET_PAGES:
            raise Surprise(f"a packet of {normal} pages and {zero} zero pages")
        offsets = np.ndarray(PACKET_PAGES, ">u8", window.raw, position + HEAD_BYTES).astype(np.uint64)
        keys = self._page_keys(window, position, offsets[: normal + zero])
        if flags & COMPRESSION:
            self._left = size if normal else 0
            self.pages += normal
        else:
            self._keys = keys[:normal]
        if self._left > COMPRESSED_BYTES_MAX:
            raise Surprise(f"a compressed packet of {self._left} bytes")
        self.zero_pages += zero
        window.builder.zero_pages(keys[normal:])
        window.builder.literal(HEAD_BYTES)
        _add_offsets(window.builder, offsets)
        return position + PACKET_BYTES

    def _page_keys(self, window: ParseWindow, position: int, offsets: Words) -> Words:
        if not len(offsets):
            return offsets
        name = window.bytes(position + NAME_AT, NAME_BYTES).partition(b"\0")[0]
        block = self._blocks.number(name)
        if block is None or not name.isascii():
            raise Surprise("a packet for no RAM block")
        if int(offsets.max()) >= self._blocks.used_bytes(block) or (offsets & np.uint64(PAGE_BYTES - 1)).any():
            raise Surprise("an offset outside its RAM block, or not of a page")
        return (offsets >> np.uint64(12)) | np.uint64(block << BLOCK_SHIFT)


def _add_offsets(builder: LayoutBuilder, offsets: Words) -> None:
    """Add the list of offsets, stale ones included: progressions first, then zeros."""
    used = np.flatnonzero(offsets)
    count = int(used[-1]) + 1 if len(used) else 0
    if count and np.count_nonzero(np.diff(offsets[:count]) != PAGE_BYTES) >= SCATTERED:
        builder.literal(8 * count)
    elif count:
        builder.words(offsets[:count])
    builder.zeros(8 * (len(offsets) - count))
