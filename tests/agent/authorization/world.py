"""Hosts that agree on migrations, in one process: the fleet's state is the model itself."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dwcp_migrate.agent.authorization.certificates import CertificateIssuer
from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.authorization.permits import Judgement, MigrationAuthorizer
from dwcp_migrate.agent.authorization.reconciler import TicketReconciler
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.peers.directory import PeerDirectory, SilentPeers
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.config import Config, CoordinationConfig, PeerConfig
from dwcp_migrate.errors import PeerUnreachableError
from dwcp_migrate.hypervisor.announcements import Announcements
from dwcp_migrate.hypervisor.base import DomainInfo, JobStatistics
from dwcp_migrate.hypervisor.fake import FakeWatcher
from dwcp_migrate.protocol.control import Ask, DomainName, Expect, Expected, Permit, Runs
from dwcp_migrate.state.fake import FakeEngine
from dwcp_migrate.state.fleet.commands import PutHost
from dwcp_migrate.state.fleet.model import Ticket
from dwcp_migrate.state.fleet.replicated import FleetMachine
from tests.agent.deciders import Deciders, FakeGroup

if TYPE_CHECKING:
    from dwcp_migrate.agent.pbft.group import PbftGroup
    from dwcp_migrate.agent.peers.client import ControlClient
    from dwcp_migrate.dataplane.process_pool import DataProcessPool

UUID = "0123abcd-0000-1111-2222-333344445555"
WEB = DomainName(UUID, "web1")
NAMES = ("a", "b", "c")


class Control:
    """The ways to the other hosts of a test, in the place of their control connections."""

    connect_timeout_s = 1.0

    def __init__(self, world: "World") -> None:
        self._world = world

    async def ask(self, peer: PeerConfig, _address: str, request: Any, _answer: object, _timeout_s: float = 1.0) -> Any:
        host = self._world.hosts[peer.name]
        if not host.is_reachable:
            raise PeerUnreachableError("gone")
        if isinstance(request, Expect):
            return Expected(candidates=tuple(host.announced))
        assert isinstance(request, Ask)
        return Runs(runs=await host.recovery.runs(request.uuid))


class Host:
    """One host's part in agreements."""

    def __init__(self, world: "World", name: str, configured: CoordinationConfig, directory: Path) -> None:
        self.announced: list[DomainName] = []
        self.is_reachable = True
        self.watcher = FakeWatcher()
        ledger = MigrationRegistry(MigrationHistory(directory / name), time.time)
        peers = [PeerConfig(name=other, addresses=[f"10.0.0.{number}"]) for number, other in enumerate(NAMES, 1)]
        self.runtime = Runtime(
            config=Config(name=name, state_directory=directory / name, coordination=configured),
            name=name,
            directory=PeerDirectory(peers, name, lambda _: False),
            silent=SilentPeers(1.0),
            announcements=Announcements(1.0),
            ledger=ledger,
            spares=cast("DataProcessPool", None),
            control=cast("ControlClient", Control(world)),
            domains=DomainTracker(self.watcher, ledger),
            memory=MemoryBudget(lambda: 0, lambda: 32),
            disk=DiskThread(),
            keep_translation=list,
        )
        self.engine = FakeEngine(name, world.machine, lambda: world.now)
        self.coordination = ClusterStateClient(self.runtime, no_context, lambda _: None, lambda: self.engine)
        self.group = FakeGroup(name, world.deciders)
        self.certifying = CertificateIssuer(self.runtime, cast("PbftGroup", self.group))
        self.permits = MigrationAuthorizer(self.runtime, self.coordination, self.certifying)
        self.recovery = TicketReconciler(self.runtime, self.coordination, self.permits)

    def peer(self, name: str) -> PeerConfig:
        found = self.runtime.directory.by_name(name)
        assert found is not None
        return found

    def runs(self, uuid: str = UUID, job: JobStatistics | None = None) -> None:
        self.watcher.running[uuid] = DomainInfo(uuid, "web1", 1 << 30, job)


def no_context(_: str) -> Any:
    raise AssertionError("nobody is dialled here")


class World:
    """Hosts a, b and c and their one state."""

    def __init__(self, directory: Path, configured: CoordinationConfig, deciders: Deciders | None = None) -> None:
        self.deciders = deciders
        self.machine = FleetMachine()
        self.now = time.time()
        self.hosts = {name: Host(self, name, configured, directory) for name in NAMES}

    @property
    def state(self) -> str:
        """Of the one ticket."""
        return self.tickets[0].state

    def state_of(self, name: str) -> str:
        """Of a host."""
        return self.machine.fleet.hosts[name].state

    @property
    def tickets(self) -> list[Ticket]:
        fleet = self.machine.fleet
        return [*fleet.open_tickets.values(), *fleet.ended_tickets.values()]

    async def agree(self, source: str = "a", destination: str = "b") -> tuple[Permit, Judgement]:
        """Go through an agreement on `WEB`; returns what the source showed and how it was judged."""
        here, there = self.hosts[source], self.hosts[destination]
        there.announced = [WEB]
        agreement = await here.permits.obtain("one", here.peer(destination), "", [WEB])
        assert agreement.permit is not None
        return agreement.permit, await there.permits.judge("one", there.peer(source), agreement.permit)


@asynccontextmanager
async def world_of(
    directory: Path, configured: CoordinationConfig, deciders: Deciders | None = None
) -> AsyncIterator[World]:
    world = World(directory, configured, deciders)
    async with AsyncExitStack() as stack:
        for host in world.hosts.values():
            await host.coordination.start()
            stack.push_async_callback(host.coordination.close)
            await host.runtime.domains.start()
            stack.push_async_callback(host.runtime.domains.close)
            host.coordination.is_known = True
            await host.coordination.submit(PutHost(name=host.runtime.name))
        yield world
