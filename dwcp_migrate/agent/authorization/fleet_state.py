"""The agent's client of the fleet's state: the engine's life, this host's heartbeat and facts, reads of the state.

The rule: no fault here fails a migration unless the configuration requires the fleet's agreement. With an engine that
cannot start the agent runs without shared state; the log, the status and `cluster status` report it.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeVar

from msgspec.structs import replace

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.peers.fleet_peers import is_allowed
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import EtcdConfig
from dwcp_migrate.config.addresses import is_ip_address
from dwcp_migrate.errors import CoordinationError, DwcpError, NoQuorumError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import STATE_SESSION
from dwcp_migrate.refusals import BY_CLUSTER_STATE, explain_code
from dwcp_migrate.state.engine import Engine
from dwcp_migrate.state.engine_status import EngineStatus
from dwcp_migrate.state.fleet.commands import Body, PutHost, SetHostState
from dwcp_migrate.state.fleet.model import VERSION, FleetState, HostCapacity, TicketOutcome
from dwcp_migrate.state.raft.engine import RaftEngine
from dwcp_migrate.state.raft.peer_connections import PeerIdentity
from dwcp_migrate.state.raft.replica import RaftSettings
from dwcp_migrate.state.raft.restore import FLEET_DIRECTORY
from dwcp_migrate.tasks import Tasks
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble

ALIVE_S: Final = 10.0
"""Interval of this host's heartbeat."""

FIRST_S: Final = 1.0
"""Interval of attempts at the first heartbeat: a fleet that starts has no leader for about that long."""

LOOK_S: Final = 2.0
"""Between two looks at where the engine stands, for status and metrics."""

DRAINING_FILE: Final = "draining"
"""File that exists while this agent, and no operator, has the fleet place no domains on this host."""

log = get_logger(component="coordination")

T = TypeVar("T")
Context = Callable[[Literal["client", "server"]], ssl.SSLContext]


