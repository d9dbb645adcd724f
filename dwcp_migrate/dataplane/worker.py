"""The data process: `python -m dwcp_migrate.dataplane.worker FD [RUNTIME_DIRECTORY]`, spawned warm by the agent.

It waits on its end of the agent's socket pair (see `protocol.worker`), becomes a source, a destination or a relay by
the first message, reports every `PROGRESS_S`, and exits with its session. One that waits ends with the agent; one that
carries a migration goes on without, and reports to the next agent of that runtime directory.
"""

import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dwcp_migrate.dataplane.destination import DestinationSession
from dwcp_migrate.dataplane.known.keeping import keep_behind
from dwcp_migrate.dataplane.known.warming import GuestReader
from dwcp_migrate.dataplane.malloc import keep_freed_memory
from dwcp_migrate.dataplane.relay.held import HeldConnections
from dwcp_migrate.dataplane.relay.passthrough import RelaySession
from dwcp_migrate.dataplane.source import SourceSession
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import SessionError
from dwcp_migrate.protocol.worker import (
    FAREWELL_SUFFIX,
    LOCK_SUFFIX,
    MESSAGE_BYTES_MAX,
    PROGRESS_S,
    RENDEZVOUS_SOCKET,
    SESSIONS_DIRECTORY,
    WORKER_VERSION,
    Abort,
    AddChannel,
    AddConnection,
    Adopted,
    Farewell,
    Finished,
    FromWorker,
    Happened,
    Hold,
    Noted,
    Release,
    Returned,
    Reunited,
    SetRate,
    StandBy,
    StartDestination,
    StartRelay,
    StartSource,
    StoreOptions,
    ToWorker,
    WorkerProgress,
    WorkerReady,
    decode_to_worker,
    encode_farewell,
    encode_worker_message,
)

PENDING_EVENTS_MAX: Final = 1000
"""Events kept while the agent does not read; later ones are dropped, counters are not."""

FDS_MAX: Final = 2
RETURN_S_MAX: Final = 5.0
"""For the agent to notice the end; it kills a process that stays longer."""

CONNECT_S_MAX: Final = 1.0
"""For an agent that listens already and is busy."""

REUNION_S: Final = 0.25
"""Between two looks for the next agent."""

LINGER_S: Final = 10.0
"""From the end of a session without an agent to the word that is left: a restart takes two seconds."""

ALONE_S: Final = 30.0
"""Without an agent; then a source goes on at the rate that holds for one that shares its link with none."""

SWITCH_INTERVAL_S: Final = 1e-4
"""The default of 5 ms lets one thread's Python hold up every other one's return from the compressor."""


OOM_SCORE_ADJUST: Final = 600
"""Above the agent's (300 by its unit) and every guest's (0): its end costs one migration, whose guest runs on."""

_PR_SET_DUMPABLE: Final = 4

Session = SourceSession | DestinationSession | RelaySession

_KINDS: Final = {SourceSession: "source", DestinationSession: "destination", RelaySession: "relay"}


class AgentConnection:
    """This process's end of the conversation with its agent: the one that started it, or the next one.

    Attributes:
        is_up: there is an agent.
        is_known: and it knows this process's migration; the next one does once it said `Adopted`.

    Args:
        control: connected to the agent that started it.
        rendezvous: where the next one listens; None: there is none, and this process ends with its agent.
    """

    def __init__(self, control: socket.socket, rendezvous: Path | None) -> None:
        self._control = control
        self._rendezvous = rendezvous
        self._lost_at = 0.0
        self.is_up = True
        self.is_known = True

    def fileno(self) -> int:
        """The socket's descriptor while it is up."""
        return self._control.fileno()

    @property
    def may_come_back(self) -> bool:
        """Tell whether a lost agent is waited for."""
        return self._rendezvous is not None

    def alone_s(self, now: float) -> float:
        """Seconds without an agent that knows of this process; 0 while there is one."""
        return 0.0 if self.is_up else now - self._lost_at

    def send(self, message: FromWorker, fds: Sequence[int] = ()) -> None:
        """Send a message; without an agent it is dropped.

        Args:
            message: to the agent.
            fds: descriptors beside it; they stay open here.
        """
        if not self.is_up:
            return
        try:
            socket.send_fds(self._control, [encode_worker_message(message)], fds)
        except (BrokenPipeError, ConnectionResetError):
            self._lose()

    def receive(self, timeout_s: float | None = None) -> tuple[ToWorker, list[int]] | None:
        """Take one message with its descriptors; None when the agent is gone, or has half-closed.

        Raises:
            TimeoutError: none came in time.
            SessionError: a message did not fit.
        """
        self._control.settimeout(timeout_s)
        try:
            data, fds, flags, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, FDS_MAX)
        except ConnectionResetError:
            data, fds, flags = b"", [], 0
        finally:
            self._control.settimeout(None)
        if not data:
            self._lose()
            return None
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise SessionError("a message of the agent's did not fit")
        return decode_to_worker(data), fds

    def _lose(self) -> None:
        self.is_up = False
        if self.is_known:
            self._lost_at = time.monotonic()
        self._control.close()

    def find_again(self) -> bool:
        """Look for the next agent; returns whether it is there."""
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.settimeout(CONNECT_S_MAX)
        try:
            control.connect(str(self._rendezvous))
        except OSError:
            control.close()
            return False
        control.settimeout(None)
        self._control = control
        self.is_up, self.is_known = True, False
        return True


