"""Life cycle of a migration on one host: the same at its source and at its destination.

The rule: a side moves along `TRANSITIONS` and in no other way. A move that is not in the table changes nothing, because
reports of the peer, of libvirt and of the data process arrive in any order.

    opening ──> carried ──> ending ──> ended
       │          ├───────────────────> left     the agent ends; the next one adopts it
       │          └──> withdrawn ─────> ended    the source goes on without the destination, which keeps no record
       └──> ending, ended                        refused, nothing to carry, or its data process ended without an agent
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Generic, Literal, Protocol, TypeVar, cast

from msgspec.structs import replace

from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.data_process import Crash, DataProcessHandle
from dwcp_migrate.agent.migrations.local_relay import LocalRelay
from dwcp_migrate.agent.migrations.peer_liveness import PeerLivenessMonitor
from dwcp_migrate.agent.tracking.domain_tracker import MigrationVerdict
from dwcp_migrate.agent.tracking.running_store import KeptMigration
from dwcp_migrate.api.migration import Migration, MigrationEvent, Role, append_event, close_record
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.logs import get_logger
from dwcp_migrate.tasks import begin_task

Stage = Literal["opening", "carried", "withdrawn", "ending", "left", "ended"]

TRANSITIONS: Final[dict[Stage, frozenset[Stage]]] = {
    "opening": frozenset({"carried", "ending", "ended"}),
    "carried": frozenset({"withdrawn", "ending", "left"}),
    "withdrawn": frozenset({"ended", "left"}),
    "ending": frozenset({"ended"}),
    "left": frozenset(),
    "ended": frozenset(),
}
"""Successors of each stage."""

HAS_PROCESS: Final[frozenset[Stage]] = frozenset({"carried", "withdrawn"})
"""Stages in which a data process, or a relay in its place, works for the migration."""

Process = TypeVar("Process", bound=DataProcessHandle | LocalRelay)

log = get_logger(component="agent")


class Stoppable(Protocol):
    """A task or timer that runs beside a data process and ends with it."""

    def cancel(self) -> object:
        """End it."""


class MigrationSide(ABC, Generic[Process]):
    """One side of one migration.

    Args:
        runtime: the shared parts.
        permits: what is agreed on before bytes flow.
        session_id: of the migration, the same on both hosts.
        role: of this host.

    Attributes:
        session_id: see above.
        identity: of its record.
        stage: where in its life it is.
    """

    def __init__(self, runtime: Runtime, permits: MigrationAuthorizer, session_id: bytes, role: Role) -> None:
        self.session_id = session_id
        self.identity = session_id.hex()
        self.stage: Stage = "opening"
        self._runtime = runtime
        self._permits = permits
        self._role: Role = role
        self._handle: Process | None = None
        self._reason = ""

    def enter(self, stage: Stage) -> bool:
        """Move to a stage; False, and nothing changes, where `TRANSITIONS` does not know that move."""
        if stage not in TRANSITIONS[self.stage]:
            return False
        self.stage = stage
        return True

    @property
    def is_carried(self) -> bool:
        """It has a data process that runs, and gets its connections."""
        return self.stage in HAS_PROCESS and isinstance(self._handle, DataProcessHandle) and self._handle.is_running

    def adopt(self, kept: KeptMigration, process: DataProcess) -> None:
        """Take over a migration whose data process runs.

        Args:
            kept: by the agent before this one.
            process: of it.
        """
        # Generic in what carries it: either kind of side takes the handle of a data process.
        self._handle = cast("Process", DataProcessHandle(self.identity, process, self._runtime.ledger))
        self.enter("carried")
        self._take_over(kept)

    async def conclude(self, kept: KeptMigration, reason: str) -> None:
        """End the record of a migration whose data process has gone.

        Args:
            kept: by the agent before this one.
            reason: why it failed; empty where its record has the reason.
        """
        self._take_over(kept)
        self._reason = reason
        await self.settle()

    def _take_over(self, kept: KeptMigration) -> None:
        """Watch the domain of a migration that the agent before this one began."""
        record = kept.record
        self._runtime.domains.follow(self.identity, self._role, kept.facts.candidates)
        self._runtime.domains.tell(self.identity, record.uuid, record.domain)

    def _watch_peer(
        self, peer: PeerConfig, address: str, gone: Callable[[str], None], *, outlives: bool
    ) -> "asyncio.Task[None]":
        """Begin to watch the other side, see `PeerLivenessMonitor`."""
        return begin_task(PeerLivenessMonitor(self._runtime, peer, address, self.session_id, outlives, gone).run())

    def _note(self, event: str, detail: str) -> None:
        """Note an event in the record; one without detail is none."""
        if detail:
            happened = MigrationEvent(at=wall_clock(), event=event, detail=detail)
            self._runtime.ledger.change(self.identity, lambda record: append_event(record, happened))

    async def _carry(self, handle: Process, *beside: Stoppable) -> None:
        """Wait for the end of the data process.

        Args:
            handle: of it.
            beside: what runs as long as it does.

        Raises:
            CancelledError: this agent ends; the data process goes on.
        """
        try:
            outcome = await handle.finish()
        except asyncio.CancelledError:
            handle.leave()
            self.enter("left")
            raise
        finally:
            for one in beside:
                one.cancel()
        if isinstance(outcome, Crash):
            self._runtime.ledger.count_one("data_process_crashes")
            self._reason = outcome.reason
            log.error("data process crashed", migration=self.identity, code=outcome.code)
            await self._tell_of_crash()
        await handle.gone()

    async def settle(self) -> None:
        """End the record with what libvirt and the peer say."""
        self.enter("ending")
        runtime = self._runtime
        verdict = await self._judged(await runtime.domains.verdict(self.identity))
        record = runtime.ledger.get(self.identity)
        if record is not None:
            record = replace(record, reason=self._reason or record.reason)
            record = close_record(record, wall_clock(), libvirt=verdict.result, reason=verdict.reason)
            await self._settle_with_peer(record, certain=bool(verdict.result))
        runtime.domains.forget(self.identity)
        self.enter("ended")
        if record is not None:
            record = replace(record, peer_result=self._peer_result())
            runtime.ledger.put(record)
            log.info(
                "migration ended",
                migration=record.id,
                domain=record.domain,
                result=record.result,
                reason=record.reason,
            )
        self._let_go()

    def _let_go(self) -> None:
        """Give back what only this kind of side holds; its record has ended."""

    @abstractmethod
    async def _tell_of_crash(self) -> None:
        """Tell the other side that the data process here crashed, where it would not notice by itself."""

    @abstractmethod
    async def _judged(self, verdict: MigrationVerdict) -> MigrationVerdict:
        """Complete libvirt's verdict by what the other side says."""

    @abstractmethod
    async def _settle_with_peer(self, ended: Migration, *, certain: bool) -> None:
        """Settle the permit, and exchange results with the other side.

        Args:
            ended: the record as it will be.
            certain: whether libvirt has confirmed its result.
        """

    @abstractmethod
    def _peer_result(self) -> str:
        """Result that the other side recorded; empty where it is not known."""
