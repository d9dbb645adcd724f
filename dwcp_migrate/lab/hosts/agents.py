"""The agents of a lab's hypervisors: configured, certified, started, killed and started again.

The rule here: an agent runs as it does on a real host, from a configuration file and PEM files, as its unit runs it
(`service`), and is ready when its control socket answers. It runs from this program's own environment, in its host's
network and UTS namespaces.

    <host's directory>/agent/{agent.toml, ca.pem, HOST.pem, HOST.key, state/, agent.log}
    <host's directory>/run/{api.sock, hook.sock}
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from dwcp_migrate import pki
from dwcp_migrate.api.unix_http import UnixConnection
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.hosts import service, settings
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.hosts.processes import ProcessId

READY_S_MAX: Final = 60.0
"""Two seconds on an idle machine, most of it imports; more where builds share the cores."""

API_S_MAX: Final = 10.0
"""An answer takes milliseconds; an agent whose host is overloaded gets its time."""

POLL_S: Final = 0.05
API_SOCKET: Final = "api.sock"

Changes = Mapping[str, Any]
"""Keys of the configuration that differ from the lab's: values, or a table's keys as a nested mapping."""


@dataclass(frozen=True, slots=True)
class LabAgent:
    """A hypervisor's agent, running or not.

    Attributes:
        hypervisor: whose agent it is.
        process: the control plane.
    """

    hypervisor: Hypervisor
    process: ProcessId

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return _directory(self.hypervisor) / "agent.toml"

    @property
    def state(self) -> Path:
        """Its state directory."""
        return _directory(self.hypervisor) / "state"

    @property
    def log(self) -> Path:
        """Its log, over all its starts."""
        return _directory(self.hypervisor) / "agent.log"

    @property
    def api_socket(self) -> Path:
        """Its control socket, reachable from this machine: `dwcp-migrate status --socket PATH`."""
        return self.hypervisor.run_directory / API_SOCKET

    def get(self, path: str) -> Any:
        """Ask its control API, for instance `/v1/status`; returns the JSON that it answers.

        Raises:
            LabError: it does not answer, or refuses.
        """
        return self._ask("GET", path)

    def post(self, path: str) -> Any:
        """Have its control API do something, for instance `/v1/drain`; returns the JSON that it answers.

        Raises:
            LabError: it does not answer, or refuses.
        """
        return self._ask("POST", path)

    def _ask(self, method: str, path: str) -> Any:
        connection = UnixConnection(self.api_socket, API_S_MAX)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise LabError(f"the agent of {self.hypervisor.name} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != HTTPStatus.OK:
            raise LabError(f"the agent of {self.hypervisor.name} answers {path} with {response.status}: {body!r}")
        return json.loads(body)

    def is_alive(self) -> bool:
        """Tell whether the control plane runs."""
        return self.process.is_alive()

    def kill(self) -> None:
        """Kill the control plane with SIGKILL and wait until it is gone."""
        self.process.end(grace_s=0)

    def stop(self) -> None:
        """Ask it to end; SIGKILL if it does not within the grace time."""
        self.process.end()


def prepare(directory: Path, hypervisors: Sequence[Hypervisor]) -> None:
    """Make the lab's certificates, once.

    Args:
        directory: where the lab's authority goes.
        hypervisors: which get one each.
    """
    authority = directory / "authority"
    if authority.is_dir():
        return
    authority.mkdir(mode=0o700)
    pki.create_authority(authority, name="lab")
    for hypervisor in hypervisors:
        own = _directory(hypervisor)
        (own / "state").mkdir(mode=0o700, parents=True, exist_ok=True)
        own.chmod(0o750)
        hypervisor.run_directory.chmod(0o750)
        (own / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
        placed = [path.rename(own / path.name) for path in pki.issue(authority, hypervisor.name)]
        give(hypervisor, own, own / "state", hypervisor.run_directory, *placed)


def give(hypervisor: Hypervisor, *paths: Path) -> None:
    """Make files, and directories with all that is in them, a host's agent's own, as an installation does."""
    user = service.user_of(hypervisor.address)
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, user, user)


AS_PACKAGED: Final = {"NUMBA_DISABLE_JIT": "1"}
"""Packages carry no compiler of kernels: their agents interpret them, where a checkout's would compile for a minute."""


