"""The history of ended migrations on disk."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.api.migration import Migration


def record(number: int) -> Migration:
    return Migration(id=f"{number:032x}", role="source", peer="b", address="192.0.2.1", port=49152, started_at=1.0)


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_was_cut_short_does_not_swallow_the_next_record(tmp_path: Path, cut: int) -> None:
    MigrationHistory(tmp_path).append(record(1))
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes() + path.read_bytes()[:-cut])
    MigrationHistory(tmp_path).append(record(2))
    MigrationHistory(tmp_path).append(record(3))
    kept = [found.id for found in MigrationHistory(tmp_path).recent()]
    assert kept[:2] == [record(3).id, record(2).id]
    assert kept[-1] == record(1).id
    assert b"\n\n" not in path.read_bytes()