class Worker:
    """The main thread: messages in, events and progress out.

    Args:
        agent: the agent's end.
        directory: where a session that ended without an agent leaves word for the next; None: nowhere.
    """

    def __init__(self, agent: AgentConnection, directory: Path | None) -> None:
        self._agent = agent
        self._directory = directory
        self._session: Session | None = None
        self._session_id = b""
        self._connections = 0
        self._waiting: HeldConnections | None = None
        self._kept_open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._kept: deque[Happened] = deque(maxlen=PENDING_EVENTS_MAX)
        self._events: deque[Happened] = deque(maxlen=PENDING_EVENTS_MAX)
        self._serial = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._told_at = 0.0
        self._alone_bytes_per_s: float | None = None
        self._ending: Finished | None = None
        self._is_noted = False
        self._store: StoreOptions | None = None

    def report(self, event: Happened) -> None:
        """Queue an event for the agent; from any thread, never blocks."""
        with self._lock:
            self._serial += 1
            event = replace(event, at=time.time(), serial=self._serial)
            self._kept.append(event)
            self._events.append(event)
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Serve until the session is over; without a session, until the agent is gone."""
        self._agent.send(WorkerReady(pid=os.getpid()))
        while not (self._ending and self._took_leave(self._ending)):
            self._look()
            if not self._agent.is_up and not self._wait_for_agent():
                return
            self._send_events()
            if self._session is None or self._ending:
                continue
            self._ending = self._finished(self._session)
            self._send_progress(self._session)

    def _look(self) -> None:
        """Wait for a message or an event, not for long, and take the message."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        if self._agent.is_up:
            poller.register(self._agent.fileno(), select.POLLIN)
        wait_s = PROGRESS_S if self._agent.is_up else REUNION_S
        ready = {fd for fd, _ in poller.poll(wait_s * 1000)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._agent.is_up and self._agent.fileno() in ready and (received := self._agent.receive()):
            message, fds = received
            self._handle(message, [socket.socket(fileno=fd) for fd in fds])

    def _relay_what_waits(self) -> None:
        """Without an agent, carry on with the connections that it had not handed over."""
        waiting, session = self._waiting, self._session
        if not waiting:
            return
        if isinstance(session, SourceSession) and self._connections:  # they belong to it
            for accepted, sock in waiting.take():
                self._connections = accepted + 1
                session.add_connection(accepted, sock)
            return
        if isinstance(session, SourceSession):
            session.abort("the agent ended")
        if not isinstance(session, RelaySession):
            session = RelaySession(self.report)
        self.report(Happened(event="left-alone", detail="the agent ended before it had handed its connections over"))
        self._connections = max(self._connections, waiting.relay(session, self.report))
        self._session = session if self._connections else None

    def _wait_for_agent(self) -> bool:
        """Look for the next agent; False when this process need not wait any more."""
        self._relay_what_waits()
        session = self._session
        if session is None or self._is_noted or not self._agent.may_come_back:
            return False
        if self._agent.find_again():
            self._alone_bytes_per_s = None
            self._agent.send(
                Reunited(
                    version=WORKER_VERSION,
                    pid=os.getpid(),
                    session_id=self._session_id,
                    kind=_KINDS[type(session)],
                    connections=self._connections,
                    counters=session.counters(),
                )
            )
            return True
        counters = session.counters()
        if not isinstance(session, DestinationSession) and not self._connections:
            return False  # its connections were lost with the agent
        alone_s = self._agent.alone_s(time.monotonic())
        if alone_s >= ALONE_S and not (counters.raw_bytes or counters.wire_bytes):
            return False  # no agent came, and there is none to wait for
        if self._alone_bytes_per_s is not None and alone_s >= ALONE_S:
            self._pace(session, self._alone_bytes_per_s)
            self._alone_bytes_per_s = None
        return True

    def _send_progress(self, session: Session) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S and not self._ending:
            self._told_at = now
            self._agent.send(WorkerProgress(counters=session.counters()))

    def _finished(self, session: Session) -> Finished | None:
        """The result, once nothing more can come."""
        finished = session.finished()
        if finished is None or isinstance(session, RelaySession):
            return finished
        session.close()
        return session.finished()

    def _took_leave(self, ending: Finished) -> bool:
        """Tell how the session ended, or leave word; False while there may be an agent soon."""
        if self._agent.is_up:
            if not self._agent.is_known:
                return False
            self._send_events()
            self._agent.send(ending)
            self._return_late()
            return self._is_noted or not self._agent.may_come_back
        if self._agent.may_come_back and self._agent.alone_s(time.monotonic()) < LINGER_S:
            return False
        self._leave_word(ending)
        return True

    def _return_late(self) -> None:
        """Give back the connections that the agent sent before it knew; it half-closes once it knows."""
        while self._agent.is_up:
            try:
                received = self._agent.receive(RETURN_S_MAX)
            except TimeoutError:
                if self._is_noted or not self._agent.may_come_back:
                    return
                continue
            if received is None:
                return
            message, fds = received
            self._is_noted |= isinstance(message, Noted)
            if isinstance(message, AddConnection):
                self._agent.send(Returned(connection=message.connection), fds)
            for fd in fds:
                os.close(fd)

    def _leave_word(self, ending: Finished) -> None:
        if self._directory is None:
            return
        with self._lock:
            farewell = Farewell(finished=ending, events=tuple(self._kept))
        path = self._directory / f"{self._session_id.hex()}{FAREWELL_SUFFIX}"
        with contextlib.suppress(OSError):  # the next agent then says that it does not know how it ended
            write_whole(path, encode_farewell(farewell), sync=False)

    def _handle(self, message: ToWorker, sockets: list[socket.socket]) -> None:
        match message, self._session:
            case StartSource() | StartDestination() | StartRelay(), None:
                self._begin(message, sockets)
            case AddConnection(), SourceSession() | RelaySession() as session:
                self._connections = message.connection + 1
                session.add_connection(message.connection, *sockets)
                if self._waiting is not None:
                    self._waiting.release(message.accepted)
            case AddChannel(), DestinationSession() as session:
                session.add_channel(*sockets)
            case SetRate(), session:
                self._alone_bytes_per_s = message.alone_bytes_per_s
                self._pace(session, message.bytes_per_s)
            case Adopted(), _:
                self._tell_again(message.heard)
            case Noted(), _:
                self._is_noted = True
            case Abort(), session:
                if session is None:
                    raise SystemExit(0)
                session.abort(message.reason)
            case _:
                self._stand_by(message, sockets)

    def _stand_by(self, message: ToWorker, sockets: list[socket.socket]) -> None:
        match message, self._waiting:
            case StandBy(), None if self._session is None:
                self._session_id, self._kept_open = message.session_id, sockets
                self._show()
                self._waiting = HeldConnections(message)
            case Hold(), HeldConnections() as waiting:
                waiting.hold(message.accepted, *sockets)
            case Release(), HeldConnections() as waiting:
                waiting.release(message.accepted)
            case _:
                raise SessionError(f"unexpected {type(message).__name__}")

    def _begin(self, start: StartSource | StartDestination | StartRelay, kept_open: list[socket.socket]) -> None:
        self._session_id = start.session_id
        self._kept_open += kept_open
        if self._waiting is None:
            self._show()
        self._store = None if isinstance(start, StartRelay) else start.options.store
        match start:
            case StartSource():
                session = self._session = SourceSession(start, self.report)
                if start.reads is not None:
                    GuestReader(start.reads, session)
            case StartDestination():
                self._session = DestinationSession(start, self.report)
            case StartRelay():
                self._session = RelaySession(self.report)

    def _show(self) -> None:
        """Show by a lock that this process carries the session: an agent that finds it held waits for this process."""
        if self._directory is None:
            return
        path = self._directory / f"{self._session_id.hex()}{LOCK_SUFFIX}"
        with contextlib.suppress(OSError):  # the next agent then takes this process for gone until it hears of it
            self._directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _tell_again(self, heard: int) -> None:
        """Queue the events that are not in the record yet."""
        self._agent.is_known = True
        with self._lock:
            self._events = deque((event for event in self._kept if event.serial > heard), PENDING_EVENTS_MAX)

    def keep_pages(self) -> None:
        """Leave a child that puts the pages of the session into this host's store, if there is one."""
        if isinstance(self._session, SourceSession | DestinationSession) and self._store is not None:
            fill = "sent" if isinstance(self._session, SourceSession) else "received"
            keep_behind(self._store, fill, self._session.kept_pages())

    @staticmethod
    def _pace(session: Session | None, bytes_per_s: float) -> None:
        """A relay is held by libvirt's own speed, and a destination sends no bulk."""
        if isinstance(session, SourceSession):
            session.pace(bytes_per_s)

    def _send_events(self) -> None:
        while self._agent.is_up and self._agent.is_known:
            with self._lock:
                if not self._events:
                    return
                event = self._events.popleft()
            self._agent.send(event)


def _settle() -> None:
    """Leave no core dump of guest memory, be quick to hand the GIL over, show stacks on SIGUSR1."""
    _offer_to_the_oom_killer()  # before the core dump is forbidden: after that /proc/self is root's
    libc = ctypes.CDLL(None, use_errno=True)
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
    runtime_directory = Path(sys.argv[2]) if len(sys.argv) > 2 else None  # noqa: PLR2004 - the second argument
    rendezvous = runtime_directory / RENDEZVOUS_SOCKET if runtime_directory else None
    sessions = runtime_directory / SESSIONS_DIRECTORY if runtime_directory else None
    worker = Worker(AgentConnection(socket.socket(fileno=int(sys.argv[1])), rendezvous), sessions)
    worker.run()
    worker.keep_pages()
    os._exit(0)  # not through interpreter shutdown: threads may sit in a compressor


if __name__ == "__main__":
    main()
