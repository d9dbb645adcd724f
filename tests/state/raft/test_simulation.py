"""The simulator: it holds on a few seeds, and finds what it is there for when a rule of the replica is taken away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dwcp_migrate.state.raft.log_file import LogFile
from tests.state.raft.simulation import scenario

RUN = Path(scenario.__file__).with_name("run.py")
SEEDS = 40
TRIED_MAX = 200


def test_scenarios_hold() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(RUN), str(SEEDS), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all held" in done.stdout


def find(first: int) -> str:
    """Run scenarios until one does not hold; returns what it says."""
    for seed in range(first, first + TRIED_MAX):
        try:
            scenario.run(seed)
        except AssertionError as error:
            return str(error)
    raise AssertionError(f"nothing was found in {TRIED_MAX} scenarios")


def test_it_finds_promises_that_do_not_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: LogFile) -> None:
        self._dirty = self._vote_dirty = False

    monkeypatch.setattr(LogFile, "sync", forget)
    assert any(word in find(1) for word in ("promised", "acknowledged", "committed", "voted", "lost"))
