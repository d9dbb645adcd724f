"""Pages that the destination has in its store are named, resolved, kept for differences, and missed without harm."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from dwcp_migrate.delta import DIGEST_BYTES, Codec, Coding
from dwcp_migrate.delta.cache import hash_pages
from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.qemu import RamBlocks, StreamParser
from dwcp_migrate.qemu.layout import Bytes, Words
from tests.delta.streams import Pair, noise, stream, touched

ZSTD = Coding(Codec.ZSTD, 1)


class Shelf:
    """A store of a few pages, and what it says of them."""

    def __init__(self, *pages: bytes) -> None:
        words = np.stack([np.frombuffer(page, np.uint64) for page in pages])
        self.hashes = set(hash_pages(words).tolist())
        self.pages = {bytes(name): page for name, page in zip(self.digests(words), words, strict=True)}

    def likely(self, hashes: Words) -> NDArray[np.bool_]:
        return np.array([found in self.hashes for found in hashes.tolist()], np.bool_)

    def digests(self, pages: Words) -> Bytes:
        names = [hashlib.sha256(page.tobytes()).digest()[:DIGEST_BYTES] for page in pages]
        return np.frombuffer(b"".join(names), np.uint8).reshape(-1, DIGEST_BYTES)

    def fetch(self, digests: Bytes) -> Words:
        try:
            return np.stack([self.pages[bytes(name)] for name in digests])
        except KeyError as error:
            raise RemoteProtocolError("a page is not there") from error


def pair_with(shelf: Shelf) -> Pair:
    return Pair(1 << 20, ZSTD, shelf, shelf.fetch)


def test_pages_of_the_store_cost_their_digest_and_are_kept_for_differences() -> None:
    shelf = Shelf(*(noise(number) for number in range(16)))
    pair = pair_with(shelf)
    counts = pair.carry(stream(*((number, noise(number)) for number in range(20))))
    assert (counts.known, counts.new) == (16, 4)
    assert pair.wire_bytes < 5 * 4096 + 16 * 40
    before = pair.wire_bytes
    again = pair.carry(stream(*((number, touched(noise(number), 3)) for number in range(16))))
    assert again.delta == 16
    assert pair.wire_bytes - before < 4096


def test_fewer_known_pages_than_pay_are_sent_in_full() -> None:
    pair = pair_with(Shelf(noise(0), noise(1), noise(2)))
    counts = pair.carry(stream(*((number, noise(number)) for number in range(8))))
    assert (counts.known, counts.new) == (0, 8)


def test_equal_pages_of_one_segment_are_each_named() -> None:
    pair = pair_with(Shelf(*(noise(number) for number in range(8))))
    counts = pair.carry(stream(*((number, noise(number % 8)) for number in range(16))))
    assert (counts.known, counts.duplicate) == (16, 0)


def test_a_page_that_waits_for_nobody_may_not_be_named_where_a_guest_waits() -> None:
    pair = pair_with(Shelf(*(noise(number) for number in range(8))))
    data = memoryview(stream(*((number, noise(number)) for number in range(8))))
    (cut, *_) = [cut for cut in StreamParser(RamBlocks()).feed(data, flush=True).cuts if cut.layout is not None]
    assert pair.encoder.classify(data, cut, may_know=False).counts.known == 0


def test_a_page_that_is_missing_after_all_leaves_what_both_sides_know_of_the_others() -> None:
    shelf = Shelf(*(noise(number) for number in range(8)))
    pair = pair_with(shelf)
    pair.carry(stream(*((number, noise(number)) for number in range(100, 110))))
    shelf.pages.pop(bytes(shelf.digests(np.frombuffer(noise(3), np.uint64)[None])[0]))
    data = memoryview(stream(*((number, noise(number)) for number in range(8)), (50, noise(50))))
    for cut in StreamParser(pair.blocks).feed(data, flush=True).cuts:
        job = pair.encoder.classify(data, cut)
        slots = job.slots if job.counts.known else None
        payload = job.encode(ZSTD, pair.compressor)
        if slots is None:
            pair.decoder.apply(pair.decoder.prepare(payload, job.raw_bytes, pair.decompressor))
            continue
        with pytest.raises(RemoteProtocolError):
            pair.decoder.prepare(payload, job.raw_bytes, pair.decompressor)
        assert job.state_sequence is not None
        pair.decoder.skip(job.state_sequence)
        pair.encoder.forget(slots)
    kept = pair.carry(stream(*((number, touched(noise(number), 2)) for number in range(100, 110))))
    assert kept.delta == 10
    lost = pair.carry(stream((50, noise(50)), *((number, noise(number + 200)) for number in range(8))))
    assert (lost.same, lost.new) == (0, 9)
    found = pair.carry(stream((50, touched(noise(50), 2))))
    assert found.delta == 1


def test_a_segment_that_names_pages_of_no_agreed_store_is_refused() -> None:
    pair = Pair(1 << 20, ZSTD, Shelf(*(noise(number) for number in range(8))))
    with pytest.raises(RemoteProtocolError, match="not agreed"):
        pair.carry(stream(*((number, noise(number)) for number in range(8))))
