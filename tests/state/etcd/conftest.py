"""A real etcd for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.state.engines import EtcdServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    made = EtcdServer(tmp_path)
    made.spawn()
    await made.ready()
    yield made
    made.stop()
