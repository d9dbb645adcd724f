"""Fixtures of the tests of Raft."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.state.raft.lone import Lone


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Lone]:
    made = Lone(tmp_path)
    yield made
    made.replica.close()
