"""Two hosts for the agent's tests: namespaces joined by a cable, real agents, plain TCP in the place of QEMU."""

import contextlib
import os
import signal
import socket
import subprocess  # noqa: TC003 - plain imports read better than a block for types
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from dwcp_migrate.api import schema
from dwcp_migrate.api.unix_http import UnixConnection
from dwcp_migrate.pki import create_authority, issue
from tests.hypervisor.namespace import Namespace

SOURCE_ADDRESS = "10.77.0.1"
DESTINATION_ADDRESS = "10.77.0.2"
PORT = 49152
EXPLICIT_PORT = PORT + 63
WAIT_S = 40.0


def make_authority(directory: Path) -> Path:
    """A fleet CA with certificates for both hosts, for a stranger of the same CA, and an expired one."""
    create_authority(directory)
    for name in ("source.lab", "destination.lab", "stranger.lab"):
        issue(directory, name)
    return directory


class Host:
    """One host: its namespace, its configuration, and its agent while that runs."""

    def __init__(self, namespace: Namespace, directory: Path, tls: Path, name: str, address: str) -> None:
        self.namespace = namespace
        self.directory = directory
        self.name = name
        self.address = address
        self.tls = tls
        self.agent: subprocess.Popen[str] | None = None
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.settings: dict[str, object] = {"name": name, "libvirt_uri": "", "log_format": "text"}
        self.tables: dict[str, Mapping[str, object]] = {
            "tls": {"ca": tls / "ca.pem", "certificate": tls / f"{name}.pem", "key": tls / f"{name}.key"},
            "link": {"connect_timeout_s": 1.5},
            "policy": {"require_announcement": False},
        }
        self.prefix: list[str] = []
        self.seen = 0
        self.peers: list[tuple[str, list[str]]] = []
        self.peer_lines: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def write_config(self) -> Path:
        settings = {
            **self.settings,
            "runtime_directory": self.directory / "run",
            "state_directory": self.directory / "state",
        }
        lines = [f"{key} = {_toml(value)}" for key, value in settings.items()]
        for table, values in self.tables.items():
            heading = table.partition("#")[0]  # tables of a list have one key each here
            lines += [f"[{heading}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        for peer, addresses in self.peers:
            lines += ["[[peers]]", f'name = "{peer}"', f"addresses = {addresses!r}", *self.peer_lines]
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    def start(self, **environment: str) -> "Host":
        """Start the agent and wait for its READY=1."""
        self.spawn(**environment)
        return self.ready()

    def spawn(self, **environment: str) -> None:
        """Start the agent."""
        path = self.directory / "notify"
        path.unlink(missing_ok=True)
        self.notify.close()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(path))
        self.notify.settimeout(WAIT_S)
        with (self.directory / "log").open("a") as log:
            self.agent = self.namespace.start(
                *self.prefix,
                sys.executable,
                "-m",
                "dwcp_migrate",
                "agent",
                "--config",
                str(self.write_config()),
                env={**os.environ, "NOTIFY_SOCKET": str(path), **environment},
                stdout=log,
                stderr=log,
            )

    def ready(self) -> "Host":
        """Wait until the agent said READY=1, and is armed."""
        said = self.notify.recv(4096)
        assert said.startswith(b"READY=1"), said
        self.wait(lambda status: status.spare_ready and status.intercept.armed == status.intercept.wanted)
        return self

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        control = UnixConnection(self.directory / "run" / "api.sock", WAIT_S)
        try:
            control.request(method, path, body)
            response = control.getresponse()
            return response.status, response.read()
        finally:
            control.close()

    def status(self) -> schema.AgentStatus:
        return msgspec.json.decode(self.get("/v1/status")[1], type=schema.AgentStatus)

    def facts(self) -> schema.Facts:
        return msgspec.json.decode(self.get("/v1/doctor")[1], type=schema.Facts)

    def history(self) -> list[schema.Migration]:
        return msgspec.json.decode(self.get("/v1/history")[1], type=schema.Migrations).migrations

    def ended(self, count: int = 1) -> list[schema.Migration]:
        """Wait until `count` more migrations ended than this said before; the newest of them first."""
        self.seen += count
        self.wait(lambda status: sum(status.totals.migrations.values()) >= self.seen)
        return self.history()[:count]

    def wait(self, holds: Callable[[schema.AgentStatus], bool], timeout_s: float = WAIT_S) -> schema.AgentStatus:
        """Wait until the status is as it should be; looks again at every update, at least 10 times a second."""
        deadline = time.monotonic() + timeout_s
        tick = threading.Event()
        while time.monotonic() < deadline:
            status = self.status()
            if holds(status):
                return status
            tick.wait(0.05)
        raise AssertionError(f"still {status}\n{self.log}")

    def reload(self) -> int:
        """Write the configuration again and have it read; returns the answer's HTTP status."""
        self.write_config()
        return self.get("/v1/reload", "POST")[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the agent and return its exit code."""
        assert self.agent is not None
        self.agent.send_signal(number)
        code = self.agent.wait(timeout=WAIT_S)
        self.agent = None
        return code

    def close(self) -> None:
        if self.agent is not None:
            processes = self.descendants()
            self.stop(signal.SIGKILL)
            for pid in processes:  # one that a test has stopped would not notice
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self.notify.close()

    def connect(self, address: str, port: int = PORT) -> socket.socket:
        """Connect from this host as QEMU or libvirtd would."""
        return self.namespace.call(socket.create_connection, (address, port), WAIT_S)

    def listen(self, address: str = "0.0.0.0", port: int = PORT) -> socket.socket:  # noqa: S104 - inside a namespace
        """Listen on this host as a waiting QEMU does."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener: socket.socket = self.namespace.call(socket.create_server, (address, port), family=family)
        listener.settimeout(WAIT_S)
        return listener

    def descendants(self) -> list[int]:
        """Data processes of the agent."""
        assert self.agent is not None
        children = Path(f"/proc/{self.agent.pid}/task/{self.agent.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return repr(value)
    return str(value) if isinstance(value, int | float) else f'"{value}"'


def receive_all(sock: socket.socket, *, or_reset: bool = False) -> bytes:
    """Everything until the end; a reset is an end only if that is said."""
    sock.settimeout(WAIT_S)
    data = b""
    with contextlib.suppress(*([ConnectionResetError] if or_reset else [])):
        while more := sock.recv(1 << 16):
            data += more
    return data


def is_reset(sock: socket.socket) -> bool:
    """Whether it ends in a reset, not in order."""
    try:
        receive_all(sock)
    except ConnectionResetError:
        return True
    finally:
        sock.close()
    return False


@contextlib.contextmanager
def echoing(listener: socket.socket) -> Iterator[list[bytes]]:
    """Send back what each connection brings, one after the other; yields what each brought until its half-close."""
    brought: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                brought.append(b"")
                threading.Thread(target=echo, args=(sock, len(brought) - 1), daemon=True).start()

    def echo(sock: socket.socket, number: int) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(WAIT_S)
            while data := sock.recv(1 << 16):
                brought[number] += data
                sock.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield brought
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread; a close alone would leave it listening
        listener.close()


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send all, half-close, and return what comes back until the end."""
    with sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return receive_all(sock)


def announce(host: Host, name: str, uuid: str) -> bytes:
    """Announce a migration as the hook does; returns the agent's answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(str(host.directory / "run" / "hook.sock"))
        sock.sendall(f'{{"operation": "migrate begin", "name": "{name}", "uuid": "{uuid}"}}\n'.encode())
        return sock.recv(4096)
