"""The source's page cache: who gets a slot, who keeps it, and who is to go."""

import numpy as np

from dwcp_migrate.delta.cache import PAGE_WORDS, PageCache, hash_pages
from dwcp_migrate.delta.table import NEVER, UNCACHED
from dwcp_migrate.qemu.layout import Words

SLOTS = 4


def store(cache: PageCache, keys: list[int], pages: Words, previous: int | list[int] = NEVER) -> list[int]:
    """Store one page for each key; `previous` is what the table says of them."""
    said = np.full(len(keys), previous, np.int32) if isinstance(previous, int) else np.array(previous, np.int32)
    rows = np.arange(len(keys), dtype=np.intp)
    return [int(slot) for slot in cache.store(np.array(keys, np.uint64), hash_pages(pages), said, pages, rows)]


def pages(count: int, seed: int) -> Words:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 1 << 64, (count, PAGE_WORDS), np.uint64)


def test_slots_are_given_out_in_order_and_a_first_version_past_the_last_is_not_kept() -> None:
    cache = PageCache(SLOTS)
    assert store(cache, [7, 8, 9], pages(3, 1)) == [0, 1, 2]
    assert store(cache, [10, 11], pages(2, 2)) == [3, UNCACHED]
    assert cache.used == SLOTS


def test_a_new_version_takes_the_slot_of_the_one_before_the_very_first_slot_included() -> None:
    cache = PageCache(SLOTS)
    store(cache, [7, 8], pages(2, 1))
    changed = pages(2, 2)
    assert store(cache, [7, 8], changed, previous=[0, 1]) == [0, 1]
    assert (cache.pages[:2] == changed).all()
    assert cache.used == 2
    assert list(cache.find(hash_pages(changed))) == [0, 1]
    assert list(cache.find(hash_pages(pages(2, 1)))) == [-1, -1]


def test_a_slot_that_another_page_has_by_now_is_not_taken_for_ones_own() -> None:
    cache = PageCache(SLOTS)
    store(cache, [7], pages(1, 1))
    assert store(cache, [8], pages(1, 2), previous=[0]) == [1]


def test_a_page_that_comes_again_takes_a_slot_that_was_of_no_use() -> None:
    cache = PageCache(SLOTS)
    store(cache, [1, 2, 3, 4], pages(4, 1))
    cache.touch(np.array([0, 1, 3], np.int32))
    assert store(cache, [9], pages(1, 2), previous=UNCACHED) == [2]


def test_the_clock_spares_what_was_of_use_once_and_goes_round_at_most_once() -> None:
    cache = PageCache(SLOTS)
    store(cache, [1, 2, 3, 4], pages(4, 1))
    cache.touch(np.arange(SLOTS, dtype=np.int32))
    assert store(cache, [9], pages(1, 2), previous=UNCACHED) == [UNCACHED]
    assert store(cache, [9], pages(1, 2), previous=UNCACHED) == [0]
