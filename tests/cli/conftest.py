"""A fake agent: the control API's paths on a unix socket, answered from structs that a test sets."""

import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
import msgspec
import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.api.migration import MigrationPhase
from dwcp_migrate.cli import run
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.contract import PRINTED
from dwcp_migrate.protocol.worker import MigrationCounters
from tests.agent import records

NOW = 1_790_000_100.0


def make_migration(**changes: Any) -> schema.Migration:
    fields: dict[str, Any] = {
        "uuid": "8f3c1d6e-0000-4000-8000-000000000001",
        "started_at": NOW - 60,
        "iteration": 2,
        "wire_bytes_per_s": 20e6,
        "counters": MigrationCounters(
            raw_bytes=5 << 30, wire_bytes=1 << 30, pages={"zero": 10, "delta": 4}, channels=16
        ),
        "connections": {"main": 1, "multifd": 4},
        "phases": (MigrationPhase(state="opening", at=NOW - 60), MigrationPhase(state="precopy", at=NOW - 59)),
        "events": (schema.MigrationEvent(at=NOW - 59, event="iteration", number=2),),
    }
    return records.make_migration(**(fields | changes))


def make_ended(**changes: Any) -> schema.Migration:
    fields: dict[str, Any] = {
        "id": "aa" * 16,
        "state": "ended",
        "result": "completed",
        "ended_at": NOW - 10,
        "downtime_ms": 120,
        "eta_s": -1.0,
        "remaining_bytes": -1,
    }
    return make_migration(**(fields | changes))


def make_status(**changes: Any) -> schema.AgentStatus:
    fields: dict[str, Any] = {
        "started_at": NOW - 7300,
        "now": NOW,
        "certificates": [schema.CertificateExpiry(use="host", path="/tls/host.pem", not_after=NOW + 90 * 86400)],
        "migrations": [make_migration()],
    }
    return records.make_status(**(fields | changes))


def make_peer(**changes: Any) -> schema.PeerView:
    fields: dict[str, Any] = {
        "name": "hv2",
        "addresses": ["10.0.0.2"],
        "port": 7802,
        "reachable": True,
        "version": "0.1.0",
        "protocol": 1,
        "state": "running",
        "rtt_s": 0.0402,
    }
    return schema.PeerView(**(fields | changes))


def make_facts(**changes: Any) -> schema.Facts:
    status = make_status()
    fields: dict[str, Any] = {
        "name": "hv1",
        "version": "0.1.0",
        "state": "running",
        "intercept": status.intercept,
        "libvirt": status.libvirt,
        "hook": schema.Hook(socket="/run/dwcp-migrate/hook.sock", listening=True, last_at=0.0, pending=0),
        "certificates": status.certificates,
        "name_in_certificate": True,
        "listeners": [schema.ListenerStatus(use="link", address="0.0.0.0:7802", listening=True)],
        "peers": [make_peer()],
        "spare_ready": True,
        "explicit_peer": "",
        "history_error": "",
        "core_dumps_off": True,
        "configuration_error": "",
        "open_descriptors": 40,
        "open_descriptors_max": 65536,
    }
    return schema.Facts(**(fields | changes))


def make_predicted(**changes: Any) -> schema.Predicted:
    expected = schema.ExpectedMigration(
        time_s=(38.0, 42.0, 51.0),
        downtime_s=(0.1, 0.12, 0.3),
        wire_bytes=(1 << 29, 1 << 30, 2 << 30),
        convergence=0.97,
        way="precopy",
        model_time_s=40.0,
    )
    fields: dict[str, Any] = {
        "domain": "web1",
        "peer": "hv2",
        "expected": expected,
        "reason": "it converges in 97 % of the cases: 42 s (38 to 51), a pause of 120 ms",
        "memory_bytes": 4 << 30,
        "dirty_bytes_per_s": (5e6, 5e6, 5e6),
        "link_bytes_per_s": (20e6, 25e6, 26e6),
        "link_known": True,
        "rtt_s": 0.04,
    }
    return schema.Predicted(**(fields | changes))


class FakeAgent:
    """What the fake answers; `posted` is what it was asked to do."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.status = make_status()
        self.peers = [make_peer()]
        self.facts = make_facts()
        self.predicted = make_predicted()
        self.ended = [make_ended()]
        self.more: dict[str, msgspec.Struct] = {}
        self.failure: tuple[int, schema.Failure] | None = None
        self.raw: bytes | None = None
        self.posted: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.asked: dict[str, str] = {}

    def answer(self, method: str, target: str) -> tuple[int, bytes]:
        if self.raw is not None:
            return 200, self.raw
        if self.failure is not None:
            return self.failure[0], msgspec.json.encode(self.failure[1])
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query, keep_blank_values=True)
        if method == "POST":
            self.posted.append((path, {key: values[0] for key, values in query.items()}))
            done = self.more.get(path) or schema.Done(state="running", message=f"done: {path}")
            return 200, msgspec.json.encode(done)
        if path == "/v1/predict":
            self.asked = {key: values[0] for key, values in query.items()}
            return 200, msgspec.json.encode(self.predicted)
        found = self.more.get(path) or self._find(path, query)
        if found is None:
            return 404, msgspec.json.encode(schema.Failure(error=f"no such migration: {path.rpartition('/')[2]}"))
        return 200, msgspec.json.encode(found)

    def _find(self, path: str, query: dict[str, list[str]]) -> msgspec.Struct | None:
        match path:
            case "/v1/status":
                return self.status
            case "/v1/peers":
                return schema.Peers(peers=self.peers)
            case "/v1/doctor":
                return self.facts
            case "/v1/migrations":
                return schema.Migrations(now=NOW, migrations=self.status.migrations)
            case "/v1/history":
                return schema.Migrations(now=NOW, migrations=self.ended[: int(query["limit"][0])])
        prefix = path.removeprefix("/v1/migrations/")
        everything = (*self.status.migrations, *self.ended)
        return next((one for one in everything if one.id.startswith(prefix)), None)


@pytest.fixture(autouse=True)
def _printed_as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold what every command of these tests prints under `--json` against the table of types."""
    for name in ("as_json", "as_line"):
        monkeypatch.setattr(output, name, _checked(getattr(output, name)))


def _checked(write: Callable[[object], str]) -> Callable[[object], str]:
    def checked(value: object) -> str:
        context = click.get_current_context(silent=True)
        words = context.command_path.removeprefix("dwcp-migrate ") if context is not None else ""
        printed = PRINTED.get(words)
        if printed is not None:
            assert printed.form == "either" or isinstance(value, list) == (printed.form == "list"), words
            values = value if isinstance(value, list) else [value]
            assert all(isinstance(one, printed.types) for one in values), (words, value)
        return write(value)

    return checked


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent(tmp_path / "api.sock")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, body = fake.answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(fake.socket_path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def call(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line against the fake agent; returns exit code, stdout, stderr."""
    monkeypatch.setenv("DWCP_MIGRATE_SOCKET", str(agent.socket_path))

    def run_it(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


@pytest.fixture
def migration() -> Callable[..., schema.Migration]:
    return make_migration


@pytest.fixture
def ended() -> Callable[..., schema.Migration]:
    return make_ended


@pytest.fixture
def status() -> Callable[..., schema.AgentStatus]:
    return make_status


@pytest.fixture
def facts() -> Callable[..., schema.Facts]:
    return make_facts


@pytest.fixture
def peer() -> Callable[..., schema.PeerView]:
    return make_peer
