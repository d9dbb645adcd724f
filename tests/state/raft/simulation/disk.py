"""A disk in memory on which a crash drops what no sync covered: of each file any of the writes since, in any order.

Names are kept like data: a rename that no `sync_names` followed may be undone by a crash. A write of several sectors is
torn between them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.raft.disk import Disk

SECTOR = 512


@dataclass(eq=False)
class Inode:
    """A file's bytes: as they are read now, as the disk holds them, and the writes and cuts between."""

    data: bytearray = field(default_factory=bytearray)
    held: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)


def _write(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data += bytes(offset - len(data))
    data[offset : offset + len(piece)] = piece


def _cut(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data += bytes(size - len(data))


@dataclass(eq=False)
class Later:
    """Work beside the tick; it is done when its time comes, or when somebody waits for it."""

    act: Callable[[], None]
    is_done: bool = False

    def is_alive(self) -> bool:
        return not self.is_done

    def join(self) -> None:
        if not self.is_done:
            self.is_done = True
            self.act()


class FakeDisk(Disk):
    """See the module.

    Args:
        rng: decides what a crash drops.
        later: calls back in a while, for what runs beside the tick.

    Attributes:
        syncs: how many there were; `slow_s` is what each of them takes.
        fails: the next sync fails.
    """

    def __init__(self, rng: random.Random, later: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()
        self._rng = rng
        self._later = later
        self._names: dict[Path, Inode] = {}
        self._held_names: dict[Path, Inode] = {}
        self._files: dict[int, Inode] = {}
        self._next = 3
        self._beside: list[Later] = []
        self.syncs = 0
        self.slow_s = 0.0
        self.fails = False

    def make_directory(self, path: Path) -> None:
        """There is one."""

    def open(self, path: Path, *, fresh: bool = False) -> int:
        if fresh or path not in self._names:
            self._names[path] = Inode()
        self._next += 1
        self._files[self._next] = self._names[path]
        return self._next

    def close(self, file: int) -> None:
        del self._files[file]

    def size(self, file: int) -> int:
        return len(self._files[file].data)

    def read(self, file: int, count: int, offset: int) -> bytes:
        return bytes(self._files[file].data[offset : offset + count])

    def write(self, file: int, data: bytes, offset: int) -> None:
        inode = self._files[file]
        _write(inode.data, offset, data)
        inode.pending.append((offset, bytes(data)))

    def cut(self, file: int, size: int) -> None:
        inode = self._files[file]
        _cut(inode.data, size)
        inode.pending.append(size)

    def sync(self, file: int) -> None:
        if self.fails:
            self.fails = False
            raise JournalError("the disk failed to keep what was written")
        self.syncs += 1
        self._keep(self._files[file])

    def _keep(self, inode: Inode) -> None:
        for change in inode.pending:
            if isinstance(change, int):
                _cut(inode.held, change)
            else:
                _write(inode.held, *change)
        inode.pending.clear()

    def sync_names(self, directory: Path) -> None:
        del directory
        self._held_names = dict(self._names)

    def rename(self, path: Path, to: Path) -> None:
        self._names[to] = self._names.pop(path)

    def remove(self, path: Path) -> None:
        self._names.pop(path, None)

    def read_whole(self, path: Path) -> bytes:
        try:
            return bytes(self._names[path].data)
        except KeyError:
            raise FileNotFoundError(path) from None

    def write_whole(self, path: Path, data: bytes) -> None:
        inode = Inode(bytearray(data), bytearray(data))
        self._names[path] = inode
        self.sync_names(path.parent)

    def run_beside(self, act: Callable[[], None]) -> Later:
        made = Later(act)
        self._beside.append(made)
        self._later(made.join)
        return made

    def end_process(self) -> None:
        """What ran beside the tick runs no more."""
        for later in self._beside:
            later.is_done = True
        self._beside.clear()

    def crash(self) -> None:
        """Lose what no sync covered: any of it, each sector whole or not at all."""
        if self._rng.random() < 0.5:  # the names may have reached the disk all the same
            self._names = dict(self._held_names)
        self._held_names = dict(self._names)
        self._files.clear()
        for inode in {id(inode): inode for inode in self._names.values()}.values():
            for change in inode.pending:
                if isinstance(change, int):
                    if self._rng.random() < 0.7:
                        _cut(inode.held, change)
                    continue
                offset, piece = change
                for start in range(0, len(piece), SECTOR):
                    if self._rng.random() < 0.5:
                        _write(inode.held, offset + start, piece[start : start + SECTOR])
            inode.pending.clear()
            inode.data = bytearray(inode.held)
