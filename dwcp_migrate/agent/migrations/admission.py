"""Admission of migrations at their destination: a peer's agent asks, this host's rules answer.

The rule: this host dials only itself, in its migration range, for a migration that its own hook announced; and a
session belongs to the peer that opened it, by certificate.
"""

import socket
from collections.abc import Coroutine
from typing import Final, Protocol

from dwcp_migrate.agent.authorization.ownership import OwnershipCheck
from dwcp_migrate.agent.authorization.permits import Judgement, MigrationAuthorizer
from dwcp_migrate.agent.authorization.reconciler import TicketReconciler
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.about_host import AboutHost
from dwcp_migrate.agent.migrations.incoming import IncomingMigration, SessionTerms
from dwcp_migrate.agent.migrations.warm_incoming import IncomingWarmUps
from dwcp_migrate.agent.peers.server import make_refusal
from dwcp_migrate.agent.tracking.running_store import KeptMigration
from dwcp_migrate.api.migration import MigrationEvent, append_event
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import NoMemoryError, SessionError
from dwcp_migrate.hypervisor.announcements import Announcement
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import (
    CONTROL_SESSION,
    PBFT_SESSION,
    STATE_SESSION,
    Ask,
    Close,
    Closed,
    DomainName,
    Examine,
    Expect,
    Expected,
    Follow,
    Message,
    Open,
    Opened,
    Ping,
    Pong,
    Probe,
    Recall,
    Refused,
    Request,
    Runs,
    Warm,
    Weigh,
    common_version,
)

REMARK_CHARACTERS_MAX: Final = 256
"""As `Opened` allows."""

log = get_logger(component="agent")


class OutgoingSide(Protocol):
    """The source side of this agent, as far as the destinations of its migrations speak to it."""

    def closed(self, peer: PeerConfig, message: Close) -> bool:
        """End the migration that a destination's agent has ended.

        Args:
            peer: the destination.
            message: names the session, and why it ended.

        Returns:
            False where no migration of that session leaves this host.
        """

    def carries(self, peer: PeerConfig, session_id: bytes) -> bool:
        """Whether a migration to a peer leaves this host in a session.

        Args:
            peer: the destination.
            session_id: of the session.
        """


