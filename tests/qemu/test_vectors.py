"""Recorded streams of real QEMUs, whole and cut in all ways."""

import random

import numpy as np
import pytest

from dwcp_migrate.qemu import Fed, GuestUuid, Layout, RamBlocks, RamTotal, StreamKind, StreamParser, Switchover
from dwcp_migrate.qemu.events import Postcopy
from dwcp_migrate.qemu.layout import RUN_UNIT_BYTES
from tests.qemu.oracle import Found, parse_main, parse_multifd
from tests.vectors.load import CASES, connections, read

GUEST = "5ca1ab1e-0000-4000-8000-000000000001"


def check(fed: Fed, view: memoryview) -> list[Layout]:
    """Cuts are contiguous, layouts add up; returns the layouts."""
    position = 0
    layouts = []
    for cut in fed.cuts:
        assert cut.begin == position
        assert cut.end > cut.begin
        position = cut.end
        if cut.layout is not None:
            assert int((cut.layout.count * RUN_UNIT_BYTES[cut.layout.kind]).sum()) == cut.end - cut.begin
            layouts.append(cut.layout)
    assert position == fed.consumed <= len(view)
    return layouts


def parsed(data: bytes) -> tuple[StreamParser, Found]:
    """The fast parser's view of a whole stream, in the oracle's terms."""
    parser, found = StreamParser(RamBlocks()), Found()
    view, base = memoryview(data), 0
    while base < len(data):
        fed = parser.feed(view[base:], flush=True)
        check(fed, view[base:])
        for cut in fed.cuts:
            if cut.layout is not None:
                positions = cut.layout.page_position + base + cut.begin
                offsets = (cut.layout.page_key & np.uint64((1 << 36) - 1)) << np.uint64(12)
                found.pages += zip(positions.tolist(), offsets.tolist(), strict=True)
                zeros = (cut.layout.zero_key & np.uint64((1 << 36) - 1)) << np.uint64(12)
                found.zeros += zeros.tolist()
        base += fed.consumed
    return parser, found


@pytest.mark.parametrize("case", CASES)
def test_every_page_is_found_where_the_naive_parser_finds_it(case: str) -> None:
    for number, data in enumerate(connections(case)):
        parser, found = parsed(data)
        oracle = parse_multifd(data) if number else parse_main(data)
        assert found.pages == oracle.pages
        assert found.zeros == oracle.zeros
        assert parser.pages == len(oracle.pages) + oracle.compressed
        assert parser.kind is (StreamKind.MULTIFD if number else StreamKind.MAIN)


@pytest.mark.parametrize("case", CASES)
def test_random_cuts_change_neither_bytes_nor_page_counts(case: str) -> None:
    rng = random.Random(case)
    for data in connections(case):
        whole, _ = parsed(data)
        parser = StreamParser(RamBlocks(), segment_bytes_max=rng.choice((64 << 10, 1 << 20)))
        begin = end = 0
        while begin < len(data):
            end = min(len(data), end + rng.choice((1, 7, 300, 5000, 200_000)))
            view = memoryview(data)[begin:end]
            fed = parser.feed(view, flush=end == len(data) or rng.random() < 0.3)
            check(fed, view)
            begin += fed.consumed
        assert (parser.kind, parser.pages, parser.zero_pages) == (whole.kind, whole.pages, whole.zero_pages)
        assert parser.opaque_reason == whole.opaque_reason


@pytest.mark.parametrize("case", ["qemu-7.2-precopy", "qemu-10.0-multifd"])
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("size", [5_500, pytest.param(50_000, marks=pytest.mark.long)])
def test_byte_by_byte_finds_as_many_pages(case: str, size: int, *, flush: bool) -> None:
    for data in (connection[:size] for connection in connections(case)):
        whole = StreamParser(RamBlocks())
        whole.feed(data, flush=True)
        parser, begin = StreamParser(RamBlocks()), 0
        for end in range(1, len(data) + 1):
            view = memoryview(data)[begin:end]
            fed = parser.feed(view, flush=flush)
            check(fed, view)
            begin += fed.consumed
        assert not flush or begin == len(data)
        assert (parser.pages, parser.zero_pages) == (whole.pages, whole.zero_pages)


def test_flipped_bits_never_raise_and_lose_no_byte() -> None:
    rng = random.Random(5)
    for case in CASES:
        data = bytearray(connections(case)[-1][:300_000])
        for _ in range(12):
            at = rng.choice((rng.randrange(min(3000, len(data))), rng.randrange(len(data))))
            data[at] ^= 1 << rng.randrange(8)
            parser, view = StreamParser(RamBlocks()), memoryview(bytes(data))
            fed = parser.feed(view, flush=True)
            check(fed, view)
            assert fed.consumed == len(data)


def test_events_tell_memory_guest_and_switchover() -> None:
    main, first, _ = connections("qemu-10.0-multifd")
    parser = StreamParser(RamBlocks())
    parser.feed(main, flush=True)
    events = parser.take_events()
    assert any(isinstance(event, RamTotal) and event.total_bytes > 24 << 20 for event in events)
    assert events.count(Switchover()) == 1
    assert parser.urgent
    channel = StreamParser(RamBlocks())
    channel.feed(first, flush=True)
    assert GuestUuid(GUEST) in channel.take_events()


@pytest.mark.parametrize("case", ["qemu-7.2-postcopy", "qemu-10.0-postcopy"])
def test_postcopy_is_noticed_and_its_pages_are_urgent(case: str) -> None:
    parser = StreamParser(RamBlocks())
    fed = parser.feed(read(case, "main"), flush=True)
    events = parser.take_events()
    assert Postcopy() in events
    assert Switchover() not in events
    urgent = [cut for cut in fed.cuts if cut.urgent]
    assert sum(len(cut.layout.page_key) for cut in urgent if cut.layout is not None) > 0


def test_urgent_begins_with_the_last_section_and_not_before() -> None:
    parser = StreamParser(RamBlocks())
    fed = parser.feed(read("qemu-10.0-precopy", "main"), flush=True)
    assert [cut.urgent for cut in fed.cuts] == sorted(cut.urgent for cut in fed.cuts)
    assert not fed.cuts[0].urgent
    assert fed.cuts[-1].urgent
