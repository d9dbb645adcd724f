"""Release 0.1.0, as it stands in the history, and hosts on one switch whose agents are of it or of this checkout."""

import contextlib
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dwcp_migrate.api.cluster import Cluster
from dwcp_migrate.api.schema import Migration
from dwcp_migrate.pki import create_authority, issue
from tests.agent.hosts import Host, announce, echoing, exchange
from tests.hypervisor.namespace import Namespace

RELEASE = Path(__file__).parents[1] / "vectors" / "release-0.1.0.tar.xz"
ATTEMPTS_MAX = 4
READY_S_MAX = 120.0
"""Three agents start beside each other, each with imports of its own release."""


def unpack_release(directory: Path) -> Path:
    """Write the package of release 0.1.0 below a directory."""
    with tarfile.open(RELEASE) as archive:
        archive.extractall(directory, filter="data")
    return directory


class _PatientHost(Host):
    """A host that is asked again: 0.1.0 may leave a request unanswered that comes just as it begins to listen."""

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        try:
            return super().get(path, method, body)
        except TimeoutError:
            return super().get(path, method, body)


class ReleaseHosts:
    """Hosts by letter, each with its namespace, its directories, and an agent of either release while one runs.

    Args:
        directory: of all of them.
        release: where 0.1.0 is unpacked.
        names: letters.
    """

    def __init__(self, directory: Path, release: Path, names: str) -> None:
        self._release = release
        tls = directory / "tls"
        create_authority(tls)
        self._switch = Namespace()
        self._switch.run("ip", "link", "add", "switch", "type", "bridge")
        self._switch.run("ip", "link", "set", "switch", "up")
        addresses = {name: f"10.79.0.{number}" for number, name in enumerate(names, 1)}
        self._hosts: dict[str, Host] = {}
        for name, address in addresses.items():
            issue(tls, f"{name}.lab")
            host = self._hosts[name] = _PatientHost(Namespace(), directory / name, tls, f"{name}.lab", address)
            host.settings["log_level"] = "info"
            host.tables["policy"] = {"require_announcement": True}
            host.peers = [(f"{other}.lab", [found]) for other, found in addresses.items() if other != name]
            self._plug_in(host, name)

    def _plug_in(self, host: Host, name: str) -> None:
        run = host.namespace.run
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", f"port-{name}", "netns", self._switch.path)
        run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        self._switch.run("ip", "link", "set", f"port-{name}", "up", "master", "switch")

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def spawn(self, name: str, *, old: bool, **environment: str) -> Host:
        """Start an agent, of 0.1.0 or of this checkout."""
        host = self[name]
        where = str(self._release)
        host.prefix = ["env", "-C", where, f"PYTHONPATH={where}"] if old else []
        host.seen = 0
        host.spawn(**environment)
        host.notify.settimeout(READY_S_MAX)
        return host

    def restart(self, name: str, *, old: bool) -> None:
        """Stop an agent and start one, of the same release or of the other, on the same directories."""
        try:
            self[name].stop()
        except subprocess.TimeoutExpired:  # of 0.1.0, on a busy machine
            self[name].stop(signal.SIGKILL)
        self.spawn(name, old=old).ready()

    def close(self) -> None:
        for host in self:
            host.close()
            print(host.name, host.log)  # noqa: T201 - shown when a test failed
            host.namespace.close()
        self._switch.close()

    def migrate(self, source: str, destination: str, stream: bytes) -> Migration:
        """Send a migration of the one domain of this way; it must arrive whole. Returns the source's record.

        On a busy machine a data process may not be ready in time: then it is sent again.
        """
        for _ in range(ATTEMPTS_MAX):
            record, arrived = self.attempt(source, destination, stream)
            assert arrived == stream, record
            if record.passthrough_reason != "no-data-process":
                break
        return record

    def attempt(self, source: str, destination: str, stream: bytes) -> tuple[Migration, bytes]:
        """Send a migration that may be refused: then nothing of it arrives. Returns the record and what arrived."""
        here, there = self[source], self[destination]
        way = f"{ord(source)}{ord(destination)}"
        assert announce(there, f"vm{way}", f"0123abcd-0000-4000-8000-{way:0>12}")
        with echoing(there.listen()) as brought, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            assert exchange(here.connect(there.address), stream) == stream
        (record,) = here.ended()
        assert brought in ([], [stream])
        return record, b"".join(brought)


def cluster_of(host: Host) -> Cluster:
    """What an agent says of the fleet's record."""
    return msgspec.json.decode(host.get("/v1/cluster")[1], type=Cluster)
