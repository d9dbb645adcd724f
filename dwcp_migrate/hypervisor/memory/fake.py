"""A file in the place of a guest's memory, held by the same contract tests as the real one."""

import os
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import GuestMemoryError
from dwcp_migrate.hypervisor.memory.address_map import MemoryRange
from dwcp_migrate.hypervisor.memory.base import GuestMemory
from dwcp_migrate.units import MIB, PAGE_BYTES

FAKE_SCHEME: Final = "file:"

HOLE: Final = MemoryRange(3 * MIB, 4 * MIB)
"""Addresses in which every such guest has registers, so that readers meet a hole; the file goes on behind it."""


class MemoryFile(GuestMemory):
    """A guest whose memory is a file of a directory, named by the guest's UUID; address 0 is its first byte.

    Args:
        directory: with the files.
        uuid: of the guest.

    Raises:
        GuestMemoryError: there is no such file.
    """

    def __init__(self, directory: Path, uuid: str) -> None:
        try:
            self._file = os.open(directory / uuid, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise GuestMemoryError(f"domain {uuid}: {error.strerror}", hint="does it run on this host?") from error
        end = os.fstat(self._file).st_size // PAGE_BYTES * PAGE_BYTES
        parts = (MemoryRange(0, min(end, HOLE.begin)), MemoryRange(HOLE.end, end))
        super().__init__(tuple(part for part in parts if part.size > 0))

    def _read(self, begin: int, size: int) -> bytes:
        try:
            return os.pread(self._file, size, begin)
        except OSError as error:
            raise GuestMemoryError(f"the guest's memory at {begin:#x} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """See `GuestMemory.close`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
