"""A fleet's certificates, and pairs of links that must leave nothing behind."""

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dwcp_migrate.pki import create_authority, issue
from tests.transport.pair import Pair


def open_descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a CA, hosts a and b, and `expired.example`."""
    directory = tmp_path_factory.mktemp("fleet")
    create_authority(directory)
    for name in ("a.example", "b.example"):
        issue(directory, name, addresses=["127.0.0.1"])
    issue(directory, "expired.example", days=-1)
    return directory


@pytest.fixture
def make_pair(fleet: Path) -> Iterator[Callable[..., Pair]]:
    """Make pairs of links; afterwards every thread and descriptor of theirs must be gone."""
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    pairs: list[Pair] = []

    def make(**options: object) -> Pair:
        pairs.append(Pair(fleet, **options))
        return pairs[-1]

    yield make
    for pair in pairs:
        pair.close()
    pairs.clear()
    gc.collect()
    assert open_descriptors() <= descriptors
    assert set(threading.enumerate()) <= threads  # one of a test before may end meanwhile