def start(
    hypervisor: Hypervisor,
    hypervisors: Sequence[Hypervisor],
    changes: Changes,
    environment: Mapping[str, str] | None = None,
) -> LabAgent:
    """Write a host's configuration, start its agent and wait until its control socket answers.

    Args:
        hypervisor: whose agent.
        hypervisors: all of the lab; the others become its peers.
        changes: configuration that differs from the lab's.
        environment: that it gets besides, for instance another release's `PYTHONPATH`, below the host's directory.

    Raises:
        LabError: it ended, or is not ready in time; the end of its log is in the error.
    """
    config = configure(hypervisor, hypervisors, changes)
    (hypervisor.run_directory / API_SOCKET).unlink(missing_ok=True)
    added = [f"{name}={value}" for name, value in {**AS_PACKAGED, **(environment or {})}.items()]
    argv = ["env", *added, sys.executable, "-m", "dwcp_migrate", "agent", "--config", str(config)]
    libvirt = service.group_of(hypervisor.namespace.root, settings.LIBVIRT_GROUP)
    granted = service.parse_unit(service.UNIT.read_text())
    command = service.confined(argv, granted, hypervisor.directory, service.user_of(hypervisor.address), [libvirt])
    agent = LabAgent(hypervisor, hypervisor.spawn(command, log=_directory(hypervisor) / "agent.log"))
    _wait_ready(agent)
    return agent


def forget_migrations(hypervisor: Hypervisor) -> None:
    """Remove the history that a host's agent, which does not run, has kept of its migrations."""
    for path in (_directory(hypervisor) / "state").glob("history*.jsonl"):
        path.unlink()


def configure(hypervisor: Hypervisor, hypervisors: Sequence[Hypervisor], changes: Changes) -> Path:
    """Write a host's configuration and return its file.

    Args:
        hypervisor: whose agent.
        hypervisors: all of the lab; the others become its peers.
        changes: keys that differ from the lab's.
    """
    config = _directory(hypervisor) / "agent.toml"
    config.write_text(toml(configuration(hypervisor, hypervisors, changes)))
    return config


def configuration(hypervisor: Hypervisor, hypervisors: Sequence[Hypervisor], changes: Changes) -> dict[str, Any]:
    """Return a host's configuration as `config.parse` reads it.

    Args:
        hypervisor: whose agent.
        hypervisors: all of the lab; the others become its peers.
        changes: keys that differ from the lab's; a table's keys are added to the lab's keys of that table.
    """
    own = _directory(hypervisor)
    base: dict[str, Any] = {
        "name": hypervisor.name,
        "libvirt_uri": hypervisor.libvirt_uri,
        "runtime_directory": str(hypervisor.run_directory),
        "state_directory": str(own / "state"),
        "peers": [{"name": peer.name, "addresses": [peer.address]} for peer in hypervisors if peer != hypervisor],
        "tls": {
            "ca": str(own / "ca.pem"),
            "certificate": str(own / f"{hypervisor.name}.pem"),
            "key": str(own / f"{hypervisor.name}.key"),
        },
    }
    for key, value in changes.items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, Mapping) else value
    return base


def toml(values: Mapping[str, Any]) -> str:
    """Write TOML: values, one level of tables, and lists of flat tables. Scalars look the same in TOML as in JSON."""
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{_pairs(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{key}]]\n{_pairs(item)}" for item in value]
        else:
            plain.append(_pairs({key: value}))
    return "".join(plain + tables)


def _pairs(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _directory(hypervisor: Hypervisor) -> Path:
    return hypervisor.directory / "agent"


def _wait_ready(agent: LabAgent) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        if not agent.is_alive():
            raise LabError(f"the agent of {agent.hypervisor.name} ended: {_end_of(agent.log)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(agent.api_socket)) == 0:
                return
        time.sleep(POLL_S)  # a socket's birth has no event that is simpler than asking again
    agent.kill()
    raise LabError(f"the agent of {agent.hypervisor.name} was not ready in {READY_S_MAX:.0f} s: {_end_of(agent.log)}")


def _end_of(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-8:])
