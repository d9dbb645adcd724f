from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.hosts import DESTINATION_ADDRESS, EXPLICIT_PORT, SOURCE_ADDRESS, Host, make_authority
from tests.hypervisor.namespace import Namespace, join


def make_hosts(directory: Path, authority: Path) -> tuple[Host, Host]:
    """Source and destination; no agent runs yet."""
    first, second = Namespace(), Namespace()
    join([(first, [f"{SOURCE_ADDRESS}/24", "fd77::1/64"]), (second, [f"{DESTINATION_ADDRESS}/24", "fd77::2/64"])])
    source = Host(first, directory / "source", authority, "source.lab", SOURCE_ADDRESS)
    destination = Host(second, directory / "destination", authority, "destination.lab", DESTINATION_ADDRESS)
    source.peers = [("destination.lab", [DESTINATION_ADDRESS, "fd77::2"])]
    destination.peers = [("source.lab", [SOURCE_ADDRESS, "fd77::1"])]
    return source, destination


def close_hosts(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        host.close()
        print(host.name, host.log)  # noqa: T201 - shown when a test failed
        host.namespace.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def hosts(tmp_path: Path, authority: Path) -> Iterator[tuple[Host, Host]]:
    """Source and destination of one test's own; no agent runs yet."""
    found = make_hosts(tmp_path, authority)
    yield found
    close_hosts(found)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[tuple[Host, Host]]:
    found = source, destination = make_hosts(tmp_path_factory.mktemp("pair"), authority)
    source.tables["intercept"] = {"explicit_port": EXPLICIT_PORT, "explicit_peer": "destination.lab"}
    destination.tables["link"] = {"listen": "::"}
    for host in found:
        host.spawn()
    for host in found:
        host.ready()
    yield found
    close_hosts(found)


@pytest.fixture
def pair(lasting: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Source and destination with agents that run, shared by a module's tests; configurations are put back."""
    before = [dict(host.tables) for host in lasting]
    for host in lasting:
        host.seen = sum(host.status().totals.migrations.values())
    yield lasting
    for host, tables in zip(lasting, before, strict=True):
        if host.tables != tables:
            host.tables = tables
            host.reload()
        host.wait(lambda status: status.migrations == [])
