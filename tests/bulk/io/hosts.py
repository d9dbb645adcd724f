"""Hosts of a fleet on loopback for tests of bulk: certificates, objects, a server each; and peers that misbehave."""

import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from dwcp_migrate.bulk.core.manifest import ObjectManifest
from dwcp_migrate.bulk.io.connection import BulkDialling, BulkPeer
from dwcp_migrate.bulk.io.fetch import BulkFetcher, FetchReport
from dwcp_migrate.bulk.io.held import HeldObjects
from dwcp_migrate.bulk.io.local import publish_file
from dwcp_migrate.bulk.io.pace import BulkPace
from dwcp_migrate.bulk.io.server import BulkServer
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.tls import make_context

SILENT_S = 3.0
NAME = "index"


class Fleet:
    """Certificates of a fleet, in a directory of the test."""

    def __init__(self, directory: Path, names: list[str]) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        create_authority(directory)
        for name in names:
            issue(directory, name)
        self.names = names

    def context(self, side: str, name: str) -> ssl.SSLContext:
        files = (self.directory / "ca.pem", self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return make_context("client" if side == "client" else "server", *files)

    def identify(self, found: list[str]) -> str | None:
        return next((name for name in found if name in self.names), None)


class Host:
    """One host: its objects, and the server that offers them."""

    def __init__(self, fleet: Fleet, name: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.path = directory / "object"
        self.objects = HeldObjects()
        self.pace = BulkPace()
        self.rejected: list[str] = []
        self.dialling = self.dialling_of(fleet, name)
        self.server = BulkServer(
            self.objects, lambda: fleet.context("server", name), fleet.identify, self.pace, self.rejected.append
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self.server.accept_from, args=(self._listener,))
        self._thread.start()

    @staticmethod
    def dialling_of(fleet: Fleet, name: str) -> BulkDialling:
        return BulkDialling(lambda: fleet.context("client", name), silent_s=SILENT_S)

    def publish(self, data: bytes, mean_bytes: int = 0) -> ObjectManifest:
        fresh = self.path.with_name("fresh")
        fresh.write_bytes(data)
        fresh.replace(self.path)
        held = publish_file(self.path, NAME, mean_bytes)
        self.objects.add(held)
        return held.manifest

    def as_peer(self, *, has_all: bool) -> BulkPeer:
        return BulkPeer(self.name, "127.0.0.1", self.port, has_all)

    def fetch(self, manifest: ObjectManifest, peers: list[BulkPeer], timeout_s: float = 60.0) -> FetchReport:
        fetcher = BulkFetcher(self.name, self.objects, self.dialling, BulkPace(), durable=False)
        return fetcher.fetch(manifest, self.path, peers, timeout_s)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.server.close()
        self.objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def peer_that(fleet: Fleet, name: str, act: Callable[[ssl.SSLSocket], None]) -> Iterator[BulkPeer]:
    """A peer with a right certificate that does as it likes once TLS is done."""
    listener = socket.create_server(("127.0.0.1", 0))
    found: list[ssl.SSLSocket] = []

    def run() -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with fleet.context("server", name).wrap_socket(sock, server_side=True) as secure:
            found.append(secure)
            act(secure)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield BulkPeer(name, "127.0.0.1", listener.getsockname()[1], has_all=False)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)
