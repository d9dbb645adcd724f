"""The files of a replica: writes, syncs, and the consequence of a failed one.

A failed write may be tried again. A failed sync may not: the kernel then takes the pages for clean, so that a second
sync succeeds without the data being on the disk. It ends the replica.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from dwcp_migrate.durable import sync_directory, write_whole
from dwcp_migrate.errors import JournalError


class Background(Protocol):
    """Work beside the tick."""

    def is_alive(self) -> bool:
        """Tell whether it is still under way."""

    def join(self) -> None:
        """Wait for its end."""


class Disk:
    """The host's own file system; a simulation has another one.

    Args:
        durable: False leaves out every sync: for measurements.
    """

    def __init__(self, *, durable: bool = True) -> None:
        self._durable = durable

    def make_directory(self, path: Path) -> None:
        """Make a directory if it is not there, for this user alone."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, path: Path, *, fresh: bool = False) -> int:
        """Open a file to read and write, made if it is not there.

        Args:
            path: of the file.
            fresh: empty it.

        Returns:
            The descriptor.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if fresh else 0)
        return os.open(path, flags, 0o600)

    def close(self, file: int) -> None:
        """Close a file; syncs nothing."""
        os.close(file)

    def size(self, file: int) -> int:
        """Return a file's size in bytes."""
        return os.fstat(file).st_size

    def read(self, file: int, count: int, offset: int) -> bytes:
        """Read a part of a file.

        Args:
            file: descriptor.
            count: bytes at most.
            offset: of the first, in bytes.

        Returns:
            The bytes; fewer than `count` at the end of the file.
        """
        return os.pread(file, count, offset)

    def write(self, file: int, data: bytes, offset: int) -> None:
        """Write all of the bytes.

        Args:
            file: descriptor.
            data: the bytes.
            offset: in bytes.

        Raises:
            OSError: the disk refuses; a part may be written.
        """
        view = memoryview(data)
        while view:
            count = os.pwrite(file, view, offset)
            view, offset = view[count:], offset + count

    def cut(self, file: int, size: int) -> None:
        """Set a file's length.

        Args:
            file: descriptor.
            size: in bytes.
        """
        os.ftruncate(file, size)

    def sync(self, file: int) -> None:
        """Make what was written to a file durable.

        Raises:
            JournalError: the disk failed; what it holds is unknown from now on.
        """
        if not self._durable:
            return
        try:
            os.fdatasync(file)
        except OSError as error:
            raise JournalError(
                f"the disk failed to keep what was written: {error.strerror}",
                hint="check the disk; `cluster remove` this host, empty its directory, start it, `cluster add` it",
            ) from error

    def sync_names(self, directory: Path) -> None:
        """Make the names in a directory durable."""
        if self._durable:
            sync_directory(directory)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name, in the place of one that has it.

        Args:
            path: the file.
            to: its new name, in the same file system.
        """
        path.replace(to)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def read_whole(self, path: Path) -> bytes:
        """Read a file; raises FileNotFoundError and other OSError."""
        return path.read_bytes()

    def write_whole(self, path: Path, data: bytes) -> None:
        """Put a file in the place of the old one, whole or not at all, durably.

        Args:
            path: of the file.
            data: its content.

        Raises:
            OSError: the disk refuses; the old file is as it was.
        """
        write_whole(path, data, sync=self._durable)

    def run_beside(self, act: Callable[[], None]) -> Background:
        """Run a function in a thread of its own."""
        thread = threading.Thread(target=act, name="snapshot")
        thread.start()
        return thread
