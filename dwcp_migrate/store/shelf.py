"""The directory of a host's page store: volumes listed, made room for, verified, wiped.

    ROOT/lock             held while names change
    ROOT/secret           of this host's names of pages; a wipe makes a new one
    ROOT/evicted          number of pages that went because room was needed
    ROOT/SCOPE/V.index    a volume; its time of change is the time of its last use
    ROOT/SCOPE/V.pages    its blocks, where it is none of an image
    ROOT/SCOPE/V.part     blocks of a volume that is being written, locked by its writer

Rules:
- A volume is there when its index is: that comes last, by a rename. What has none, or a writer no more, is removed.
- Nothing is ever written to a file that has its final name, so that readers need no lock; a volume that is evicted
  while it is read stays readable until they close it.
- Directories 0700, files 0600, of the owner of ROOT, who is the agent's user even where root adds an image.
- What cannot be read is no fault of a migration's: it is discarded, and the store is as if it had never been there.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import NotFoundError, StoreError
from dwcp_migrate.store.digests import KEY_BYTES, folder_of, key_of
from dwcp_migrate.store.eviction import VolumeUse, expired, to_evict
from dwcp_migrate.store.volume import HEAD_BYTES_MAX, VolumeHead, VolumeIndex, read_head, unpack_index

INDEX: Final = ".index"
PAGES: Final = ".pages"
PART: Final = ".part"
EVICTED: Final = "evicted"
COUNT_BYTES_MAX: Final = 20
FOLDER: Final = re.compile("[0-9a-f]{32}")
"""Names of the scopes' directories."""
FREE_SHARE_MIN: Final = 1 / 8
"""Of the file system, left free: below the runtime directory there is more than the store."""


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """A volume on the shelf.

    Attributes:
        index: its index file.
        held_bytes: of both files.
        used_at: seconds since the epoch.
    """

    index: Path
    head: VolumeHead
    held_bytes: int
    used_at: float

    @property
    def name(self) -> str:
        """Unique on the shelf."""
        return f"{self.index.parent.name}/{self.index.stem}"

    @property
    def pages(self) -> Path:
        """Its blocks: an image's are in the image."""
        return Path(self.head.image) if self.head.image else self.index.with_suffix(PAGES)

    @property
    def use(self) -> VolumeUse:
        """As eviction sees it."""
        return VolumeUse(self.used_at, self.name, self.held_bytes)

    def load(self) -> VolumeIndex:
        """Its index, checked.

        Raises:
            StoreError: it is torn, or the image is not the one that was read.
            OSError: it cannot be read.
        """
        index = unpack_index(self.index.read_bytes())
        if self.head.image:
            check_image(self.head)
        return index


def check_image(head: VolumeHead) -> None:
    """Demand that the image of a volume is still the one that was read.

    Raises:
        StoreError: it is not.
        OSError: it cannot be looked at.
    """
    found = Path(head.image).stat()
    was = (head.image_bytes, head.image_changed_ns, head.image_inode)
    if (found.st_size, found.st_mtime_ns, found.st_ino) != was:
        raise StoreError(f"{head.image} changed since it was read", hint=f"dwcp-migrate store add {head.image}")


