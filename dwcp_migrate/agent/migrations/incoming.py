"""The destination side of one migration: its channels arrive, a data process writes into the waiting QEMU.

The rule: its life cycle is that of `life_cycle`. Its result is what libvirt reports here, else what the source reports.
"""

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import Final

from dwcp_migrate import __version__
from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.data_process import DataProcessHandle
from dwcp_migrate.agent.migrations.life_cycle import MigrationSide
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.agent.tracking.domain_tracker import MigrationVerdict
from dwcp_migrate.agent.tracking.running_store import KeptMigration, SessionFacts
from dwcp_migrate.api.migration import Migration, Result
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import VERSIONS, WITHDRAWN, Close, Closed, DomainName, Open, Ping, Pong
from dwcp_migrate.protocol.session_memory import SessionMemory
from dwcp_migrate.protocol.worker import AddChannel, Departure, StartDestination, StoreOptions
from dwcp_migrate.tasks import wait_within

FIRST_CHANNEL_S_MAX: Final = 30.0
"""From `Opened` to the first channel; a source that died in between leaves no data process behind."""

SOURCE_WORD_S_MAX: Final = 15.0
"""Time that the record waits for the source's report of the result, where libvirt here reports none."""

log = get_logger(component="agent")


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """Terms on which this host lets a migration in.

    Attributes:
        candidates: domains that it may be of.
        memory: that its data process may use.
        channels_max: of the link.
        store: this host's pages that may be named; None for none.
        store_key: of their names; empty for none.
        departure: how QEMU's connections may leave the channels.
    """

    candidates: tuple[DomainName, ...]
    memory: SessionMemory
    channels_max: int
    store: StoreOptions | None
    store_key: bytes
    departure: Departure


