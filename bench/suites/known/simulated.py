"""The index and the statement of a store of 64 GiB, looked up as the segments of a guest of 1 TiB would.

No lab and no disk: the real code over hashes that are drawn. Thread CPU time throughout: in a session it is a thread of
its own.
"""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from bench.frame import Row
from dwcp_migrate.delta.cache import hash_pages
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.digests import PageDigest
from dwcp_migrate.store.index import PageIndex
from dwcp_migrate.store.statement import StatementTable, bits_for
from dwcp_migrate.units import GIB, PAGE_BYTES

STORED_PAGES: Final = 64 * GIB // PAGE_BYTES
VOLUME_PAGES: Final = 1 << 16
SEGMENT_PAGES: Final = 512
SEGMENTS: Final = 4096
NAMED_SEGMENTS: Final = 64
TIB: Final = 1 << 40
METHOD: Final = "the real index and statement over drawn hashes, thread CPU time"


def simulated(stored: int) -> list[Row]:
    """Build both for so many pages, and look up."""
    random = np.random.default_rng(1)
    hashes = random.integers(0, 1 << 64, stored, np.uint64, endpoint=False)
    values = [*_of_index(hashes, random), *_of_statement(hashes, random), *_of_names(random)]
    case = f"known/simulated/{stored * PAGE_BYTES // GIB}-gib"
    return [Row(case=case, metric=name, value=value, unit=unit, n=1, method=METHOD) for name, value, unit in values]


Values = list[tuple[str, float, str]]


def _spent_s(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def _of_index(hashes: Words, random: np.random.Generator) -> Values:
    volumes = []
    for begin in range(0, len(hashes), VOLUME_PAGES):
        keys = np.sort(hashes[begin : begin + VOLUME_PAGES])
        volumes.append((keys, np.arange(len(keys), dtype=np.uint32)))
    begun = time.thread_time()
    index = PageIndex(volumes)
    merge_s = time.thread_time() - begun
    named = random.choice(hashes, (NAMED_SEGMENTS, SEGMENT_PAGES))
    find_s = _spent_s(lambda: [index.find(segment) for segment in named])
    return [
        ("index_bytes_per_page", index.nbytes / len(hashes), "B"),
        ("merge_s", merge_s, "s"),
        ("find_us_per_page", find_s / named.size * 1e6, "us"),
    ]


def _of_statement(hashes: Words, random: np.random.Generator) -> Values:
    table, steps = StatementTable(bits_for(len(hashes))), []
    for begin in range(0, len(hashes), VOLUME_PAGES):
        step = time.thread_time()
        table.add(hashes[begin : begin + VOLUME_PAGES])
        steps.append(time.thread_time() - step)
    begun = time.thread_time()
    wire_bytes = sum(map(len, table.pieces()))
    pack_s = time.thread_time() - begun
    strange = random.integers(0, 1 << 64, (SEGMENTS, SEGMENT_PAGES), np.uint64, endpoint=False)
    begun = time.thread_time()
    wrong = sum(int(np.count_nonzero(table.likely(segment))) for segment in strange)
    look_s = (time.thread_time() - begun) / strange.size
    return [
        ("statement_memory_bytes_per_page", (1 << table.bits) * 8 / len(hashes), "B"),
        ("statement_wire_bytes_per_page", wire_bytes / len(hashes), "B"),
        ("stated_share", table.stated / len(hashes), "1"),
        ("longest_step_cpu_ms", max(steps) * 1e3, "ms"),
        ("pack_us_per_page", pack_s / len(hashes) * 1e6, "us"),
        ("look_up_us_per_page", look_s * 1e6, "us"),
        ("look_up_s_per_tib_of_guest", look_s * TIB / PAGE_BYTES, "s"),
        ("wrong_per_65536_pages", wrong / strange.size * 65536, "1"),
    ]


def _of_names(random: np.random.Generator) -> Values:
    pages = random.integers(1, 1 << 62, (2048, PAGE_BYTES // 8), np.uint64)
    digest = PageDigest(bytes(32))
    return [
        ("digest_us_per_page", _spent_s(lambda: digest.of(pages)) / len(pages) * 1e6, "us"),
        ("hash_us_per_page", _spent_s(lambda: hash_pages(pages)) / len(pages) * 1e6, "us"),
    ]
