"""RAM records of the main channel: page, zero page and the other records of a RAM section.

    record = be64 (offset | flags) [u8 n, name[n] unless CONTINUE] body
    flags    ZERO 002: u8 0      PAGE 008: page[4096]      EOS 010: ends the section's records
             XBZRLE 040: u8 1, be16 n, data[n]      COMPRESS 100: be32 n, data[n]      FLUSH 200: nothing

In the steady state a page record is 4104 bytes and a zero record 9, one after the other: the headers of such a run are
one strided array, and the run's end is the first header in it whose flags differ, because all headers before it were
true ones. The block that CONTINUE means lives as long as the connection. Source: QEMU, migration/ram.c
(save_page_header, ram_load_precopy).
"""

from typing import Final

import numpy as np

from dwcp_migrate.qemu.blocks import RamBlocks
from dwcp_migrate.qemu.layout import BLOCK_SHIFT, Words
from dwcp_migrate.qemu.window import ParseWindow, Surprise
from dwcp_migrate.units import PAGE_BYTES

ZERO: Final = 0x002
MEM_SIZE: Final = 0x004
PAGE: Final = 0x008
EOS: Final = 0x010
CONTINUE: Final = 0x020
XBZRLE: Final = 0x040
COMPRESS: Final = 0x100
FLUSH: Final = 0x200
FLAGS_MASK: Final = PAGE_BYTES - 1

HEADER_BYTES: Final = 8
ZERO_RECORD_BYTES: Final = 9
PAGE_RECORD_BYTES: Final = HEADER_BYTES + PAGE_BYTES
COMPRESSED_BYTES_MAX: Final = PAGE_BYTES + PAGE_BYTES // 8
"""Bound of an XBZRLE or COMPRESS body: QEMU gives up above a page, zlib's compressBound is 13 bytes more."""

FIRST_LOOK: Final = 16
"""Records looked at first when a run's length is sought; four times as many each time that all belong to it."""


