"""Reassembly: puts one connection's segments in order again (pure).

Rule: segments that were decoded ahead wait here, bounded in number and bytes; nothing is skipped.
"""

from typing import Final, Generic, TypeVar

from dwcp_migrate.errors import LimitExceededError, LocalProtocolError
from dwcp_migrate.transport.core.receive_queue import AHEAD_MAX
from dwcp_migrate.units import MIB

WAITING_BYTES_MAX: Final = 128 * MIB
"""Twice the ceiling of the sender's window."""

Item = TypeVar("Item")


class Reassembly(Generic[Item]):
    """Items of one connection and direction, by sequence.

    Attributes:
        next_sequence: the one that is waited for.
        waiting_bytes: sum of the sizes of what waits.
    """

    def __init__(self, bytes_max: int = WAITING_BYTES_MAX, items_max: int = AHEAD_MAX) -> None:
        self.next_sequence = 0
        self.waiting_bytes = 0
        self._bytes_max = bytes_max
        self._items_max = items_max
        self._waiting: dict[int, tuple[Item, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, sequence: int, item: Item, size: int) -> None:
        """Keep an item until its turn.

        Args:
            sequence: its place.
            item: anything.
            size: bytes that it holds.

        Raises:
            LimitExceededError: too many or too much would wait; the one that is waited for always fits.
            LocalProtocolError: its turn is over or it waits already.
        """
        if sequence < self.next_sequence or sequence in self._waiting:
            raise LocalProtocolError(f"segment {sequence} came twice")
        if sequence != self.next_sequence and (
            self.waiting_bytes + size > self._bytes_max or len(self._waiting) >= self._items_max
        ):
            raise LimitExceededError(
                f"{len(self._waiting)} segments of {self.waiting_bytes} bytes wait for segment {self.next_sequence}"
            )
        self._waiting[sequence] = (item, size)
        self.waiting_bytes += size

    def pop(self) -> Item | None:
        """Take the item whose turn it is; None while it has not come."""
        if self.next_sequence not in self._waiting:
            return None
        item, size = self._waiting.pop(self.next_sequence)
        self.waiting_bytes -= size
        self.next_sequence += 1
        return item
