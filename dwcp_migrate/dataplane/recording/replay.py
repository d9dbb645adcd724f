"""Replay: recorded connections of QEMU's run through parser, encoder, frames and decoder in one process, and measured.

A recording is the plain bytes of one connection in one file; the main channel's file comes first, multifd's after it.
Files are read piece by piece: memory is the two caches and `TOGETHER` segments, however long a recording is. So many
are encoded, then decoded: by turns for each segment, both sides would fight for a processor's caches, which on two
hosts they have to themselves.

    file -> parser -> encoder -> payload -> frame -> frame reader -> decoder -> bytes, compared with the file's

Times are thread CPU time, measured around each stage, so that other load on the machine does not count. The source's
share is parse + checksum + encode, the destination's decode + checksum; frames are listed apart. A segment is of the
first pass unless most of its pages had been sent before.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from dwcp_migrate.delta import Coding, Compressor, Decompressor, PageCounts, PageDecoder, PageEncoder, PageJob
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.qemu import Cut, RamBlocks, StreamParser
from dwcp_migrate.qemu.stream import SEGMENT_BYTES_MAX
from dwcp_migrate.transport.core import frames
from dwcp_migrate.transport.core.segment import Segment
from dwcp_migrate.units import GIB, KIB

TOGETHER: Final = 16
"""Segments that are encoded before they are decoded."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Options of a replay.

    Attributes:
        coding: of every segment.
        cache_bytes: of each side.
        segment_bytes: largest cut, and how much is read at a time.
        prefault: touch the caches' memory first, so that its page faults are not counted.
    """

    coding: Coding
    cache_bytes: int = 1 * GIB
    segment_bytes: int = SEGMENT_BYTES_MAX
    prefault: bool = False


class Pages(msgspec.Struct):
    """Pages by form: see `delta.PageCounts`. `opaque_bytes`: bytes of segments that were not parsed."""

    zero: int = 0
    duplicate: int = 0
    same: int = 0
    delta: int = 0
    new: int = 0
    resent: int = 0
    opaque_bytes: int = 0

    def add(self, counts: PageCounts) -> None:
        """Add a segment's pages."""
        self.zero += counts.zero + counts.listed_zero
        self.duplicate += counts.duplicate
        self.same += counts.same
        self.delta += counts.delta
        self.new += counts.new
        self.resent += counts.resent + counts.resent_zero


class Volume(msgspec.Struct):
    """Bytes before and after."""

    raw_bytes: int = 0
    wire_bytes: int = 0

    @property
    def ratio(self) -> float:
        """Wire bytes for each raw byte."""
        return self.wire_bytes / self.raw_bytes if self.raw_bytes else 0.0


class Seconds(msgspec.Struct):
    """Thread CPU time by stage."""

    parse: float = 0.0
    encode: float = 0.0
    frame: float = 0.0
    decode: float = 0.0
    checksum: float = 0.0


class ReplayReport(msgspec.Struct):
    """Result of one file, or of all together.

    Attributes:
        identical: every rebuilt byte equals the recorded one.
        opaque_reason: why parsing ended, or empty.
        unfinished: what the file lacks at its end, so that it was cut off; empty for a whole one.
        encode_cpu_s_per_gb: parse, encode and checksum for 10^9 raw bytes.
        decode_cpu_s_per_gb: decode and checksum for 10^9 raw bytes.
        peak_memory_bytes: of the whole process, both caches included.
    """

    file: str
    kind: str = ""
    identical: bool = True
    opaque_reason: str = ""
    unfinished: str = ""
    raw_bytes: int = 0
    wire_bytes: int = 0
    segments: int = 0
    pages: Pages = msgspec.field(default_factory=Pages)
    first_pass: Volume = msgspec.field(default_factory=Volume)
    resent: Volume = msgspec.field(default_factory=Volume)
    cpu_s: Seconds = msgspec.field(default_factory=Seconds)
    encode_cpu_s_per_gb: float = 0.0
    decode_cpu_s_per_gb: float = 0.0
    encode_bytes_per_s: float = 0.0
    decode_bytes_per_s: float = 0.0
    peak_memory_bytes: int = 0

    def finish(self) -> None:
        """Work out the rates."""
        cpu, gigabytes = self.cpu_s, max(self.raw_bytes, 1) / 1e9
        encode_s, decode_s = cpu.parse + cpu.encode + cpu.checksum, cpu.decode + cpu.checksum
        self.encode_cpu_s_per_gb, self.decode_cpu_s_per_gb = encode_s / gigabytes, decode_s / gigabytes
        self.encode_bytes_per_s, self.decode_bytes_per_s = (
            self.raw_bytes / max(seconds, 1e-9) for seconds in (encode_s, decode_s)
        )
        self.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


class Replay(msgspec.Struct):
    """All files of a migration and their total."""

    files: list[ReplayReport]
    total: ReplayReport


@dataclass(slots=True)
class _Sides:
    """Both ends of one migration."""

    options: ReplayOptions
    blocks: RamBlocks = field(default_factory=RamBlocks)
    compressor: Compressor = field(default_factory=Compressor)
    decompressor: Decompressor = field(default_factory=Decompressor)
    reader: frames.FrameReader = field(default_factory=frames.FrameReader)
    arrived: list[tuple[Segment, memoryview]] = field(default_factory=list)
    encoder: PageEncoder = field(init=False)
    decoder: PageDecoder = field(init=False)

    def __post_init__(self) -> None:
        self.encoder = PageEncoder(self.options.cache_bytes)
        self.decoder = PageDecoder(self.options.cache_bytes)
        if self.options.prefault:
            self.encoder.prefault()
            self.decoder.prefault()


