"""Warm-ups from this host: pages of a guest that runs here, brought to a peer's page store.

The rule: one at a time, in sessions of as many pages as both page caches hold, and only while no migration runs on
either host. A migration that begins here ends the session at once; the warm-up goes on behind it, from where that
session had begun, unless the guest has left.

    pass ──> session, session, ... until all memory was read ──> next pass, until the time is over
               └── refused for now, or made way for a migration ──> waits `RETRY_S`, and again
"""

import asyncio
import contextlib
import os
from typing import Final

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.warm_process import WarmProcess
from dwcp_migrate.agent.peers.limits import lowest_limit
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.warm import WarmUp
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import (
    DwcpError,
    GuestMemoryError,
    NoMemoryError,
    NotFoundError,
    PeerRefusedError,
    SessionError,
    StoreError,
)
from dwcp_migrate.hypervisor.base import DomainInfo
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import VERSIONS, DomainName, Warm, Warmed
from dwcp_migrate.protocol.session_memory import SessionMemory
from dwcp_migrate.protocol.worker import (
    SESSION_ID_BYTES,
    TOKEN_BYTES,
    Finished,
    GuestPages,
    MigrationCounters,
    SetRate,
    StartSource,
    StoreOptions,
)
from dwcp_migrate.tasks import wait_within
from dwcp_migrate.units import PAGE_BYTES

RETRY_S: Final = 5.0
"""Longest pause between two tries of a session that had to wait."""

RETRY_S_MIN: Final = 0.25
"""The first one, then twice as long each time: mostly it is the session before that still ends at the peer."""

WAIT_S_MAX: Final = 3600.0
"""For a session to begin; then the warm-up fails with what it waited for."""

PASS_S: Final = 10.0
"""Between two passes: a guest that writes little has little that is new."""

BREAKS_MAX: Final = 5
"""Sessions in a row that broke off without a reason of this host's: the peer makes way by that."""

FOR_NOW: Final = frozenset({"migrates", "memory", "sessions", "no-data-process"})
"""Refusals of a peer that pass."""

TOO_OLD: Final = "unknown-request"

log = get_logger(component="warm")


class _OverError(Exception):
    """The warm-up is over before its end, for a reason that is no fault."""


class _LaterError(Exception):
    """The session cannot be now, or made way; its text says why."""


