"""Fixtures of plans."""

from pathlib import Path

import pytest

from tests.orchestration.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """See `World`."""
    return World(tmp_path)
