"""The source side: QEMU's connections that this host opened become migrations to a peer, or pass through.

The rule: the first connection to an (address, port) decides for all that follow while its migration runs, and every
connection is handed on in the order in which it was accepted, because older QEMUs tell their channels apart by nothing
else. A connection is never left waiting: it is carried, relayed or reset. Its life is that of `life_cycle`.

    accepted ──> live migration to (address, port)? ── yes: queue behind the others
                  └─ no: ask the peer's agent ── Opened ──> StartSource ── a channel is up ──> AddConnection ...
                                              └─ else  ──> dial onward (marked), StartRelay, AddConnection ...
"""

import asyncio
import contextlib
import os
import socket
from typing import Final

from msgspec.structs import replace

from dwcp_migrate import __version__
from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.data_process import DataProcessHandle
from dwcp_migrate.agent.migrations.left_alone import reason_to_leave_alone
from dwcp_migrate.agent.migrations.life_cycle import MigrationSide, Stoppable
from dwcp_migrate.agent.migrations.local_relay import LocalRelay
from dwcp_migrate.agent.migrations.stand_in import CaughtConnection, stand_in_for
from dwcp_migrate.agent.migrations.step_aside import ASIDE, BOTH_ALLOW, reason_to_step_aside
from dwcp_migrate.agent.peers.client import code_of
from dwcp_migrate.agent.peers.limits import lowest_limit
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.agent.tracking.domain_tracker import MigrationVerdict
from dwcp_migrate.agent.tracking.observed import OBSERVES
from dwcp_migrate.agent.tracking.running_store import KeptMigration, SessionFacts
from dwcp_migrate.agent.tracking.uncaught import STEP_ASIDE
from dwcp_migrate.api.migration import Migration, MigrationEvent, append_event, enter_state
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.config.choices import MigrationChoice, choose_settings
from dwcp_migrate.dataplane.relay.onward import dial_onward
from dwcp_migrate.errors import DwcpError, PeerRefusedError, SessionError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.net import reset_and_close
from dwcp_migrate.protocol.control import VERSIONS, WITHDRAWN, Close, Closed, DomainName, Open, Opened
from dwcp_migrate.protocol.session_memory import NO_MEMORY
from dwcp_migrate.protocol.worker import (
    SESSION_ID_BYTES,
    TOKEN_BYTES,
    AddConnection,
    Departure,
    SetRate,
    StartRelay,
    StartSource,
    StoreOptions,
)
from dwcp_migrate.tasks import begin_task

CONNECTIONS_MAX: Final = 1024
"""QEMU's connections of one migration: main, up to 255 multifd channels, preempt, disks."""

RESUMES_POSTCOPY: Final = "postcopy-resume"
"""The reason of a resumption's record for why it runs unaccelerated: libvirt's hook announces none."""

LINK_S_MAX: Final = 8.0
"""From the peer's yes to the first channel: TCP and TLS, on a busy host, of a data process that takes its time."""

CONFIGURED: Final = "configured"
"""Reason of one that `[[domains]]` or its peer's entry keeps unaccelerated."""

FOREIGN: Final = "foreign"
"""Reason of a connection that is none of a migration and passes through."""

SOURCE_S_MAX: Final = 10.0
"""For a data process to be ready to accelerate."""

RELAY_S_MAX: Final = 3.0
"""For one to be ready to relay; the agent does that itself otherwise."""

log = get_logger(component="agent")


