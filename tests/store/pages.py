"""Pages and shelves for the tests of the store."""

from pathlib import Path

import numpy as np

from dwcp_migrate.qemu.layout import Words
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.store.writer import FillReport, StoreFiller
from dwcp_migrate.units import MIB

NOW = 1_000_000.0


def some_pages(count: int, seed: int = 0) -> Words:
    """Different pages, none of zeros, that compress to about half."""
    pages = np.random.default_rng(seed).integers(1, 1 << 62, (count, 512), np.uint64)
    pages[:, 256:] = 7
    return pages


def shelf_in(directory: Path, bytes_max: int = 256 * MIB) -> Shelf:
    """A shelf below a directory of a test."""
    return Shelf(directory / "store", bytes_max)


def filled(shelf: Shelf, scope: str, pages: Words, now: float = NOW) -> FillReport:
    """Keep pages."""
    return StoreFiller(shelf, scope, "sent").fill(pages, now)
