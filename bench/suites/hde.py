"""Suite `hde`: each codec on zeros, text, guest memory and a mix, through encoder and decoder.

One process, thread CPU time; both caches hold everything. The memory is made here, seeded, so that any machine measures
the same bytes: what real guests give is measured by `bench/compare_qemu.py` and `dwcp-migrate replay`.

    zeros     zero pages as QEMU sends them: 9 bytes each, so 1 MB/s of stream is 455 MB/s of guest
    unlooked  zero pages sent in full, as with `zero-page-detection=none`
    text      log-like lines, 5:1 with zstd
    memory    a guest's memory in small: a fifth zero, a tenth duplicates, text, tables of numbers, pointers, noise
    mixed     a third each of text, memory, noise
    resent    the pages of `memory` again, 2 % of their words changed
"""

import statistics
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from bench.frame import Options, Row
from dwcp_migrate.delta import Codec, Coding, Compressor, Decompressor, PageDecoder, PageEncoder
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.qemu.records import CONTINUE, EOS, MEM_SIZE, PAGE, ZERO
from dwcp_migrate.qemu.stream import SEGMENT_BYTES_MAX
from dwcp_migrate.units import MIB, PAGE_BYTES

CODINGS: Final = {
    "none": Coding(Codec.NONE),
    "lz4": Coding(Codec.LZ4),
    "zstd-1": Coding(Codec.ZSTD, 1),
    "zstd-3": Coding(Codec.ZSTD, 3),
    "zstd-6": Coding(Codec.ZSTD, 6),
}
BYTES: Final = 64 * MIB
RUNS: Final = 5
BLOCK: Final = b"pc.ram"
METHOD: Final = (
    "thread CPU time of parser, encoder and decoder in one process, per byte of QEMU's stream (a zero page is 9 of "
    "them), seeded memory, caches touched before"
)