class RamRecords:
    """Steps over records. Counts the pages that it saw; the counts do not depend on how the stream was cut."""

    def __init__(self, blocks: RamBlocks) -> None:
        self.pages = 0
        self.zero_pages = 0
        self.passes = 0
        self.ended = False
        self.announced = 0
        self._blocks = blocks
        self._block: int | None = None
        self._last_key = -1
        self._skip = 0

    def step(self, window: ParseWindow, position: int) -> int:
        """See `window.Machine`; takes a record or a run of them."""
        if self._skip:
            return self._skip_body(window, position)
        if not window.has(position, HEADER_BYTES):
            return position
        header = window.integer(position, HEADER_BYTES)
        flags = header & FLAGS_MASK
        if flags == PAGE | CONTINUE:
            return self._page_run(window, position)
        if flags == ZERO | CONTINUE:
            return self._zero_run(window, position)
        return self._other(window, position, header)

    def _page_run(self, window: ParseWindow, position: int) -> int:
        count = _run_length(window, position, PAGE_RECORD_BYTES, PAGE | CONTINUE)
        if not count:
            return position
        headers = _headers(window, position, PAGE_RECORD_BYTES, count)
        keys = self._keys(headers)
        window.builder.page_records(position - window.base, headers, keys)
        self.pages += count
        return position + count * PAGE_RECORD_BYTES

    def _zero_run(self, window: ParseWindow, position: int) -> int:
        count = _run_length(window, position, ZERO_RECORD_BYTES, ZERO | CONTINUE)
        if not count:
            return position
        end = position + count * ZERO_RECORD_BYTES
        if window.raw[position + HEADER_BYTES : end : ZERO_RECORD_BYTES].any():
            raise Surprise("a zero page's fill byte is not zero")
        headers = _headers(window, position, ZERO_RECORD_BYTES, count)
        window.builder.zero_records(headers, self._keys(headers))
        self.zero_pages += count
        return end

    def _other(self, window: ParseWindow, position: int, header: int) -> int:
        flags = header & FLAGS_MASK
        if flags in (EOS, FLUSH):
            if header != flags:
                raise Surprise(f"record {header:#x} has an offset and no page")
            self.ended = flags == EOS
            window.builder.literal(HEADER_BYTES)
            return position + HEADER_BYTES
        if flags == MEM_SIZE:
            self.announced = header - flags
            window.builder.literal(HEADER_BYTES)
            return position + HEADER_BYTES
        return self._named(window, position, header)

    def _named(self, window: ParseWindow, position: int, header: int) -> int:
        """A record that names its block, or one whose body is not a page."""
        kind = header & FLAGS_MASK & ~CONTINUE
        if kind not in (PAGE, ZERO, XBZRLE, COMPRESS):
            raise Surprise(f"record with flags {header & FLAGS_MASK:#x}")
        body = position + HEADER_BYTES
        block = self._block
        if not header & CONTINUE:
            if not window.has(body, 1) or not window.has(body, 1 + window.view[body]):
                return position
            name = window.bytes(body + 1, window.view[body])
            block = self._blocks.known(name)
            body += 1 + len(name)
        if block is None:
            raise Surprise("a page of an unknown RAM block")
        return self._body(window, position, body, header, block)

    def _body(self, window: ParseWindow, position: int, body: int, header: int, block: int) -> int:
        kind = header & FLAGS_MASK & ~CONTINUE
        size = {PAGE: PAGE_BYTES, ZERO: 1, XBZRLE: 3, COMPRESS: 4}[kind]
        if not window.has(body, size):
            return position
        if kind == ZERO and window.view[body]:
            raise Surprise("a zero page's fill byte is not zero")
        if kind in (XBZRLE, COMPRESS):
            self._skip = window.integer(body + 1, 2) if kind == XBZRLE else window.integer(body, 4)
            if self._skip > COMPRESSED_BYTES_MAX:
                raise Surprise(f"a compressed page of {self._skip} bytes")
        self._block = block
        keys = self._keys(np.array([header], np.uint64))
        if kind == PAGE:
            window.builder.literal(body - position)
            window.builder.pages(body - window.base, keys)
            self.pages += 1
        else:
            window.builder.literal(body + size - position)
            if kind == ZERO:
                window.builder.zero_pages(keys)
                self.zero_pages += 1
        return body + size

    def _skip_body(self, window: ParseWindow, position: int) -> int:
        count = min(self._skip, window.end - position)
        window.builder.literal(count)
        self._skip -= count
        return position + count

    def _keys(self, headers: Words) -> Words:
        """Keys of the pages that `headers` mean; counts passes over memory on the way."""
        if self._block is None:
            raise Surprise("a page of an unknown RAM block")
        pages = headers >> np.uint64(12)
        if int(pages.max()) * PAGE_BYTES >= self._blocks.used_bytes(self._block):
            raise Surprise("a page beyond the end of its RAM block")
        keys = pages | np.uint64(self._block << BLOCK_SHIFT)
        self.passes += int(np.count_nonzero(keys[1:] < keys[:-1])) + (int(keys[0]) < self._last_key)
        self._last_key = int(keys[-1])
        return keys


def _run_length(window: ParseWindow, position: int, stride: int, flags: int) -> int:
    """Number of complete records from `position` on that have exactly `flags`."""
    available = (window.end - position) // stride
    if window.single:
        return min(available, 1)
    count, look = 0, FIRST_LOOK
    while count < available:
        size = min(look, available - count)
        # Flags are the low 12 bits: the last two bytes of the header hold them.
        low = np.ndarray(size, ">u2", window.raw, position + count * stride + 6, (stride,))
        others = (low & FLAGS_MASK) != flags
        if others.any():
            return count + int(others.argmax())
        count += size
        look *= 4
    return count


def _headers(window: ParseWindow, position: int, stride: int, count: int) -> Words:
    return np.ndarray(count, ">u8", window.raw, position, (stride,)).astype(np.uint64)
