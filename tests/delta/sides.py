"""One side of HDE as a process of its own: `python -m tests.delta.sides encoder|decoder MEBIBYTES CACHE_MEBIBYTES`.

The encoder makes a guest's memory as it goes, no two pages equal, none of them zero, and a second pass over a quarter
of it; payloads go to its standard output. The decoder takes them from its standard input and checks every segment. At
the end each writes its peak resident memory in bytes to standard error.
"""

import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from dwcp_migrate.dataplane.malloc import keep_freed_memory
from dwcp_migrate.delta import Codec, Coding, Compressor, Decompressor, PageDecoder, PageEncoder
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu.records import CONTINUE, PAGE
from dwcp_migrate.units import KIB, MIB, PAGE_BYTES
from tests.delta.streams import noise, stream

FRAME = struct.Struct("<IIQ")
"""Payload bytes, raw bytes, checksum."""
PIECE_PAGES = 510
TAIL_BYTES = 13
"""The end of the section, which comes later here."""


def pieces(total_bytes: int) -> Iterator[bytes]:
    """The stream, piece by piece: half of each page is noise, so that it compresses a little."""
    pages = total_bytes // PAGE_BYTES
    yield stream((0, noise(0)), block_bytes=total_bytes)[:-TAIL_BYTES]
    pool = np.frombuffer(noise(1), np.uint64).copy()
    pool[256:] = 7
    for turn, end in ((1, pages), (2, pages // 4)):
        for first in range(1, end, PIECE_PAGES):
            numbers = np.arange(first, min(first + PIECE_PAGES, end), dtype=np.uint64)
            records = np.empty((len(numbers), 8 + PAGE_BYTES), np.uint8)
            headers = numbers * np.uint64(PAGE_BYTES) | np.uint64(PAGE | CONTINUE)
            records[:, :8] = headers.astype(">u8").view(np.uint8).reshape(-1, 8)
            content = np.broadcast_to(pool, (len(numbers), 512)).copy()
            content[:, :256] ^= (numbers * np.uint64(0x9E37_79B9_7F4A_7C15))[:, None]
            content[:, 0] = np.uint64(turn) << np.uint64(32) | numbers
            records[:, 8:] = content.view(np.uint8)
            yield records.tobytes()


def encode(total_bytes: int, cache_bytes: int) -> None:
    """Write all payloads."""
    encoder, parser, compressor = PageEncoder(cache_bytes), StreamParser(RamBlocks()), Compressor()
    rest = b""
    for piece in pieces(total_bytes):
        data = memoryview(rest + piece)
        fed = parser.feed(data)
        for cut in fed.cuts:
            raw = data[cut.begin : cut.end]
            payload = encoder.classify(data, cut).encode(Coding(Codec.ZSTD, 1), compressor)
            sys.stdout.buffer.write(FRAME.pack(len(payload), len(raw), xxhash.xxh3_64_intdigest(raw)) + payload)
        rest = bytes(data[fed.consumed :])
    assert not parser.opaque_reason
    sys.stdout.buffer.flush()


def decode(total_bytes: int, cache_bytes: int) -> None:
    """Rebuild all segments."""
    decoder, decompressor, rebuilt = PageDecoder(cache_bytes), Decompressor(), 0
    while head := sys.stdin.buffer.read(FRAME.size):
        size, raw_bytes, checksum = FRAME.unpack(head)
        raw = decoder.apply(decoder.prepare(sys.stdin.buffer.read(size), raw_bytes, decompressor))
        assert xxhash.xxh3_64_intdigest(raw) == checksum
        rebuilt += len(raw)
    assert rebuilt >= total_bytes * 5 // 4 - MIB


def peak_bytes() -> int:
    """Peak resident memory since the program began; getrusage would count the parent's before it."""
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) * KIB


def main() -> None:
    """Run one side."""
    assert keep_freed_memory()
    role, total, cache = sys.argv[1:]
    {"encoder": encode, "decoder": decode}[role](int(total) * MIB, int(cache) * MIB)
    sys.stderr.write(str(peak_bytes()))


if __name__ == "__main__":
    main()