class OutgoingMigration(MigrationSide[DataProcessHandle | LocalRelay]):
    """One migration from its first connection to its record's end.

    Args:
        runtime: the shared parts.
        permits: what is agreed on before bytes flow.
        key: address and port.
        peer: who owns the address.
        again: why the migration before to the same port passed through, if this one has to do so too.
        record: of the agent before this one, where it is taken over.
    """

    def __init__(
        self,
        runtime: Runtime,
        permits: MigrationAuthorizer,
        key: tuple[str, int],
        peer: PeerConfig | None,
        again: str,
        record: Migration | None = None,
    ) -> None:
        session_id = bytes.fromhex(record.id) if record else os.urandom(SESSION_ID_BYTES)
        super().__init__(runtime, permits, session_id, "source")
        self.key = key
        self.peer = peer
        self.passthrough = again
        self._connections: asyncio.Queue[CaughtConnection] = asyncio.Queue(CONNECTIONS_MAX)
        self._undialled: list[CaughtConnection] = []
        self._accepted = 0
        may_stand_in = record is None and peer is not None and not again and not permits.requires(peer)
        self._stand_in = stand_in_for(runtime, self.session_id, key, peer) if peer and may_stand_in else None
        self._accelerated = False
        self._heard = ""
        self._store: StoreOptions | None = None
        self._candidates: tuple[DomainName, ...] = ()
        self._memory = NO_MEMORY
        self._chosen = MigrationChoice()
        self._onward_address = self._link_address = key[0]
        if record is None:
            runtime.ledger.put(
                Migration(
                    id=self.identity,
                    role="source",
                    peer=peer.name if peer else "",
                    address=key[0],
                    port=key[1],
                    started_at=wall_clock(),
                    version=__version__,
                )
            )

    def add(self, connection: CaughtConnection) -> None:
        """Queue a connection in the order of acceptance; beyond `CONNECTIONS_MAX` it is reset."""
        connection = connection._replace(accepted=self._accepted)
        try:
            self._connections.put_nowait(connection)
        except asyncio.QueueFull:
            connection.reset()
            return
        self._accepted += 1
        if self._stand_in is not None:
            self._stand_in.hold(connection.accepted, connection.sock)

    async def _take_process(self, timeout_s: float) -> DataProcessHandle:
        """The data process that stands in, or another. Raises SessionError: there is none."""
        stand_in = self._stand_in
        if self._handle is None and stand_in is not None and not stand_in.process.exited.done():
            process = stand_in.process
        else:
            self._stand_in = None
            process = await self._runtime.spares.take(timeout_s)
        return DataProcessHandle(self.identity, process, self._runtime.ledger)

    def abort(self, reason: str) -> None:
        """Have its data process reset everything."""
        self._reason = self._reason or reason
        if self._handle is not None:
            self._handle.abort(reason)

    def pace(self, bytes_per_s: float) -> None:
        """Hold its channels to a rate, if it is accelerated."""
        if isinstance(self._handle, DataProcessHandle) and self._accelerated:
            runtime = self._runtime
            alone = lowest_limit(
                runtime.link_ceiling(self.peer.name if self.peer else ""),
                runtime.domain_ceiling(self._domain()),
            )
            self._handle.send(SetRate(bytes_per_s=bytes_per_s, alone_bytes_per_s=alone))

    def _domain(self) -> str:
        record = self._runtime.ledger.get(self.identity)
        return record.domain if record else ""

    async def run(self) -> list[CaughtConnection]:
        """Carry it to its end; returns connections that came too late to belong to it."""
        try:
            opened = await self._ask()
            self._learn(opened)
            feed = (await self._start_source(opened) if opened else None) or await self._start_relay()
        except SessionError as error:
            self._reason = str(error)
            log.error("migration refused", migration=self.identity, error=str(error))  # noqa: TRY400 - no bug, no trace
            self._reset_waiting()
            feed = None
        if feed is None or self._handle is None:
            if self._stand_in is not None:
                self._stand_in.process.kill()
            return []
        self.enter("carried")
        return await self._carried(self._handle, feed)

    async def resume(self, connections: int) -> list[CaughtConnection]:
        """Carry on what was adopted; `connections` of QEMU's have reached it. See `run`."""
        handle = self._handle
        assert isinstance(handle, DataProcessHandle), "it was adopted"
        feed = self._feed_source if self._accelerated else self._feed_relay
        return await self._carried(handle, begin_task(feed(handle, connections)))

    def _take_over(self, kept: KeptMigration) -> None:
        self._accelerated = not kept.record.passthrough_reason
        self._link_address = kept.facts.link_address or self._link_address
        super()._take_over(kept)

    def _learn(self, opened: Opened | None) -> None:
        """Keep for the next agent what it cannot know otherwise."""
        facts = SessionFacts(link_address=self._link_address)
        if opened is not None:
            granted = self._memory.granted_bytes
            facts = replace(facts, candidates=opened.candidates, peer_outlives=opened.outlives, memory_bytes=granted)
        self._runtime.ledger.learn(self.identity, self._permits.facts(self.identity, facts))

    async def _carried(
        self, handle: DataProcessHandle | LocalRelay, feed: "asyncio.Task[None]"
    ) -> list[CaughtConnection]:
        """Wait for its end; returns connections that came too late to belong to it."""
        beside: list[Stoppable] = [feed]
        if self._accelerated and self.peer is not None:
            outlives = self._runtime.ledger.facts(self.identity).peer_outlives
            beside.append(self._watch_peer(self.peer, self._link_address, self.abort, outlives=outlives))
        await self._carry(handle, *beside)
        return [*(CaughtConnection(*pair) for pair in handle.returned), *self._waiting()]

    def _waiting(self) -> list[CaughtConnection]:
        undialled, self._undialled = self._undialled, []
        return [*undialled, *(self._connections.get_nowait() for _ in range(self._connections.qsize()))]

    def _reset_waiting(self) -> None:
        for connection in self._waiting():
            connection.reset()

    async def _ask(self) -> Opened | None:
        """Ask the peer's agent; None when the migration has to pass through, with the reason in the record."""
        runtime = self._runtime
        (code, message), answered = self._own_objection(), False
        if self.passthrough == FOREIGN:
            code, message = FOREIGN, "a service that migrates no guest opened it"
        elif self.passthrough:
            code, message = self.passthrough, "as the migration before, to which its connection belonged"
        if not code and await runtime.domains.resumes_postcopy():
            code, message = RESUMES_POSTCOPY, "it resumes a postcopy that broke off"
        if not code and self.peer is not None:
            try:
                return await self._open(self.peer)
            except SessionError:
                raise
            except DwcpError as error:
                code, message, answered = code_of(error), str(error), isinstance(error, PeerRefusedError)
                if isinstance(error.__cause__, TimeoutError):  # an agent that hangs does so at every address
                    for address in candidate_addresses(self.peer, self.key[0]):
                        runtime.silent.add(self.peer.name, address, code, message, steady_clock())
        self._pass_through(code, message, is_answered=answered)
        return None

    def _own_objection(self) -> tuple[str, str]:
        runtime = self._runtime
        if self.peer is None:
            return "no-peer", "the address belongs to no configured peer"
        if runtime.ledger.state != "running":
            return runtime.ledger.state, f"this agent is {runtime.ledger.state}"
        if runtime.config.policy.observe:
            return OBSERVES, "this agent only observes"
        accelerated = [found for found in runtime.ledger.running() if not found.passthrough_reason]
        if len(accelerated) > runtime.config.policy.sessions_max:
            return "sessions", "this agent carries policy.sessions_max migrations"
        why = reason_to_leave_alone(runtime, self.peer, runtime.ledger.recent())
        return (STEP_ASIDE, why) if why else ("", "")

    async def _open(self, peer: PeerConfig) -> Opened | None:
        runtime = self._runtime
        address, port = self.key
        if not self._permits.requires(peer) and self._is_kept_plain(choose_settings(runtime.config, peer, ())):
            return None  # nobody need be asked
        link = self._link_address = await find_address(
            runtime.control, peer, candidate_addresses(peer, address), runtime.silent
        )
        leaving = await runtime.domains.leaving()
        agreement = await self._permits.obtain(self.identity, peer, link, leaving)
        self._note("agreement", agreement.note)
        uuid = agreement.permit.uuid if agreement.permit else ""
        meant = [one.name for one in leaving if one.uuid == uuid] or runtime.domains.untied_names(leaving)
        chosen = self._chosen = choose_settings(runtime.config, peer, meant)
        if self._is_kept_plain(chosen):
            return None
        self._note("codec", f"{chosen.codec} by {chosen.codec_by}" if chosen.codec else "")
        self._token = os.urandom(TOKEN_BYTES)
        memory = runtime.memory.for_source(
            self.identity, runtime.config.encoding.cache_bytes, runtime.domains.largest_of(leaving)
        )
        self._store = runtime.store.options(leaving, uuid)
        mine = runtime.departure(peer)
        request = Open(
            versions=VERSIONS,
            session_id=self.session_id,
            token=self._token,
            address=address,
            port=port,
            domains=leaving,
            cache_bytes=memory.cache_bytes,
            window_bytes=memory.window_bytes,
            channels_max=min(runtime.config.link.channels_max, memory.channels_max),
            permit=agreement.permit,
            outlives=True,
            scope=self._store.scope if self._store else "",
            may_stand_aside=mine.in_clear,
            may_leave_in_tls=mine.in_tls,
        )
        try:
            opened = await runtime.control.ask(peer, link, request, Opened)
        except PeerRefusedError as error:
            if error.is_final:
                raise SessionError(str(error), hint=error.hint) from error
            raise
        runtime.silent.remove(peer.name, link)
        self._memory = runtime.memory.agree(self.identity, memory, opened.cache_bytes, opened.window_bytes)
        self._note("memory", self._memory.described())
        self._note("agreed", opened.agreed)
        self._note("remark", opened.remark)
        return opened

    def _is_kept_plain(self, chosen: MigrationChoice) -> bool:
        if chosen.plain_by:
            self._pass_through(CONFIGURED, f"accelerate = false in {chosen.plain_by}")
        return bool(chosen.plain_by)

    def _pass_through(self, code: str, message: str, *, is_answered: bool = False) -> None:
        """Let it run without us, unless the fleet has to agree to it: then whoever cannot be asked is a no.

        Raises:
            SessionError: the fleet has to agree.
        """
        if self.peer is not None and code != RESUMES_POSTCOPY:  # its guest has moved already
            self._permits.allow_unaccelerated(self.identity, self.peer, message, is_answered=is_answered)
        self.passthrough = code
        self._runtime.ledger.count("passthrough", code)
        now = wall_clock()

        def change(record: Migration) -> Migration:
            record = append_event(record, MigrationEvent(at=now, event="passthrough", detail=f"{code}: {message}"))
            return enter_state(replace(record, passthrough_reason=code), "passthrough", now)

        self._runtime.ledger.change(self.identity, change)
        log.warning("migration passes through", migration=self.identity, code=code, why=message)

    async def _start_source(self, opened: Opened) -> "asyncio.Task[None] | None":
        runtime = self._runtime
        if self.peer is None:
            raise AssertionError("only a peer can have opened it")
        self._candidates = opened.candidates
        runtime.domains.follow(self.identity, "source", opened.candidates)
        try:
            handle = self._handle = await self._take_process(SOURCE_S_MAX)
        except SessionError as error:
            await self._withdraw(self.peer, "no-data-process", str(error))
            return None
        handle.send(
            StartSource(
                session_id=self.session_id,
                token=self._token,
                peer_name=self.peer.name,
                peer_address=self._link_address,
                link_addresses=self.peer.link_addresses,
                peer_port=self.peer.port,
                options=runtime.session_options(
                    self._memory,
                    opened.channels_max,
                    runtime.take_recording(opened.candidates),
                    self._store,
                    departure=self._departure(opened, self.peer),
                    codec=self._chosen.codec,
                ),
                stated_key=opened.store_key if self._store else b"",
            ),
            runtime.keep_translation(),
        )
        if problem := await handle.link(LINK_S_MAX):
            handle.kill()
            await handle.gone()
            await self._withdraw(self.peer, "no-link", problem)
            return None
        self._accelerated = True
        log.info("migration accelerated", migration=self.identity, peer=self.peer.name, pid=handle.pid)
        return begin_task(self._feed_source(handle, 0))

    def _departure(self, opened: Opened, peer: PeerConfig) -> Departure:
        runtime = self._runtime
        allowed = runtime.agreed_departure(peer, opened)
        if not allowed.is_allowed:
            return allowed
        self._note(BOTH_ALLOW, "policy.step_aside of both hosts" if allowed.in_clear else "")
        why = reason_to_step_aside(runtime.ledger.recent(), peer.name, wall_clock(), in_clear=False)
        self._note(ASIDE, why)
        return replace(allowed, from_start=why)

    async def _withdraw(self, peer: PeerConfig, code: str, message: str) -> None:
        """Carry it without the peer after all: nothing of QEMU's has been read yet."""
        ending = Close(session_id=self.session_id, result=WITHDRAWN, reason=message)
        with contextlib.suppress(DwcpError):
            control = self._runtime.control
            await control.ask(peer, self._link_address, ending, Closed, control.connect_timeout_s)
        self._pass_through(code, message, is_answered=True)

    async def _feed_source(self, handle: DataProcessHandle, number: int) -> None:
        while True:
            connection = await self._connections.get()
            handle.send(AddConnection(connection=number, accepted=connection.accepted), [connection.sock])
            number += 1

    async def _start_relay(self) -> "asyncio.Task[None] | None":
        """Dial onward for the connections that wait, and start a relay with the first that succeeds."""
        runtime = self._runtime
        if self.passthrough != FOREIGN:
            runtime.domains.follow(self.identity, "source", self._candidates)
        while not self._connections.empty():
            connection = self._connections.get_nowait()
            pair = await self._dial_onward(connection)
            if pair is None:
                continue
            relay = self._handle = await self._relay()
            relay.send(AddConnection(connection=0, accepted=connection.accepted), pair)
            return begin_task(self._feed_relay(relay, 1))
        return None

    async def _relay(self) -> DataProcessHandle | LocalRelay:
        """Start a relay: in a data process, or in this one where none is to be had."""
        runtime = self._runtime
        held = runtime.keep_translation()
        try:
            relay = await self._take_process(RELAY_S_MAX)
        except SessionError as error:
            self._note("relayed-by-the-agent", str(error))
            log.warning("migration relayed by the agent itself", migration=self.identity, why=str(error))
            return LocalRelay(self.identity, runtime.ledger, held)
        relay.send(StartRelay(session_id=self.session_id, reason=self.passthrough), held)
        return relay

    async def _feed_relay(self, handle: DataProcessHandle | LocalRelay, number: int) -> None:
        while True:
            connection = await self._connections.get()
            pair = await self._dial_onward(connection)
            if pair is not None:
                handle.send(AddConnection(connection=number, accepted=connection.accepted), pair)
                number += 1

    async def _dial_onward(self, connection: CaughtConnection) -> tuple[socket.socket, socket.socket] | None:
        """Connect to where the connection wanted to go, past the redirect; on failure it is reset."""
        sock = connection.sock
        if connection.onward is not None:
            return sock, connection.onward
        try:
            onward, address = await dial_onward(
                candidate_addresses(self.peer, self._onward_address), self.key[1], self._runtime.config.intercept.mark
            )
        except SessionError as error:
            reset_and_close(sock)
            if self._stand_in is not None:
                self._stand_in.release(connection.accepted)
            self._reason = str(error)
            return None
        except asyncio.CancelledError:  # the migration ended while it was dialled: it belongs to the next one
            self._undialled.append(connection)
            raise
        if address != self._onward_address:
            self._note("onward", f"no connection to {self._onward_address}; {address} took it")
            self._onward_address = address
        return sock, onward

    async def _tell_of_crash(self) -> None:
        """Tell nothing yet: the destination hears it with the result, see `_settle_with_peer`."""

    async def _judged(self, verdict: MigrationVerdict) -> MigrationVerdict:
        return verdict

    async def _settle_with_peer(self, ended: Migration, *, certain: bool) -> None:
        if self._accelerated and self.peer is not None:
            self._heard = await self._tell_peer(self.peer, ended, certain=certain)
        await self._permits.ended(self.identity, "source", ended.result, certain=certain)

    def _peer_result(self) -> str:
        return self._heard

    async def _tell_peer(self, peer: PeerConfig, record: Migration, *, certain: bool) -> str:
        request = Close(
            session_id=self.session_id,
            result=record.result,
            reason=record.reason,
            uuid=record.uuid,
            domain=record.domain,
            certain=certain,
        )
        try:
            answer = await self._runtime.control.ask(peer, self._link_address, request, Closed)
        except DwcpError as error:
            log.warning("the peer was not told of the end", migration=self.identity, peer=peer.name, why=str(error))
            return ""
        return answer.result
