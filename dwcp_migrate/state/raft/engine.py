"""The Raft engine: a replica in a thread of its own, asked from asyncio.

The thread owns the replica and the state, asyncio owns the requests; between them go only calls by a queue
and answers by `call_soon_threadsafe`. Everything that is queued when the thread comes round is proposed as one entry:
under load entries get larger, not later.

A disk that is full stops the replica until there is room; one that fails to sync, or an unforeseen error, stops it for
good: the others elect without it. A host that is stopped answers every request with NoQuorumError.
"""

import asyncio
import contextlib
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from socket import socket
from statistics import quantiles
from time import monotonic, time
from typing import Any, Final, TypeVar

from dwcp_migrate.errors import CoordinationError, DwcpError, NoQuorumError
from dwcp_migrate.state.engine import RequestNumbers
from dwcp_migrate.state.engine_status import EngineMember, EngineStatus
from dwcp_migrate.state.fleet import commands, readers
from dwcp_migrate.state.fleet.model import FIRST_VERSION, FleetState, TicketOutcome
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.log_file import DISK_FULL
from dwcp_migrate.state.raft.peer_connections import READ, PeerIdentity
from dwcp_migrate.state.raft.pysyncobj import refusal_words
from dwcp_migrate.state.raft.replica import RaftReplica, RaftSettings
from dwcp_migrate.tasks import wait_within

ATTEMPT_S: Final = 1.0
"""An attempt that is not answered in this time is repeated: its answer may have gone with a leader."""

WAIT_LEADER_S: Final = 0.05
"""Wait between two checks for a leader."""

DISK_RETRY_S: Final = 5.0
"""Between two attempts to go on after the disk was full."""

CALL_S_MAX: Final = 10.0
"""For a look at the replica; only a disk that hangs takes so long."""

PRIORITY: Final = -10
"""Of the replica's thread; as that of a data process's writer."""

BATCH_OVERHEAD_BYTES: Final = 5
"""Msgpack around one command."""