class IncomingMigration(MigrationSide[DataProcessHandle]):
    """One migration from a peer's `Open` to its record's end.

    Args:
        runtime: the shared parts.
        permits: what is agreed on before bytes flow.
        session_id: of the migration.
        peer: its source.
        announced: domain of the announcement that it used; empty for none.
        outlives: the source's data process outlives its agent.
    """

    def __init__(
        self,
        runtime: Runtime,
        permits: MigrationAuthorizer,
        session_id: bytes,
        peer: PeerConfig,
        *,
        announced: str = "",
        outlives: bool = False,
    ) -> None:
        super().__init__(runtime, permits, session_id, "destination")
        self.peer = peer
        self._announced = announced
        self._outlives = outlives
        self._began_at = steady_clock()
        self._is_taken_over = False
        self._has_channel = False
        self._source_close: Close | None = None
        self._close_arrived = asyncio.Event()
        self._heard = ""

    def start(self, request: Open, terms: SessionTerms, process: DataProcess) -> None:
        """Begin its record, and have a data process wait for its channels; `run` comes next.

        Args:
            request: of the source.
            terms: what it was granted.
            process: ready.
        """
        runtime = self._runtime
        handle = self._handle = DataProcessHandle(self.identity, process, runtime.ledger)
        self.enter("carried")
        runtime.ledger.put(
            Migration(
                id=self.identity,
                role="destination",
                peer=self.peer.name,
                address=request.address,
                port=request.port,
                started_at=wall_clock(),
                version=__version__,
            )
        )
        granted = terms.memory.granted_bytes
        facts = SessionFacts(candidates=terms.candidates, peer_outlives=request.outlives, memory_bytes=granted)
        runtime.ledger.learn(self.identity, self._permits.facts(self.identity, facts))
        runtime.domains.follow(self.identity, "destination", terms.candidates)
        handle.send(
            StartDestination(
                session_id=request.session_id,
                token=request.token,
                peer_name=self.peer.name,
                target_address=request.address,
                target_port=request.port,
                options=runtime.session_options(
                    terms.memory,
                    terms.channels_max,
                    runtime.config.record.directory,
                    terms.store,
                    departure=terms.departure,
                ),
                states=bool(terms.store_key),
            )
        )
        log.info("migration arrives", migration=self.identity, peer=self.peer.name, pid=handle.pid)

    def take_back(self) -> None:
        """Forget one that did not begin."""
        self.enter("ended")
        self._permits.forget(self.identity)
        self._runtime.memory.release(self.identity)
        self._runtime.announcements.ended(self._announced, self._began_at)

    async def run(self) -> None:
        """Carry it to its end."""
        handle = self._handle
        assert handle is not None, "it was started, or its data process taken over"

        def expire() -> None:
            if not self._has_channel:
                handle.abort("no channel came from the source")

        timer = asyncio.get_running_loop().call_later(FIRST_CHANNEL_S_MAX, expire)
        liveness = self._watch_peer(self.peer, "", handle.abort, outlives=self._outlives)
        await self._carry(handle, liveness, timer)
        if self.stage == "withdrawn":
            self._withdraw()
        else:
            await self.settle()

    def _take_over(self, kept: KeptMigration) -> None:
        self._is_taken_over = True
        self._has_channel = kept.record.counters.wire_bytes > 0
        super()._take_over(kept)

    def add_channel(self, sock: socket.socket) -> bool:
        """Hand a channel to the data process; False (socket closed) if there is none."""
        if self._handle is None:
            sock.close()
            return False
        self._has_channel = True
        self._handle.send(AddChannel(), [sock])
        return True

    def hear_source(self, message: Close) -> None:
        """Note that the source reports the end of its side."""
        self._source_close = message
        if message.result == WITHDRAWN:
            self.enter("withdrawn")
        if message.result != "completed" and self._handle is not None:
            self._handle.abort(f"the source ended it: {message.reason}")
        self._runtime.domains.tell(self.identity, message.uuid, message.domain)
        self._close_arrived.set()

    def _let_go(self) -> None:
        self._runtime.announcements.ended(self._announced, steady_clock())

    def _withdraw(self) -> None:
        """Forget a migration that the source carries by itself after all; its announcement is good again."""
        runtime = self._runtime
        self.enter("ended")
        runtime.announcements.returned(self._announced, steady_clock())
        runtime.domains.forget(self.identity)
        runtime.memory.release(self.identity)
        runtime.ledger.discard(self.identity)
        why = self._source_close.reason if self._source_close else ""
        log.warning("migration withdrawn", migration=self.identity, why=why)

    async def _tell_of_crash(self) -> None:
        """Without this the source would wait for channels to come back, and its guest with it."""
        message = Close(session_id=self.session_id, result="failed", reason=self._reason)
        with contextlib.suppress(DwcpError):
            control = self._runtime.control
            address = await find_address(control, self.peer, candidate_addresses(self.peer))
            await control.ask(self.peer, address, message, Closed)

    async def _judged(self, verdict: MigrationVerdict) -> MigrationVerdict:
        result = verdict.result or await self._source_word()
        reason = verdict.reason or (self._source_close.reason if self._source_close else "")
        return MigrationVerdict(result, reason)

    async def _source_word(self) -> Result:
        """The result as the source reports it, if libvirt told it there."""
        if self._source_close is None:
            try:
                await wait_within(self._close_arrived.wait(), SOURCE_WORD_S_MAX)
            except TimeoutError:
                return ""
        message = self._source_close
        if message is None or not message.certain:
            return ""
        return "completed" if message.result == "completed" else "failed"

    async def _settle_with_peer(self, ended: Migration, *, certain: bool) -> None:
        if certain and ended.uuid:
            self._runtime.announcements.over(ended.uuid, self._began_at)
        await self._permits.ended(self.identity, "destination", ended.result, certain=certain)
        self._heard = await self._heard_of_source()

    async def _heard_of_source(self) -> str:
        """Ask what the source recorded, where it may have said so while no agent was here to hear it."""
        if self._source_close is not None or not self._is_taken_over:
            return ""
        control, peer = self._runtime.control, self.peer
        try:
            address = await find_address(control, peer, candidate_addresses(peer))
            pong = await control.ask(peer, address, Ping(versions=VERSIONS, session_id=self.session_id), Pong)
            if pong.carries is not False:
                return ""  # its own word comes, and finds this side's record
            closed = await control.ask(peer, address, Close(session_id=self.session_id, result=""), Closed)
        except DwcpError as error:
            log.warning("what the source recorded is unknown", migration=self.identity, why=str(error))
            return ""
        return closed.result

    def _peer_result(self) -> str:
        return self._source_close.result if self._source_close is not None else self._heard
