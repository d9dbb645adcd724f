"""One object fetched from several hosts at once, a thread and a connection for each that has something to bring.

The rule: a host that lies, breaks or falls silent is given up, and what it was to bring is asked of others; the fetch
fails when nobody is left, or at its deadline. What was fetched until then stays, verified again when it is begun anew.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dwcp_migrate.bulk.core.chunking import CHUNK_BYTES_MAX
from dwcp_migrate.bulk.core.manifest import ChunkList, ObjectManifest, decode_chunk_list
from dwcp_migrate.bulk.core.messages import OK, UNKNOWN, GetChunks
from dwcp_migrate.bulk.core.schedule import SOURCES_MAX, ChunkRun, ChunkSource, FetchSchedule, first_asked
from dwcp_migrate.bulk.io.connection import BulkConnection, BulkDialling, BulkPeer
from dwcp_migrate.bulk.io.held import HeldObject, HeldObjects
from dwcp_migrate.bulk.io.local import copy_chunks, finish_part, open_held, open_part, save_list, verify_part
from dwcp_migrate.bulk.io.pace import BulkPace
from dwcp_migrate.errors import (
    ConfigError,
    DwcpError,
    LocalProtocolError,
    NotFoundError,
    PeerError,
    PeerUnreachableError,
    ProtocolError,
    RemoteProtocolError,
    StoreError,
)
from dwcp_migrate.logs import get_logger

WINDOW: Final = 4
"""Questions under way on a connection: the peer finds the next one when it has sent an answer."""
LOOK_EVERY_S: Final = 0.25
"""Between two looks whether a source stalls, and another one is to be asked."""
END_S_MAX: Final = 1.0
"""Wait for a thread whose connection was ended."""

log = get_logger(component="bulk")


@dataclass(frozen=True, slots=True)
class FetchReport:
    """Outcome of a fetch.

    Attributes:
        held: the object, whole and offered to others.
        received: bytes that came, TLS's own counted, by peer.
        reused: bytes that were here already.
        faults: peers that were given up, and why.
    """

    held: HeldObject
    received: dict[str, int] = field(default_factory=dict)
    reused: int = 0
    faults: dict[str, str] = field(default_factory=dict)


class BulkFetcher:
    """Fetches objects for this host, and offers them to others while they come.

    Args:
        own_name: this host's, as others list it among their peers.
        objects: of this host; what is fetched is added.
        dialling: the way to reach other hosts.
        pace: rate of all that is received.
        durable: wait for the disk at the end of a fetch.
    """

    def __init__(
        self, own_name: str, objects: HeldObjects, dialling: BulkDialling, pace: BulkPace, *, durable: bool = True
    ) -> None:
        self._own_name = own_name
        self._objects = objects
        self._dialling = dialling
        self._pace = pace
        self._durable = durable

    def fetch(self, manifest: ObjectManifest, path: Path, peers: Sequence[BulkPeer], timeout_s: float) -> FetchReport:
        """Bring a version of an object to a path; blocks until it is there.

        Args:
            manifest: of the version, from whoever is believed in that.
            path: of the object's file; an earlier version there is used, and replaced at the end.
            peers: hosts to ask, at most `SOURCES_MAX`.
            timeout_s: for all of it.

        Raises:
            PeerUnreachableError: nobody is left to ask, or it took too long.
            StoreError: this host's disk, or another fetch to the same path.
            LocalProtocolError: no peer, or too many.
        """
        if not 0 < len({peer.name for peer in peers}) == len(peers) <= SOURCES_MAX:
            raise LocalProtocolError(f"{len(peers)} peers, at most {SOURCES_MAX}, each once")
        until = time.monotonic() + timeout_s
        old = open_held(path, manifest.name, manifest.mean_bytes)
        if old is not None and old.manifest == manifest:
            try:
                save_list(old)
                self._objects.add(old)
            except BaseException:
                old.close()
                raise
            return FetchReport(old, reused=manifest.size)
        try:
            return self._fetch(manifest, path, peers, old, until)
        except OSError as error:
            raise StoreError(f"{path} cannot be fetched: {error.strerror or error}") from error
        finally:
            if old is not None:
                old.close()

    def _fetch(
        self, manifest: ObjectManifest, path: Path, peers: Sequence[BulkPeer], old: HeldObject | None, until: float
    ) -> FetchReport:
        crew = _Crew(manifest, peers, self._dialling, self._pace)
        try:
            chunks = crew.fetch_list(self._own_name, until)
            with open_part(manifest, chunks, path) as held:
                self._objects.add(held)  # before the rest, which may take a while: others ask for it already
                try:
                    verify_part(held)
                    if old is not None:
                        copy_chunks(old, held)
                    missing = held.missing()
                    reused = manifest.size - sum(chunks.lengths[number] for number in missing)
                    if missing:
                        crew.fetch_chunks(held, missing, self._own_name, until)
                    finish_part(held, path, durable=self._durable)
                except BaseException:
                    self._objects.remove(held)
                    raise
            return FetchReport(held, crew.received, reused, crew.faults)
        finally:
            crew.close()


class _Crew:
    """The threads of one fetch, and what they share."""

    def __init__(
        self, manifest: ObjectManifest, peers: Sequence[BulkPeer], dialling: BulkDialling, pace: BulkPace
    ) -> None:
        self._manifest = manifest
        self._peers = peers
        self._dialling = dialling
        self._pace = pace
        self._changed = threading.Condition()
        self._connections: dict[str, BulkConnection] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._is_over = False
        self._error: Exception | None = None
        self.faults: dict[str, str] = {}
        self.received: dict[str, int] = {}

    def fetch_list(self, own_name: str, until: float) -> ChunkList:
        """Ask one host after the other for the list of chunks, the one before this in the chain first.

        Args:
            own_name: this host's.
            until: monotonic seconds.

        Raises:
            PeerUnreachableError: none has it.
        """
        peers = {peer.name: peer for peer in self._peers}
        sources = [ChunkSource(peer.name, peer.has_all) for peer in self._peers]
        for peer in (peers[name] for name in first_asked(own_name, sources)):
            if time.monotonic() > until:
                break
            try:
                connection = self._connect(peer)
                data = connection.get_list(self._manifest.list_digest, self._manifest.list_bytes)
                return decode_chunk_list(self._manifest, data)
            except NotFoundError as error:
                if peer.has_all:
                    self._drop(peer.name, error)  # of others it may come yet: they may begin later
            except DwcpError as error:
                self._drop(peer.name, error)
        raise self._lost()

    def _connect(self, peer: BulkPeer) -> BulkConnection:
        """The connection to a peer; one that was given up while it was made is not used."""
        found = self._connections.get(peer.name)
        if found is not None:
            return found
        made = BulkConnection(peer, self._dialling)
        with self._changed:
            if not self._is_over:
                self._connections[peer.name] = made
                return made
        made.end()
        raise PeerUnreachableError(f"{peer.name}: the fetch is over")

    def _drop(self, name: str, error: Exception) -> None:
        self.faults.setdefault(name, str(error))
        log.warning("bulk: a host is not asked any more", peer=name, object=self._manifest.name, error=str(error))

    def _lost(self) -> PeerUnreachableError:
        words = "; ".join(f"{name}: {fault}" for name, fault in self.faults.items()) or "out of time"
        return PeerUnreachableError(
            f"object {self._manifest.name} cannot be fetched: {words}",
            hint="`dwcp-migrate check PEER` says whether a host answers; what was fetched is kept",
        )

    def fetch_chunks(self, held: HeldObject, missing: Sequence[int], own_name: str, until: float) -> None:
        """Fetch what is missing.

        Raises:
            PeerUnreachableError: nobody is left to ask, or it is too late.
            OSError: this host's disk refuses.
        """
        peers = [peer for peer in self._peers if peer.name not in self.faults]
        sources = [ChunkSource(peer.name, peer.has_all) for peer in peers]
        with self._changed:
            schedule = FetchSchedule(held.chunks.lengths, missing, own_name, sources, time.monotonic())
            while not schedule.is_done and not schedule.is_lost and self._error is None:
                self._begin(peers, held, schedule)
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise self._lost()
                self._changed.wait(min(left_s, LOOK_EVERY_S))
        if self._error is not None:
            raise self._error
        if schedule.is_lost:
            raise self._lost()

    def _begin(self, peers: Sequence[BulkPeer], held: HeldObject, schedule: FetchSchedule) -> None:
        """Begin a thread for each source that has something to bring and has none."""
        for name, connection in self._connections.items():
            if name not in self.faults:
                schedule.heard(name, connection.heard_at)
        for peer in peers:
            run = None if peer.name in self._threads else schedule.next_run(peer.name, time.monotonic())
            if run is not None:
                args = (peer, held, schedule, run)
                self._threads[peer.name] = threading.Thread(
                    target=self._work, args=args, name="bulk-fetch", daemon=True
                )
                self._threads[peer.name].start()

    def _work(self, peer: BulkPeer, held: HeldObject, schedule: FetchSchedule, run: ChunkRun) -> None:
        try:
            self._ask(peer, held, schedule, run)
        except (PeerError, ProtocolError, NotFoundError, ConfigError) as error:
            with self._changed:
                if not self._is_over:
                    self._drop(peer.name, error)
                    schedule.drop(peer.name, str(error))
        except Exception as error:  # noqa: BLE001 - this host's disk, or a fault here: raised where the fetch waits
            with self._changed:
                self._error = error
        with self._changed:
            del self._threads[peer.name]
            self._changed.notify_all()

    def _ask(self, peer: BulkPeer, held: HeldObject, schedule: FetchSchedule, first: ChunkRun) -> None:
        """Ask a peer for what it owes, `WINDOW` questions ahead."""
        connection = self._connect(peer)
        memory = memoryview(bytearray(CHUNK_BYTES_MAX))  # the kernel gives the pages when they are first used
        asked: deque[ChunkRun] = deque()
        run: ChunkRun | None = first
        while run is not None or asked:
            if run is not None:
                _, size = held.chunks.span(run.first, run.count)
                self._pace.spend(size)
                connection.send(GetChunks(self._manifest.list_digest, run.first, run.count))
                asked.append(run)
            else:
                self._take(peer, connection, held, schedule, asked.popleft(), memory)
            with self._changed:
                more = len(asked) < WINDOW and not schedule.is_done and not self._is_over
                run = schedule.next_run(peer.name, time.monotonic()) if more else None
                if schedule.is_done or self._is_over:
                    return

    def _take(
        self,
        peer: BulkPeer,
        connection: BulkConnection,
        held: HeldObject,
        schedule: FetchSchedule,
        run: ChunkRun,
        memory: memoryview,
    ) -> None:
        """Take the answer to a question."""
        _, size = held.chunks.span(run.first, run.count)
        code, length = connection.receive(memory[:size])
        self.received[peer.name] = connection.received
        if code == UNKNOWN:
            raise NotFoundError(f"{peer.name} does not know the object")
        if code == OK:
            if length != size:
                raise RemoteProtocolError(f"{peer.name} sent {length} bytes for {size}")
            held.put(run.first, run.count, memory[:size])
        with self._changed:
            if code == OK:
                schedule.took(peer.name, run, time.monotonic())
            else:
                schedule.refused(peer.name, run, time.monotonic())
            if schedule.is_done or schedule.is_lost:
                self._changed.notify_all()

    def close(self) -> None:
        """End the connections, and their threads; one that still dials, or waits for its rate, ends by itself."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            connections = list(self._connections.items())
            threads = [self._threads[name] for name in self._threads.keys() & self._connections.keys()]
        for name, connection in connections:
            self.received[name] = connection.received
            connection.close()
        for thread in threads:
            thread.join(END_S_MAX)
        for name, connection in connections:
            if name not in self._threads:
                connection.end()
