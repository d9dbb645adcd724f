"""Two data processes on loopback, with this test in the place of both agents and both QEMUs."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.protocol.session_memory import SessionMemory
from dwcp_migrate.protocol.worker import (
    MESSAGE_BYTES_MAX,
    AddChannel,
    AddConnection,
    Departure,
    Finished,
    FromWorker,
    GuestPages,
    Happened,
    MigrationCounters,
    SessionOptions,
    StartDestination,
    StartSource,
    StoreOptions,
    ToWorker,
    WorkerProgress,
    WorkerReady,
    decode_from_worker,
    encode_worker_message,
)
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.transport.core.frames import PREAMBLE_BYTES, decode_preamble
from dwcp_migrate.units import MIB

Said = TypeVar("Said", bound=FromWorker)


class DataProcess:
    """One data process and everything that it said."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "dwcp_migrate.dataplane.worker", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self.said: list[FromWorker] = []
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.wait(WorkerReady)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(MESSAGE_BYTES_MAX):
                with self._news:
                    self.said.append(decode_from_worker(data))
                    self._news.notify_all()

    def tell(self, message: ToWorker, *socks: socket.socket) -> None:
        socket.send_fds(self._socket, [encode_worker_message(message)], [sock.fileno() for sock in socks])
        for sock in socks:
            sock.close()

    def wait(self, kind: type[Said], timeout_s: float = 60) -> Said:
        """The first message of a kind, once it is there."""

        def found() -> Said | None:
            return next((each for each in self.said if isinstance(each, kind)), None)

        with self._news:
            assert self._news.wait_for(lambda: found() is not None, timeout_s), self.said[-5:]
            message = found()
        assert message is not None
        return message

    def wait_event(self, name: str, timeout_s: float = 60) -> None:
        """Return once an event of that name was reported."""
        with self._news:
            assert self._news.wait_for(lambda: bool(self.events(name)), timeout_s), self.said[-5:]

    def wait_counters(self, wanted: Callable[[MigrationCounters], bool], timeout_s: float = 60) -> None:
        """Return once its progress shows what is wanted."""

        def found() -> bool:
            return any(isinstance(each, WorkerProgress) and wanted(each.counters) for each in self.said)

        with self._news:
            assert self._news.wait_for(found, timeout_s), self.said[-5:]

    def events(self, name: str) -> list[Happened]:
        return [each for each in self.said if isinstance(each, Happened) and each.event == name]

    def part(self) -> None:
        """Say that nothing more comes, as its agent does once it heard the last word, and wait for its end."""
        self.wait(Finished)
        self._socket.shutdown(socket.SHUT_WR)
        self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        self._socket.close()


