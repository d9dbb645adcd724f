"""The data process: `python -m dwcp_migrate.dataplane.worker FD`, spawned warm by the agent.

It waits on its end of the agent's socket pair (see `messages`), becomes a source, a destination or a relay by the
first message, reports every `PROGRESS_S`, and exits with its session. It dies with the agent.
"""

import contextlib
import ctypes
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from dwcp_migrate.dataplane.destination import DestinationSession
from dwcp_migrate.dataplane.malloc import keep_freed_memory
from dwcp_migrate.dataplane.passthrough import RelaySession
from dwcp_migrate.dataplane.source import SourceSession
from dwcp_migrate.errors import SessionError
from dwcp_migrate.protocol.worker import (
    MESSAGE_BYTES_MAX,
    PROGRESS_S,
    Abort,
    AddChannel,
    AddConnection,
    Finished,
    FromWorker,
    Happened,
    Returned,
    SetRate,
    StartDestination,
    StartRelay,
    StartSource,
    ToWorker,
    WorkerProgress,
    WorkerReady,
    decode_to_worker,
    encode,
)

PENDING_EVENTS_MAX: Final = 1000
"""Events kept while the agent does not read; later ones are dropped, counters are not."""

FDS_MAX: Final = 2
RETURN_S_MAX: Final = 5.0
"""For the agent to notice the end; it kills a process that stays longer."""

SWITCH_INTERVAL_S: Final = 1e-4
"""The default of 5 ms lets one thread's Python hold up every other one's return from the compressor."""


OOM_SCORE_ADJUST: Final = 600
"""Above the agent's (300 by its unit) and every guest's (0): its end costs one migration, whose guest runs on."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4

Session = SourceSession | DestinationSession | RelaySession


class Worker:
    """The main thread: messages in, events and progress out.

    Args:
        control: this process's end of the agent's socket pair.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._session: Session | None = None
        self._held: list[socket.socket] = []
        self._events: deque[Happened] = deque(maxlen=PENDING_EVENTS_MAX)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._told_at = 0.0
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)

    def report(self, event: Happened) -> None:
        """Queue an event for the agent; from any thread, never blocks."""
        self._events.append(event)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Serve until the session is over or the agent is gone."""
        self._send(WorkerReady(pid=os.getpid()))
        while True:
            ready = {fd for fd, _ in self._poller.poll(PROGRESS_S * 1000)}
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if self._control.fileno() in ready and not self._receive():
                return
            self._send_events()
            if self._session is None:
                continue
            if finished := self._finished(self._session):
                self._send_events()
                self._send(finished)
                self._return_late()
                return
            self._send_progress(self._session)

    def _send_progress(self, session: Session) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S:
            self._told_at = now
            self._send(WorkerProgress(counters=session.counters()))

    def _finished(self, session: Session) -> Finished | None:
        """The result, once nothing more can come."""
        finished = session.finished()
        if finished is None or isinstance(session, RelaySession):
            return finished
        session.close()
        return session.finished()

    def _receive(self) -> bool:
        """Handle one message; False when the agent is gone."""
        data, fds, flags, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, FDS_MAX)
        if not data:
            return False
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise SessionError("a message of the agent's did not fit")
        self._handle(decode_to_worker(data), [socket.socket(fileno=fd) for fd in fds])
        return True

    def _return_late(self) -> None:
        """Give back the connections that the agent sent before it knew; it half-closes once it knows."""
        self._control.settimeout(RETURN_S_MAX)
        with contextlib.suppress(TimeoutError):
            while True:
                data, fds, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, FDS_MAX)
                if not data:
                    return
                message = decode_to_worker(data)
                if isinstance(message, AddConnection):
                    socket.send_fds(self._control, [encode(Returned(connection=message.connection))], fds)
                for fd in fds:
                    os.close(fd)

    def _handle(self, message: ToWorker, sockets: list[socket.socket]) -> None:
        match message, self._session:
            case StartSource(), None:
                self._held = sockets
                self._session = SourceSession(message, self.report)
            case StartDestination(), None:
                self._session = DestinationSession(message, self.report)
            case StartRelay(), None:
                self._held = sockets
                self._session = RelaySession(self.report)
            case AddConnection(), SourceSession() as session:
                session.add_connection(message.connection, *sockets)
            case AddConnection(), RelaySession() as session:
                session.add_connection(message.connection, *sockets)
            case AddChannel(), DestinationSession() as session:
                session.add_channel(*sockets)
            case SetRate(), session:
                self._pace(session, message.bytes_per_s)
            case Abort(), session:
                if session is None:
                    raise SystemExit(0)
                session.abort(message.reason)
            case _:
                raise SessionError(f"unexpected {type(message).__name__}")

    @staticmethod
    def _pace(session: Session | None, bytes_per_s: float) -> None:
        """A relay is held by libvirt's own speed, and a destination sends no bulk."""
        if isinstance(session, SourceSession):
            session.pace(bytes_per_s)

    def _send_events(self) -> None:
        while self._events:
            self._send(self._events.popleft())

    def _send(self, message: FromWorker) -> None:
        self._control.send(encode(message))


def _settle() -> None:
    """Die with the agent, leave no core dump of guest memory, be quick to hand the GIL over, show stacks on SIGUSR1."""
    _offer_to_the_oom_killer()  # before the core dump is forbidden: after that /proc/self is root's
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    threading.excepthook = _die


def _offer_to_the_oom_killer() -> None:
    """Have the kernel take this process before the agent and any guest; raising the score needs no privilege."""
    with contextlib.suppress(OSError):  # a kernel without it chooses as it likes
        path = Path("/proc/self/oom_score_adj")
        if int(path.read_text()) < OOM_SCORE_ADJUST:
            path.write_text(str(OOM_SCORE_ADJUST))


def _die(fault: threading.ExceptHookArgs) -> None:
    """End the process at a thread's fault: half a session would leave QEMU waiting for ever on an open connection."""
    threading.__excepthook__(fault)
    sys.stderr.flush()
    os._exit(1)  # the agent ends the migration at both ends


def main() -> None:
    """Entry point of the data process."""
    _settle()
    keep_freed_memory()
    control = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the agent is gone: all ends with this process
        Worker(control).run()
    os._exit(0)  # not through interpreter shutdown: threads may sit in a compressor


if __name__ == "__main__":
    main()
