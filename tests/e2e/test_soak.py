"""A short soak; `make soak` runs the long one."""

from typing import Final

import pytest

from bench.frame import Options
from bench.suites import soak

pytestmark = pytest.mark.lab

MIGRATIONS: Final = 5
SEED: Final = 2
"""Its first five migrations are plain, multifd and postcopy, with channels killed and the link cut."""


@pytest.mark.timeout(600)
def test_disturbed_migrations_in_a_row_lose_and_leak_nothing() -> None:
    rows = {row.metric: row.value for row in soak.rows(Options(migrations=MIGRATIONS, seed=SEED))}
    assert (rows["migrations"], rows["accelerated"]) == (MIGRATIONS, MIGRATIONS)
    assert (rows["failed"], rows["corrupt guests"]) == (0, 0)
    assert rows["leaks (descriptors, threads, processes, nft rules, mounts)"] == 0
    assert rows["channels killed"] > 0
    assert rows["cuts"] > 0
