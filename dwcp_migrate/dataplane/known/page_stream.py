"""A stream of pages in QEMU's form, without a QEMU: what a warm-up gives to the encoder. Pure.

It has the head of a precopy stream, a section of pages for each piece of memory, and no end: no device follows.
Pages are records at their guest-physical address of one RAM block. Zero pages are left out.
"""

import struct
from typing import Final

import numpy as np

from dwcp_migrate.units import PAGE_BYTES

BLOCK: Final = b"guest"
PAGE_WORDS: Final = PAGE_BYTES // 8

_FILE: Final = b"QEVM\0\0\0\3"
_FIRST_SECTION: Final = b"\x01\0\0\0\2\x03ram" + bytes(7) + b"\x04"
_SECTION: Final = b"\x02\0\0\0\2"
_FOOTER: Final = b"\x7e\0\0\0\2"
_MEM_SIZE: Final = 0x04
_PAGE: Final = 0x08
_END: Final = struct.pack(">Q", 0x10)
_SAME_BLOCK: Final = 0x20


def stream_head(end: int) -> bytes:
    """Return the bytes before the first page, of memory that ends at an address, a multiple of a page."""
    block = bytes([len(BLOCK)]) + BLOCK + struct.pack(">Q", end)
    return _FILE + _FIRST_SECTION + struct.pack(">Q", end | _MEM_SIZE) + block + _END + _FOOTER


def page_section(begin: int, data: bytes) -> tuple[bytes, int]:
    """Make the section of a piece of memory.

    Args:
        begin: its address, a multiple of a page.
        data: its bytes, whole pages.

    Returns:
        The section, and how many pages it has; empty where all are zero.
    """
    pages = np.frombuffer(data, np.uint64).reshape(-1, PAGE_WORDS)
    kept = np.flatnonzero(pages.any(axis=1))
    if not len(kept):
        return b"", 0
    records = np.empty((len(kept), 8 + PAGE_BYTES), np.uint8)
    addresses = np.uint64(begin | _PAGE | _SAME_BLOCK) + kept.astype(np.uint64) * np.uint64(PAGE_BYTES)
    records[:, :8] = addresses.astype(">u8").view(np.uint8).reshape(-1, 8)
    records[:, 8:] = pages[kept].view(np.uint8)
    first = struct.pack(">Q", int(addresses[0]) & ~_SAME_BLOCK) + bytes([len(BLOCK)]) + BLOCK
    parts = (_SECTION, first, records[0, 8:].tobytes(), records[1:].tobytes(), _END, _FOOTER)
    return b"".join(parts), len(kept)
