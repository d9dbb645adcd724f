"""Objects that this host has, or is fetching: each a file, the list of its chunks, and which of them are there.

A chunk is read only once it was verified here, so a host that fetches passes on what it has got so far. Whoever asks
for chunks that are about to come waits for them.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dwcp_migrate.bulk.core.manifest import ChunkList, ObjectManifest, digest_chunk
from dwcp_migrate.errors import RemoteProtocolError, StoreError

OBJECTS_MAX: Final = 64
"""Objects of a host: a few kinds, of some the version before."""


class HeldObject:
    """One version of an object on this host; safe to use from several threads.

    Args:
        manifest: of the object.
        chunks: its list.
        path: of the file.
        is_whole: the file is there and was verified; otherwise it is made, and chunks come by `put`.

    Raises:
        OSError: the file cannot be opened, or has no room.
    """

    def __init__(self, manifest: ObjectManifest, chunks: ChunkList, path: Path, *, is_whole: bool) -> None:
        self.manifest = manifest
        self.chunks = chunks
        self.path = path
        self.packed_list = chunks.pack()
        self._have = bytearray([is_whole]) * manifest.chunks
        self._changed = threading.Condition()
        flags = os.O_RDONLY if is_whole else os.O_RDWR | os.O_CREAT
        self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._is_closed = False
        self._users = 0

    @contextmanager
    def use(self) -> Iterator[int]:
        """Lend the file's descriptor: it is not closed, and its number given to another file, meanwhile.

        Raises:
            StoreError: the object was closed.
        """
        with self._changed:
            if self._is_closed:
                raise StoreError(f"object {self.manifest.name} is not held any more")
            self._users += 1
        try:
            yield self._descriptor
        finally:
            with self._changed:
                self._users -= 1
                self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._is_closed and not self._users and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def missing(self) -> list[int]:
        """Numbers of the chunks that are not here yet."""
        return [number for number, here in enumerate(self._have) if not here]

    def has(self, first: int, count: int) -> bool:
        """Whether a run of chunks is here.

        Args:
            first: number of the first.
            count: of them.
        """
        return bool(all(self._have[first : first + count]))

    def wait_for(self, first: int, count: int, timeout_s: float) -> bool:
        """Wait until a run of chunks is here; False if it is not in time, or the object is given up.

        Args:
            first: number of the first chunk.
            count: of chunks.
            timeout_s: to wait at most.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self.has(first, count), timeout_s)
            return not self._is_closed and self.has(first, count)

    def read(self, first: int, count: int, into: bytearray) -> memoryview:
        """Read a run of chunks that is here.

        Args:
            first: number of the first chunk.
            count: of chunks.
            into: memory that takes them; the caller uses it again, since fresh memory costs more than the reading.

        Raises:
            OSError: it cannot be read.
            StoreError: the file has become shorter, or the object was closed.
        """
        offset, size = self.chunks.span(first, count)
        with self.use() as descriptor:
            data = memoryview(into)[:size]
            if os.preadv(descriptor, [data], offset) == size:
                return data
        raise StoreError(f"{self.path} ends within the object {self.manifest.name}")

    def put(self, first: int, count: int, data: memoryview) -> None:
        """Keep a run of chunks if each is what the list says, else none of them.

        Args:
            first: number of the first chunk.
            count: of chunks.
            data: their bytes, one behind the other.

        Raises:
            RemoteProtocolError: a chunk is not what the list says.
            OSError: it cannot be written.
            StoreError: the object was closed.
        """
        begin, _ = self.chunks.span(first, count)
        at = 0
        for number in range(first, first + count):
            end = at + self.chunks.lengths[number]
            if digest_chunk(data[at:end]) != self.chunks.digests[number]:
                raise RemoteProtocolError(f"chunk {number} of {self.manifest.name} is not what its name says")
            at = end
        with self.use() as descriptor:
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], begin + written)
        self.mark(range(first, first + count))

    def mark(self, numbers: Iterable[int]) -> None:
        """Note chunks that are in the file, verified."""
        with self._changed:
            for number in numbers:
                self._have[number] = 1
            self._changed.notify_all()

    def close(self) -> None:
        """Give the object up; who waits for a chunk of it is told."""
        with self._changed:
            self._is_closed = True
            self._end_if_unused()
            self._changed.notify_all()


class HeldObjects:
    """All objects of this host, by name and by version; the newest two versions of a name."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._by_version: dict[bytes, HeldObject] = {}

    def add(self, held: HeldObject) -> None:
        """Offer a version of an object; an earlier one of the same name goes, and closes, but for the last.

        Raises:
            StoreError: too many objects.
        """
        with self._changed:
            same = [one for one in self._by_version.values() if one.manifest.name == held.manifest.name]
            again = self._by_version.pop(held.manifest.list_digest, None)
            leaving = [one for one in same if one is not again][:-1]
            if len(self._by_version) - len(leaving) >= OBJECTS_MAX:
                raise StoreError(f"{OBJECTS_MAX} objects are offered already")
            for one in leaving:
                del self._by_version[one.manifest.list_digest]
            self._by_version[held.manifest.list_digest] = held
            self._changed.notify_all()
        for one in (*leaving, *([again] if again is not None and again is not held else [])):
            one.close()

    def remove(self, held: HeldObject) -> None:
        """Offer a version no more, and close it."""
        with self._changed:
            if self._by_version.get(held.manifest.list_digest) is held:
                del self._by_version[held.manifest.list_digest]
        held.close()

    def newest(self, name: str) -> HeldObject | None:
        """The version of an object that was offered last, if it is whole."""
        found = [one for one in list(self._by_version.values()) if one.manifest.name == name]
        return next((one for one in reversed(found) if not one.missing()), None)

    def find(self, version: bytes) -> HeldObject | None:
        """A version, by the digest of its list."""
        return self._by_version.get(version)

    def wait_for(self, version: bytes, timeout_s: float) -> HeldObject | None:
        """A version, which may be about to come: hosts begin to fetch at about the same time.

        Args:
            version: digest of its list.
            timeout_s: to wait at most.
        """
        with self._changed:
            self._changed.wait_for(lambda: version in self._by_version, timeout_s)
            return self._by_version.get(version)

    def close(self) -> None:
        """Close all."""
        for held in list(self._by_version.values()):
            self.remove(held)
