"""Names, places and evictions: the parts of the store without a disk."""

from typing import NamedTuple

import numpy as np
import pytest

from dwcp_migrate.errors import StoreError
from dwcp_migrate.store.digests import PageDigest, folder_of, key_of, scope_of, search_keys
from dwcp_migrate.store.eviction import VolumeUse, expired, to_evict
from dwcp_migrate.store.index import NOWHERE, PageIndex, split_places
from dwcp_migrate.store.volume import VolumeHead, VolumeIndex, pack_block, pack_index, unpack_block, unpack_index
from tests.store.pages import some_pages


class Scope(NamedTuple):
    name: str
    domains: tuple[str, ...]


SCOPES = (Scope("web", ("web-*", "proxy")), Scope("all", ("*-shared",)))


def test_a_domain_belongs_to_the_first_scope_that_names_it_else_to_itself() -> None:
    assert scope_of("web-1", "u", SCOPES) == "web"
    assert scope_of("web-shared", "u", SCOPES) == "web"
    assert scope_of("db-shared", "u", SCOPES) == "all"
    assert scope_of("db", "u", SCOPES) == "domain:u"
    assert scope_of("", "", SCOPES) == ""


def test_equal_pages_have_different_names_in_two_scopes() -> None:
    secret, pages = bytes(32), some_pages(4)
    ours, theirs = (PageDigest(key_of(secret, scope)).of(pages) for scope in ("a", "b"))
    assert not (search_keys(ours)[:, None] == search_keys(theirs)).any()
    assert (PageDigest(key_of(secret, "a")).of(pages.copy()) == ours).all()
    assert folder_of(secret, "a") != folder_of(secret, "b")


def test_each_page_is_found_in_the_volume_that_was_added_first() -> None:
    one, two = np.array([2, 5, 9], np.uint64), np.array([1, 5], np.uint64)
    index = PageIndex([(one, np.array([7, 8, 9], np.uint32)), (two, np.array([0, 1], np.uint32))])
    places = index.find(np.array([5, 1, 3, 10, 0], np.uint64))
    assert (places[2:] == NOWHERE).all()
    volumes, numbers = split_places(places[:2])
    assert (volumes.tolist(), numbers.tolist()) == ([0, 1], [8, 0])
    assert (PageIndex([]).find(one) == NOWHERE).all()


def test_the_volume_of_no_use_for_longest_goes_first_and_nothing_more_than_needed() -> None:
    held = [VolumeUse(3, "c", 10), VolumeUse(1, "b", 10), VolumeUse(1, "a", 10)]
    assert to_evict(held, 40, 10) == []
    assert to_evict(held, 35, 10) == ["a"]
    assert to_evict(held, 30, 11) == ["a", "b"]
    assert to_evict(held, 10, 10) == ["a", "b", "c"]
    assert to_evict(held, 10, 11) is None
    assert expired(held, 11, 10) == ["a", "b"]


def test_an_index_comes_back_sorted_and_any_damage_is_noticed() -> None:
    head = VolumeHead(pages=3, blocks=1, made_at=1.0, fill="sent", scope="a")
    index = VolumeIndex(
        head,
        np.array([30, 10, 20], np.uint64),
        np.array([3, 1, 2], np.uint64),
        np.array([0, 1, 2], np.uint32),
        np.array([99], np.uint64),
    )
    data = pack_index(index)
    back = unpack_index(data)
    assert back.head == head
    assert (back.keys.tolist(), back.hashes.tolist(), back.numbers.tolist()) == ([1, 2, 3], [10, 20, 30], [1, 2, 0])
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x20
        with pytest.raises(StoreError):
            unpack_index(bytes(damaged))
        with pytest.raises(StoreError):
            unpack_index(data[:at])


def test_a_block_is_compressed_where_that_pays() -> None:
    pages = some_pages(16)
    assert len(pack_block(pages)) < pages.nbytes * 3 / 4
    assert (unpack_block(pack_block(pages), 16) == pages).all()
    noise = np.random.default_rng(0).integers(0, 1 << 63, (4, 512), np.uint64)
    assert len(pack_block(noise)) == noise.nbytes
    assert (unpack_block(pack_block(noise), 4) == noise).all()
    for wrong in (pack_block(pages)[:-1], b"", b"x" * 100):
        with pytest.raises(StoreError):
            unpack_block(wrong, 16)