def replay_recordings(paths: list[Path], options: ReplayOptions) -> Replay:
    """Replay the connections of one migration, main channel first.

    Args:
        paths: one file a connection.
        options: sizes and coding.

    Raises:
        NotFoundError: a file cannot be read.
    """
    sides = _Sides(options)
    reports = [_connection(sides, number, path) for number, path in enumerate(paths)]
    total = ReplayReport(file="total", kind="total")
    for report in reports:
        _add(total, report)
    total.finish()
    return Replay(reports, total)


def _connection(sides: _Sides, number: int, path: Path) -> ReplayReport:
    parser = StreamParser(sides.blocks, segment_bytes_max=sides.options.segment_bytes)
    report = ReplayReport(file=path.name)
    rest = memoryview(b"")
    try:
        with path.open("rb") as file:
            last = False
            while not last:
                piece = file.read(sides.options.segment_bytes - len(rest))
                last = not piece
                data = memoryview(bytes(rest) + piece)
                rest = data[_feed(sides, number, parser, data, report, last=last) :]
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from error
    _rebuild(sides, report)
    report.kind, report.opaque_reason, report.unfinished = parser.kind.value, parser.opaque_reason, parser.unfinished
    report.finish()
    return report


def _feed(
    sides: _Sides, number: int, parser: StreamParser, data: memoryview, report: ReplayReport, *, last: bool
) -> int:
    with _stage(report.cpu_s, "parse"):
        fed = parser.feed(data, flush=last)
    for cut in fed.cuts:
        _segment(sides, number, data, cut, report)
    report.raw_bytes += fed.consumed
    return fed.consumed


def _segment(sides: _Sides, number: int, data: memoryview, cut: Cut, report: ReplayReport) -> None:
    cpu, raw = report.cpu_s, data[cut.begin : cut.end]
    with _stage(cpu, "checksum"):
        checksum = xxhash.xxh3_64_intdigest(raw)
    with _stage(cpu, "encode"):
        job = sides.encoder.classify(data, cut)
        payload = job.encode(sides.options.coding, sides.compressor)
    with _stage(cpu, "frame"):
        segment, wire_bytes = _framed(sides, Segment(number, report.segments, 0, len(raw), checksum, payload))
    report.segments += 1
    _count(report, job, wire_bytes, opaque=cut.layout is None)
    sides.arrived.append((segment, raw))
    if len(sides.arrived) == TOGETHER:
        _rebuild(sides, report)


def _rebuild(sides: _Sides, report: ReplayReport) -> None:
    """Decode the segments that arrived and compare them with those that were sent."""
    decoder = sides.decoder
    for segment, raw in sides.arrived:
        with _stage(report.cpu_s, "decode"):
            rebuilt = decoder.apply(decoder.prepare(segment.payload, segment.raw_size, sides.decompressor))
        report.identical = report.identical and rebuilt == raw
    sides.arrived.clear()


def _framed(sides: _Sides, segment: Segment) -> tuple[Segment, int]:
    """Send a segment through the transport's codec; returns the segment that arrives and its bytes on the wire."""
    frame = frames.Frame(
        kind=frames.FrameKind.SEGMENT,
        connection=segment.connection,
        sequence=segment.sequence,
        raw_size=segment.raw_size,
        checksum=segment.checksum,
        total=len(segment.payload),
        payload=segment.payload,
    )
    header = frames.encode_header(frame)
    arrived = sides.reader.receive(header) + sides.reader.receive(segment.payload)
    (got,) = arrived
    rebuilt = Segment(got.connection, got.sequence, got.flags, got.raw_size, got.checksum, got.payload)
    return rebuilt, len(header) + len(segment.payload)


def _count(report: ReplayReport, job: PageJob, wire_bytes: int, *, opaque: bool) -> None:
    counts = job.counts
    report.wire_bytes += wire_bytes
    report.pages.add(counts)
    if opaque:
        report.pages.opaque_bytes += job.raw_bytes
    volume = report.resent if 2 * (counts.resent + counts.resent_zero) > counts.total else report.first_pass
    volume.raw_bytes += job.raw_bytes
    volume.wire_bytes += wire_bytes


@contextmanager
def _stage(cpu: Seconds, name: str) -> Iterator[None]:
    begin = time.thread_time()
    yield
    setattr(cpu, name, getattr(cpu, name) + time.thread_time() - begin)


def _add(total: ReplayReport, report: ReplayReport) -> None:
    """Sum up everything that is a count."""
    total.identical = total.identical and report.identical
    for name in ("raw_bytes", "wire_bytes", "segments"):
        setattr(total, name, getattr(total, name) + getattr(report, name))
    for name in ("pages", "first_pass", "resent", "cpu_s"):
        ours, theirs = getattr(total, name), getattr(report, name)
        for each in theirs.__struct_fields__:
            setattr(ours, each, getattr(ours, each) + getattr(theirs, each))
