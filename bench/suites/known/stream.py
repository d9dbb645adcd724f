"""One stream of guest memory through encoder and decoder, with no store, one of other pages, and one of its own.

The store is a real one in a directory; zstd level 1, as of a first pass. Thread CPU time of either side without the
transport; the ways take turns in each run, and a ratio is the median of the ratios of the runs.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import xxhash

from bench.frame import Row
from bench.suites.hde import memory_pages, precopy_records, text_pages
from dwcp_migrate.dataplane.known.stated import StatedPages
from dwcp_migrate.delta import Codec, Coding, Compressor, Decompressor, PageDecoder, PageEncoder
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.reader import PageReader
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import StoreFiller
from dwcp_migrate.transport import REMARKS, Segment
from dwcp_migrate.units import GIB, MIB, PAGE_BYTES

ZSTD_1: Final = Coding(Codec.ZSTD, 1)
RUNS: Final = 5
SCOPE: Final = "a"
METHOD: Final = "seeded guest memory, encoder and decoder by turns, thread CPU time"


class StreamCost(NamedTuple):
    """One stream, one way."""

    encode_s: float
    decode_s: float
    payload_bytes: int
    known_pages: int


def stream_rows(size: int) -> list[Row]:
    """Measure a stream of so many bytes of memory."""
    memory = _memory(size, 1)
    data = precopy_records([memory])
    with tempfile.TemporaryDirectory() as directory:
        shelves = {
            "none": None,
            "nothing": _filled(Path(directory) / "other", _memory(size, 2)),
            "everything": _filled(Path(directory) / "own", memory),
        }
        costs: dict[str, list[StreamCost]] = {way: [] for way in shelves}
        for _ in range(RUNS):
            for way, shelf in shelves.items():
                costs[way].append(_carry(data, PageReader(shelf, SCOPE, print) if shelf is not None else None))
    return [row for way in shelves for row in _rows(way, costs[way], costs["none"], len(data))]


def _memory(size: int, seed: int) -> Words:
    pages = size // PAGE_BYTES
    rng = np.random.Generator(np.random.PCG64(seed))
    memory = memory_pages(pages, text_pages(pages, rng), rng)
    memory[:, 3] ^= np.arange(pages, dtype=np.uint64) // np.uint64(3) * np.uint64(seed)
    return memory


def _filled(root: Path, pages: Words) -> Shelf:
    shelf = Shelf(root, GIB)
    StoreFiller(shelf, SCOPE, "sent").fill(pages, time.time())
    return shelf


def _stated(reader: PageReader) -> StatedPages:
    stated = StatedPages(reader.key)
    for sequence, piece in enumerate(reader.statement().pieces()):
        stated.take(Segment(REMARKS, sequence, 0, len(piece), xxhash.xxh3_64_intdigest(piece), piece))
    return stated


def _carry(data: bytes, reader: PageReader | None) -> StreamCost:
    encoder = PageEncoder(2 * GIB, known=_stated(reader) if reader is not None else None)
    decoder = PageDecoder(2 * GIB, reader.fetch if reader is not None else None)
    compressor, decompressor = Compressor(), Decompressor()
    view, known, size, encode_s, decode_s = memoryview(data), 0, 0, 0.0, 0.0
    parser, at = StreamParser(RamBlocks()), 0
    while at < len(data):
        piece = view[at : at + 2 * MIB]
        fed = parser.feed(piece, flush=at + len(piece) == len(data))
        for cut in fed.cuts:
            begun = time.thread_time()
            job = encoder.classify(piece, cut)
            payload = job.encode(ZSTD_1, compressor)
            encode_s += time.thread_time() - begun
            begun = time.thread_time()
            rebuilt = decoder.apply(decoder.prepare(payload, job.raw_bytes, decompressor))
            decode_s += time.thread_time() - begun
            if rebuilt != piece[cut.begin : cut.end]:
                raise AssertionError("a segment was rebuilt wrong")
            known, size = known + job.counts.known, size + len(payload)
        at += fed.consumed
    return StreamCost(encode_s, decode_s, size, known)


def _rows(way: str, costs: list[StreamCost], none: list[StreamCost], raw_bytes: int) -> list[Row]:
    pairs = list(zip(costs, none, strict=True))
    values = [
        ("encode_cpu_s_per_gb", median(one.encode_s for one in costs) / raw_bytes * 1e9, "s/GB"),
        ("decode_cpu_s_per_gb", median(one.decode_s for one in costs) / raw_bytes * 1e9, "s/GB"),
        ("encode_cpu_over_none", median(one.encode_s / other.encode_s for one, other in pairs), "1"),
        ("decode_cpu_over_none", median(one.decode_s / other.decode_s for one, other in pairs), "1"),
        ("payload_bytes", costs[0].payload_bytes, "B"),
        ("payload_over_none", costs[0].payload_bytes / none[0].payload_bytes, "1"),
        ("known_share", costs[0].known_pages * PAGE_BYTES / raw_bytes, "1"),
    ]
    return [
        Row(case=f"known/stream/{way}", metric=name, value=value, unit=unit, n=len(costs), method=METHOD)
        for name, value, unit in values
    ]
