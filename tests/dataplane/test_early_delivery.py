"""What refers to nothing is delivered before its turn, within a bound; what refers to something is not."""

import threading
from collections.abc import Iterable
from dataclasses import replace

import xxhash

from dwcp_migrate.dataplane.decode_pipeline import Rebuild
from dwcp_migrate.dataplane.worker_threads import WorkPool
from dwcp_migrate.delta import NO_CODING, Compressor, PageDecoder, PageEncoder
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.transport import Segment
from dwcp_migrate.units import MIB
from tests.delta.streams import PAGE, noise, stream, touched


class Side:
    """A source's encoder, and the half of a destination that rebuilds."""

    def __init__(self, early_bytes_max: int = 16 * MIB) -> None:
        self.delivered: list[int] = []
        self.rejected: list[int] = []
        self.raw: dict[int, bytes] = {}
        self._news = threading.Condition()
        self._pool = WorkPool(1, "test", self.rejected.append)  # type: ignore[arg-type]
        self._rebuild = Rebuild(PageDecoder(32 * MIB), self._pool, self._deliver, self._reject, early_bytes_max)
        self._parser, self._encoder = StreamParser(RamBlocks()), PageEncoder(32 * MIB)

    def _deliver(self, segment: Segment, raw: memoryview) -> None:
        assert bytes(raw) == self.raw[segment.sequence]
        with self._news:
            self.delivered.append(segment.sequence)
            self._news.notify_all()

    def _reject(self, segment: Segment) -> None:
        self.rejected.append(segment.sequence)

    def segments(self, *parts: bytes) -> list[Segment]:
        """One for each part of the stream."""
        made = []
        for number, part in enumerate(parts):
            cut = self._parser.feed(part, flush=True).cuts[0]
            payload = self._encoder.classify(memoryview(part), cut).encode(NO_CODING, Compressor())
            self.raw[number] = part
            made.append(Segment(0, number, 0, len(part), xxhash.xxh3_64_intdigest(part), payload))
        return made

    def take(self, *segments: Segment) -> None:
        """Rebuild them, and wait until the pool is through."""
        done = threading.Event()
        for segment in segments:
            self._rebuild.take(segment)
        self._pool.submit(done.set)
        assert done.wait(30)


def parts() -> tuple[bytes, bytes, bytes]:
    """Two runs of new pages, and the first one again with a word changed in each page."""
    pages = [noise(seed) for seed in range(128)]
    again = [touched(page, 1) for page in pages[:64]]
    return (
        stream(*enumerate(pages[:64])),
        records(enumerate(pages[64:], 64)),
        records(enumerate(again)),
    )


def records(pages: Iterable[tuple[int, bytes]]) -> bytes:
    """One more section of RAM."""
    return b"\x02\0\0\0\2" + stream(*pages).partition(b"\x02\0\0\0\2")[2]


def test_new_pages_are_delivered_before_their_turn_and_kept_in_it() -> None:
    side = Side()
    first, second, again = side.segments(*parts())
    side.take(again)
    side.take(second)
    assert side.delivered == [1]
    side.take(first)
    assert side.delivered == [1, 0, 2], "what refers to the first one waited for it"
    assert side.rejected == []


def test_no_more_is_delivered_early_than_the_bound() -> None:
    side = Side(early_bytes_max=64 * PAGE)
    first, second, _ = side.segments(*parts())
    assert second.raw_size > 64 * PAGE
    side.take(second)
    assert side.delivered == []
    side.take(first)
    assert side.delivered == [0, 1]


def test_wrong_bytes_are_not_delivered_early_and_are_asked_for_again_in_their_turn() -> None:
    side = Side()
    first, second, _ = side.segments(*parts())
    side.take(replace(second, checksum=second.checksum ^ 1))
    assert (side.delivered, side.rejected) == ([], [])
    side.take(first)
    assert (side.delivered, side.rejected) == ([0], [1])
