"""What the destination has crosses as names, through two real data processes; whatever its store is worth."""

import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dwcp_migrate.protocol.worker import Finished, StoreOptions
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.reader import PageReader
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import StoreFiller
from dwcp_migrate.units import MIB
from tests.dataplane.pair import Pair, pair
from tests.delta.streams import stream

PAGES = 2000
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def guest(seed: int = 0) -> Words:
    pages = np.random.default_rng(seed).integers(1, 1 << 62, (PAGES, 512), np.uint64)
    pages[:, 256:] = 7
    return pages


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def stream_of(pages: Words) -> bytes:
    return stream(*((number, page.tobytes()) for number, page in enumerate(pages)))


def store_in(directory: Path, scope: str = "a") -> StoreOptions:
    return StoreOptions(directory=str(directory / "store"), bytes_max=256 * MIB, keep_s=3600, scope=scope)


def shelf_of(options: StoreOptions) -> Shelf:
    return Shelf(Path(options.directory), options.bytes_max)


def migrate(carried: Pair, data: bytes) -> tuple[Finished, Finished]:
    """Carry a stream once the destination has stated what it has; returns both ends' last words."""
    ours, theirs = carried.connect()
    received: list[bytes] = []
    taker = threading.Thread(target=lambda: received.append(read_all(theirs)))
    taker.start()
    ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)
    taker.join(60)
    theirs.close()
    ours.close()
    assert received == [data]
    carried.source.part()
    carried.destination.part()
    return carried.source.wait(Finished), carried.destination.wait(Finished)


def settled(shelf: Shelf, scope: str, pages: int) -> None:
    """Wait until a child has kept what it was to keep."""
    deadline = time.monotonic() + 150
    while sum(volume.head.pages for volume in shelf.volumes(scope)) < pages:
        assert time.monotonic() < deadline, shelf.volumes(scope)
        time.sleep(0.05)


def test_a_second_migration_names_what_the_first_one_left_at_the_destination(tmp_path: Path) -> None:
    pages, source, destination = guest(), store_in(tmp_path / "s"), store_in(tmp_path / "d")
    with pair(tmp_path / "1", source_store=source, destination_store=destination) as carried:
        first, _ = migrate(carried, stream_of(pages))
    settled(shelf_of(destination), "a", PAGES)
    settled(shelf_of(source), "a", PAGES)
    with pair(tmp_path / "2", source_store=source, destination_store=destination) as carried:
        carried.wait_stated(PAGES * 0.98)
        second, _ = migrate(carried, stream_of(pages))
    assert first.counters.pages["known"] == 0
    assert second.counters.pages["known"] > PAGES * 0.98
    assert second.counters.wire_bytes * 10 < first.counters.wire_bytes
    assert second.counters.repaired_segments == 0


def test_a_store_of_other_pages_costs_nothing_but_its_statement(tmp_path: Path) -> None:
    destination = store_in(tmp_path / "d")
    StoreFiller(shelf_of(destination), "a", "sent").fill(guest(1), time.time())
    with pair(tmp_path / "1") as carried:
        alone, _ = migrate(carried, stream_of(guest()))
    with pair(tmp_path / "2", destination_store=destination) as carried:
        carried.wait_stated(PAGES * 0.98)
        beside, _ = migrate(carried, stream_of(guest()))
    assert beside.counters.pages["known"] == 0
    assert beside.counters.wire_bytes < alone.counters.wire_bytes * 1.03


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied"])
def test_a_damaged_store_costs_segments_and_never_a_byte(tmp_path: Path, damage: str) -> None:
    pages, destination = guest(), store_in(tmp_path / "d")
    shelf = shelf_of(destination)
    StoreFiller(shelf, "a", "sent").fill(pages, time.time())
    (volume,) = shelf.volumes("a")
    data = bytearray(volume.pages.read_bytes())
    data[len(data) // 3] ^= 1
    with volume.pages.open("r+b") as file:
        file.write(data)
        file.truncate({"truncated": len(data) // 2, "emptied": 0}.get(damage, len(data)))
    with pair(tmp_path / "1", destination_store=destination) as carried:
        carried.wait_stated(PAGES * 0.98)
        source, _ = migrate(carried, stream_of(pages))
        said = [event.detail for event in carried.destination.events("store")]
    assert source.counters.missed_segments >= 1
    assert source.counters.repaired_segments == source.counters.missed_segments
    assert "discarded" in said[0]


def test_a_destination_that_lies_about_its_store_is_soon_believed_no_more(tmp_path: Path) -> None:
    pages, destination = guest(), store_in(tmp_path / "d")
    shelf = shelf_of(destination)
    StoreFiller(shelf, "a", "sent").fill(pages, time.time())
    with pair(tmp_path / "1", destination_store=destination, stated_key=b"another key") as carried:
        carried.wait_stated(PAGES * 0.98)
        source, _ = migrate(carried, stream_of(np.tile(pages, (8, 1))))
    assert 1 <= source.counters.missed_segments <= 40
    assert source.counters.pages["new"] > 0


def test_a_source_that_was_told_nothing_names_nothing(tmp_path: Path) -> None:
    destination = store_in(tmp_path / "d")
    StoreFiller(shelf_of(destination), "a", "sent").fill(guest(), time.time())
    with pair(tmp_path / "1", destination_store=destination, stated_key=b"") as carried:
        source, _ = migrate(carried, stream_of(guest()))
    assert source.counters.pages["known"] == 0


def test_a_store_that_cannot_be_opened_is_said_and_the_migration_goes_on(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "store").write_text("no directory")
    with pair(tmp_path / "1", destination_store=store_in(tmp_path / "d"), stated_key=bytes(32)) as carried:
        migrate(carried, stream_of(guest()))
        assert carried.destination.events("store")


def test_what_a_cancelled_migration_sent_is_there_for_the_next_try(tmp_path: Path) -> None:
    pages, destination = guest(), store_in(tmp_path / "d")
    data = stream_of(pages)
    with pair(tmp_path / "1", destination_store=destination) as carried:
        ours, theirs = carried.connect()
        ours.sendall(data[: len(data) * 4 // 5])
        read = 0
        while read < len(data) * 7 // 10:
            read += len(theirs.recv(1 << 20))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        ours.close()
        carried.destination.part()
    settled(shelf_of(destination), "a", PAGES * 6 // 10)
    with pair(tmp_path / "2", destination_store=destination) as carried:
        carried.wait_stated(PAGES * 0.6)
        source, _ = migrate(carried, data)
    assert source.counters.pages["known"] > PAGES * 0.6


def test_pages_of_another_scope_are_neither_stated_nor_given(tmp_path: Path) -> None:
    destination = store_in(tmp_path / "d", "b")
    shelf = shelf_of(destination)
    StoreFiller(shelf, "a", "sent").fill(guest(), time.time())
    assert len(PageReader(shelf, "b", print)) == 0
    with pair(tmp_path / "1", destination_store=destination) as carried:
        source, _ = migrate(carried, stream_of(guest()))
    assert (source.counters.stated_pages, source.counters.pages["known"]) == (0, 0)
