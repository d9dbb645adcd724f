"""A warm-up through two real data processes: what it reads is what the migration after it need not send."""

from pathlib import Path

import numpy as np

from dwcp_migrate.dataplane.known.page_stream import page_section, stream_head
from dwcp_migrate.dataplane.known.warming import pieces
from dwcp_migrate.hypervisor.memory.address_map import MemoryRange
from dwcp_migrate.hypervisor.memory.base import READ_BYTES_MAX
from dwcp_migrate.hypervisor.memory.fake import HOLE
from dwcp_migrate.protocol.worker import Finished, GuestPages, StoreOptions
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.qemu.sniff import StreamKind
from dwcp_migrate.units import MIB, PAGE_BYTES
from tests.dataplane.pair import Pair, pair
from tests.dataplane.test_known_sessions import migrate, settled, shelf_of, store_in, stream_of

PAGES = 8 * MIB // PAGE_BYTES
UUID = "0123abcd-0000-1111-2222-333344445555"


def guest_memory() -> Words:
    """A guest of 8 MiB, an eighth of it zero pages, every eighth page another's double."""
    rng = np.random.default_rng(7)
    pages = rng.integers(1, 1 << 62, (PAGES, 512), np.uint64)
    pages[:, 256:] = 7
    pages[::8] = 0
    pages[1::8] = pages[1]
    return pages


def readable(pages: Words) -> Words:
    """What a warm-up can read: all but the hole."""
    hole = slice(HOLE.begin // PAGE_BYTES, HOLE.end // PAGE_BYTES)
    return np.delete(pages, hole, axis=0)


def distinct(pages: Words) -> int:
    """Pages that a store keeps, but for a few: one that comes alone in its segment is not looked at."""
    return int(len(np.unique(pages[pages.any(axis=1)], axis=0)) * 0.99)


def reads(directory: Path, pages: Words, begin: int = 0, pages_max: int = PAGES) -> GuestPages:
    (directory / UUID).write_bytes(pages.tobytes())
    return GuestPages(uri=f"file:{directory}", uuid=UUID, begin=begin, pages_max=pages_max)


def warm(directory: Path, wanted: GuestPages, store: StoreOptions) -> tuple[Finished, int]:
    """Warm up; returns the source's last word, and the address at which it stopped."""
    with pair(directory, destination_store=store, reads=wanted) as carried:
        found = ended(carried)
        (stopped,) = carried.source.events("warmed")
    return found, stopped.number


def ended(carried: Pair) -> Finished:
    carried.source.part()
    carried.destination.part()
    assert carried.destination.wait(Finished).result == carried.source.wait(Finished).result
    return carried.source.wait(Finished)


def test_a_migration_after_a_warm_up_names_what_it_brought(tmp_path: Path) -> None:
    pages, store = guest_memory(), store_in(tmp_path / "d")
    with pair(tmp_path / "1") as carried:
        cold, _ = migrate(carried, stream_of(readable(pages)))
    warmed, stopped_at = warm(tmp_path / "2", reads(tmp_path, pages), store)
    settled(shelf_of(store), "a", distinct(readable(pages)))
    with pair(tmp_path / "3", destination_store=store) as carried:
        carried.wait_stated(distinct(readable(pages)) * 0.98)
        after, _ = migrate(carried, stream_of(readable(pages)))
    assert (warmed.result, stopped_at) == ("carried", 0)
    assert after.counters.wire_bytes * 5 < cold.counters.wire_bytes
    assert after.counters.repaired_segments == 0
    assert after.counters.pages["known"] > distinct(readable(pages)) * 0.98


def test_zero_pages_are_not_sent_and_a_second_pass_names_what_is_there(tmp_path: Path) -> None:
    pages, store = guest_memory(), store_in(tmp_path / "d")
    first, _ = warm(tmp_path / "1", reads(tmp_path, pages), store)
    settled(shelf_of(store), "a", distinct(readable(pages)))
    pages[2] = 9
    second, _ = warm(tmp_path / "2", reads(tmp_path, pages), store)
    filled = int(readable(pages).any(axis=1).sum())
    assert filled * PAGE_BYTES <= first.counters.raw_bytes < filled * (PAGE_BYTES + 8) + 4096
    assert first.counters.pages["zero"] == 0
    assert second.counters.pages["new"] + second.counters.pages["delta"] <= 64
    assert second.counters.wire_bytes * 5 < first.counters.wire_bytes


def test_a_warm_up_stops_before_the_caches_are_full_and_the_next_goes_on_there(tmp_path: Path) -> None:
    pages, store = guest_memory(), store_in(tmp_path / "d")
    at, sessions, sent = 0, 0, 0
    while True:
        found, at = warm(tmp_path / str(sessions), reads(tmp_path, pages, at, PAGES // 2), store)
        sessions += 1
        sent += found.counters.raw_bytes // (PAGE_BYTES + 8)
        assert found.counters.raw_bytes <= PAGES // 2 * (PAGE_BYTES + 8) + 4096
        if not at:
            break
    settled(shelf_of(store), "a", distinct(readable(pages)))
    assert sessions == 2
    assert sent == int(readable(pages).any(axis=1).sum())


def test_a_guest_that_is_not_there_fails_the_session_with_its_reason(tmp_path: Path) -> None:
    wanted = GuestPages(uri=f"file:{tmp_path}", uuid="another", begin=0, pages_max=PAGES)
    with pair(tmp_path / "1", destination_store=store_in(tmp_path / "d"), reads=wanted) as carried:
        carried.source.part()
        found = carried.source.wait(Finished)
    assert found.result == "failed"
    assert found.detail == "GuestMemoryError: domain another: No such file or directory"


def test_pieces_cover_the_ranges_from_an_address_on_and_no_more() -> None:
    ranges = (MemoryRange(0, READ_BYTES_MAX + PAGE_BYTES), MemoryRange(4 * MIB, 5 * MIB))
    assert list(pieces(ranges, 0)) == [(0, READ_BYTES_MAX), (READ_BYTES_MAX, PAGE_BYTES), (4 * MIB, MIB)]
    assert list(pieces(ranges, READ_BYTES_MAX)) == [(READ_BYTES_MAX, PAGE_BYTES), (4 * MIB, MIB)]
    assert list(pieces(ranges, 5 * MIB)) == []


def test_the_parser_finds_every_page_of_the_stream_at_its_address() -> None:
    pages = guest_memory()[:32]
    section, count = page_section(64 * MIB, pages.tobytes())
    data = stream_head(65 * MIB) + section
    parser = StreamParser(RamBlocks())
    fed = parser.feed(memoryview(data), flush=True)
    keys = [int(key) for cut in fed.cuts if cut.layout for key in cut.layout.page_key]
    assert parser.kind is StreamKind.MAIN
    assert (parser.opaque_reason, fed.consumed) == ("", len(data))
    assert keys == [64 * MIB // PAGE_BYTES + number for number in range(32) if number % 8]
    assert count == len(keys)
    assert page_section(0, bytes(PAGE_BYTES)) == (b"", 0)
