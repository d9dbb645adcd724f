"""Directories that one agent has to itself."""

from pathlib import Path

import pytest

from dwcp_migrate.agent.instance_lock import NAME, InstanceLock
from dwcp_migrate.errors import HypervisorError


def test_a_second_one_is_refused_and_told_which_process_is_there(tmp_path: Path) -> None:
    first = InstanceLock([tmp_path / "run", tmp_path / "state"])
    with pytest.raises(HypervisorError, match=r"another agent has .*state: process \d+") as refused:
        InstanceLock([tmp_path / "state"])
    assert refused.value.hint
    first.close()
    InstanceLock([tmp_path / "state"]).close()


def test_one_that_gets_only_some_of_them_lets_these_go(tmp_path: Path) -> None:
    first = InstanceLock([tmp_path / "state"])
    with pytest.raises(HypervisorError):
        InstanceLock([tmp_path / "run", tmp_path / "state"])
    InstanceLock([tmp_path / "run"]).close()
    first.close()


def test_a_directory_that_cannot_be_written_keeps_nobody_from_running(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = InstanceLock([tmp_path / "file", tmp_path / "run"])
    assert (tmp_path / "run" / NAME).exists()
    lock.close()