LATENCIES_KEPT: Final = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One command on its way; `result` gets an TicketOutcome, or None when it has to be tried again."""

    data: bytes
    result: "asyncio.Future[Any]"


class RaftEngine:
    """See `engine.Engine`.

    Args:
        settings: of the replica.
        identity: of this host.
        rejected: counts connections that were closed, by reason; called in the replica's thread.
        leader_changed: told of a new leader (empty: none) and its term; called in the replica's thread.
        clock: seconds since the epoch, for commands.
        machine: makes the state machine.

    Attributes:
        leader_changed: told of a new leader (empty: none) and its term; called in the replica's thread.
    """

    def __init__(
        self,
        settings: RaftSettings,
        identity: PeerIdentity,
        *,
        rejected: Callable[[str], None],
        leader_changed: Callable[[str, int], None],
        clock: Callable[[], float] = time,
        machine: Callable[[], FleetMachine] = FleetMachine,
    ) -> None:
        self._make_machine = machine
        self._settings = settings
        self._identity = identity
        self._rejected = rejected
        self._leader_changed = leader_changed
        self._clock = clock
        self._requests = RequestNumbers(token_hex(8))
        self._ended = asyncio.Event()
        self._asked: deque[_Asked] = deque()
        self._calls: deque[Callable[[RaftReplica | None], None]] = deque()
        self._replica: RaftReplica | None = None
        self._machine = machine()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._confirmed = self._failed = self._elections = 0
        self._error = ""

    # -- life

    async def start(self) -> None:
        """See `engine.Engine`."""
        self._loop = asyncio.get_running_loop()
        self._open_replica()
        self._thread = threading.Thread(target=self._run, name="raft")
        self._thread.start()

    async def close(self) -> None:
        """See `engine.Engine`."""
        self._stopping.set()
        self._ring()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        os.close(self._wake)

    def adopt(self, sock: socket) -> None:
        """See `engine.Engine`."""
        replica = self._replica
        if replica is None:
            sock.close()
        else:
            replica.links.adopt(sock)
            self._ring()

    def _open_replica(self) -> None:
        self._machine = self._make_machine()
        replica = RaftReplica(self._settings, self._identity, self._machine, self._rejected)
        replica.watch(self._wake, self._woken, READ)
        self._replica, self._error = replica, ""

    def _ring(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _woken(self, _descriptor: int, _event: int) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return

    # -- the replica's thread

    def _run(self) -> None:
        with contextlib.suppress(PermissionError):  # a convenience: heartbeats go out while builds and guests compute
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        while not self._stopping.is_set():
            try:
                if self._replica is None:
                    self._open_replica()
                self._serve()
            except Exception as error:  # noqa: BLE001 - every request gets an answer, also after an unforeseen error
                self._error = _reason(error)
                may_retry = isinstance(error, OSError) and error.errno in DISK_FULL
                self._close_replica()
                self._rest(DISK_RETRY_S if may_retry else float("inf"))
        self._close_replica()
        self._answer_calls(None)

    def _rest(self, seconds: float) -> None:
        """Refuse everything for a while, or until the engine is closed."""
        until = monotonic() + seconds
        while not self._stopping.wait(WAIT_LEADER_S) and monotonic() < until:
            self._answer_calls(None)

    def _serve(self) -> None:
        replica = self._replica
        assert replica is not None
        leader, term = replica.leader, replica.term
        while not self._stopping.is_set():
            self._answer_calls(replica)
            self._propose(replica)
            replica.tick()
            if (replica.leader, replica.term) != (leader, term):
                self._elections += replica.term != term
                leader, term = replica.leader, replica.term
                self._leader_changed(leader, term)

    def _close_replica(self) -> None:
        replica, self._replica = self._replica, None
        if replica is not None:
            with contextlib.suppress(Exception):  # it is given up: nobody may wait for the rest of it
                replica.close()
        self._settle(list(self._asked), None)
        self._asked.clear()

    def _answer_calls(self, replica: RaftReplica | None) -> None:
        while self._calls:
            self._calls.popleft()(replica)
        if replica is None:
            self._settle([self._asked.popleft() for _ in range(len(self._asked))], None)

    def _propose(self, replica: RaftReplica) -> None:
        """Propose what is queued, as few entries as their limits allow."""
        while self._asked:
            batch: list[_Asked] = []
            size = BATCH_OVERHEAD_BYTES
            while self._asked and len(batch) < commands.BATCH_COMMANDS_MAX:
                size += len(self._asked[0].data) + BATCH_OVERHEAD_BYTES
                if batch and size > commands.BATCH_BYTES_MAX:
                    break
                batch.append(self._asked.popleft())
            if replica.has_leader:
                payload = commands.encode_batch([asked.data for asked in batch])
                replica.submit(payload, partial(self._answered, batch))
            else:
                self._settle(batch, None)

    def _answered(self, batch: list[_Asked], outcomes: list[TicketOutcome] | None, error: int) -> None:
        self._settle(batch, None if error else outcomes)

    def _settle(self, batch: list[_Asked], outcomes: list[TicketOutcome] | None) -> None:
        if batch and not self._loop.is_closed():
            results: list[TicketOutcome | None] = [*outcomes] if outcomes else [None] * len(batch)
            self._loop.call_soon_threadsafe(_set_results, batch, results)

    # -- requests

    async def submit(self, body: commands.Body, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`."""
        if readers.version_of(body) > FIRST_VERSION:
            await self._call(partial(self._check_readers, body))
        deadline = self._loop.time() + timeout_s
        while not self._requests.may_begin:
            self._ended.clear()
            try:
                await wait_within(self._ended.wait(), deadline - self._loop.time())
            except TimeoutError as error:
                raise self._no_quorum(timeout_s) from error
        number, request = self._requests.begin()
        try:
            command = commands.Command(request=request, by=self._identity.name, at=self._clock(), body=body)
            return await self._confirm(commands.encode(command), timeout_s)
        finally:
            self._requests.end(number)
            self._ended.set()

    def _check_readers(self, body: commands.Body, replica: RaftReplica) -> None:
        readers.check_readers(self._machine.fleet, body, {*replica.voters, *replica.links.peers})

    async def _confirm(self, data: bytes, timeout_s: float) -> TicketOutcome:
        began = self._loop.time()
        deadline = began + timeout_s
        while (left := deadline - self._loop.time()) > 0:
            outcome = await self._attempt(data, min(left, ATTEMPT_S))
            if outcome is not None:
                self._confirmed += 1
                self._latencies_ms.append((self._loop.time() - began) * 1000)
                return outcome
            await asyncio.sleep(min(WAIT_LEADER_S, max(0.0, deadline - self._loop.time())))
        self._failed += 1
        raise self._no_quorum(timeout_s)

    def _no_quorum(self, timeout_s: float) -> NoQuorumError:
        return NoQuorumError(
            f"no majority confirmed it within {timeout_s:g} s" + (f": {self._error}" if self._error else ""),
            hint="see `dwcp-migrate cluster status`",
        )

    async def _attempt(self, data: bytes, timeout_s: float) -> TicketOutcome | None:
        asked = _Asked(data, self._loop.create_future())
        self._asked.append(asked)
        self._ring()
        try:
            result: TicketOutcome | None = await wait_within(asked.result, timeout_s)
        except TimeoutError:
            return None
        return result

    async def beat(self, body: commands.PutHost, timeout_s: float) -> TicketOutcome:
        """See `engine.Engine`."""
        return await self.submit(body, timeout_s)

    async def barrier(self, timeout_s: float) -> None:
        """See `engine.Engine`."""
        await self.submit(commands.Barrier(), timeout_s)

    async def read(self, act: Callable[[RaftReplica], T]) -> T:
        """Ask the replica something; for measurements and tests of the engine itself.

        Raises:
            NoQuorumError: it is stopped.
        """
        return await self._call(act)

    async def look(self, at: Callable[[FleetState], T]) -> T:
        """See `engine.Engine`."""
        return await self._call(lambda _: at(self._machine.fleet))

    async def _call(self, act: Callable[[RaftReplica], T]) -> T:
        """Run something in the replica's thread."""
        future: asyncio.Future[T] = self._loop.create_future()

        def run(replica: RaftReplica | None) -> None:
            if replica is None:
                stopped = NoQuorumError(f"the replica is stopped: {self._error or 'the agent stops'}")
                self._loop.call_soon_threadsafe(_fail, future, stopped)
                return
            try:
                result = act(replica)
            except Exception as error:  # noqa: BLE001 - it belongs to the caller, not to the replica's thread
                self._loop.call_soon_threadsafe(_fail, future, error)
            else:
                self._loop.call_soon_threadsafe(_finish, future, result)

        self._calls.append(run)
        self._ring()
        try:
            return await wait_within(future, CALL_S_MAX)
        except TimeoutError as error:
            raise NoQuorumError(f"the replica did not answer within {CALL_S_MAX:g} s: its disk may hang") from error

    async def status(self) -> EngineStatus:
        """See `engine.Engine`."""
        try:
            status = await self._call(self._status)
        except NoQuorumError as error:
            return EngineStatus(engine="raft", state="stopped", error=self._error or str(error))
        return status

    def _status(self, replica: RaftReplica) -> EngineStatus:
        spread = quantiles(self._latencies_ms, n=100) if len(self._latencies_ms) > 1 else []
        return EngineStatus(
            engine="raft",
            state=replica.state,
            leader=replica.leader if replica.has_leader else "",
            term=replica.term,
            commit_index=replica.commit_index,
            applied_index=replica.applied_index,
            log_bytes=replica.log_bytes,
            members=self._members(replica),
            elections=self._elections,
            requests=self._confirmed,
            requests_failed=self._failed,
            commit_ms_p50=spread[49] if spread else -1.0,
            commit_ms_p99=spread[98] if spread else -1.0,
        )

    def _members(self, replica: RaftReplica) -> list[EngineMember]:
        found = []
        for name in sorted(replica.voters | set(replica.links.peers) | {replica.name}):
            own = name == replica.name
            matched = replica.commit_index if own and replica.state == "leader" else replica.matched(name)
            role = "observer" if name not in replica.voters else "leader" if name == replica.leader else "voter"
            found.append(
                EngineMember(
                    name=name,
                    role=role,  # type: ignore[arg-type]
                    connected=own or replica.links.connected(name),
                    behind=max(0, replica.commit_index - matched) if matched >= 0 else -1,
                )
            )
        return found

    # -- membership

    async def add_member(self, name: str, timeout_s: float) -> None:
        """See `engine.Engine`."""
        await self._change(messages.RaftMembership("add", name), timeout_s)

    async def remove_member(self, name: str, timeout_s: float) -> None:
        """See `engine.Engine`."""
        await self._change(messages.RaftMembership("rem", name), timeout_s)

    async def _change(self, change: messages.RaftMembership, timeout_s: float) -> None:
        adding = change.verb == "add"
        if (change.name in await self._call(lambda replica: replica.voters)) == adding:
            return
        future: asyncio.Future[int] = self._loop.create_future()

        def act(replica: RaftReplica) -> None:
            def answer(_: object, error: int) -> None:
                self._loop.call_soon_threadsafe(_finish, future, error)

            replica.submit(messages.encode_membership(change), answer, messages.MEMBERSHIP)

        await self._call(act)
        try:
            error = await wait_within(future, timeout_s)
        except TimeoutError as late:
            raise NoQuorumError(f"no majority confirmed it within {timeout_s:g} s") from late
        if error:
            raise CoordinationError(
                f"the leader did not {'add' if adding else 'remove'} {change.name}: {refusal_words(error)}",
                hint="one change at a time, and only with a majority of the new voters connected; "
                + (
                    "it must be connected and its log no more than a little behind"
                    if adding
                    else "a leader is not removed: `dwcp-migrate cluster transfer-leader` first"
                ),
            )

    async def transfer_leader(self, name: str, timeout_s: float) -> str:
        """See `engine.Engine`; a voter that misses an entry just now is waited for a little."""
        deadline = self._loop.time() + timeout_s
        patience = min(deadline, self._loop.time() + ATTEMPT_S)
        while await self._ask_to_lead(name, timeout_s):
            if self._loop.time() >= patience:
                raise CoordinationError(
                    "no voter is up to date and connected", hint="see `dwcp-migrate cluster status`"
                )
            await asyncio.sleep(WAIT_LEADER_S)
        while self._loop.time() < deadline:
            leader = await self._call(lambda replica: replica.leader if replica.has_leader else "")
            if leader not in ("", self._identity.name):
                return leader
            await asyncio.sleep(WAIT_LEADER_S / 5)
        raise NoQuorumError("no other voter took over the lead in time")

    async def _ask_to_lead(self, name: str, timeout_s: float) -> int:
        """As the leader: ask another voter to take over; returns 0 or the library's reason for a refusal."""
        future: asyncio.Future[int] = self._loop.create_future()

        def act(replica: RaftReplica) -> None:
            if replica.state != "leader":
                raise CoordinationError(
                    f"{replica.name} does not lead, {replica.leader or 'nobody'} does", hint="ask the leader's agent"
                )
            replica.transfer(name, lambda _, error: self._loop.call_soon_threadsafe(_finish, future, error))

        await self._call(act)
        try:
            return await wait_within(future, timeout_s)
        except TimeoutError as error:
            raise NoQuorumError("the leader did not answer in time") from error


def _reason(error: Exception) -> str:
    """Name the reason why a replica stopped; for an unforeseen error with its place in the code."""
    if isinstance(error, OSError | DwcpError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"


def _set_results(batch: list[_Asked], outcomes: list[Any]) -> None:
    for asked, outcome in zip(batch, outcomes, strict=True):
        _finish(asked.result, outcome)


def _finish(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
