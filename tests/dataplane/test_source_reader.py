"""Priority at the source: what a running guest waits for, then the tail of a paused one, then bulk."""

from dwcp_migrate.dataplane.source_reader import SMALL_BYTES, PostcopyProgress
from dwcp_migrate.delta import PageEncoder
from dwcp_migrate.qemu import Cut, RamBlocks, StreamParser
from dwcp_migrate.qemu.sniff import StreamKind
from dwcp_migrate.units import MIB
from tests.delta.streams import noise, stream
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