class OutgoingWarmUps:
    """The warm-ups from here.

    Args:
        runtime: the shared parts.

    Attributes:
        book: their records.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.book = runtime.warm_ups
        self._process: WarmProcess | None = None
        self._session_id = b""
        self._ordered_to_end = asyncio.Event()
        self._migrations_begun = 0
        runtime.ledger.observe(self._changed)

    def _changed(self, before: Migration | None, _: Migration) -> None:
        """Make way for a migration that begins."""
        if before is not None:
            return
        self._migrations_begun += 1
        self._runtime.memory.release(self._session_id.hex())
        if self._process is not None:
            self._process.end("a migration begins at the source", made_way=True)

    async def begin(self, domain: str, peer_name: str, bytes_per_s: float, for_s: float) -> WarmUp:
        """Begin one.

        Args:
            domain: libvirt's name of a guest that runs here.
            peer_name: of the host whose store gets its pages.
            bytes_per_s: most on the wire; 0 for no limit of its own.
            for_s: passes are repeated for so long; 0 for one.

        Raises:
            NotFoundError: no such guest runs here, or no such peer.
            StoreError: this host has no page store.
            SessionError: one runs already, or this agent takes part in nothing.
        """
        runtime = self._runtime
        if self.book.running():
            raise SessionError(
                "a warm-up runs already", hint="`dwcp-migrate status` shows it; it ends with its command"
            )
        if runtime.ledger.state != "running" or runtime.config.policy.observe:
            state = "only observes" if runtime.config.policy.observe else f"is {runtime.ledger.state}"
            raise SessionError(f"this agent {state}", hint="see `dwcp-migrate status`")
        peer = runtime.directory.by_name(peer_name)
        if peer is None:
            raise NotFoundError(f"no peer {peer_name!r}", hint="`dwcp-migrate status` lists the peers")
        found = next((one for one in await runtime.domains.listed() if one.name == domain), None)
        if found is None:
            raise NotFoundError(f"no guest {domain!r} runs here", hint="`virsh list` shows those that do")
        self._store_of(found.uuid, found.name)
        now = wall_clock()
        one = WarmUp(
            id=os.urandom(SESSION_ID_BYTES).hex(),
            domain=found.name,
            uuid=found.uuid,
            peer=peer.name,
            started_at=now,
            bytes_per_s_max=bytes_per_s,
            until=now + for_s if for_s else 0.0,
        )
        if self.book.running():  # libvirt was asked meanwhile
            raise SessionError("a warm-up runs already")
        self.book.put(one)
        self._ordered_to_end.clear()
        self._runtime.warming.begin(self._run(one, found, peer))
        log.info("warm-up begins", domain=domain, peer=peer.name, bytes_per_s=bytes_per_s, for_s=for_s)
        return one

    def end(self, identity: str) -> WarmUp:
        """End one; what its session brought so far stays at the peer. Raises NotFoundError."""
        one = self.book.find(identity)
        if not one.is_over:
            self._ordered_to_end.set()
            if self._process is not None:
                self._process.end("the warm-up was ended")
        return one

    def closed(self, peer: PeerConfig, session_id: bytes) -> bool:
        """End the session that its destination's agent has ended.

        Args:
            peer: the destination.
            session_id: of the session.

        Returns:
            False where no warm-up to that peer is in that session.
        """
        process, running = self._process, self.book.running()
        if process is None or session_id != self._session_id or [one.peer for one in running] != [peer.name]:
            return False
        process.end("the destination ended it", made_way=True)
        return True

    def _store_of(self, uuid: str, name: str) -> StoreOptions:
        found = self._runtime.store.options([DomainName(uuid, name)])
        if found is None:
            raise StoreError(
                "this host has no page store, so that its migrations name no pages",
                hint="set store.bytes_max on both hosts, see docs/known-pages.md",
            )
        return found

    async def _run(self, one: WarmUp, domain: DomainInfo, peer: PeerConfig) -> None:
        end: dict[str, object] = {"state": "failed", "error": "a fault of the agent", "hint": "see its log"}
        try:
            await self._passes(one, domain, peer)
            end = {"state": "ended", "detail": ""}
        except _OverError as over:
            end = {"state": "ended", "detail": str(over)}
        except DwcpError as error:
            end = {"state": "failed", "detail": "", "error": str(error), "hint": error.hint}
        except asyncio.CancelledError:
            end = {"state": "failed", "error": "the agent ended"}
            raise
        finally:
            self.book.change(one.id, ended_at=wall_clock(), **end)
            found = self.book.find(one.id)
            log.info("warm-up over", domain=one.domain, state=found.state, pages=found.pages, error=found.error)

    async def _passes(self, one: WarmUp, domain: DomainInfo, peer: PeerConfig) -> None:
        passes = 0
        while True:
            at = 0
            while True:
                at = await self._next_session(one, domain, peer, at)
                if not at:
                    break
            passes += 1
            self.book.change(one.id, passes=passes)
            if wall_clock() + PASS_S >= one.until:
                return
            await self._pause(one, PASS_S)

    async def _pause(self, one: WarmUp, seconds: float) -> None:
        """Wait. Raises _OverError where it is to end meanwhile, or its time is over."""
        with contextlib.suppress(TimeoutError):
            await wait_within(self._ordered_to_end.wait(), seconds)
        self._check_end(one)

    def _check_end(self, one: WarmUp) -> None:
        if self._ordered_to_end.is_set():
            raise _OverError("ended by command")
        if one.until and wall_clock() >= one.until:
            raise _OverError("its time is over")

    async def _next_session(self, one: WarmUp, domain: DomainInfo, peer: PeerConfig, at: int) -> int:
        """Carry the next part of the memory; returns where the one after it begins, 0 at the end."""
        began, breaks, pause_s = wall_clock(), 0, RETRY_S_MIN
        while True:
            self._check_end(one)
            try:
                await self._check_free(domain)
                self.book.change(one.id, state="running", detail="")
                return await self._session(one, domain, peer, at)
            except _LaterError as later:
                why = str(later)
            except NoMemoryError as error:
                why = str(error)
            except PeerRefusedError as error:
                if error.code == TOO_OLD:
                    raise PeerRefusedError(
                        f"{peer.name}: its agent knows no warm-ups", code=error.code, hint="upgrade the agent there"
                    ) from error
                if error.code not in FOR_NOW:
                    raise
                why = str(error)
            except SessionError as error:
                breaks += 1
                if breaks > BREAKS_MAX:
                    raise
                why = str(error)
            self._check_end(one)
            if wall_clock() - began >= WAIT_S_MAX:
                raise SessionError(f"it could not go on for {WAIT_S_MAX / 60:.0f} min: {why}")
            self.book.change(one.id, state="waiting", detail=why)
            await self._pause(one, min(pause_s, RETRY_S))
            pause_s *= 2

    async def _check_free(self, domain: DomainInfo) -> None:
        """Check that the guest is here and nothing migrates."""
        runtime = self._runtime
        if runtime.ledger.running():
            raise _LaterError("a migration runs on this host")
        runs = await runtime.domains.runs(domain.uuid)
        if runs is False:
            raise _OverError("the guest does not run on this host any more")
        if runs is None:
            raise _LaterError("the guest moves, or libvirt does not answer")
        if runtime.ledger.state != "running":
            raise SessionError(f"this agent is {runtime.ledger.state}")

    async def _session(self, one: WarmUp, domain: DomainInfo, peer: PeerConfig, at: int) -> int:
        runtime, begun = self._runtime, self._migrations_begun
        self._check_way(begun)  # libvirt was asked meanwhile
        store = self._store_of(domain.uuid, domain.name)
        link = await find_address(runtime.control, peer, candidate_addresses(peer), runtime.silent)
        session_id = self._session_id = os.urandom(SESSION_ID_BYTES)
        before = self.book.find(one.id)
        try:
            memory = runtime.memory.for_source(
                session_id.hex(), runtime.config.encoding.cache_bytes, domain.memory_bytes
            )
            process = WarmProcess(
                await runtime.spares.start_apart(), lambda counters: self._count(before, counters, process)
            )
            self._process = process
            try:
                self._check_way(begun)
                await self._start(one, peer, link, (session_id, memory, store, at))
            except BaseException:
                await process.discard()
                raise
            finished = await process.wait()
        finally:
            self._process = None
            runtime.memory.release(session_id.hex())
        return self._judged(process, finished, at)

    def _check_way(self, begun: int) -> None:
        """Raise _LaterError where a migration runs, or began since `begun` had."""
        if self._migrations_begun != begun or self._runtime.ledger.running():
            raise _LaterError("a migration runs on this host")

    def _judged(self, process: WarmProcess, finished: Finished | None, at: int) -> int:
        """Return where the next session begins. Raises what there is to say of one that did not come to its end."""
        if finished is not None and finished.result == "failed":  # here; the peer may have said meanwhile that it ended
            raise GuestMemoryError(finished.detail, hint="docs/known-pages.md says which guests can be warmed up")
        if process.made_way:
            raise _LaterError("it made way for a migration")
        if finished is None:
            raise SessionError("its data process crashed", hint="see the agent's log")
        if finished.result != "carried" or process.stopped_at is None:
            raise SessionError(
                finished.detail or f"the session to the peer ended early ({finished.result})",
                hint="see the agents' logs on both hosts",
            )
        if process.stopped_at and process.stopped_at <= at:
            raise NoMemoryError("the page caches are too small for a piece of memory")
        return process.stopped_at

    async def _start(
        self, one: WarmUp, peer: PeerConfig, link: str, part: tuple[bytes, SessionMemory, StoreOptions, int]
    ) -> None:
        """Ask the peer, and start the data process."""
        runtime, (session_id, memory, store, at) = self._runtime, part
        token = os.urandom(TOKEN_BYTES)
        request = Warm(
            versions=VERSIONS,
            session_id=session_id,
            token=token,
            domain=DomainName(one.uuid, one.domain),
            scope=store.scope,
            cache_bytes=memory.cache_bytes,
            window_bytes=memory.window_bytes,
            channels_max=min(runtime.config.link.channels_max, memory.channels_max),
        )
        begun, process = self._migrations_begun, self._process
        assert process is not None, "it was just started"
        warmed = await runtime.control.ask(peer, link, request, Warmed)
        self._check_way(begun)
        self._check_end(one)
        memory = runtime.memory.agree(session_id.hex(), memory, warmed.cache_bytes, warmed.window_bytes)
        codec = "zstd" if runtime.config.encoding.codec == "auto" else ""
        process.send(
            StartSource(
                session_id=session_id,
                token=token,
                peer_name=peer.name,
                peer_address=link,
                peer_port=peer.port,
                options=runtime.session_options(memory, warmed.channels_max, "", None, codec=codec),
                stated_key=warmed.store_key,
                reads=GuestPages(
                    uri=runtime.config.libvirt_uri,
                    uuid=one.uuid,
                    begin=at,
                    pages_max=memory.cache_bytes // PAGE_BYTES,
                ),
            )
        )
        limits = (one.bytes_per_s_max, runtime.link_ceiling(peer.name), runtime.domain_ceiling(one.domain))
        if rate := lowest_limit(*limits):
            process.send(SetRate(bytes_per_s=rate, alone_bytes_per_s=rate))

    def _count(self, before: WarmUp, counters: MigrationCounters, process: WarmProcess) -> None:
        """Add a session's counters to what there was before it."""
        self.book.change(
            before.id,
            readable_bytes=process.readable_bytes or before.readable_bytes,
            pages=before.pages + sum(counters.pages.values()),
            known_pages=before.known_pages + counters.pages.get("known", 0),
            raw_bytes=before.raw_bytes + counters.raw_bytes,
            wire_bytes=before.wire_bytes + counters.wire_bytes,
        )