def rows(options: Options) -> list[Row]:
    """Measure all cases."""
    pages = (BYTES // 8 if options.quick else BYTES) // PAGE_BYTES
    runs = 1 if options.quick else RUNS
    return [
        row
        for name, stream in _streams(pages)
        for codec, coding in CODINGS.items()
        for row in _case(name, codec, stream, coding, runs)
    ]


def _case(name: str, codec: str, streams: list[bytes], coding: Coding, runs: int) -> Iterator[Row]:
    """Rows of one content and codec; of several streams the last one is measured."""
    results = [_carry(streams, coding) for _ in range(runs)]
    raw_bytes = len(streams[-1])
    wire_bytes = results[0][0]
    encode_s, decode_s = (statistics.median(result[index] for result in results) for index in (1, 2))
    case = f"content={name} codec={codec}"
    for metric, value, unit in (
        ("ratio", wire_bytes / raw_bytes, "1"),
        ("encode_throughput", raw_bytes / encode_s / 1e6, "MB/s"),
        ("decode_throughput", raw_bytes / decode_s / 1e6, "MB/s"),
        ("encode_cpu", encode_s / raw_bytes * 1e9, "s/GB"),
        ("decode_cpu", decode_s / raw_bytes * 1e9, "s/GB"),
    ):
        yield Row(case=case, metric=metric, value=value, unit=unit, n=runs, method=METHOD)


def _carry(streams: list[bytes], coding: Coding) -> tuple[int, float, float]:
    """Carry streams over one pair; payload bytes, encode and decode seconds of the last."""
    cache_bytes = sum(map(len, streams))
    encoder, decoder, blocks = PageEncoder(cache_bytes), PageDecoder(cache_bytes), RamBlocks()
    encoder.prefault()
    decoder.prefault()
    compressor, decompressor = Compressor(), Decompressor()
    for stream in streams:
        wire_bytes, encode_s, decode_s = 0, 0.0, 0.0
        parser, position = StreamParser(blocks), 0
        while position < len(stream):
            view = memoryview(stream)[position : position + SEGMENT_BYTES_MAX]
            begin = time.thread_time()
            fed = parser.feed(view, flush=position + len(view) == len(stream))
            jobs = [encoder.classify(view, cut) for cut in fed.cuts]
            payloads = [job.encode(coding, compressor) for job in jobs]
            middle = time.thread_time()
            for job, payload in zip(jobs, payloads, strict=True):
                decoder.apply(decoder.prepare(payload, job.raw_bytes, decompressor))
            decode_s += time.thread_time() - middle
            encode_s += middle - begin
            wire_bytes += sum(map(len, payloads))
            position += fed.consumed
    return wire_bytes, encode_s, decode_s


def _streams(pages: int) -> Iterator[tuple[str, list[bytes]]]:
    rng = np.random.Generator(np.random.PCG64(1))
    text, noise = text_pages(pages, rng), rng.integers(0, 1 << 64, (pages // 3, 512), np.uint64)
    memory = memory_pages(pages, text, rng)
    yield "zeros", [precopy_records([np.zeros((64 * pages, 0), np.uint64)])]
    yield "unlooked", [precopy_records([np.zeros((pages, 512), np.uint64)])]
    yield "text", [precopy_records([text])]
    yield "memory", [precopy_records([memory])]
    yield "mixed", [precopy_records([np.concatenate((text[: pages // 3], memory[: pages // 3], noise))])]
    changed = memory.copy()
    changed[:, ::50] += np.uint64(1)
    yield "resent", [precopy_records([memory]), precopy_records([changed])]


def text_pages(pages: int, rng: np.random.Generator) -> Words:
    """Lines of a log: few words, many numbers."""
    words = [rng.integers(97, 123, rng.integers(3, 10), np.uint8).tobytes() for _ in range(400)]
    picks, numbers = rng.integers(0, 400, (20_000, 6)), rng.integers(0, 10**6, 20_000)
    lines = [
        b"%d %s\n" % (number, b" ".join(words[pick] for pick in row))
        for row, number in zip(picks, numbers, strict=True)
    ]
    parts: list[bytes] = []
    size = 0
    while size < pages * PAGE_BYTES:
        line = lines[int(rng.integers(0, len(lines)))]
        parts.append(line)
        size += len(line)
    return np.frombuffer(b"".join(parts)[: pages * PAGE_BYTES], np.uint64).reshape(pages, 512)


def memory_pages(pages: int, text: Words, rng: np.random.Generator) -> Words:
    """Kinds of pages by turns: text, table, pointers, noise, and every tenth a copy of an earlier one."""
    kind = rng.integers(0, 10, pages)
    memory: Words = text[:pages].copy()
    counters = rng.integers(0, 1000, (pages, 512), np.uint64)
    pointers = np.uint64(0x7F00_0000_0000) + (rng.integers(0, 1 << 24, (pages, 512), np.uint64) << np.uint64(4))
    memory[kind == 3] = counters[kind == 3]  # noqa: PLR2004 - one kind in ten each
    memory[(kind >= 4) & (kind < 7)] = pointers[(kind >= 4) & (kind < 7)]  # noqa: PLR2004
    memory[kind == 7] = rng.integers(0, 1 << 64, (int((kind == 7).sum()), 512), np.uint64)  # noqa: PLR2004
    copies = np.flatnonzero(kind == 8)  # noqa: PLR2004
    memory[copies] = memory[copies // 2]
    return memory


def precopy_records(passes: Sequence[Words]) -> bytes:
    """A precopy stream of these pages, one section a pass; rows without words are zero pages."""
    total = max(map(len, passes)) * PAGE_BYTES
    head = b"QEVM\0\0\0\3\x01\0\0\0\2\x03ram" + bytes(7) + b"\x04" + struct.pack(">Q", total | MEM_SIZE)
    head += bytes([len(BLOCK)]) + BLOCK + struct.pack(">QQ", total, EOS) + b"\x7e\0\0\0\2"
    return b"".join((head, *(part for pages in passes for part in _section(pages))))


def _section(pages: Words) -> Iterator[bytes]:
    body = pages.shape[1] * 8 or 1
    flags = PAGE if pages.shape[1] else ZERO
    records = np.zeros((len(pages), 8 + body), np.uint8)
    headers = np.arange(len(pages), dtype=np.uint64) * np.uint64(PAGE_BYTES) | np.uint64(flags | CONTINUE)
    records[:, :8] = headers.astype(">u8").view(np.uint8).reshape(-1, 8)
    if pages.shape[1]:
        records[:, 8:] = pages.view(np.uint8)
    yield b"\x02\0\0\0\2" + struct.pack(">Q", flags) + bytes([len(BLOCK)]) + BLOCK + records[0, 8:].tobytes()
    yield records[1:].tobytes()
    yield struct.pack(">Q", EOS) + b"\x7e\0\0\0\2"
