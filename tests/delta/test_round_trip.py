"""What goes in comes out, in the form that is expected, whatever the pages and however small the cache."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_migrate.delta import RAW, RAW_BYTES_MAX, Codec, Coding, Compressor, PageEncoder, raw_payload
from dwcp_migrate.delta.codec import Decompressor
from dwcp_migrate.delta.decoder import PageDecoder
from dwcp_migrate.errors import LocalProtocolError
from dwcp_migrate.qemu import Cut, Layout, RamBlocks, StreamParser
from tests.delta.streams import PAGE, Pair, noise, stream, touched
from tests.vectors.load import CASES, connections

CODINGS = [Coding(Codec.NONE), Coding(Codec.LZ4), Coding(Codec.ZSTD, 1), Coding(Codec.ZSTD, 6)]
ZSTD = Coding(Codec.ZSTD, 1)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("case", CASES)
def test_recorded_streams_are_rebuilt_with_every_codec(case: str, coding: Coding) -> None:
    pair = Pair(64 * PAGE, coding)
    for data in connections(case):
        pair.carry(data[: 1 << 20])


def test_each_form_is_used_where_it_is_the_cheapest() -> None:
    pair = Pair(1 << 20, ZSTD)
    first = pair.carry(stream((0, noise(0)), (1, noise(1)), (2, noise(0)), (3, b"\0"), (4, bytes(PAGE))))
    assert (first.new, first.duplicate, first.listed_zero, first.zero, first.resent) == (2, 1, 1, 1, 0)
    again = pair.carry(stream((0, noise(0)), (1, touched(noise(1), 9)), (2, noise(7)), (9, noise(1)), (3, b"\0")))
    assert (again.same, again.delta, again.new, again.duplicate) == (1, 1, 1, 1)
    assert (again.resent, again.resent_zero) == (3, 1)


def test_a_page_with_most_words_changed_is_sent_as_the_smaller_of_both_forms() -> None:
    pair = Pair(1 << 20, ZSTD)
    pair.carry(stream((0, noise(0)), (1, noise(1))))
    shallow = (np.frombuffer(noise(0), np.uint64) ^ np.uint64(1)).tobytes()
    counts = pair.carry(stream((0, shallow)))
    assert (counts.delta, counts.new) == (1, 0)
    counts = pair.carry(stream((1, bytes(range(256)) * 16)))
    assert (counts.delta, counts.new) == (0, 1)


def test_resent_pages_cost_little_and_zero_pages_nearly_nothing() -> None:
    pair = Pair(4 << 20, ZSTD)
    pair.carry(stream(*((number, noise(number)) for number in range(256))))
    before = pair.wire_bytes
    pair.carry(stream(*((number, touched(noise(number), 4)) for number in range(256))))
    assert pair.wire_bytes - before < 256 * PAGE / 50
    before = pair.wire_bytes
    pair.carry(stream(*((number, b"\0") for number in range(100_000))))
    assert pair.wire_bytes - before < 1000


def test_a_full_cache_keeps_resent_pages_rather_than_new_ones() -> None:
    pair = Pair(8 * PAGE, ZSTD)
    pair.carry(stream(*((number, noise(number)) for number in range(16))))
    counts = pair.carry(stream(*((number, touched(noise(number), 3)) for number in range(8, 12))))
    assert counts.new == 4  # not kept in the first pass
    counts = pair.carry(stream(*((number, touched(noise(number), 5, 1)) for number in range(8, 12))))
    assert counts.delta == 4  # kept since


def test_a_reset_empties_both_caches_and_later_segments_are_rebuilt() -> None:
    pair = Pair(1 << 20, ZSTD)
    pair.carry(stream((0, noise(0)), (1, noise(1))))
    pair.encoder.reset()
    counts = pair.carry(stream((0, touched(noise(0), 2)), (1, noise(1))))
    assert (counts.new, counts.delta, counts.same, counts.resent) == (2, 0, 0, 2)
    assert pair.carry(stream((0, noise(0)))).delta == 1


def test_a_segment_that_could_not_be_prepared_is_skipped_and_a_reset_heals() -> None:
    pair = Pair(1 << 20, ZSTD)
    data = stream((0, noise(0)))
    view = memoryview(data)
    lost = pair.encoder.classify(view, Cut(0, len(data), _layout(data)))
    assert lost.state_sequence == 0
    pair.decoder.skip(0)
    repaired = raw_payload(view)
    assert pair.decoder.apply(pair.decoder.prepare(repaired, len(data), pair.decompressor)) == view
    pair.encoder.reset()
    pair.carry(stream((0, noise(0)), (1, noise(0))))


def _layout(data: bytes) -> Layout | None:
    return StreamParser(RamBlocks()).feed(data, flush=True).cuts[0].layout


def test_jobs_may_be_encoded_in_any_order_and_applied_in_theirs() -> None:
    pair = Pair(1 << 20, ZSTD)
    streams = [stream(*((number, touched(noise(number), turn)) for number in range(20))) for turn in range(1, 5)]
    jobs = [pair.encoder.classify(memoryview(data), Cut(0, len(data), _layout(data))) for data in streams]
    payloads = {index: jobs[index].encode(ZSTD, Compressor()) for index in (2, 0, 3, 1)}
    prepared = {i: pair.decoder.prepare(payloads[i], len(streams[i]), Decompressor()) for i in (3, 1, 0, 2)}
    with pytest.raises(LocalProtocolError, match="was applied where 0 was due"):
        pair.decoder.apply(prepared[1])
    for index in range(4):
        assert pair.decoder.apply(prepared[index]) == streams[index]


def test_a_cut_at_the_limit_is_encoded_and_one_past_it_is_refused() -> None:
    encoder, decoder = PageEncoder(0), PageDecoder(0)
    raw = memoryview(np.random.default_rng(0).bytes(RAW_BYTES_MAX + 1))
    job = encoder.classify(raw, Cut(0, RAW_BYTES_MAX, None))
    payload = job.encode(ZSTD, Compressor())
    assert decoder.apply(decoder.prepare(payload, RAW_BYTES_MAX, Decompressor())) == raw[:RAW_BYTES_MAX]
    with pytest.raises(LocalProtocolError, match="at most"):
        encoder.classify(raw, Cut(0, RAW_BYTES_MAX + 1, None))


page_contents = st.one_of(
    st.just(b"\0"),
    st.integers(0, 5).map(noise),
    st.tuples(st.integers(0, 5), st.sampled_from([1, 40, 256, 257, 500])).map(lambda x: touched(noise(x[0]), x[1])),
    st.integers(0, 255).map(lambda value: bytes([value]) * PAGE),
)
pages = st.lists(st.tuples(st.integers(0, 12), page_contents), max_size=30)


MIX = (st.lists(pages, min_size=1, max_size=5), st.integers(0, 10), st.sampled_from(CODINGS), st.lists(st.booleans()))
Passes = list[list[tuple[int, bytes]]]


def check_mix(passes: Passes, slots: int, coding: Coding, resets: list[bool]) -> None:
    pair = Pair(slots * PAGE, coding)
    for index, parts in enumerate(passes):
        if index < len(resets) and resets[index]:
            pair.encoder.reset()
        pair.carry(stream(*parts))


@settings(max_examples=50, deadline=None)
@given(*MIX)
def test_any_mix_of_pages_and_resends_is_rebuilt(
    passes: Passes, slots: int, coding: Coding, resets: list[bool]
) -> None:
    check_mix(passes, slots, coding, resets)


@pytest.mark.long
@settings(max_examples=2000, deadline=None)
@given(*MIX)
def test_thousands_of_mixes_are_rebuilt(passes: Passes, slots: int, coding: Coding, resets: list[bool]) -> None:
    check_mix(passes, slots, coding, resets)


def test_pages_passed_over_arrive_as_they_are_and_later_differences_still_count_from_what_both_caches_hold() -> None:
    encoder, decoder = PageEncoder(1 << 20), PageDecoder(1 << 20)
    compressor, decompressor = Compressor(), Decompressor()
    versions = (noise(0), noise(5), touched(noise(0), 9))
    counts = []
    for turn, page in enumerate(versions):
        data = memoryview(stream((0, page), (1, b"\0")))
        fed = StreamParser(RamBlocks()).feed(data, flush=True)
        for cut in fed.cuts:
            job = encoder.pass_over(data, cut) if turn == 1 else encoder.classify(data, cut)
            payload = job.encode(RAW if turn == 1 else ZSTD, compressor)
            prepared = decoder.prepare(payload, job.raw_bytes, decompressor)
            assert bytes(decoder.apply(prepared)) == data[cut.begin : cut.end]
            counts.append(job.counts)
    assert [each.resent for each in counts if each.new or each.delta] == [0, 1, 1]
    assert counts[-1].delta == 1
