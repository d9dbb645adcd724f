"""A plain migration beside one fault at a time: it succeeds, as with stock libvirt, and what happened is said.

All rows are played unless `MATRIX_SEED` is set: then a third of them, drawn by it (`make test`).
"""

import os
from pathlib import Path

import pytest

from tests.e2e.faults import host, identity, network, processes
from tests.e2e.faults.stage import ROWS, Fault, play
from tests.e2e.sampling import sampled
from tests.e2e.world import World

ROWS_MIN = 45
MODULES = (identity, network, processes, host)
"""Imported so that their rows are entered."""


def drawn(seed: str) -> list[Fault]:
    """Return the rows to play: all, or a third drawn by a seed, in the matrix's order."""
    chosen = set(sampled([row.name for row in ROWS], seed))
    return [row for row in ROWS if row.name in chosen]


def test_the_matrix_has_rows_enough_each_with_its_own_name_in_the_table() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= ROWS_MIN
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    assert [name for name in names if f"`{name}`" not in page] == []


def test_a_seed_draws_the_same_third_again() -> None:
    assert [row.name for row in drawn("7")] == [row.name for row in drawn("7")]
    assert len(drawn("7")) == len(ROWS) // 3 < len(drawn(""))


@pytest.mark.lab
@pytest.mark.matrix
@pytest.mark.parametrize("row", drawn(os.environ.get("MATRIX_SEED", "")), ids=lambda row: row.name)
def test_a_migration_that_stock_would_carry_is_carried(world: World, row: Fault) -> None:
    play(world, row)