class Incoming:
    """All migrations that arrive on this host through the agent.

    Args:
        runtime: the shared parts.
        permits: what is agreed on before bytes flow.
        ownership: tells whether a domain runs on the host that brings it.
        recovery: knows what runs here.
        outgoing: the source side of this agent, which peers ask and tell over the same connection.
        about: what peers ask of this host.
    """

    def __init__(
        self,
        runtime: Runtime,
        permits: MigrationAuthorizer,
        ownership: OwnershipCheck,
        recovery: TicketReconciler,
        outgoing: OutgoingSide,
        about: AboutHost,
    ) -> None:
        self._runtime = runtime
        self._permits = permits
        self._ownership = ownership
        self._recovery = recovery
        self._outgoing = outgoing
        self._about = about
        self._sessions: dict[bytes, IncomingMigration] = {}
        self.warm_ups = IncomingWarmUps(runtime)

    @property
    def carried(self) -> int:
        """Sessions that have a data process that runs."""
        return sum(session.is_carried for session in self._sessions.values())

    def adopt(self, kept: KeptMigration, process: DataProcess) -> None:
        """Take over a session whose data process runs.

        Args:
            kept: facts of the agent before this one.
            process: the data process.
        """
        session = self._taken_over(kept)
        session.adopt(kept, process)
        self._runtime.migrations.begin(self._run(session, session.run()))

    def conclude(self, kept: KeptMigration, reason: str) -> None:
        """End a session whose data process has gone.

        Args:
            kept: facts of the agent before this one.
            reason: why it failed; empty where its record has the reason.
        """
        session = self._taken_over(kept)
        self._runtime.migrations.begin(self._run(session, session.conclude(kept, reason)))

    def _taken_over(self, kept: KeptMigration) -> IncomingMigration:
        """A session of the agent before this one; a peer that the configuration no longer names cannot be asked."""
        name = kept.record.peer
        peer = self._runtime.directory.by_name(name) or PeerConfig(name=name, addresses=[])
        session = IncomingMigration(
            self._runtime,
            self._permits,
            bytes.fromhex(kept.record.id),
            peer,
            outlives=kept.facts.peer_outlives,
        )
        self._sessions[session.session_id] = session
        return session

    async def _run(self, session: IncomingMigration, work: Coroutine[None, None, None]) -> None:
        """Let a session run; it is removed when its record ends, so that a peer's report finds one of the two."""
        await work
        del self._sessions[session.session_id]

    async def answer(self, peer: PeerConfig, request: Request) -> Message:
        """Answer a peer's request.

        Args:
            peer: whose certificate the connection proved.
            request: of any kind.
        """
        match request:
            case Open():
                answer: Message = await self._open(peer, request)
            case Close():
                answer = self._close(peer, request)
            case Warm():
                answer = await self.warm_ups.open(peer, request)
            case Expect():
                answer = await self._expected(request)
            case Ask():
                answer = Runs(runs=await self._recovery.runs(request.uuid))
            case Follow() | Weigh() | Examine() | Probe() | Recall():
                answer = await self._about.answer(peer, request, carried=len(self._sessions))
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
            "observe": runtime.config.policy.observe,
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
            return make_refusal(code)
        if not self._candidates(request) and runtime.config.policy.require_announcement:
            await self._ask_libvirt()
            if not self._candidates(request):
                return make_refusal("not-announced")
        store, store_key = await runtime.store.offer(self._names(self._candidates(request)), request)
        judged = await self._permits.judge(request.session_id.hex(), peer, request.permit)
        others = await self._held_by_others(peer, request, judged)
        code = judged.code or self._objection(request)  # others were answered meanwhile
        now = steady_clock()
        claimed = self._candidates(request)
        candidates = [found for found in claimed if found.uuid not in others]
        if claimed and not candidates:
            code = code or "not-its-source"
        announced = "" if code else runtime.announcements.use(candidates, now)
        if not announced and runtime.config.policy.require_announcement:
            code = code or "not-announced"
        if code:
            self._permits.forget(request.session_id.hex())
            return make_refusal(code, required=bool(judged.code) and self._permits.requires(peer))
        session = IncomingMigration(
            runtime, self._permits, request.session_id, peer, announced=announced, outlives=request.outlives
        )
        self._sessions[request.session_id] = session
        self.warm_ups.make_way()
        try:
            memory = runtime.memory.for_destination(session.identity, request, runtime.config.encoding.cache_bytes)
            process = await runtime.spares.take()
        except (NoMemoryError, SessionError) as error:
            del self._sessions[request.session_id]
            session.take_back()
            return make_refusal("memory" if isinstance(error, NoMemoryError) else "no-data-process", str(error)[:200])
        terms = SessionTerms(
            candidates=self._names(candidates),
            memory=memory,
            channels_max=min(request.channels_max, runtime.config.link.channels_max, memory.channels_max),
            store=store,
            store_key=store_key,
            departure=runtime.agreed_departure(peer, request),
        )
        session.start(request, terms, process)
        runtime.migrations.begin(self._run(session, session.run()))
        if judged.remark:
            event = MigrationEvent(at=wall_clock(), event="remark", detail=judged.remark)
            runtime.ledger.change(session.identity, lambda record: append_event(record, event))
        return _opened(request, terms, judged)

    async def _held_by_others(self, peer: PeerConfig, request: Open, judged: Judgement) -> frozenset[str]:
        """Domains that a request could take and another host runs; the word of the fleet needs no such question."""
        if judged.agreed in ("fleet", "certificate"):
            return frozenset()
        return await self._ownership.held_by_others(peer, [found.uuid for found in self._candidates(request)])

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

    def channel(self, session_id: bytes, sock: socket.socket) -> bool:
        """Hand a channel to its session's data process.

        Args:
            session_id: that the channel named.
            sock: of the channel; owned from now on.

        Returns:
            False where there is no such session; the socket is closed then.
        """
        session = self._sessions.get(session_id)
        if session is not None:
            return session.add_channel(sock)
        if self.warm_ups.channel(session_id, sock):
            return True
        sock.close()
        return False

    def _close(self, peer: PeerConfig, request: Close) -> Closed | Refused:
        session = self._sessions.get(request.session_id)
        if session is not None and session.peer.name == peer.name:
            session.hear_source(request)
            return Closed(result="")
        if self._outgoing.closed(peer, request):
            return Closed(result="")
        identity = request.session_id.hex()
        ended = next((found for found in self._runtime.ledger.recent() if found.id == identity), None)
        if ended is None or ended.peer != peer.name:
            return make_refusal("unknown-session")
        return Closed(result=ended.result, reason=ended.reason, uuid=ended.uuid, domain=ended.domain)


def _opened(request: Open, terms: SessionTerms, judged: Judgement) -> Opened:
    return Opened(
        version=common_version(request.versions),
        cache_bytes=terms.memory.cache_bytes,
        window_bytes=terms.memory.window_bytes,
        channels_max=terms.channels_max,
        candidates=terms.candidates,
        agreed=judged.agreed,
        remark=judged.remark[:REMARK_CHARACTERS_MAX],
        outlives=True,
        store_key=terms.store_key,
        may_stand_aside=terms.departure.in_clear,
        may_leave_in_tls=terms.departure.in_tls,
    )
