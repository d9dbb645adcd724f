"""Priority at the source: what a running guest waits for, then the tail of a paused one, then bulk."""

from dwcp_migrate.dataplane.buffers import BufferPool
from dwcp_migrate.dataplane.connection import Outlet, Retained
from dwcp_migrate.dataplane.flow_control import FixedWindow, Gate
from dwcp_migrate.dataplane.known.misled import MISLED_SEGMENTS_MAX, UNEXPLAINED_MAX
from dwcp_migrate.dataplane.known.stated import StatedPages
from dwcp_migrate.dataplane.source_reader import SMALL_BYTES, PostcopyProgress, Stage
from dwcp_migrate.dataplane.worker_threads import WorkPool
from dwcp_migrate.delta import Codec, Coding, PageEncoder
from dwcp_migrate.qemu import Cut, RamBlocks, StreamParser
from dwcp_migrate.qemu.sniff import StreamKind
from dwcp_migrate.units import MIB
from tests.delta.streams import noise, stream
from tests.delta.test_known import Shelf
from tests.vectors.load import connections

POSTCOPY = "qemu-10.0-postcopy"


def opaque() -> StreamParser:
    parser = StreamParser(RamBlocks())
    parser.feed(b"\0" * 8)
    assert parser.kind is StreamKind.OPAQUE
    return parser


def big(size: int = 2 * MIB) -> Cut:
    return Cut(0, size, None)


def test_a_preempt_channel_is_urgent_whatever_its_size_once_the_guest_runs_there() -> None:
    postcopy, parser = PostcopyProgress(), opaque()
    assert not postcopy.is_urgent(parser, big())
    postcopy.is_urgent(StreamParser(RamBlocks()), Cut(0, 100, None, urgent=True, background=True))
    assert postcopy.is_urgent(parser, big())
    assert postcopy.asks(parser)


def test_background_pages_are_bulk_as_soon_as_requested_ones_have_a_channel_of_their_own() -> None:
    postcopy, main = PostcopyProgress(), StreamParser(RamBlocks())
    background = Cut(0, MIB, None, urgent=True, background=True)
    assert postcopy.is_urgent(main, background)  # without one, requested pages come among them
    postcopy.asks(opaque())
    assert not postcopy.is_urgent(main, background)
    assert postcopy.is_urgent(main, Cut(0, MIB, None, urgent=True))  # the device state goes before


def test_small_answers_on_what_is_not_parsed_are_urgent_and_large_ones_bulk() -> None:
    postcopy = PostcopyProgress()
    assert postcopy.is_urgent(opaque(), big(SMALL_BYTES))
    assert not postcopy.is_urgent(opaque(), big(SMALL_BYTES + 1))


def test_the_parser_tells_the_packaged_device_state_from_the_background_behind_it() -> None:
    data = memoryview(connections(POSTCOPY)[0])
    cuts = StreamParser(RamBlocks()).feed(data, flush=True).cuts
    urgent = [cut for cut in cuts if cut.urgent]
    assert [cut.background for cut in urgent] == sorted(cut.background for cut in urgent)
    assert any(cut.background for cut in urgent)
    assert not all(cut.background for cut in urgent)


def test_a_rejection_from_before_the_last_reset_throws_no_second_cache_away() -> None:
    encoder, parser = PageEncoder(MIB), StreamParser(RamBlocks())
    data = memoryview(stream((0, noise(0))))
    jobs = [encoder.classify(data, cut) for cut in parser.feed(data, flush=True).cuts]
    assert [job.state_sequence for job in jobs] == [0]
    assert encoder.reset_sequence == 0
    encoder.reset()
    assert encoder.reset_sequence == 1


class Rejections:
    """A source whose segments are rejected: real caches, and what it knows of the destination's store."""

    def __init__(self, *known: bytes) -> None:
        self.encoder, self._blocks = PageEncoder(MIB, known=Shelf(*known)), RamBlocks()
        self.stated = StatedPages(b"key")
        pool = WorkPool(1, "compress", lambda _: None)
        self.stage = Stage(self.encoder, pool, lambda _: None, lambda: Coding(Codec.NONE), self.stated)
        self._outlet = Outlet(0, lambda _: None, Gate(FixedWindow()))
        self._sent = 0

    def send(self, *pages: tuple[int, bytes]) -> Retained:
        """Send a segment of pages as a reader does."""
        data = memoryview(stream(*pages))
        (cut,) = [cut for cut in StreamParser(self._blocks).feed(data, flush=True).cuts if cut.layout is not None]
        self.stage.take(self._outlet, data, cut, BufferPool().lease(), urgent=False)
        kept = self._outlet.find(self._sent)
        self._sent += 1
        assert kept is not None
        return kept


def test_segments_that_followed_a_missing_page_before_that_was_known_cost_their_own_pages_and_no_others() -> None:
    known = [noise(number) for number in range(8)]
    source = Rejections(*known)
    source.send(*((number, noise(number)) for number in range(100, 110)))
    missing = source.send(*enumerate(known))
    following = source.send(*((50 + number, page) for number, page in enumerate(known)), (70, noise(70)))
    source.stage.before_repair(missing)
    late = source.send((90, noise(70)))
    source.stage.before_repair(following)
    source.stage.before_repair(late)
    assert source.stated.missed == 1
    assert source.encoder.reset_sequence == 0
    again = source.send(*((number, noise(number)) for number in range(100, 110)))
    assert again.slots is not None
    assert len(again.slots) == 0, "those before are as they were"


def test_a_segment_that_is_rejected_for_no_missing_page_empties_both_caches() -> None:
    source = Rejections(noise(0))
    first = source.send(*((number, noise(number)) for number in range(100, 110)))
    source.stage.before_repair(first)
    assert (source.encoder.reset_sequence, source.stated.missed) == (1, 0)


def test_one_after_all_that_a_missing_page_misled_empties_both_caches() -> None:
    known = [noise(number) for number in range(8)]
    source = Rejections(*known)
    source.stage.before_repair(source.send(*enumerate(known)))
    later = source.send(*((number, noise(number)) for number in range(100, 110)))
    source.stage.before_repair(later)
    assert source.encoder.reset_sequence == source.encoder.next_sequence


def test_word_of_a_segment_that_was_misled_may_come_before_that_of_the_missing_page() -> None:
    known = [noise(number) for number in range(8)]
    source = Rejections(*known)
    missing = source.send(*enumerate(known))
    following = source.send(*((50 + number, page) for number, page in enumerate(known)), (70, noise(70)))
    source.stage.before_repair(following)
    source.stage.before_repair(missing)
    assert (source.encoder.reset_sequence, source.stated.missed) == (0, 1)


def test_rejections_that_no_missing_page_explains_empty_both_caches_after_so_many() -> None:
    known = [noise(number) for number in range(8)]
    source = Rejections(*known)
    source.send(*enumerate(known))
    segments = [source.send((100 + number, noise(100 + number))) for number in range(UNEXPLAINED_MAX)]
    for segment in segments:
        source.stage.before_repair(segment)
    assert source.encoder.reset_sequence == 0
    later = source.send((300, noise(300)))
    source.stage.before_repair(later)
    assert source.encoder.reset_sequence == source.encoder.next_sequence


def test_what_came_too_long_after_a_segment_that_names_pages_was_not_misled_by_it() -> None:
    known = [noise(number) for number in range(8)]
    source = Rejections(*known)
    source.send(*enumerate(known))
    last = [source.send((100 + number, noise(100 + number))) for number in range(MISLED_SEGMENTS_MAX + 1)][-1]
    source.stage.before_repair(last)
    assert source.encoder.reset_sequence == source.encoder.next_sequence
