"""The destination side: a peer's agent asks, its channels arrive, a data process writes into the waiting QEMU.

The rule: this host dials only itself, in its migration range, for a migration that its own hook announced; and a
session belongs to the peer that opened it, by certificate.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec.structs import replace

from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.authorization.reconciler import TicketReconciler
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.data_process import Crash, DataProcessHandle
from dwcp_migrate.agent.migrations.peer_liveness import PeerLivenessMonitor
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.agent.peers.server import refused
from dwcp_migrate.agent.tracking.running_store import KeptMigration, SessionFacts
from dwcp_migrate.api.migration import Migration, MigrationEvent, Result, append_event, close_record
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import DwcpError, NoMemoryError, SessionError
from dwcp_migrate.hypervisor.announcements import Announcement
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import (
    CONTROL_SESSION,
    PBFT_SESSION,
    STATE_SESSION,
    VERSIONS,
    WITHDRAWN,
    Ask,
    Close,
    Closed,
    DomainName,
    Expect,
    Expected,
    Follow,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Refused,
    Request,
    Runs,
    Successor,
    Weigh,
    Weighed,
    common_version,
)
from dwcp_migrate.protocol.session_memory import NO_MEMORY, SessionMemory
from dwcp_migrate.protocol.worker import AddChannel, StartDestination, StoreOptions
from dwcp_migrate.tasks import begin_task

FIRST_CHANNEL_S_MAX: Final = 30.0
"""From `Opened` to the first channel; a source that died in between leaves no data process behind."""

SOURCE_WORD_S_MAX: Final = 15.0
"""Time that the record waits for the source's report of the result, where libvirt here reports none."""

REMARK_CHARACTERS_MAX: Final = 256
"""As `Opened` allows."""

log = get_logger(component="agent")


@dataclass(slots=True)
class _Session:
    peer: PeerConfig
    announced: str
    began_at: float
    handle: DataProcessHandle | None = None
    memory: SessionMemory = NO_MEMORY
    outlives: bool = False
    is_adopted: bool = False
    has_channel: bool = False
    peer_close: Close | None = None
    is_withdrawn: bool = False
    store: StoreOptions | None = None
    store_key: bytes = b""


class OutgoingSide(Protocol):
    """The source side of this agent, as far as the destinations of its migrations speak to it."""

    def closed(self, peer: PeerConfig, message: Close) -> bool:
        """A destination ended a migration; False if this host has none of that id."""

    def carries(self, peer: PeerConfig, session_id: bytes) -> bool:
        """Whether this host carries a migration to that peer."""


@dataclass(frozen=True, slots=True)
class AboutHost:
    """Answers to peers' requests that are about this host and none of its migrations.

    Attributes:
        software: this software's version.
        is_own_address: whether an address is this host's.
        successor: who follows which members of the PBFT group.
        load: what this host and its guests use.
    """

    software: str
    is_own_address: Callable[[str], bool]
    successor: Callable[[Follow], Successor]
    load: Callable[[Weigh], Weighed]


