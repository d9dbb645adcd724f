"""A plain migration beside one fault at a time: it succeeds, as with stock libvirt, and what happened is said.

All rows are played unless `MATRIX_SEED` is set: then a third of them, drawn by it (`make test`).
"""

import os
import random

import pytest

from tests.e2e.faults import host, identity, network, processes
from tests.e2e.faults.stage import ROWS, Fault, play
from tests.e2e.world import World

pytestmark = [pytest.mark.lab, pytest.mark.matrix]

ROWS_MIN = 45
MODULES = (identity, network, processes, host)
"""Imported so that their rows are entered."""


def drawn(seed: str) -> list[Fault]:
    """Return the rows to play: all, or a third drawn by a seed, in the matrix's order."""
    if not seed:
        return ROWS
    names = sorted(row.name for row in ROWS)
    chosen = set(random.Random(seed).sample(names, len(names) // 3))
    return [row for row in ROWS if row.name in chosen]


def test_the_matrix_has_rows_enough_and_each_its_own_name() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= ROWS_MIN


@pytest.mark.parametrize("row", drawn(os.environ.get("MATRIX_SEED", "")), ids=lambda row: row.name)
def test_a_migration_that_stock_would_carry_is_carried(world: World, row: Fault) -> None:
    play(world, row)
