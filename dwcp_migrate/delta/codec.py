"""Compression of a segment's body: none, lz4 or zstd, one frame a segment, so that segments decode in any order.

One `Compressor` and one `Decompressor` belong to one thread: their contexts are reused and are not safe to share.
Nothing from the wire is trusted in size: a frame must say what it holds before a byte is allocated for it.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import lz4.block
import zstandard

from dwcp_migrate.errors import LimitExceededError, RemoteProtocolError
from dwcp_migrate.units import MIB

LEVEL_MAX: Final = 19
"""Highest zstd level that is asked for; above it the tables alone take hundreds of megabytes."""
WINDOW_BYTES_MAX: Final = 8 * MIB
"""Largest zstd window that is accepted."""
UNIT_BYTES: Final = 2 * MIB
"""Size that the tables of a level are chosen for: a segment's usual one."""
LEVEL_1: Final = {"min_match": 5, "hash_log": 15, "window_log": 19, "target_length": 1}
"""Parameters that decode fastest (measured, docs/hde.md). A target length above 0 makes the fast strategy
leave literals as they are: no Huffman coding, a quarter less work for the decoder. Matches of 5 bytes instead of 7 get
back two thirds of the bytes that this costs. A window of 512 KiB keeps the decoder in its caches."""
GAIN_MIN: Final = 1 / 32
"""Share that compression must save to be worth the other side's decompression."""


Data = bytes | memoryview


class Codec(IntEnum):
    """Compression of a body, as it stands on the wire."""

    NONE = 0
    LZ4 = 1
    ZSTD = 2


@dataclass(frozen=True, slots=True)
class Coding:
    """A codec and its level.

    Attributes:
        level: 1..`LEVEL_MAX`, zstd only.
        classified: whether pages are looked at: compared, kept, sent in their cheapest form. Else a segment goes as it
            is, and costs neither the page cache nor its copies.
        raisable: whether segments of pages sent before may take a higher level.
    """

    codec: Codec
    level: int = 1
    classified: bool = True
    raisable: bool = True

    def hurried(self) -> "Coding":
        """Return the coding for a segment that a guest waits for: no level that takes longer than the cheapest."""
        return replace(self, level=1, raisable=False)

    def __str__(self) -> str:
        if not self.classified:
            return "raw"
        return f"zstd {self.level}" if self.codec is Codec.ZSTD else self.codec.name.lower()


NO_CODING: Final = Coding(Codec.NONE)
RAW: Final = Coding(Codec.NONE, classified=False)


class Compressor:
    """Contexts of one thread, one for each level in use."""

    def __init__(self) -> None:
        self._zstd: dict[int, zstandard.ZstdCompressor] = {}

    def compress(self, data: Data, coding: Coding) -> tuple[Codec, Data]:
        """Compress if it pays.

        Args:
            data: any bytes.
            coding: codec and level.

        Returns:
            The codec that was used and its result; `data` itself under `NONE`.
        """
        size = memoryview(data).nbytes
        if coding.codec is Codec.NONE or not size:
            return Codec.NONE, data
        result = self._lz4(data) if coding.codec is Codec.LZ4 else self._context(coding.level).compress(data)
        if len(result) > size - size * GAIN_MIN:
            return Codec.NONE, data
        return coding.codec, result

    def _lz4(self, data: Data) -> bytes:
        result: bytes = lz4.block.compress(data, store_size=False)
        return result

    def _context(self, level: int) -> zstandard.ZstdCompressor:
        context = self._zstd.get(level)
        if context is None:
            context = self._zstd[level] = zstandard.ZstdCompressor(compression_params=_parameters(level))
        return context


def _parameters(level: int) -> zstandard.ZstdCompressionParameters:
    """The level's own, but for level 1: see `LEVEL_1`."""
    special = LEVEL_1 if level <= 1 else {}
    return zstandard.ZstdCompressionParameters.from_level(
        min(level, LEVEL_MAX), source_size=UNIT_BYTES, write_content_size=True, **special
    )


class Decompressor:
    """Context of one thread."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)

    def decompress(self, codec: int, data: memoryview, size: int) -> bytes | memoryview:
        """Decompress a body.

        Args:
            codec: as it stands on the wire; anything.
            data: the compressed bytes.
            size: bytes that it has to hold, within limits.

        Raises:
            RemoteProtocolError: an unknown codec, damaged data, or it holds another number of bytes.
            LimitExceededError: the frame wants a window above `WINDOW_BYTES_MAX`.
        """
        try:
            result = self._decompress(codec, data, size)
        except (zstandard.ZstdError, lz4.block.LZ4BlockError) as error:
            raise RemoteProtocolError(f"segment does not decompress: {error}") from error
        if len(result) != size:
            raise RemoteProtocolError(f"segment holds {len(result)} bytes, announced were {size}")
        return result

    def _decompress(self, codec: int, data: memoryview, size: int) -> bytes | memoryview:
        if codec == Codec.NONE:
            return data
        if not size:
            raise RemoteProtocolError("nothing was compressed")
        if codec == Codec.LZ4:
            block: bytes = lz4.block.decompress(data, uncompressed_size=size)
            return block
        if codec != Codec.ZSTD:
            raise RemoteProtocolError(f"unknown codec {codec}")
        frame = zstandard.get_frame_parameters(data)
        if frame.window_size > WINDOW_BYTES_MAX:
            raise LimitExceededError(f"segment wants a window of {frame.window_size} bytes")
        if frame.content_size != size:
            raise RemoteProtocolError(f"segment says {frame.content_size} bytes, announced were {size}")
        return self._zstd.decompress(data, allow_extra_data=False)
