"""Data processes as the agent holds them: spawned warm, spoken to in messages, ended for certain.

The rule: every process that was spawned is waited for, and its waiters learn its exit code. Nothing here blocks the
loop, and no thread is used: a process's end is read from its pidfd.

    DataProcessPool.take() ──> DataProcess ── assign(migration), send(StartSource ...) ──> ... migration.heard(message)
       └── starts the next spare, at once if that was the last one, else once no more are taken
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from dwcp_migrate.errors import SessionError
from dwcp_migrate.protocol.worker import (
    MESSAGE_BYTES_MAX,
    AddConnection,
    FromWorker,
    Returned,
    ToWorker,
    WorkerReady,
    decode_from_worker,
    encode_worker_message,
)
from dwcp_migrate.tasks import wait_within

COMMAND: Final = (sys.executable, "-m", "dwcp_migrate.dataplane.worker")
"""Command line of a data process; the number of its socket is appended."""

READY_S_MAX: Final = 30.0
"""Imports take 0.5 s on an idle machine; a machine under full load needs many times that."""

FDS_MAX: Final = 2
"""Descriptors beside one message: a relay's connection has two ends."""

OUTBOX_MAX: Final = 2048
"""Messages that wait for a data process: four times the channels that a session may have."""

MESSAGES_AT_ONCE: Final = 64
"""Messages taken from one process before the loop turns to others."""

SPARES: Final = 4
"""Waiting ones, of 24 MiB each that they do not share. A start takes half a second of CPU: where four migrations began
at once, their eight on two cores were four seconds in which the link was half idle."""

REFILL_S: Final = 2.0
"""From the last one taken to the start of the next: migrations that begin meanwhile need the cores."""

RESTART_S_MIN: Final = 0.5
RESTART_S_MAX: Final = 30.0


class ProcessOwner(Protocol):
    """The migration that a data process works for."""

    def heard(self, message: FromWorker) -> None:
        """Take a message of its."""

    def returned_connection(self, sockets: list[socket.socket]) -> None:
        """Take the sockets of a connection that it gives back."""


