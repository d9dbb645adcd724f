"""Writes initramfs archives: cpio's "newc" format, as the kernel reads it (early-userspace/buffer-format).

The rule here: the same input gives the same bytes. Inode numbers count up, times are zero, everything belongs to root.
"""

import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

MAGIC: Final = "070701"
TRAILER: Final = "TRAILER!!!"


class Archive:
    """An archive being written; leaving the context writes the trailer.

    with path.open("wb") as file, Archive(file) as archive:
        archive.add_file("init", data, mode=0o755)
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0

    def add_directory(self, name: str) -> None:
        """Add an empty directory."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def add_file(self, name: str, data: bytes, *, mode: int = 0o644) -> None:
        """Add a regular file.

        Args:
            name: its path, without a leading slash.
            data: its content.
            mode: its permissions.
        """
        self._add(name, stat.S_IFREG | mode, data)

    def add_symlink(self, name: str, target: str) -> None:
        """Add a symbolic link.

        Args:
            name: its path, without a leading slash.
            target: where it points.
        """
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def add_path(self, name: str, path: Path) -> None:
        """Add a file, link or directory of this machine, but not what is below it.

        Args:
            name: its path in the archive, without a leading slash.
            path: of this machine; permissions are kept, owner and times are not.
        """
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            self.add_symlink(name, str(path.readlink()))
        elif stat.S_ISDIR(status.st_mode):
            self.add_directory(name)
        else:
            self.add_file(name, path.read_bytes(), mode=stat.S_IMODE(status.st_mode))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._add(TRAILER, 0, b"")

    def _add(self, name: str, mode: int, data: bytes) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = (MAGIC + "".join(f"{value:08X}" for value in fields)).encode()
        for part in (header + encoded, data):
            self._file.write(part)
            self._file.write(b"\0" * (-len(part) % 4))
