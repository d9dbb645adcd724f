"""Warm-ups that arrive: a peer's agent asks to bring pages of a guest of its to this host's page store.

The rule: one at a time, while no migration runs here, for a scope on which both hosts agree, and from hosts of the same
trust domain. A migration that begins ends it at once, and has its memory.
"""

import asyncio
import contextlib
import socket
from typing import Final

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.warm_process import WarmProcess
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.agent.peers.server import make_refusal
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, NoMemoryError, SessionError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import (
    CONTROL_SESSION,
    PBFT_SESSION,
    STATE_SESSION,
    Close,
    Closed,
    Refused,
    Warm,
    Warmed,
    common_version,
)
from dwcp_migrate.protocol.session_memory import SessionMemory
from dwcp_migrate.protocol.worker import AddChannel, StartDestination, StoreOptions

FIRST_CHANNEL_S_MAX: Final = 30.0
"""From `Warmed` to the first channel."""

MESSAGE_CHARACTERS_MAX: Final = 200
"""Of a refusal's text; the protocol takes 256."""

log = get_logger(component="warm")


class _RefusalError(Exception):
    """The request is refused, by this code; its text is for people, empty for the code's own."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message)
        self.code = code


class IncomingWarmUps:
    """The warm-up that arrives here, if one does.

    Args:
        runtime: the shared parts.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._session_id = b""
        self._process: WarmProcess | None = None
        self._has_channel = False
        runtime.ledger.observe(self._changed)

    def _changed(self, before: Migration | None, _: Migration) -> None:
        if before is None:
            self.make_way()

    def make_way(self) -> None:
        """End what arrives: a migration begins, and needs memory and link."""
        if not self._session_id:
            return
        self._runtime.memory.release(self._session_id.hex())
        if self._process is not None:
            self._process.end("a migration begins at the destination", made_way=True)
        self._session_id = b""

    def _objection(self, peer: PeerConfig, request: Warm) -> str:
        """The code of a refusal; empty when there is none."""
        runtime = self._runtime
        coordination = runtime.config.coordination
        checks = {
            "version": common_version(request.versions) == 0,
            runtime.ledger.state: runtime.ledger.state != "running",
            "observe": runtime.config.policy.observe,
            "invalid": request.session_id in (CONTROL_SESSION, PBFT_SESSION, STATE_SESSION),
            "trust-domain": coordination.crosses(peer) or coordination.needs_certificate(peer),
            "migrates": self._process is not None or bool(self._session_id) or bool(runtime.ledger.running()),
        }
        return next((code for code, applies in checks.items() if applies), "")

    async def open(self, peer: PeerConfig, request: Warm) -> Warmed | Refused:
        """Let a warm-up in.

        Args:
            peer: its source.
            request: the peer's.
        """
        if code := self._objection(peer, request):
            return make_refusal(code)
        self._session_id, self._has_channel = request.session_id, False
        try:
            return await self._let_in(peer, request)
        except _RefusalError as refusal:
            self._give_up(request)
            return make_refusal(refusal.code, str(refusal))
        except BaseException:
            self._give_up(request)
            raise

    async def _let_in(self, peer: PeerConfig, request: Warm) -> Warmed:
        """Start a data process that waits for its channels. Raises _RefusalError."""
        runtime = self._runtime
        store = runtime.store.options([request.domain])
        key = await runtime.store.key_in_time(store, request.scope)
        if store is None or not key:
            raise _RefusalError("scope" if store is not None and store.scope != request.scope else "no-store")
        self._check_way(request)
        try:
            memory = runtime.memory.for_destination(
                request.session_id.hex(), request, runtime.config.encoding.cache_bytes
            )
            process = WarmProcess(await runtime.spares.start_apart(), lambda _: None)
        except (NoMemoryError, SessionError) as error:
            code = "memory" if isinstance(error, NoMemoryError) else "no-data-process"
            raise _RefusalError(code, str(error)[:MESSAGE_CHARACTERS_MAX]) from error
        try:
            self._check_way(request)
        except _RefusalError:
            await process.discard()
            raise
        self._process = process
        channels_max = min(request.channels_max, runtime.config.link.channels_max, memory.channels_max)
        self._start(peer, request, memory, channels_max, store)
        runtime.warming.begin(self._run(peer, request.session_id, process))
        return Warmed(
            version=common_version(request.versions),
            cache_bytes=memory.cache_bytes,
            window_bytes=memory.window_bytes,
            channels_max=channels_max,
            store_key=key,
        )

    def _check_way(self, request: Warm) -> None:
        """Raise _RefusalError where a migration came while something was waited for."""
        if self._session_id != request.session_id:
            raise _RefusalError("migrates")

    def _give_up(self, request: Warm) -> None:
        """Give back what a request holds that was not let in."""
        self._runtime.memory.release(request.session_id.hex())
        if self._session_id == request.session_id:
            self._session_id = b""

    def _start(
        self, peer: PeerConfig, request: Warm, memory: SessionMemory, channels_max: int, store: StoreOptions
    ) -> None:
        assert self._process is not None, "it was just made"
        options = self._runtime.session_options(memory, channels_max, "", store)
        self._process.send(
            StartDestination(
                session_id=request.session_id,
                token=request.token,
                peer_name=peer.name,
                target_address="",
                target_port=0,
                options=options,
                states=True,
                discards=True,
            )
        )
        log.info("warm-up arrives", session=request.session_id.hex(), peer=peer.name, domain=request.domain.name)

    async def _run(self, peer: PeerConfig, session_id: bytes, process: WarmProcess) -> None:
        """Wait for its end, give back what it holds, and tell the source where it would wait for the link."""

        def expire() -> None:
            if not self._has_channel:
                process.end("no channel came from the source")

        timer = asyncio.get_running_loop().call_later(FIRST_CHANNEL_S_MAX, expire)
        try:
            finished = await process.wait()
        finally:
            timer.cancel()
            self._process = None
            if self._session_id == session_id:
                self._session_id = b""
            self._runtime.memory.release(session_id.hex())
        result = finished.result if finished else "crashed"
        log.info("warm-up ended", session=session_id.hex(), result=result)
        if result != "carried":
            await self._tell(peer, Close(session_id=session_id, result="failed", reason=f"warm-up {result}"))

    async def _tell(self, peer: PeerConfig, message: Close) -> None:
        control = self._runtime.control
        with contextlib.suppress(DwcpError):  # it notices by itself, later
            address = await find_address(control, peer, candidate_addresses(peer))
            await control.ask(peer, address, message, Closed)

    def channel(self, session_id: bytes, sock: socket.socket) -> bool:
        """Hand a channel to the data process.

        Args:
            session_id: that the channel named.
            sock: of the channel; taken over where it is this one's.

        Returns:
            False where it is not; the socket stays the caller's.
        """
        if self._process is None or not session_id or session_id != self._session_id:
            return False
        self._has_channel = True
        self._process.send(AddChannel(), [sock])
        return True