class ClusterStateClient:
    """The engine and what it is asked.

    Args:
        runtime: the shared parts.
        context: makes TLS contexts.
        rejected: counts connections that were closed, by reason.
        engine: makes the engine; None makes the one that is configured.

    Attributes:
        is_known: the fleet has heard of this host.
        latest: where the engine stood at the last look.
    """

    def __init__(
        self,
        runtime: Runtime,
        context: Context,
        rejected: Callable[[str], None],
        engine: Callable[[], Engine] | None = None,
    ) -> None:
        self._runtime = runtime
        self._make = engine or self._configured
        self._context = context
        self._rejected = rejected
        self._engine: Engine | None = None
        self._tasks = Tasks()
        self.is_known = False
        self._marker = Path(runtime.config.state_directory) / DRAINING_FILE
        self.latest = EngineStatus(engine=runtime.config.coordination.engine, state="stopped", error="not started")

    # -- life

    async def start(self) -> None:
        """Start the engine; one that cannot start is logged and left out."""
        engine = self._make()
        try:
            await engine.start()
        except DwcpError as error:
            self.latest = EngineStatus(engine=self.latest.engine, state="stopped", error=str(error))
            log.error("no shared state", error=str(error), hint=error.hint)  # noqa: TRY400 - no bug, no trace
            return
        self._engine = engine
        self._tasks.keep_running("heartbeat", self._say_alive)
        self._tasks.keep_running("cluster state", self._look_on)

    def _configured(self) -> Engine:
        runtime = self._runtime
        coordination = runtime.config.coordination
        if coordination.engine == "etcd":
            return self._etcd()
        settings = RaftSettings(
            directory=Path(runtime.config.state_directory) / (FLEET_DIRECTORY if coordination.voters else "alone"),
            voters=coordination.voters or (runtime.name,),
            election_s=coordination.election_ms / 1000,
        )
        identity = PeerIdentity(
            name=runtime.name,
            client=lambda: self._context("client"),
            server=lambda: self._context("server"),
            identify=self._identify,
            address=self._address,
            greeting=encode_preamble(Preamble(STATE_SESSION)),
            mark=runtime.config.intercept.mark,
        )
        return RaftEngine(
            settings,
            identity,
            rejected=self._count_rejected,
            leader_changed=lambda leader, term: log.info("leader", leader=leader or "none", term=term),
            clock=wall_clock,
        )

    def _etcd(self) -> Engine:
        from dwcp_migrate.state.etcd.engine import EtcdEngine, EtcdSettings
        from dwcp_migrate.state.etcd.gateway import EtcdLogin

        runtime, coordination = self._runtime, self._runtime.config.coordination
        own = coordination.etcd
        settings = EtcdSettings(
            endpoints=coordination.endpoints,
            context=lambda: _etcd_context(own) if own.ca else self._context("client"),
            prefix=own.prefix,
            login=EtcdLogin(own.username, lambda: _password(own)) if own.username else None,
        )
        return EtcdEngine(runtime.name, settings, wall_clock)

    def _count_rejected(self, reason: str) -> None:
        self._rejected(reason.split(":", 1)[0])
        log.warning("state connection closed", why=reason)

    def _identify(self, names: list[str]) -> str | None:
        """The host of a certificate: a peer, or one that is still to be found; its first word makes it known."""
        peer = self._runtime.directory.by_names(names)
        if peer is not None:
            return peer.name
        coordination = self._runtime.config.coordination
        return next((name for name in names if is_allowed(name, coordination.discover)), None)

    def _address(self, name: str) -> tuple[str, int] | None:
        peer = self._runtime.directory.by_name(name)
        if peer is None or not is_ip_address(peer.addresses[0]):  # a name that does not resolve would block the replica
            return None
        return peer.addresses[0], peer.port

    async def close(self) -> None:
        """Stop."""
        await self._tasks.cancel()
        if self._engine is not None:
            await self._engine.close()
            self._engine = None

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection of another replica."""
        if self._engine is None:
            sock.close()
        else:
            self._engine.adopt(sock)

    async def _say_alive(self) -> None:
        """Send the heartbeat: again and again in a fleet, once for a host by itself."""
        is_first = True
        while not self.is_known or self._runtime.config.coordination.is_shared:
            try:
                outcome = await self.engine.beat(self._self(), self._runtime.config.coordination.timeout_s)
                self.is_known = self.is_known or not outcome.code
                if self.is_known and is_first:
                    is_first = False
                    await self.end_earlier_drain()
            except NoQuorumError as error:
                log.warning("the fleet does not hear this host", error=str(error))
            await asyncio.sleep(ALIVE_S if self.is_known else FIRST_S)

    def _self(self) -> PutHost:
        configured = self._runtime.config.coordination
        memory_bytes = configured.memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return PutHost(
            name=self._runtime.name,
            trust_domain=configured.trust_domain,
            labels=dict(configured.labels),
            capacity=HostCapacity(cpus=configured.cpus or os.cpu_count() or 0, memory_bytes=memory_bytes),
            reads=VERSION,
        )

    async def _look_on(self) -> None:
        while True:
            before, self.latest = self.latest.error, await self.status()
            if self.latest.error and self.latest.error != before:
                log.error("shared state", state=self.latest.state, error=self.latest.error)
            await asyncio.sleep(LOOK_S)

    # -- asking

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            NoQuorumError: it did not start.
        """
        if self._engine is None:
            raise NoQuorumError(f"this agent has no shared state: {self.latest.error}", hint="see the agent's log")
        return self._engine

    async def submit(self, body: Body) -> TicketOutcome:
        """Have a command committed within `coordination.timeout_s`; raises NoQuorumError."""
        return await self.engine.submit(body, self._runtime.config.coordination.timeout_s)

    async def look(self, at: Callable[[FleetState], T], *, fresh: bool = False) -> T:
        """Read the cluster state as this host has it.

        Args:
            at: reads what is wanted; it must not keep or change the state.
            fresh: wait first for all changes that a majority has confirmed.

        Returns:
            What `at` returns.

        Raises:
            NoQuorumError: `fresh`, and no majority answers within `coordination.timeout_s`.
        """
        if fresh:
            await self.engine.barrier(self._runtime.config.coordination.timeout_s)
        return await self.engine.look(at)

    async def status(self) -> EngineStatus:
        """Say where the engine stands, now."""
        if self._engine is None:
            return self.latest
        status = await self._engine.status()
        with contextlib.suppress(NoQuorumError):
            ahead_s = await self.look(lambda fleet: fleet.now) - wall_clock()
            return replace(status, time_ahead_s=max(0.0, ahead_s))
        return status

    async def set_draining(self, *, draining: bool) -> None:
        """Tell the fleet that this host takes no domains; a leader hands over. What fails is logged, drains go on.

        What this says ends with the agent's restart; what an operator said of the host (`drain HOST`) does not.
        """
        try:
            state = await self.look(lambda fleet: getattr(fleet.hosts.get(self._runtime.name), "state", "up"))
            if draining and state == "up":
                with contextlib.suppress(OSError):  # without it an operator has to say `undrain`
                    self._marker.touch(mode=0o600)
            await self.submit(SetHostState(name=self._runtime.name, state="draining" if draining else "up"))
            if not draining:
                self._marker.unlink(missing_ok=True)
            if draining and (await self.status()).state == "leader" and self._runtime.config.coordination.is_shared:
                leader = await self.engine.transfer_leader("", self._runtime.config.coordination.timeout_s)
                log.info("leadership handed over", leader=leader)
        except (CoordinationError, OSError) as error:
            log.warning("the fleet does not know of the drain", error=str(error))

    async def end_earlier_drain(self) -> None:
        """After a restart: let the host take domains again if it was the agent of before that said it does not."""
        if self._marker.exists() and self._runtime.ledger.state == "running":
            await self.set_draining(draining=False)

    def change_draining(self, *, draining: bool) -> None:
        """Begin `set_draining`, without waiting for the fleet."""
        with contextlib.suppress(RuntimeError):  # no loop: nothing was started
            asyncio.get_running_loop()
            self._tasks.begin(self.set_draining(draining=draining))


def _etcd_context(configured: EtcdConfig) -> ssl.SSLContext:
    """Make the TLS context for an etcd with a CA of its own.

    Raises:
        CoordinationError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=configured.ca)
        if configured.certificate:
            context.load_cert_chain(configured.certificate, configured.key or None)
    except OSError as error:  # ssl.SSLError is one
        raise CoordinationError(f"etcd's TLS files: {error}", hint="see [coordination.etcd]") from error
    return context


def _password(configured: EtcdConfig) -> str:
    try:
        return Path(configured.password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CoordinationError(f"etcd's password: {error}", hint="see coordination.etcd.password_file") from error


def check_outcome(outcome: TicketOutcome) -> None:
    """Raise the fleet's refusal of a command as an error.

    Raises:
        CoordinationError: it refused, for the reason and with the remedy of the error.
    """
    if outcome.code:
        words, remedy = explain_code(BY_CLUSTER_STATE, outcome.code)
        raise CoordinationError(f"the fleet refuses it: {words}", hint=remedy)
