"""A fleet of certificates, once for all tests of bulk."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bulk.io.hosts import Fleet, Host

NAMES = ["origin", "g2", *(f"h{number}" for number in range(1, 7))]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("bulk") / "tls", NAMES)


@pytest.fixture
def host(fleet: Fleet, tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Host(fleet, name, tmp_path / name))
