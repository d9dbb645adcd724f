"""Pages out of the volumes of one scope, each compared with its name before it is given out.

    load      the indexes of the scope's volumes, the last used first; images after guests' pages
    statement of their pages, for the other side
    fetch     names -> places -> blocks, each read and decompressed once a call -> pages, verified

The rule: a page whose name does not fit is not given out, and its volume is never read again: it is torn, or its image
changed. To the caller it is a page that is not there, which costs a repeated segment and nothing else.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_migrate.delta import DIGEST_BYTES
from dwcp_migrate.errors import RemoteProtocolError, StoreError
from dwcp_migrate.qemu.layout import Bytes, Words
from dwcp_migrate.store.digests import PageDigest, search_keys
from dwcp_migrate.store.index import NOWHERE, PageIndex, split_places
from dwcp_migrate.store.shelf import Shelf, StoredVolume
from dwcp_migrate.store.statement import PAGES_STATED_MAX, StatementTable, bits_for
from dwcp_migrate.store.volume import BLOCK_PAGES, VolumeIndex, unpack_block
from dwcp_migrate.units import PAGE_BYTES

PAGE_WORDS: Final = PAGE_BYTES // 8
STEP_PAGES: Final = 1 << 16
"""Pages stated at a time: a few milliseconds, so that other threads of this process are not held up."""


class PageMissingError(RemoteProtocolError):
    """A page that the peer names is not in the scope, or not as its name says."""


@dataclass(slots=True)
class _OpenVolume:
    """A volume that pages are read from; `counts` are the pages of each block, none of an image."""

    volume: StoredVolume
    descriptor: int
    ends: list[int]
    counts: list[int]
    is_good: bool = True
    is_used: bool = False

    def read(self, numbers: NDArray[np.int64]) -> Words:
        """The pages with these numbers, not verified.

        Raises:
            StoreError: damaged, or shorter than its index says.
            OSError: it cannot be read.
        """
        pages: Words = np.empty((len(numbers), PAGE_WORDS), np.uint64)
        if not self.ends:
            for row, number in enumerate(numbers.tolist()):
                pages[row] = np.frombuffer(self._read(number * PAGE_BYTES, PAGE_BYTES), np.uint64)
            return pages
        blocks = numbers // BLOCK_PAGES
        for block in np.unique(blocks).tolist():
            begin = self.ends[block - 1] if block else 0
            content = unpack_block(self._read(begin, self.ends[block] - begin), self.counts[block])
            chosen = blocks == block
            pages[chosen] = content[numbers[chosen] % BLOCK_PAGES]
        return pages

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self.descriptor, size, offset)
        if len(data) != size:
            raise StoreError("it is shorter than its index says")
        return data


class PageReader:
    """The pages of one scope, as they were when it was made; `fetch` from any thread.

    Attributes:
        key: of the scope's names.

    Args:
        shelf: of this host.
        scope: only its pages are looked at.
        complain: takes the fault of a volume, in words.
    """

    def __init__(self, shelf: Shelf, scope: str, complain: Callable[[str], None]) -> None:
        self._shelf, self._complain = shelf, complain
        self.key = shelf.key(scope)
        self._digest = PageDigest(self.key)
        self._open: list[_OpenVolume] = []
        self._hashes: list[Words] = []
        columns = []
        for volume in sorted(shelf.volumes(scope), key=lambda found: bool(found.head.image)):
            if sum(map(len, self._hashes)) + volume.head.pages > PAGES_STATED_MAX:
                break
            index = self._load(volume)
            if index is not None:
                columns.append((index.keys, index.numbers))
                self._hashes.append(index.hashes)
        self._index = PageIndex(columns)

    def _load(self, volume: StoredVolume) -> VolumeIndex | None:
        descriptor = -1
        try:
            index = volume.load()
            descriptor = os.open(volume.pages, os.O_RDONLY | os.O_CLOEXEC)
            counts = _pages_of_blocks(index)
        except (StoreError, OSError) as error:
            if descriptor >= 0:
                os.close(descriptor)
            self._complain(f"{volume.pages}: {error}; it is discarded")
            self._shelf.discard(volume)
            return None
        self._open.append(_OpenVolume(volume, descriptor, index.ends.tolist(), counts))
        return index

    def __len__(self) -> int:
        """Return the number of pages that it can give."""
        return len(self._index)

    def statement(self) -> StatementTable:
        """Make the statement of the pages that are here, for the other side; once."""
        hashes, self._hashes = self._hashes, []
        table = StatementTable(bits_for(sum(map(len, hashes))))
        for column in hashes:
            for begin in range(0, len(column), STEP_PAGES):
                table.add(column[begin : begin + STEP_PAGES])
        return table

    def fetch(self, digests: Bytes) -> Words:
        """Read the pages uint64[n, 512] with names uint8[n, 16].

        Raises:
            PageMissingError: one is not here.
        """
        places = self._index.find(search_keys(digests))
        if (places == NOWHERE).any():
            raise PageMissingError(f"{int(np.count_nonzero(places == NOWHERE))} pages that are named are not here")
        volumes, numbers = split_places(places)
        pages: Words = np.empty((len(places), PAGE_WORDS), np.uint64)
        for number in np.unique(volumes).tolist():
            chosen = volumes == number
            pages[chosen] = self._verified(self._open[number], numbers[chosen], digests[chosen])
        return pages

    def _verified(self, held: _OpenVolume, numbers: NDArray[np.int64], digests: Bytes) -> Words:
        why = "it is of no use any more"
        if held.is_good:
            try:
                pages = held.read(numbers)
                if (self._digest.of(pages).reshape(-1, DIGEST_BYTES) == digests).all():
                    held.is_used = True
                    return pages
                why = "a page is not what it was"
            except (StoreError, OSError, IndexError) as error:
                why = str(error)
            held.is_good = False
            self._complain(f"{held.volume.pages}: {why}; it is discarded")
            self._shelf.discard(held.volume)
        raise PageMissingError(f"{held.volume.pages}: {why}")

    def close(self, now: float) -> None:
        """Note which volumes were of use, and read no more."""
        self._shelf.touch((held.volume for held in self._open if held.is_used), now)
        for held in self._open:
            with contextlib.suppress(OSError):
                os.close(held.descriptor)
        self._open.clear()


def _pages_of_blocks(index: VolumeIndex) -> list[int]:
    if not index.head.blocks:
        return []
    counts: list[int] = np.bincount(index.numbers // BLOCK_PAGES).tolist()
    if len(counts) != index.head.blocks or max(counts) > BLOCK_PAGES:
        raise StoreError("its index does not fit its blocks")
    return counts


def verify_store(shelf: Shelf) -> tuple[int, list[str]]:
    """Read everything and compare it with its names; pages that do not fit are discarded with their volume.

    Returns:
        Pages that are as they should be, and what was wrong.
    """
    good, wrong = 0, []
    for volume in shelf.volumes():
        digest = PageDigest(shelf.key(volume.head.scope))
        try:
            good += _verify_volume(volume, digest)
        except (StoreError, OSError) as error:
            wrong.append(f"{volume.pages}: {error}")
            shelf.discard(volume)
    return good, wrong


def _verify_volume(volume: StoredVolume, digest: PageDigest) -> int:
    index = volume.load()
    descriptor = os.open(volume.pages, os.O_RDONLY | os.O_CLOEXEC)
    try:
        held = _OpenVolume(volume, descriptor, index.ends.tolist(), _pages_of_blocks(index))
        order = np.argsort(index.numbers)
        for begin in range(0, len(order), 256):
            chosen = order[begin : begin + 256]
            pages = held.read(index.numbers[chosen].astype(np.int64))
            if (search_keys(digest.of(pages)) != index.keys[chosen]).any():
                raise StoreError("a page is not what it was")
    finally:
        os.close(descriptor)
    return len(index.keys)
