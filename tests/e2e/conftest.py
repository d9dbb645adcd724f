import os
from collections.abc import Iterator

import pytest

from dwcp_migrate.lab.lab import Lab, LabOptions
from tests.e2e.world import WAN, World


@pytest.fixture(scope="session")
def standing_world() -> Iterator[World]:
    """One lab, its agents and its guest for all tests."""
    with Lab.up(LabOptions(name=f"e2e-{os.getpid()}", link=WAN, owned=True)) as lab:
        yield World(lab)


@pytest.fixture
def world(standing_world: World) -> Iterator[World]:
    """The lab, whole; what a test leaves behind is an error of that test."""
    standing_world.restore()
    yield standing_world
    standing_world.restore()
    assert standing_world.left_behind() == {}