class Incoming:
    """All migrations that arrive on this host through the agent.

    Args:
        runtime: the shared parts.
        permits: what is agreed on before bytes flow.
        recovery: knows what runs here.
        outgoing: the source side of this agent, which peers ask and tell over the same connection.
        about: what peers ask of this host.
    """

    def __init__(
        self,
        runtime: Runtime,
        permits: MigrationAuthorizer,
        recovery: TicketReconciler,
        outgoing: OutgoingSide,
        about: AboutHost,
    ) -> None:
        self._runtime = runtime
        self._permits = permits
        self._recovery = recovery
        self._outgoing = outgoing
        self._about = about
        self._sessions: dict[bytes, _Session] = {}
        self._close_arrived: dict[bytes, asyncio.Event] = {}

    @property
    def carried(self) -> int:
        """Sessions that have a data process that runs."""
        return sum(session.handle is not None and session.handle.is_running for session in self._sessions.values())

    def adopt(self, kept: KeptMigration, process: DataProcess) -> None:
        """Take over a session whose data process runs."""
        record = kept.record
        session_id = bytes.fromhex(record.id)
        handle = DataProcessHandle(record.id, process, self._runtime.ledger)
        outlives = kept.facts.peer_outlives
        session = _Session(self._peer_of(kept), "", steady_clock(), handle, outlives=outlives, is_adopted=True)
        session.has_channel = record.counters.wire_bytes > 0
        self._take_over(kept, session)
        self._runtime.migrations.begin(self._run(session_id, session, handle))

    def conclude(self, kept: KeptMigration, reason: str) -> None:
        """End a session whose data process is no more; `reason` is why it failed, empty where its record knows."""
        session = _Session(self._peer_of(kept), "", steady_clock(), is_adopted=True)
        self._take_over(kept, session)
        self._runtime.migrations.begin(self._end(bytes.fromhex(kept.record.id), session, reason))

    def _peer_of(self, kept: KeptMigration) -> PeerConfig:
        """The peer of a session taken over; one that the configuration no longer names cannot be asked anything."""
        name = kept.record.peer
        return self._runtime.directory.by_name(name) or PeerConfig(name=name, addresses=[])

    def _take_over(self, kept: KeptMigration, session: _Session) -> None:
        record = kept.record
        session_id = bytes.fromhex(record.id)
        self._sessions[session_id] = session
        self._close_arrived[session_id] = asyncio.Event()
        self._runtime.domains.follow(record.id, "destination", kept.facts.candidates)
        self._runtime.domains.tell(record.id, record.uuid, record.domain)

    async def answer(self, peer: PeerConfig, request: Request) -> Message:
        """Answer a peer's request."""
        match request:
            case Open():
                answer: Message = await self._open(peer, request)
            case Close():
                answer = self._close(peer, request)
            case Expect():
                answer = await self._expected(request)
            case Ask():
                answer = Runs(runs=await self._recovery.runs(request.uuid))
            case Follow():
                answer = self._about.successor(request)
            case Weigh():
                answer = self._about.load(request)
            case Ping():
                answer = Pong(
                    version=common_version(request.versions),
                    software=self._about.software,
                    state=self._runtime.ledger.state,
                    sessions=len(self._sessions),
                    carries=self._carries(peer, request.session_id) if request.session_id else None,
                    now=wall_clock(),
                    name=self._runtime.name,
                    known_as=peer.name,
                )
        if isinstance(answer, Refused):
            self._runtime.ledger.count("refused", answer.code)
            log.warning("request refused", peer=peer.name, code=answer.code, request=type(request).__name__)
        return answer

    def _carries(self, peer: PeerConfig, session_id: bytes) -> bool:
        session = self._sessions.get(session_id)
        if session is not None and session.peer.name == peer.name:
            return True
        taken_over = self._runtime.ledger.get(session_id.hex())  # its data process has not come back yet
        return self._outgoing.carries(peer, session_id) or (taken_over is not None and taken_over.peer == peer.name)

    def _objection(self, request: Open) -> str:
        """The code of a refusal that needs no announcement; empty when there is none."""
        runtime = self._runtime
        intercept = runtime.config.intercept
        in_range = intercept.port_min <= request.port <= intercept.port_max
        explicit = request.port == intercept.explicit_port
        checks = {
            "version": common_version(request.versions) == 0,
            runtime.ledger.state: runtime.ledger.state != "running",
            "invalid": request.session_id in (CONTROL_SESSION, PBFT_SESSION, STATE_SESSION),
            "duplicate": request.session_id in self._sessions,
            "sessions": len(self._sessions) >= runtime.config.policy.sessions_max,
            "port": not (in_range or explicit),
            "address": not self._about.is_own_address(request.address),
        }
        return next((code for code, applies in checks.items() if applies), "")

    async def _open(self, peer: PeerConfig, request: Open) -> Opened | Refused:
        runtime = self._runtime
        code = self._objection(request)
        if code:
            return refused(code)
        if not self._candidates(request) and runtime.config.policy.require_announcement:
            await self._ask_libvirt()
            if not self._candidates(request):
                return refused("not-announced")
        store, store_key = await runtime.store.offer(self._names(self._candidates(request)), request)
        judged = await self._permits.judge(request.session_id.hex(), peer, request.permit)
        code = judged.code or self._objection(request)  # others were answered meanwhile
        now = steady_clock()
        candidates = self._candidates(request)
        announced = "" if code else runtime.announcements.use(candidates, now)
        if not announced and runtime.config.policy.require_announcement:
            code = code or "not-announced"
        if code:
            self._permits.forget(request.session_id.hex())
            return refused(code, required=bool(judged.code) and self._permits.requires(peer))
        session = _Session(peer, announced, now, outlives=request.outlives, store=store, store_key=store_key)
        self._sessions[request.session_id] = session
        try:
            session.memory = runtime.memory.for_destination(
                request.session_id.hex(), request, runtime.config.encoding.cache_bytes
            )
            process = await runtime.spares.take()
        except (NoMemoryError, SessionError) as error:
            self._take_back(request.session_id, session, now)
            return refused("memory" if isinstance(error, NoMemoryError) else "no-data-process", str(error)[:200])
        names = self._names(candidates)
        self._begin(peer, request, session, DataProcessHandle(request.session_id.hex(), process, runtime.ledger), names)
        if judged.remark:
            event = MigrationEvent(at=wall_clock(), event="remark", detail=judged.remark)
            runtime.ledger.change(request.session_id.hex(), lambda record: append_event(record, event))
        return Opened(
            version=common_version(request.versions),
            cache_bytes=session.memory.cache_bytes,
            window_bytes=session.memory.window_bytes,
            channels_max=min(self._channels_max(request), session.memory.channels_max),
            candidates=names,
            agreed=judged.agreed,
            remark=judged.remark[:REMARK_CHARACTERS_MAX],
            outlives=True,
            store_key=session.store_key,
            may_stand_aside=request.may_stand_aside and runtime.may_stand_aside(peer),
        )

    def _take_back(self, session_id: bytes, session: _Session, now: float) -> None:
        """Forget a session that did not begin."""
        del self._sessions[session_id]
        self._permits.forget(session_id.hex())
        self._runtime.memory.release(session_id.hex())
        self._runtime.announcements.ended(session.announced, now)

    async def _expected(self, request: Expect) -> Expected:
        if not self._candidates(request):
            await self._ask_libvirt()
        names = self._names(self._candidates(request))
        await self._permits.expect(names)
        return Expected(candidates=names)

    async def _ask_libvirt(self) -> None:
        """Announce what waits here for its memory: the hook was not heard, or so long ago that its word expired.

        libvirt itself prepared these domains, which is all that the hook says too.
        """
        announcements = self._runtime.announcements
        for domain in await self._runtime.domains.arriving():
            if not announcements.knows(domain.uuid):
                announcements.announce(domain.uuid, domain.name, steady_clock())
                log.warning("migration announced by libvirt, not by its hook", domain=domain.name, uuid=domain.uuid)

    def _candidates(self, request: Open | Expect) -> list[Announcement]:
        """Announced domains that a request is about; a permit is for one domain and no other."""
        permit = request.permit if isinstance(request, Open) else None
        uuids = {permit.uuid} if permit else {found.uuid for found in request.domains}
        found = self._runtime.announcements.candidates(uuids, steady_clock())
        return [one for one in found if permit is None or one.uuid == permit.uuid]

    @staticmethod
    def _names(candidates: list[Announcement]) -> tuple[DomainName, ...]:
        return tuple(DomainName(found.uuid, found.name) for found in candidates)

    def _channels_max(self, request: Open) -> int:
        return min(request.channels_max, self._runtime.config.link.channels_max)

    def _begin(
        self,
        peer: PeerConfig,
        request: Open,
        session: _Session,
        handle: DataProcessHandle,
        names: tuple[DomainName, ...],
    ) -> None:
        runtime = self._runtime
        session.handle = handle
        runtime.ledger.put(
            Migration(
                id=handle.identity,
                role="destination",
                peer=peer.name,
                address=request.address,
                port=request.port,
                started_at=wall_clock(),
            )
        )
        memory = session.memory
        facts = SessionFacts(candidates=names, peer_outlives=request.outlives, memory_bytes=memory.granted_bytes)
        runtime.ledger.learn(handle.identity, self._permits.facts(handle.identity, facts))
        runtime.domains.follow(handle.identity, "destination", names)
        handle.send(
            StartDestination(
                session_id=request.session_id,
                token=request.token,
                peer_name=peer.name,
                target_address=request.address,
                target_port=request.port,
                options=runtime.session_options(
                    memory,
                    self._channels_max(request),
                    runtime.config.record.directory,
                    session.store,
                    may_stand_aside=request.may_stand_aside and runtime.may_stand_aside(peer),
                ),
                states=bool(session.store_key),
            )
        )
        self._close_arrived[request.session_id] = asyncio.Event()
        runtime.migrations.begin(self._run(request.session_id, session, handle))
        log.info("migration arrives", migration=handle.identity, peer=peer.name, pid=handle.pid)

    def channel(self, session_id: bytes, sock: socket.socket) -> bool:
        """Hand a channel to its session's data process; False (socket closed) if there is none."""
        session = self._sessions.get(session_id)
        if session is None or session.handle is None:
            sock.close()
            return False
        session.has_channel = True
        session.handle.send(AddChannel(), [sock])
        return True

    async def _run(self, session_id: bytes, session: _Session, handle: DataProcessHandle) -> None:
        runtime = self._runtime

        def expire() -> None:
            if not session.has_channel:
                handle.abort("no channel came from the source")

        timer = asyncio.get_running_loop().call_later(FIRST_CHANNEL_S_MAX, expire)
        liveness = self._watch_peer(session, session_id, handle)
        try:
            outcome = await handle.finish()
        except asyncio.CancelledError:
            handle.leave()
            raise
        finally:
            liveness.cancel()
            timer.cancel()
        reason = ""
        if isinstance(outcome, Crash):
            runtime.ledger.count_one("data_process_crashes")
            reason = outcome.reason
            log.error("data process crashed", migration=handle.identity, code=outcome.code)
            await self._tell_source(session, session_id, reason)
        await handle.gone()
        if session.is_withdrawn:
            self._withdraw(session_id, session, handle.identity)
            return
        await self._end(session_id, session, reason)

    async def _end(self, session_id: bytes, session: _Session, reason: str) -> None:
        """Close the record with what libvirt and the source say."""
        runtime = self._runtime
        identity = session_id.hex()
        verdict = await runtime.domains.verdict(identity)
        result = verdict.result or await self._source_word(session_id, session)
        record = runtime.ledger.get(identity)
        ended: Migration | None = None
        heard = ""
        if record is not None:
            if result and record.uuid:
                runtime.announcements.over(record.uuid, session.began_at)
            said = verdict.reason or (session.peer_close.reason if session.peer_close else "")
            known = replace(record, reason=reason or record.reason)
            ended = close_record(known, wall_clock(), libvirt=result, reason=said)
            await self._permits.ended(ended.id, "destination", ended.result, certain=bool(result))
            heard = await self._heard_of_source(session_id, session)
        # The session goes in the moment in which the record comes: the source's word finds one or the other.
        del self._sessions[session_id], self._close_arrived[session_id]
        runtime.announcements.ended(session.announced, steady_clock())
        runtime.domains.forget(identity)
        if ended is None:
            return
        ended = replace(ended, peer_result=session.peer_close.result if session.peer_close is not None else heard)
        runtime.ledger.put(ended)
        log.info("migration ended", migration=ended.id, domain=ended.domain, result=ended.result, reason=ended.reason)

    def _withdraw(self, session_id: bytes, session: _Session, identity: str) -> None:
        """Forget a migration that the source carries by itself after all; its announcement is good again."""
        runtime = self._runtime
        del self._sessions[session_id], self._close_arrived[session_id]
        runtime.announcements.returned(session.announced, steady_clock())
        runtime.domains.forget(identity)
        runtime.memory.release(identity)
        runtime.ledger.discard(identity)
        why = session.peer_close.reason if session.peer_close else ""
        log.warning("migration withdrawn", migration=identity, why=why)

    def _watch_peer(self, session: _Session, session_id: bytes, handle: DataProcessHandle) -> asyncio.Task[None]:
        runtime = self._runtime
        liveness = PeerLivenessMonitor(runtime, session.peer, "", session_id, session.outlives, handle.abort)
        return begin_task(liveness.run())

    async def _tell_source(self, session: _Session, session_id: bytes, reason: str) -> None:
        """Without this the source would wait for channels to come back, and its guest with it."""
        peer = session.peer
        message = Close(session_id=session_id, result="failed", reason=reason)
        with contextlib.suppress(DwcpError):
            control = self._runtime.control
            address = await find_address(control, peer, candidate_addresses(peer))
            await control.ask(peer, address, message, Closed)

    async def _heard_of_source(self, session_id: bytes, session: _Session) -> str:
        """Ask what the source recorded, where it may have said so while no agent was here to hear it."""
        if session.peer_close is not None or not session.is_adopted:
            return ""
        control, peer = self._runtime.control, session.peer
        try:
            address = await find_address(control, peer, candidate_addresses(peer))
            pong = await control.ask(peer, address, Ping(versions=VERSIONS, session_id=session_id), Pong)
            if pong.carries is not False:
                return ""  # its own word comes, and finds this side's record
            closed = await control.ask(peer, address, Close(session_id=session_id, result=""), Closed)
        except DwcpError as error:
            log.warning("what the source recorded is unknown", migration=session_id.hex(), why=str(error))
            return ""
        return closed.result

    async def _source_word(self, session_id: bytes, session: _Session) -> Result:
        """The result as the source reports it, if libvirt told it there."""
        if session.peer_close is None:
            try:
                await asyncio.wait_for(self._close_arrived[session_id].wait(), SOURCE_WORD_S_MAX)
            except TimeoutError:
                return ""
        message = session.peer_close
        if message is None or not message.certain:
            return ""
        return "completed" if message.result == "completed" else "failed"

    def _close(self, peer: PeerConfig, request: Close) -> Closed | Refused:
        session = self._sessions.get(request.session_id)
        if session is not None and session.peer.name == peer.name:
            session.peer_close = request
            session.is_withdrawn = request.result == WITHDRAWN
            if request.result != "completed" and session.handle is not None:
                session.handle.abort(f"the source ended it: {request.reason}")
            self._runtime.domains.tell(request.session_id.hex(), request.uuid, request.domain)
            self._close_arrived[request.session_id].set()
            return Closed(result="")
        if self._outgoing.closed(peer, request):
            return Closed(result="")
        identity = request.session_id.hex()
        ended = next((found for found in self._runtime.ledger.recent() if found.id == identity), None)
        if ended is None or ended.peer != peer.name:
            return refused("unknown-session")
        return Closed(result=ended.result, reason=ended.reason, uuid=ended.uuid, domain=ended.domain)
