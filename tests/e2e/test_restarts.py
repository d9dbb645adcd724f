"""A short run of the suite `restarts`; `make restarts` runs the long one."""

from typing import Final

import pytest

from bench.frame import Options
from bench.suites import restarts

pytestmark = pytest.mark.lab

MIGRATIONS: Final = 4
SEED: Final = 5
"""Its first four are postcopy, plain and multifd, and end agents on both sides, by SIGKILL and by SIGTERM."""


@pytest.mark.timeout(600)
def test_agents_that_end_in_the_midst_of_migrations_lose_none() -> None:
    rows = {row.metric: row.value for row in restarts.rows(Options(migrations=MIGRATIONS, seed=SEED))}
    assert (rows["migrations"], rows["lost"], rows["corrupt guests"]) == (MIGRATIONS, 0, 0)
    assert rows["records missing, doubled or wrong"] == 0
    assert rows["leaks (descriptors, threads, processes, nft rules, mounts)"] == 0
    assert rows["adoptions"] > 0
