"""Small made-up streams: precopy records around pages of chosen content."""

import struct
from functools import cache

import numpy as np

from dwcp_migrate.delta import Coding, Compressor, Decompressor, PageCounts, PageDecoder, PageEncoder
from dwcp_migrate.delta.decoder import Fetch
from dwcp_migrate.delta.encoder import KnownPages
from dwcp_migrate.qemu import Cut, RamBlocks, StreamParser

PAGE = 4096
BLOCK = b"pc.ram"
BLOCK_BYTES = 1 << 30


def stream(*parts: tuple[int, bytes], block_bytes: int = BLOCK_BYTES) -> bytes:
    """A precopy stream of (page number, content); content of one byte 0 is a zero record."""
    out = bytearray(b"QEVM\0\0\0\3\x01\0\0\0\2\x03ram" + bytes(7) + b"\x04")
    out += struct.pack(">Q", block_bytes | 4) + bytes([len(BLOCK)]) + BLOCK + struct.pack(">Q", block_bytes)
    out += struct.pack(">Q", 0x10) + b"\x7e\0\0\0\2\x02\0\0\0\2"
    first = bytes([len(BLOCK)]) + BLOCK
    for number, content in parts:
        flags = (0x02 if content == b"\0" else 0x08) | (0 if first else 0x20)
        out += struct.pack(">Q", number * PAGE | flags) + first + content
        first = b""
    return bytes(out + struct.pack(">Q", 0x10) + b"\x7e\0\0\0\2")


@cache
def noise(seed: int) -> bytes:
    """A page that does not compress."""
    return np.random.default_rng(seed).bytes(PAGE)


def touched(page: bytes, words: int, seed: int = 0) -> bytes:
    """The page with some 8-byte words changed."""
    result = np.frombuffer(page, np.uint64).copy()
    result[np.random.default_rng(seed).choice(512, words, replace=False)] ^= np.uint64(0x5A5A5A5A5A5A5A5A)
    return result.tobytes()


class Pair:
    """Both sides of one migration; every segment is checked."""

    def __init__(
        self, cache_bytes: int, coding: Coding, known: KnownPages | None = None, fetch: Fetch | None = None
    ) -> None:
        self.encoder, self.decoder = PageEncoder(cache_bytes, known=known), PageDecoder(cache_bytes, fetch)
        self.coding, self.compressor, self.decompressor = coding, Compressor(), Decompressor()
        self.counts, self.wire_bytes = PageCounts(), 0
        self.blocks = RamBlocks()

    def carry(self, data: bytes) -> PageCounts:
        """Carry a whole stream; returns its pages by form."""
        counts = PageCounts()
        parser, view = StreamParser(self.blocks), memoryview(data)
        fed = parser.feed(view, flush=True)
        for cut in fed.cuts:
            counts.add(self.segment(view, cut))
        assert fed.consumed == len(data)
        self.counts.add(counts)
        return counts

    def segment(self, view: memoryview, cut: Cut) -> PageCounts:
        """Carry one cut."""
        job = self.encoder.classify(view, cut)
        payload = job.encode(self.coding, self.compressor)
        self.wire_bytes += len(payload)
        prepared = self.decoder.prepare(payload, job.raw_bytes, self.decompressor)
        assert prepared.state_sequence == job.state_sequence
        assert self.decoder.apply(prepared) == view[cut.begin : cut.end]
        return job.counts
