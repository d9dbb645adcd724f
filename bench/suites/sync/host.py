"""One host of the suite sync: a process that offers and fetches objects, and sends or takes one as it is.

    python -m bench.suites.sync.host SETUP     SETUP is a directory with the certificates, and the host's name

Each line of standard input is an order, each line of output its answer, in order. The end of the input ends the
process.
"""

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from dwcp_migrate.bulk.core.manifest import decode_manifest, encode_manifest
from dwcp_migrate.bulk.io.connection import BulkConnection, BulkDialling, BulkPeer
from dwcp_migrate.bulk.io.fetch import BulkFetcher
from dwcp_migrate.bulk.io.held import HeldObject, HeldObjects
from dwcp_migrate.bulk.io.local import publish_file
from dwcp_migrate.bulk.io.pace import BulkPace
from dwcp_migrate.bulk.io.server import BulkServer
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.transport.tls import ContextCache
from dwcp_migrate.units import MIB

NAME: Final = "object"
TIMEOUT_S: Final = 120.0
PIECE_BYTES: Final = 1 * MIB
PACED_BYTES: Final = 256 * 1024
ADDRESS: Final = "127.0.0.1"


class HostProcess:
    """The process, seen from the suite.

    Args:
        directory: with the certificates; the host's files go into one below it.
        name: of the host.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._files = directory / f"{name}.d"
        self._files.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.suites.sync.host", str(directory), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._ports = self.answer()

    def tell(self, do: str, **how: Any) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **how}).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the oldest order.

        Raises:
            DwcpError: it failed, or the process ended.
        """
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or b'{"error": "it ended"}')
        if "error" in found:
            raise DwcpError(f"{self.name}: {found['error']}")
        return found

    def ask(self, do: str, **how: Any) -> dict[str, Any]:
        """Give an order and wait for its answer.

        Args:
            do: the order.
            **how: its values.
        """
        self.tell(do, **how)
        return self.answer()

    def publish(self, data: bytes, mean_bytes: int = 0) -> dict[str, Any]:
        """Have the host offer an object.

        Args:
            data: all of it.
            mean_bytes: of its chunks, 0 as it likes.
        """
        fresh = self._files / "fresh"
        fresh.write_bytes(data)
        fresh.replace(self._files / "published")
        return self.ask("publish", mean_bytes=mean_bytes)

    def facts(self, *, has_all: bool) -> dict[str, Any]:
        """What others have to know of the host."""
        return {"name": self.name, "has_all": has_all, **self._ports}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class _Host:
    """The host within its process; each order is a method."""

    def __init__(self, directory: Path, name: str) -> None:
        self._name = name
        self._files = directory / f"{name}.d"
        tls = (directory / "ca.pem", directory / f"{name}.pem", directory / f"{name}.key")
        client, server = ContextCache("client"), ContextCache("server")
        self._client = partial(client.get, *tls)
        self._server_context = partial(server.get, *tls)
        self._client(), self._server_context()
        self._objects = HeldObjects()
        self._pace = BulkPace()
        self._dialling = BulkDialling(self._client)
        self._server = BulkServer(
            self._objects,
            self._server_context,
            lambda names: names[0] if names else None,
            self._pace,
            lambda reason: print(f"rejected: {reason}", file=sys.stderr),
        )
        self._bulk = socket.create_server((ADDRESS, 0), backlog=64)
        self._plain = socket.create_server((ADDRESS, 0))
        self._published: HeldObject | None = None
        self._spent = time.process_time()
        threading.Thread(target=self._server.accept_from, args=(self._bulk,), daemon=True).start()

    def ports(self) -> dict[str, int]:
        """Ports that the host listens on."""
        return {"port": self._bulk.getsockname()[1], "plain_port": self._plain.getsockname()[1]}

    def do_spent(self) -> dict[str, Any]:
        """CPU since this was asked last."""
        before, self._spent = self._spent, time.process_time()
        return {"cpu_s": self._spent - before}

    def do_clean(self) -> dict[str, Any]:
        """Remove what was brought here, but for the file `object`, which is the version before."""
        for path in self._files.iterdir():
            if path.name.startswith(("cold", "paced", "warm-up", "plain")):
                path.unlink()
        return {}

    def do_pace(self, rate: float) -> dict[str, Any]:
        """Hold what is sent to a rate."""
        self._pace.set_rate(rate)
        return {}

    def do_sent(self) -> dict[str, Any]:
        """Bytes of chunks sent since this was asked last."""
        sent, self._server.sent = self._server.sent, 0
        return {"bytes": sent}

    def do_publish(self, mean_bytes: int) -> dict[str, Any]:
        """Offer the file `published`."""
        began = time.monotonic()
        held = publish_file(self._files / "published", NAME, mean_bytes)
        took_ms = (time.monotonic() - began) * 1000
        self._objects.add(held)
        self._published = held
        manifest = encode_manifest(held.manifest).hex()
        return {"manifest": manifest, "ms": took_ms, "mean_bytes": held.manifest.mean_bytes}

    def do_fetch(self, manifest: str, target: str, peers: list[dict[str, Any]], asks: bool) -> dict[str, Any]:  # noqa: FBT001
        """Fetch an object, after asking the first peer for the newest manifest if `asks`."""
        sources = [BulkPeer(peer["name"], ADDRESS, peer["port"], peer["has_all"]) for peer in peers]
        wanted, received = decode_manifest(bytes.fromhex(manifest)), 0
        if asks:
            connection = BulkConnection(sources[0], self._dialling)
            wanted = connection.describe(NAME)
            received += connection.received
            connection.end()
        fetcher = BulkFetcher(self._name, self._objects, self._dialling, BulkPace(), durable=False)
        report = fetcher.fetch(wanted, self._files / target, sources, TIMEOUT_S)
        at = time.monotonic()
        if report.faults:
            raise DwcpError(f"peers were given up: {report.faults}")
        return {"at": at, "received": received + sum(report.received.values()), **self.do_spent()}

    def do_receive(self, manifest: str) -> dict[str, Any]:
        """Take one object on one connection, as it comes; the bytes are compared with the file of the last fetch."""
        size = decode_manifest(bytes.fromhex(manifest)).size
        sock, _ = self._plain.accept()
        digest, memory = hashlib.sha256(), memoryview(bytearray(PIECE_BYTES))
        with (
            self._server_context().wrap_socket(sock, server_side=True) as secure,
            (self._files / "plain").open("wb", buffering=0) as file,
        ):
            want = secure.recv(digest.digest_size)
            at = 0
            while at < size:
                count = _fill(secure, memory[: min(PIECE_BYTES, size - at)])
                digest.update(memory[:count])
                file.write(memory[:count])
                at += count
            if digest.digest() != want:
                raise DwcpError("wrong bytes came")
            secure.sendall(b"!")
        return {"at": time.monotonic()}

    def do_send(self, peers: list[dict[str, Any]]) -> dict[str, Any]:
        """Send the published object to one peer, and wait for its word that it has it."""
        assert self._published is not None
        name, port, path = peers[0]["name"], peers[0]["plain_port"], self._files / "published"
        raw = socket.create_connection((ADDRESS, port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        memory = memoryview(bytearray(PACED_BYTES if self._pace.rate else PIECE_BYTES))
        with self._client().wrap_socket(raw, server_hostname=name) as secure, path.open("rb", buffering=0) as file:
            secure.sendall(self._digest(path))
            while count := file.readinto(memory):
                self._pace.spend(count)
                secure.sendall(memory[:count])
            if secure.recv(1) != b"!":
                raise DwcpError("the peer did not take it")
        return {}

    def _digest(self, path: Path) -> bytes:
        """SHA-256 of the published file, computed once: the time for it is not counted."""
        found = path.stat().st_mtime_ns
        if getattr(self, "_digested", (0, b""))[0] != found:
            self._digested = (found, hashlib.sha256(path.read_bytes()).digest())
        return self._digested[1]


def _fill(sock: ssl.SSLSocket, memory: memoryview) -> int:
    """Fill memory from a connection, as far as there is something."""
    at = 0
    while at < len(memory):
        count = sock.recv_into(memory[at:])
        if not count:
            raise DwcpError("the connection ended")
        at += count
    return at


def _serve(directory: Path, name: str) -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # log lines are no answers
    host = _Host(directory, name)
    _say(answers, host.ports())
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(host, f"do_{order.pop('do')}")(**order)
        except (DwcpError, OSError) as error:
            answer = {"error": str(error)}
        _say(answers, answer)


def _say(descriptor: int, answer: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
