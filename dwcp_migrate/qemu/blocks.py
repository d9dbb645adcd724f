"""The names of a guest's RAM blocks, as numbers.

One `RamBlocks` serves all connections of a migration, so that a page has the same key whether it comes on the main
channel or in a multifd packet. The main channel also announces how large each block is.
"""

from typing import Final

from dwcp_migrate.qemu.layout import BLOCK_SHIFT

BLOCKS_MAX: Final = 4096
"""RAM blocks of one guest. Real guests have 5 to 30; one more per memory device."""


class RamBlocks:
    """Numbers of RAM blocks by name, given in the order of their first mention."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._used_bytes: dict[int, int] = {}

    def announce(self, name: bytes, used_bytes: int) -> bool:
        """Note the size of a block, as the main channel says it.

        Args:
            name: of the block, without its length byte.
            used_bytes: its size.

        Returns:
            False: too many blocks.
        """
        number = self.number(name)
        if number is None:
            return False
        self._used_bytes[number] = used_bytes
        return True

    def number(self, name: bytes) -> int | None:
        """Return the block's number, a new one for a new name; None past `BLOCKS_MAX`."""
        known = self._number.get(name)
        if known is None and len(self._number) < BLOCKS_MAX:
            known = self._number.setdefault(name, len(self._number))
        return known

    def known(self, name: bytes) -> int | None:
        """Return the block's number if it was mentioned before."""
        return self._number.get(name)

    def used_bytes(self, number: int) -> int:
        """Return the bound of offsets in a block: as announced, or the largest that a key can hold."""
        return self._used_bytes.get(number, 1 << (BLOCK_SHIFT + 12))
