"""The bytes that a parser looks at, and the exception for bytes that it does not understand.

A machine (`main.MainChannel`, `multifd.MultifdChannel`) is stepped over a window: each step takes one element or one
run of equal elements from a position, adds it to the layout and returns the position after it; the same position
says that the element is not complete. No element is larger than `ELEMENT_BYTES_MAX`: longer ones (a packet's pages, a
packaged blob) are taken piece by piece.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from dwcp_migrate.qemu.events import Event
from dwcp_migrate.qemu.layout import Bytes, LayoutBuilder
from dwcp_migrate.units import PAGE_BYTES

ELEMENT_BYTES_MAX: Final = PAGE_BYTES + 8 + 1 + 255
"""The largest: a page record that names its RAM block. A multifd header has 1344."""


class Surprise(Exception):  # noqa: N818 - not an error: it ends parsing, never a migration
    """The bytes do not follow the format as far as it is known here."""


@dataclass(frozen=True, slots=True)
class ParseWindow:
    """Bytes `[base, end)` of `raw`, and the layout of the cut that begins at `base`.

    Attributes:
        single: take one element a step, never a run.
    """

    view: memoryview
    raw: Bytes
    base: int
    end: int
    builder: LayoutBuilder
    single: bool = False

    def integer(self, position: int, size: int) -> int:
        """Read an unsigned big-endian integer.

        Args:
            position: of its first byte.
            size: in bytes; all of them are there.
        """
        return int.from_bytes(self.view[position : position + size], "big")

    def bytes(self, position: int, size: int) -> bytes:
        """Copy a few bytes.

        Args:
            position: of the first.
            size: how many; all of them are there.
        """
        return bytes(self.view[position : position + size])

    def has(self, position: int, size: int) -> bool:
        """Tell whether bytes are there.

        Args:
            position: of the first.
            size: how many.
        """
        return position + size <= self.end


def window(view: memoryview, base: int, end: int, *, single: bool = False) -> ParseWindow:
    """Open a window on `view` with an empty layout.

    Args:
        view: the bytes.
        base: where the cut begins.
        end: where the bytes end that may be looked at.
        single: take one element a step, never a run.
    """
    return ParseWindow(view, np.frombuffer(view, np.uint8), base, end, LayoutBuilder(), single)


class Machine(Protocol):
    """A parser of one kind of connection."""

    @property
    def urgent(self) -> bool:
        """True if from the position reached on nothing may wait."""

    @property
    def opaque(self) -> bool:
        """True if from the position reached on there is nothing more to parse, and that is in order."""

    @property
    def unfinished(self) -> str:
        """Part that is missing if the bytes end at the position reached, behind a whole element; empty for nothing."""

    def step(self, window: ParseWindow, position: int) -> int:
        """Take one element or one run of them.

        Args:
            window: the bytes; its layout gets the elements.
            position: where the next one begins.

        Returns:
            The position after it; the same one if it is not complete.

        Raises:
            Surprise: the element at `position` is not understood.
        """

    def take_events(self) -> list[Event]:
        """Take the events since the last call."""