class DataProcess:
    """One data process, started by this agent or by the one before it.

    Attributes:
        pid: its process id.
        ready: done when it said `WorkerReady`; failed with SessionError when it ended before.
        exited: done with its exit code (negative: the signal; None: not known, for it is no child) when it is gone.

    Args:
        control: this end of the socket between both; owned from now on.
        pid: of the process.
        child: it, where this agent started it.
    """

    def __init__(self, control: socket.socket, pid: int, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._child = child
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._socket = control
        self._socket.setblocking(False)
        self._outbox: deque[tuple[ToWorker, bytes, list[socket.socket]]] = deque()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        self._owner: ProcessOwner | None = None
        if child is None:
            self.ready.set_result(None)
        self._loop.add_reader(self._pidfd, self._reap)
        self._loop.add_reader(self._socket, self._receive)

    @classmethod
    def start(cls, command: Sequence[str] = COMMAND, runtime_directory: Path | None = None) -> "DataProcess":
        """Start a data process.

        Args:
            command: how.
            runtime_directory: where it looks for the next agent if this one goes; None: it ends with this one.

        Raises:
            OSError: the system starts no more processes.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        where = [str(runtime_directory)] if runtime_directory else []
        with theirs:
            try:
                child = subprocess.Popen(
                    [*command, str(theirs.fileno()), *where], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
                )
            except OSError:
                ours.close()
                raise
        return cls(ours, child.pid, child)

    def assign(self, owner: ProcessOwner) -> None:
        """Give it to what it works for from now on, once."""
        assert self._owner is None, "a data process works for one migration"
        self._owner = owner

    def leave(self) -> None:
        """Leave it alone: one that carries a migration waits for the next agent, a spare ends."""
        if self.exited.done():
            return
        self._let_go()
        self.exited.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(SessionError("the agent is stopping"))
            self.ready.exception()

    def send(self, message: ToWorker, sockets: Sequence[socket.socket] = ()) -> None:
        """Send a message with descriptors; the sockets are closed here once they are handed over.

        Args:
            message: sent in order, now or when the process takes it.
            sockets: at most two; closed here once they are handed over, also when this raises.

        Raises:
            SessionError: the process is gone, or it does not read and `OUTBOX_MAX` messages wait.
        """
        if self.exited.done() or len(self._outbox) >= OUTBOX_MAX:
            _close(sockets)
            raise SessionError(f"data process {self.pid} takes no messages")
        self._outbox.append((message, encode_worker_message(message), list(sockets)))
        self._flush()

    def finish_sending(self) -> None:
        """Say that nothing more comes, so that it may exit; messages that wait here are given back at once."""
        waiting, self._outbox = self._outbox, deque()
        for message, _, sockets in waiting:
            if isinstance(message, AddConnection):
                self._give_back(sockets)
            else:
                _close(sockets)
        with contextlib.suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it now; its sockets are closed by the kernel. Being gone already is fine."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self, timeout_s: float) -> int | None:
        """Wait for its end and return its exit code; after `timeout_s` it is killed."""
        done, _ = await asyncio.wait([self.exited], timeout=timeout_s)
        if not done:
            self.kill()
        return await asyncio.shield(self.exited)

    def _flush(self) -> None:
        while self._outbox:
            _, data, sockets = self._outbox[0]
            try:
                socket.send_fds(self._socket, [data], [sock.fileno() for sock in sockets])
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:  # it is ending; `_reap` tells
                self._drop_outbox()
                break
            self._outbox.popleft()
            _close(sockets)
        self._loop.remove_writer(self._socket)

    def _drop_outbox(self) -> None:
        while self._outbox:
            _close(self._outbox.popleft()[2])

    def _receive(self) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, FDS_MAX)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._loop.remove_reader(self._socket)
                return
            self._take(data, [socket.socket(fileno=fd) for fd in fds])

    def _take(self, data: bytes, sockets: list[socket.socket]) -> None:
        try:
            message = decode_from_worker(data)
        except (msgspec.DecodeError, UnicodeDecodeError):  # a bug in it: it may not go on
            _close(sockets)
            self.kill()
            return
        if isinstance(message, Returned):
            self._give_back(sockets)
            return
        _close(sockets)
        if isinstance(message, WorkerReady):
            if not self.ready.done():
                self.ready.set_result(None)
        elif self._owner is not None:
            self._owner.heard(message)
        else:  # nothing was started in it: a bug in it too
            self.kill()

    def _give_back(self, sockets: list[socket.socket]) -> None:
        if self._owner is not None:
            self._owner.returned_connection(sockets)
        else:
            _close(sockets)

    def _reap(self) -> None:
        """Its pidfd is readable: it ended. Its last messages are read first."""
        self._receive_rest()
        code = self._child.wait() if self._child is not None else None
        self._let_go()
        if not self.ready.done():
            self.ready.set_exception(SessionError(f"data process ended before it was ready, exit code {code}"))
            self.ready.exception()  # a spare without a waiter must not warn
        if not self.exited.done():
            self.exited.set_result(code)

    def _let_go(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._drop_outbox()
        self._socket.close()

    def _receive_rest(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES_MAX, FDS_MAX)
            except OSError:
                return
            if not data:
                return
            self._take(data, [socket.socket(fileno=fd) for fd in fds])


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


class DataProcessPool:
    """Keeps data processes warm.

    Args:
        command: how to start one.
        count: how many wait.
        runtime_directory: where they look for the next agent; None: they end with this one.
    """

    def __init__(
        self,
        command: Sequence[str] = COMMAND,
        count: int = SPARES,
        runtime_directory: Path | None = None,
    ) -> None:
        self._command = command
        self._runtime_directory = runtime_directory
        self._count = count
        self._waiting: list[DataProcess] = []
        self._failures = 0
        self._next: asyncio.TimerHandle | None = None
        self._refill_at = 0.0
        self._closed = False
        self.error = ""

    @property
    def ready(self) -> bool:
        """Tell whether a spare waits, imports done."""
        return any(_is_warm(spare) for spare in self._waiting)

    @property
    def failures(self) -> int:
        """Starts in a row that failed."""
        return self._failures

    def start(self) -> None:
        """Start a spare if one is missing and none is being started; the others follow, one after the other.

        When one fails it is tried again, less and less often.
        """
        self._cancel()
        if self._closed or len(self._waiting) >= self._count or not all(map(_is_warm, self._waiting)):
            return
        try:
            spare = DataProcess.start(self._command, self._runtime_directory)
        except OSError as error:
            self._failed(f"cannot start a data process: {error}")
            return
        self._waiting.append(spare)
        spare.ready.add_done_callback(lambda _: self._became_ready(spare))
        spare.exited.add_done_callback(lambda _: self._ended(spare))

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _start_in(self, delay_s: float) -> None:
        self._cancel()
        if not self._closed:
            self._next = asyncio.get_running_loop().call_later(delay_s, self.start)

    def _became_ready(self, spare: DataProcess) -> None:
        if spare.ready.cancelled() or spare.ready.exception() is not None:
            return
        self._failures = 0
        self.error = ""
        if self._waiting:
            self._start_in(max(0.0, self._refill_at - asyncio.get_running_loop().time()))
        else:  # it was taken meanwhile
            self.start()

    def _ended(self, spare: DataProcess) -> None:
        if spare in self._waiting:
            self._waiting.remove(spare)
            self._failed(f"a data process ended while it waited, exit code {spare.exited.result()}")

    def _failed(self, error: str) -> None:
        self._failures += 1
        self.error = error
        self._start_in(min(RESTART_S_MAX, RESTART_S_MIN * 2 ** min(self._failures - 1, 10)))

    def take_ready(self) -> DataProcess | None:
        """Hand out the oldest spare if it is ready; None where the caller would have to wait."""
        if not self._waiting or not _is_warm(self._waiting[0]):
            return None
        return self._take()

    async def take(self, timeout_s: float = READY_S_MAX) -> DataProcess:
        """Hand out the oldest spare, waiting until it is ready.

        Raises:
            SessionError: none could be started within `timeout_s`.
        """
        if not self._waiting:
            self.start()
        if not self._waiting:
            raise SessionError(self.error or "the agent is stopping")
        spare = self._take()
        done, _ = await asyncio.wait([spare.ready], timeout=timeout_s)
        if not done:
            spare.kill()
            raise SessionError(f"data process {spare.pid} was not ready within {timeout_s:.0f} s")
        spare.ready.result()
        return spare

    async def start_apart(self) -> DataProcess:
        """Start one that is no spare, so that no migration misses it, and that ends with this agent.

        Raises:
            SessionError: it could not be started within `READY_S_MAX`.
        """
        try:
            process = DataProcess.start(self._command)
        except OSError as error:
            raise SessionError(f"cannot start a data process: {error}") from error
        try:
            await wait_within(asyncio.shield(process.ready), READY_S_MAX)
        except BaseException as error:
            process.kill()
            await process.wait(READY_S_MAX)
            if isinstance(error, TimeoutError):
                raise SessionError(f"a data process was not ready within {READY_S_MAX:.0f} s") from None
            raise
        return process

    def _take(self) -> DataProcess:
        spare = self._waiting.pop(0)
        self._refill_at = asyncio.get_running_loop().time() + REFILL_S
        if self._waiting:
            self._start_in(REFILL_S)
        else:
            self.start()
        return spare

    async def close(self) -> None:
        """End the spares and start no more."""
        self._closed = True
        self._cancel()
        waiting, self._waiting = self._waiting, []
        for spare in waiting:
            spare.kill()
        for spare in waiting:
            await asyncio.shield(spare.exited)


def _is_warm(spare: DataProcess) -> bool:
    return spare.ready.done() and not spare.exited.done()
