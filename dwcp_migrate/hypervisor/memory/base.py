"""Interface of a guest's memory, and the check of what is read.

The rule: a read lies within one range of plain memory and is no longer than `READ_BYTES_MAX`; anything else is refused
here, before QEMU is asked.

    GuestMemory        libvirt_peek.PeekedMemory        fake.MemoryFile
"""

from abc import ABC, abstractmethod
from typing import Final

from dwcp_migrate.errors import GuestMemoryError
from dwcp_migrate.hypervisor.memory.address_map import MemoryRange
from dwcp_migrate.units import MIB, PAGE_BYTES

READ_BYTES_MAX: Final = 1 * MIB
"""Of one read. QEMU holds its lock for that long, a millisecond or two, in which the guest's devices wait; libvirt's
protocol would take 4 MiB (REMOTE_DOMAIN_MEMORY_PEEK_BUFFER_MAX)."""


class GuestMemory(ABC):
    """The memory of one guest that runs.

    Attributes:
        ranges: of plain memory, in the order of addresses, as the guest had it when this was opened.
    """

    def __init__(self, ranges: tuple[MemoryRange, ...]) -> None:
        self.ranges = ranges

    def read(self, begin: int, size: int) -> bytes:
        """Read plain memory.

        Args:
            begin: guest-physical address, a multiple of a page.
            size: in bytes, likewise.

        Raises:
            GuestMemoryError: it is not all plain memory, too much at once, or the guest is not there any more.
        """
        is_plain = any(one.begin <= begin and begin + size <= one.end for one in self.ranges)
        if not is_plain or not 0 < size <= READ_BYTES_MAX or begin % PAGE_BYTES or size % PAGE_BYTES:
            raise GuestMemoryError(f"{size} bytes at {begin:#x} are not to be read")
        data = self._read(begin, size)
        if len(data) != size:
            raise GuestMemoryError(f"of {size} bytes at {begin:#x} came {len(data)}")
        return data

    @abstractmethod
    def _read(self, begin: int, size: int) -> bytes:
        """Read what was checked; see `read`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it; nothing is read after that."""
