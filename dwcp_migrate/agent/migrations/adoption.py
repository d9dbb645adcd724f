"""Adoption of migrations that the agent before this one left running.

Data processes outlive their agent and connect to the next one here. The record that the predecessor kept of each
migration (see `tracking.running_store`) is a running one again, and goes on with its data process once that has
connected. A migration whose data process is gone is ended with the facts that are known, so that the history has
exactly one record of each migration.

    start ── records taken over ── socket listens ── data processes come (0.3 s) ── link port, redirect
                                                 └── gone meanwhile ── farewell, libvirt's word ── history
"""

import asyncio
import contextlib
import os
import socket
import struct
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from dwcp_migrate.agent.accept_loop import AcceptLoop
from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.admission import Incoming
from dwcp_migrate.agent.migrations.dispatcher import Outgoing
from dwcp_migrate.agent.tracking.running_store import KeptMigration, RunningStore
from dwcp_migrate.api.migration import Migration, MigrationEvent, append_event, apply_finished, apply_happened
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.session_memory import LEGACY_BYTES
from dwcp_migrate.protocol.worker import (
    MESSAGE_BYTES_MAX,
    RENDEZVOUS_SOCKET,
    Adopted,
    Reunited,
    decode_from_worker,
)
from dwcp_migrate.tasks import Tasks

REUNION_S_MAX: Final = 3.0
"""Time for data processes to connect before this agent serves peers and catches connections; they try every 0.25 s."""

LOOK_S: Final = 1.0
"""Between two looks at whether a data process that has not come still lives."""

HELLO_S_MAX: Final = 5.0
"""Time from a data process's connection to its first message."""

BACKLOG: Final = 512
"""As many as migrations can run, both sides."""

LEFT_ALONE: Final = "left-alone"
"""Reason of a migration that passes through because its agent ended while it was set up."""

_CREDENTIALS: Final = struct.Struct("3i")

log = get_logger(component="adoption")


class Adoption:
    """Takes over what the predecessor left.

    Args:
        runtime: the shared parts.
        permits: what was agreed on.
        outgoing: takes those that leave.
        incoming: takes those that arrive.
    """

    def __init__(
        self,
        runtime: Runtime,
        permits: MigrationAuthorizer,
        outgoing: Outgoing,
        incoming: Incoming,
    ) -> None:
        self._runtime = runtime
        self._store = RunningStore(runtime.config.runtime_directory)
        self._permits = permits
        self._outgoing = outgoing
        self._incoming = incoming
        self._path = runtime.config.runtime_directory / RENDEZVOUS_SOCKET
        self._listener: AcceptLoop | None = None
        self._expected: dict[str, KeptMigration] = {}
        self._changed = asyncio.Event()
        self._tasks = Tasks()

    async def start(self) -> None:
        """Take the records over, listen, and wait a little for those whose data processes live.

        Raises:
            HypervisorError: the socket cannot be made.
        """
        for kept in self._runtime.ledger.predecessors():
            self._expected[kept.record.id] = kept
            self._permits.adopt(kept.record.id, kept.facts)
            self._keep_memory(kept)
        self._listener = AcceptLoop(
            _listen(self._path),
            lambda sock: self._tasks.begin(self._greet(sock), sock),
            lambda reason: self._runtime.ledger.count("rejected", f"sessions {reason}"),
        ).start()
        self._tasks.begin(self._end_those_gone())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REUNION_S_MAX):
                while self._expected:
                    self._changed.clear()
                    await self._changed.wait()
        if self._expected:
            log.warning("data processes have not come yet", migrations=len(self._expected))

    def _keep_memory(self, kept: KeptMigration) -> None:
        """Count what the agent before granted; one before 0.2.0 granted a whole cache and its windows to each."""
        if not kept.record.passthrough_reason:
            unbounded = LEGACY_BYTES + self._runtime.config.encoding.cache_bytes
            self._runtime.memory.keep(kept.record.id, kept.facts.memory_bytes or unbounded)

    async def close(self) -> None:
        """Listen no more; the next agent makes its own socket."""
        if self._listener is not None:
            self._listener.close()
        await self._tasks.cancel()

    async def _greet(self, sock: socket.socket) -> None:
        """Read the first message of a connection; one that is not from this user's data process is closed."""
        sock.setblocking(False)
        pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        try:
            async with asyncio.timeout(HELLO_S_MAX):
                hello = decode_from_worker(await asyncio.get_running_loop().sock_recv(sock, MESSAGE_BYTES_MAX))
            process = DataProcess(sock, pid)
        except (OSError, TimeoutError, UnicodeDecodeError, msgspec.DecodeError) as error:
            log.warning("nobody to adopt", pid=pid, error=str(error))
            sock.close()
            return
        if uid == os.geteuid() and isinstance(hello, Reunited):
            self._adopt(hello, process)
        else:
            log.warning("no data process of this agent", pid=pid, uid=uid)
            process.leave()

    def _adopt(self, hello: Reunited, process: DataProcess) -> None:
        identity = hello.session_id.hex()
        kept = self._expected.pop(identity, None)
        if kept is None:  # its record has ended, or never was: its reports would go nowhere
            log.warning("a data process of no migration that is known", migration=identity, pid=process.pid)
            process.kill()
            return
        self._note(identity, f"by agent {os.getpid()}")
        if hello.kind == "relay" and not kept.record.passthrough_reason:  # its agent ended while it was set up
            kept = replace(kept, record=_left_alone(kept.record))
            self._runtime.ledger.change(identity, _left_alone)
            self._runtime.ledger.count("passthrough", LEFT_ALONE)
        self._runtime.ledger.count_one("adopted")
        process.send(Adopted(heard=kept.heard))
        if kept.record.role == "source":
            self._outgoing.adopt(kept, process, hello.connections)
        else:
            self._incoming.adopt(kept, process)
        log.info("migration adopted", migration=identity, role=kept.record.role, pid=process.pid)
        self._changed.set()

    async def _end_those_gone(self) -> None:
        """End records whose data process is no more, as soon as that is certain."""
        while self._expected:
            for identity, kept in list(self._expected.items()):
                if self._store.is_carried(identity):
                    continue
                del self._expected[identity]
                self._end(kept)
            self._changed.set()
            await asyncio.sleep(LOOK_S)

    def _end(self, kept: KeptMigration) -> None:
        identity = kept.record.id
        farewell = self._store.farewell(identity)
        ledger = self._runtime.ledger
        reason = ""
        if farewell is not None:
            for event in farewell.events:
                if event.serial > kept.heard:
                    ledger.change(identity, partial(apply_happened, message=event, now=wall_clock()))
            ledger.change(identity, partial(apply_finished, message=farewell.finished))
        elif not kept.is_over:
            reason = "the agent ended before it was carried, or its data process ended while there was no agent"
        self._note(identity, "its data process has ended")
        log.warning("migration ended without an agent", migration=identity, reason=reason)
        if kept.record.role == "source":
            self._outgoing.conclude(kept, reason)
        else:
            self._incoming.conclude(kept, reason)

    def _note(self, identity: str, detail: str) -> None:
        event = MigrationEvent(at=wall_clock(), event="adopted", detail=detail)
        self._runtime.ledger.change(identity, lambda record: append_event(record, event))


def _left_alone(record: Migration) -> Migration:
    return replace(record, passthrough_reason=LEFT_ALONE)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HypervisorError(f"cannot listen on {path}: {error.strerror}") from error
    return listener