class Pair:
    """A source and a destination that have agreed on a session, and a listener in the place of the waiting QEMU.

    Attributes:
        channels: the TCP connections of the link as they were accepted here, duplicated so that tests can cut them.
        refuse_channels: set to turn every new channel away.
    """

    def __init__(  # noqa: PLR0913 - what both agents would have agreed on
        self,
        directory: Path,
        *,
        channels: int = 4,
        loss_s_max: float = 30.0,
        cache_bytes: int = 64 * MIB,
        codec: str = "zstd",
        memory: SessionMemory | None = None,
        source_store: StoreOptions | None = None,
        destination_store: StoreOptions | None = None,
        stated_key: bytes | None = None,
        departure: Departure = Departure(),  # noqa: B008 - frozen
        reads: GuestPages | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        create_authority(directory)
        for name in ("source.test", "destination.test"):
            issue(directory, name)
        self._directory = directory
        self._settings: dict[str, float | str | Departure] = {
            "channels": channels,
            "loss_s_max": loss_s_max,
            "cache_bytes": cache_bytes,
            "codec": codec,
            "departure": departure,
        }
        if memory is not None:
            self._settings |= {
                "granted_bytes": memory.granted_bytes,
                "cache_bytes": memory.cache_bytes,
                "window_bytes": memory.window_bytes,
                "table_bytes": memory.table_bytes,
            }
        self._stores = {"source.test": source_store, "destination.test": destination_store}
        self._stated_key = b"" if stated_key is None else stated_key
        if stated_key is None and destination_store is not None:
            shelf = Shelf(Path(destination_store.directory), destination_store.bytes_max)
            self._stated_key = shelf.key(destination_store.scope)
        self._reads = reads
        self.session_id, self.token = os.urandom(16), os.urandom(32)
        self.channels: list[socket.socket] = []
        self.refuse_channels = threading.Event()
        self.qemu = socket.create_server(("127.0.0.1", 0))
        self._link_port = socket.create_server(("127.0.0.1", 0))
        self.source, self.destination = DataProcess(), DataProcess()
        self._connections = 0
        self._ends: list[socket.socket] = []
        self._router = threading.Thread(target=self._route_channels, daemon=True)
        self._router.start()
        self._start()

    def _options(self, name: str) -> SessionOptions:
        return SessionOptions(
            ca=str(self._directory / "ca.pem"),
            certificate=str(self._directory / f"{name}.pem"),
            key=str(self._directory / f"{name}.key"),
            channels_max=64,
            congestion_control="",
            connect_timeout_s=1.0,
            in_flight_ms_max=50,
            workers=2,
            level=1,
            level_max=3,
            store=self._stores[name],
            **self._settings,  # type: ignore[arg-type]
        )

    def _start(self) -> None:
        address, port = self.qemu.getsockname()
        self.destination.tell(
            StartDestination(
                session_id=self.session_id,
                token=self.token,
                peer_name="source.test",
                target_address=address,
                target_port=port,
                options=self._options("destination.test"),
                states=bool(self._stated_key),
                discards=self._reads is not None,
            )
        )
        address, port = self._link_port.getsockname()
        self.source.tell(
            StartSource(
                session_id=self.session_id,
                token=self.token,
                peer_name="destination.test",
                peer_address=address,
                peer_port=port,
                options=self._options("source.test"),
                stated_key=self._stated_key,
                reads=self._reads,
            )
        )

    def _route_channels(self) -> None:
        """What the destination's agent does: read the preamble, hand the socket over."""
        while True:
            try:
                sock, _ = self._link_port.accept()
            except OSError:
                return
            with sock:
                if not self.refuse_channels.is_set():
                    self._route(sock)

    def _route(self, sock: socket.socket) -> None:
        # A source that is told to end, or killed, may leave between its connect and its preamble.
        with contextlib.suppress(OSError):
            preamble = sock.recv(PREAMBLE_BYTES, socket.MSG_WAITALL)
            if len(preamble) < PREAMBLE_BYTES:
                return
            assert decode_preamble(preamble).session_id == self.session_id
            self.channels.append(sock.dup())
            self.destination.tell(AddChannel(), sock)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Open a connection as the source's QEMU; returns its end and what the destination's QEMU accepted."""
        with socket.create_server(("127.0.0.1", 0)) as agent:
            ours = socket.create_connection(agent.getsockname())
            accepted, _ = agent.accept()
        self.source.tell(AddConnection(connection=self._connections), accepted)
        self._connections += 1
        self.qemu.settimeout(20)
        theirs, _ = self.qemu.accept()
        for end in (ours, theirs):
            end.settimeout(60)
            self._ends.append(end)
        return ours, theirs

    def wait_stated(self, pages: float) -> None:
        """Return once the source knows of so many pages that the destination has."""
        self.source.wait_counters(lambda counters: counters.stated_pages >= pages)

    def break_channel(self, index: int) -> None:
        """Break one channel that is up."""
        with self.channels.pop(index) as channel, contextlib.suppress(OSError):
            channel.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every channel that is up."""
        while self.channels:
            self.break_channel(0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._link_port.shutdown(socket.SHUT_RDWR)
        self.source.close()
        self._router.join()
        for sock in (self._link_port, self.qemu, *self._ends):
            sock.close()
        self.cut()
        self.destination.close()


@contextlib.contextmanager
def pair(directory: Path, **settings: object) -> Iterator[Pair]:
    made = Pair(directory, **settings)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()
