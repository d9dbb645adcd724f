"""Pages into the store, at a low priority, once a migration is over or while an image is read.

    pages ──> not zero, not there yet (by name) ──> blocks, compressed ──> V.part ──> V.pages, V.index

The rule: a fill never disturbs a migration. A full, read-only or vanished shelf ends it with a reason; a process that
is killed leaves a part that nobody reads and the next one removes.
"""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np

from dwcp_migrate.delta.cache import hash_pages
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import StoreError
from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.digests import PageDigest, search_keys
from dwcp_migrate.store.index import NOWHERE, PageIndex, split_places
from dwcp_migrate.store.shelf import INDEX, PAGES, PART, Shelf, StoredVolume, fresh_name
from dwcp_migrate.store.volume import (
    BLOCK_PAGES,
    VOLUME_PAGES_MAX,
    PageNumbers,
    VolumeHead,
    VolumeIndex,
    pack_block,
    pack_index,
)
from dwcp_migrate.units import MIB, PAGE_BYTES

BATCH_PAGES: Final = 16 * BLOCK_PAGES
"""Pages looked at together."""
ROOM_BYTES: Final = 16 * MIB
"""Made room for at a time."""


@dataclass(slots=True)
class FillReport:
    """Result of a fill.

    Attributes:
        stopped: the reason why not all pages were looked at; empty where they were.
    """

    kept: int = 0
    there_already: int = 0
    zero: int = 0
    held_bytes: int = 0
    stopped: str = ""


class VolumeWriter:
    """A volume while it is written.

    Raises:
        OSError: from any method; `abandon` then removes the files.
    """

    def __init__(self, shelf: Shelf, scope: str, fill: str) -> None:
        self._shelf, self._scope, self._fill = shelf, scope, fill
        self._path = shelf.folder(scope) / fresh_name()
        self._file: BinaryIO = self._path.with_suffix(PART).open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.fchmod(self._file.fileno(), 0o600)
        shelf.give(self._path.with_suffix(PART))
        self._hashes: list[Words] = []
        self._keys: list[Words] = []
        self._numbers: list[PageNumbers] = []
        self._ends: list[int] = []
        self.held_bytes = self.pages = 0

    @property
    def name(self) -> str:
        """As `StoredVolume.name`."""
        return f"{self._path.parent.name}/{self._path.stem}"

    def add(self, pages: Words, hashes: Words, keys: Words) -> None:
        """Append pages as one block.

        Args:
            pages: uint64[n, 512], n at most `BLOCK_PAGES`.
            hashes: uint64[n], as an encoder computes them.
            keys: uint64[n], see `digests.search_keys`.
        """
        block = pack_block(pages)
        self._file.write(block)
        self.held_bytes += len(block)
        self._numbers.append(np.arange(len(pages), dtype=np.uint32) + np.uint32(len(self._ends) * BLOCK_PAGES))
        self._ends.append(self.held_bytes)
        self._hashes.append(hashes)
        self._keys.append(keys)
        self.pages += len(pages)

    def seal(self, now: float) -> None:
        """Give the volume its name."""
        self._file.flush()
        head = VolumeHead(pages=self.pages, blocks=len(self._ends), made_at=now, fill=self._fill, scope=self._scope)
        index = VolumeIndex(
            head,
            np.concatenate(self._hashes),
            np.concatenate(self._keys),
            np.concatenate(self._numbers),
            np.array(self._ends, np.uint64),
        )
        with self._shelf.locked():
            self._path.with_suffix(PART).rename(self._path.with_suffix(PAGES))
            write_whole(self._path.with_suffix(INDEX), pack_index(index), sync=False)
            self._shelf.give(self._path.with_suffix(INDEX))
            os.utime(self._path.with_suffix(INDEX), (now, now))
        self._file.close()

    def abandon(self) -> None:
        """Remove the files of a volume that is not finished."""
        with contextlib.suppress(OSError):
            self._path.with_suffix(PART).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._file.close()


class StoreFiller:
    """Puts pages of one scope into the store.

    Args:
        shelf: of this host.
        scope: whose pages they are.
        fill: `sent` or `received`.
    """

    def __init__(self, shelf: Shelf, scope: str, fill: str) -> None:
        self._shelf, self._scope, self._fill = shelf, scope, fill
        self._digest = PageDigest(shelf.key(scope))
        self._volumes: list[StoredVolume] = []
        columns = []
        for volume in shelf.volumes(scope):
            try:
                index = volume.load()
            except (StoreError, OSError):
                shelf.discard(volume)
                continue
            self._volumes.append(volume)
            columns.append((index.keys, index.numbers))
        self._index = PageIndex(columns)
        self._used: set[int] = set()
        self._new: set[int] = set()
        self._writer: VolumeWriter | None = None
        self._mine: set[str] = set()
        self._room = 0
        self.report = FillReport()

    def fill(self, pages: Words, now: float) -> FillReport:
        """Keep those of the pages uint64[n, 512] that are not there yet.

        Args:
            pages: read only.
            now: seconds since the epoch, for what is kept and what was there already.
        """
        try:
            for begin in range(0, len(pages), BATCH_PAGES):
                if not self._take(pages[begin : begin + BATCH_PAGES], now):
                    self.report.stopped = f"store.bytes_max ({self._shelf.bytes_max} bytes) is reached"
                    break
            self._seal(now)
        except OSError as error:
            self.report.stopped = f"{self._shelf.root}: {error.strerror}"
            if self._writer is not None:
                self._writer.abandon()
        self._shelf.touch((self._volumes[number] for number in self._used), now)
        return self.report

    def _take(self, pages: Words, now: float) -> bool:
        hashes = hash_pages(pages)
        solid = pages[:, 0].astype(np.bool_) | (hashes != 0)
        rest = np.flatnonzero(~solid)
        solid[rest] = pages[rest].any(axis=1)
        self.report.zero += int(np.count_nonzero(~solid))
        pages, hashes = pages[solid], hashes[solid]
        keys = search_keys(self._digest.of(pages))
        places = self._index.find(keys)
        there = places != NOWHERE
        self._used.update(np.unique(split_places(places[there])[0]).tolist())
        fresh = np.flatnonzero(~there)
        fresh = fresh[[self._is_new(key) for key in keys[fresh].tolist()]] if len(fresh) else fresh
        self.report.there_already += len(pages) - len(fresh)
        for begin in range(0, len(fresh), BLOCK_PAGES):
            chosen = fresh[begin : begin + BLOCK_PAGES]
            if not self._add(pages[chosen], hashes[chosen], keys[chosen], now):
                return False
        return True

    def _is_new(self, key: int) -> bool:
        if key in self._new:
            return False
        self._new.add(key)
        return True

    def _add(self, pages: Words, hashes: Words, keys: Words, now: float) -> bool:
        if self._room < 2 * len(pages) * PAGE_BYTES:
            if not self._shelf.make_room(ROOM_BYTES, frozenset(self._mine)):
                return False
            self._room = ROOM_BYTES
        if self._writer is None:
            self._writer = VolumeWriter(self._shelf, self._scope, self._fill)
        before = self._writer.held_bytes
        self._writer.add(pages, hashes, keys)
        self._room -= self._writer.held_bytes - before + 32 * len(pages)
        self.report.kept += len(pages)
        self.report.held_bytes += self._writer.held_bytes - before
        if self._writer.pages + BLOCK_PAGES > VOLUME_PAGES_MAX:
            self._seal(now)
        return True

    def _seal(self, now: float) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if not writer.pages:
            writer.abandon()
            return
        try:
            writer.seal(now)
        except OSError:
            writer.abandon()
            raise
        self._mine.add(writer.name)