class Shelf:
    """A store's directory.

    Args:
        root: made if it is not there and `make` is set.
        bytes_max: for all volumes together.
        make: whether it is this host's agent that opens it.

    Raises:
        StoreError: it cannot be used, and why.
    """

    def __init__(self, root: Path, bytes_max: int, *, make: bool = True) -> None:
        self.root = root
        self.bytes_max = bytes_max
        try:
            if make:
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = root.stat()
            self._owner = (found.st_uid, found.st_gid)
            if found.st_mode & 0o077:
                raise StoreError(f"{root} is open to others", hint=f"chmod 700 {root}")
            self._secret = self._read_secret()
        except OSError as error:
            raise StoreError(
                f"the page store in {root} cannot be used: {error.strerror}",
                hint="see `dwcp-migrate doctor`, or set store.bytes_max = 0",
            ) from error

    def _read_secret(self) -> bytes:
        path = self.root / "secret"
        with self.locked():
            secret = path.read_bytes() if path.exists() else b""
            if len(secret) != KEY_BYTES:
                self._remove_all()  # names of before mean nothing now
                secret = os.urandom(KEY_BYTES)
                write_whole(path, secret)
                self.give(path)
        return secret

    def give(self, path: Path) -> None:
        """Make a file the owner's, where root made it."""
        if os.geteuid() == 0 and self._owner[0] != 0:
            os.chown(path, *self._owner)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock under which names change."""
        path = self.root / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.give(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def key(self, scope: str) -> bytes:
        """The key of a scope's names."""
        return key_of(self._secret, scope)

    def folder(self, scope: str) -> Path:
        """A scope's directory, made if it is not there."""
        path = self.root / folder_of(self._secret, scope)
        path.mkdir(mode=0o700, exist_ok=True)
        self.give(path)
        return path

    def volumes(self, scope: str | None = None) -> list[StoredVolume]:
        """All volumes, or a scope's, the last used first. Those that cannot be read are discarded."""
        folder = folder_of(self._secret, scope) if scope is not None else "*"
        found = []
        for path in self._files(f"{folder}/*{INDEX}"):
            try:
                found.append(_volume(path))
            except FileNotFoundError:
                path.unlink(missing_ok=True)  # evicted at this moment, or its pages are gone
            except (StoreError, OSError):
                self._unlink(path)
        return sorted(found, key=lambda each: (-each.used_at, each.name))

    def _files(self, pattern: str) -> list[Path]:
        """Files of the store; those in directories with other names are not its own."""
        return [path for path in self.root.glob(pattern) if FOLDER.fullmatch(path.parent.name)]

    def touch(self, volumes: Iterable[StoredVolume], now: float) -> None:
        """Note that volumes were of use.

        Args:
            volumes: on the shelf.
            now: seconds since the epoch.
        """
        for volume in volumes:
            with contextlib.suppress(OSError):  # evicted, or nothing can be written: then they only go sooner
                os.utime(volume.index, (now, now))

    def discard(self, volume: StoredVolume) -> None:
        """Remove a volume."""
        self._unlink(volume.index)

    @staticmethod
    def _unlink(index: Path) -> None:
        for path in (index, index.with_suffix(PAGES)):
            with contextlib.suppress(OSError):  # gone, or read-only: then it is found again, and again of no use
                path.unlink()

    def held_bytes(self) -> int:
        """Bytes of everything on the shelf, files that are being written included."""
        total = 0
        for path in self._files("*/*"):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def make_room(self, wanted_bytes: int, keep: frozenset[str] = frozenset()) -> bool:
        """Evict volumes to make room for so many bytes; returns whether they fit then.

        Args:
            wanted_bytes: that are about to be written.
            keep: volumes that stay, as the caller made them a moment ago.
        """
        with self.locked():
            self._tidy()
            volumes = {found.name: found for found in self.volumes()}
            others = self.held_bytes() - sum(found.held_bytes for found in volumes.values())
            kept = sum(found.held_bytes for name, found in volumes.items() if name in keep)
            free = [found.use for name, found in volumes.items() if name not in keep]
            gone = to_evict(free, self.bytes_max - others - kept, wanted_bytes)
            if gone is None:
                return False
            for name in gone:
                self.discard(volumes[name])
            self._count_evicted(sum(volumes[name].head.pages for name in gone))
        return self.free_bytes() >= wanted_bytes

    def free_bytes(self) -> int:
        """Ask what the file system has to spare for the store, negative where it is fuller than it may be.

        Raises:
            OSError: it cannot be asked.
        """
        room = os.statvfs(self.root)
        return int(room.f_bavail * room.f_frsize - room.f_blocks * room.f_frsize * FREE_SHARE_MIN)

    def evicted_pages(self) -> int:
        """Pages that went because room was needed, since the store was made; those that expired are not among them."""
        try:
            with (self.root / EVICTED).open("rb") as file:
                return int(file.read(COUNT_BYTES_MAX))
        except (OSError, ValueError):  # none yet, or torn: it only counts
            return 0

    def _count_evicted(self, pages: int) -> None:
        """Add to the number. Call with the lock held."""
        if not pages:
            return
        path = self.root / EVICTED
        with contextlib.suppress(OSError):  # it only counts
            write_whole(path, b"%d" % (self.evicted_pages() + pages), sync=False)
            self.give(path)

    def expire(self, keep_s: float, now: float) -> int:
        """Remove volumes that were of no use for long, and files that crashes left.

        Args:
            keep_s: seconds without use.
            now: seconds since the epoch.

        Returns:
            The number of volumes.
        """
        with self.locked():
            self._tidy()
            volumes = {found.name: found for found in self.volumes()}
            gone = expired((found.use for found in volumes.values()), now, keep_s)
            for name in gone:
                self.discard(volumes[name])
        return len(gone)

    def _tidy(self) -> None:
        """Remove files without an index and a writer. Call with the lock held."""
        for path in self._files(f"*/*{PAGES}"):
            if not path.with_suffix(INDEX).exists():
                path.unlink(missing_ok=True)
        for path in self._files(f"*/*{PART}"):
            with contextlib.suppress(OSError), path.open("rb") as part:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer would hold it
                path.unlink(missing_ok=True)
        for path in self._files(f"*/.*{INDEX}.*"):  # an index that never got its name
            path.unlink(missing_ok=True)

    def remove(self, *, scope: str = "", image: str = "") -> int:
        """Remove a scope's volumes, or an image's.

        Args:
            scope: empty is any.
            image: path of it; empty is any.

        Returns:
            The number of volumes.

        Raises:
            NotFoundError: there are none.
        """
        with self.locked():
            found = [
                each
                for each in self.volumes(scope or None)
                if not image or each.head.image == os.path.realpath(image) or each.head.image == image
            ]
            for each in found:
                self.discard(each)
        if not found:
            raise NotFoundError(f"the store holds nothing of {image or scope}", hint="see `dwcp-migrate store status`")
        return len(found)

    def wipe(self) -> int:
        """Remove everything, the secret too; returns the number of volumes."""
        count = len(self.volumes())
        with self.locked():
            self._remove_all()
            (self.root / "secret").unlink(missing_ok=True)
        self._secret = self._read_secret()
        return count

    def _remove_all(self) -> None:
        """Remove all volumes, and no other file: the operator may have named any directory."""
        for folder in self.root.iterdir():
            if not FOLDER.fullmatch(folder.name) or folder.is_symlink():
                continue
            for path in folder.iterdir():
                if path.suffix in (INDEX, PAGES, PART):
                    path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()


def _volume(path: Path) -> StoredVolume:
    with path.open("rb") as file:
        head, _ = read_head(memoryview(file.read(HEAD_BYTES_MAX + 64)))
        found = os.fstat(file.fileno())
    held = found.st_size
    if not head.image:
        held += path.with_suffix(PAGES).stat().st_size
    return StoredVolume(path, head, held, found.st_mtime)


def fresh_name() -> str:
    """A name for a new volume: in the order of their making, and unique."""
    return f"{time.time_ns():016x}-{os.urandom(4).hex()}"
