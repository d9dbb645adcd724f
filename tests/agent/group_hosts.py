"""Hosts of a PBFT group in one process, on loopback: all that agents use for it, and nothing else of them."""

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from dwcp_migrate.agent.accept_loop import AcceptLoop, open_listener
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.intake.link import LinkIntake
from dwcp_migrate.agent.pbft.group import PbftGroup
from dwcp_migrate.agent.pbft.membership_change import Change, Named
from dwcp_migrate.agent.peers.client import ControlClient
from dwcp_migrate.agent.peers.directory import PeerDirectory, SilentPeers
from dwcp_migrate.agent.peers.server import ControlServer, make_refusal
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.memory_budget import MemoryBudget
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import (
    Config,
    CoordinationConfig,
    LinkConfig,
    PbftConfig,
    PbftMemberConfig,
    PeerConfig,
    TlsConfig,
)
from dwcp_migrate.consensus.io.key_file import make_identity
from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate
from dwcp_migrate.consensus.tickets.operations import (
    Issue,
    Register,
    Ticket,
    decode_result,
    encode_operation,
)
from dwcp_migrate.hypervisor.announcements import Announcements
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.protocol.control import PBFT_SESSION, Follow, Message, Request
from dwcp_migrate.transport.tls import make_context
from tests.consensus.processes import free_ports

if TYPE_CHECKING:
    from dwcp_migrate.dataplane.process_pool import DataProcessPool

CLUSTER = "5c" * 16
WAIT_S = 30.0


class GroupHost:
    """One host; `start` and `stop` as often as a test likes, on one state directory."""

    group: PbftGroup

    def __init__(self, hosts: "GroupHosts", name: str, port: int) -> None:
        self._hosts = hosts
        self.name = name
        self.peer = PeerConfig(name, ["127.0.0.1"], port)
        self.key = hosts.directory / f"{name}.pbft"
        self.public = make_identity(self.key).public.hex()
        self.is_up = False

    def renew_key(self) -> None:
        self.key.unlink()
        self.public = make_identity(self.key).public.hex()

    def _context(self, side: Literal["client", "server"]) -> ssl.SSLContext:
        tls = self._hosts.directory
        return make_context(side, tls / "ca.pem", tls / f"{self.name}.pem", tls / f"{self.name}.key")

    def _runtime(self) -> Runtime:
        tls = self._hosts.directory
        state = tls / self.name
        config = Config(
            name=self.name,
            tls=TlsConfig(ca=tls / "ca.pem", certificate=tls / f"{self.name}.pem", key=tls / f"{self.name}.key"),
            state_directory=state,
            link=LinkConfig(listen="127.0.0.1", port=self.peer.port),
            coordination=CoordinationConfig(pbft=self._hosts.configured(self)),
        )
        ledger = MigrationRegistry(MigrationHistory(state), wall_clock)
        peers = [host.peer for host in self._hosts if host is not self]
        return Runtime(
            config=config,
            name=self.name,
            directory=PeerDirectory(peers, self.name, lambda _: False),
            silent=SilentPeers(1.0),
            announcements=Announcements(1.0),
            ledger=ledger,
            spares=cast("DataProcessPool", None),
            control=ControlClient(lambda: self._context("client"), 2.0, config.intercept.mark),
            domains=DomainTracker(None, ledger),
            memory=MemoryBudget(lambda: 0, lambda: 32),
            disk=DiskThread(),
            keep_translation=list,
        )

    async def _answer(self, _: PeerConfig, request: Request) -> Message:
        return self.group.successor(request) if isinstance(request, Follow) else make_refusal("unknown-request")

    async def start(self) -> None:
        self.runtime = self._runtime()
        self.group = PbftGroup(self.runtime, self._context)
        control = ControlServer(self.runtime.directory.by_names, self._answer, lambda _: None)
        self._link = LinkIntake(
            lambda: self._context("server"),
            control,
            lambda _id, _sock: False,
            {PBFT_SESSION: self.group.adopt},
            lambda _: True,
            lambda _: None,
        )
        self._listener = AcceptLoop(open_listener("127.0.0.1", self.peer.port), self._link.take, lambda _: None).start()
        self.is_up = True
        await self.group.start()

    async def stop(self) -> None:
        if not self.is_up:
            return
        self.is_up = False
        self._listener.close()
        await self._link.close()
        await self.group.close()
        self.runtime.control.forget()
        self.runtime.ledger.close()

    async def until(self, epoch: int, role: str) -> None:
        """Wait until it is in an epoch and has a part there; no event says so to somebody outside."""
        async with asyncio.timeout(WAIT_S):
            while (found := self.group.status()).epoch != epoch or found.role != role:  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.02)


class GroupHosts:
    """All hosts, by name; `members` are those of the first configuration, the first of them the operator."""

    def __init__(
        self, directory: Path, members: Sequence[str], *others: str, clients: Sequence[str] = (), epoch: int = 0
    ) -> None:
        self.directory = directory
        create_authority(directory)
        names = [*members, *clients, *others]
        for name in names:
            issue(directory, name)
        ports = free_ports(len(names))
        self._hosts = {name: GroupHost(self, name, port) for name, port in zip(names, ports, strict=True)}
        self._members = tuple(self._named(name, operator=name == members[0]) for name in members)
        self._clients = tuple(self._named(name) for name in clients)
        self.operator = self[members[0]]
        self.epoch = epoch
        self.tickets = 0

    def _named(self, name: str, *, operator: bool = False) -> PbftMemberConfig:
        return PbftMemberConfig(name, self[name].public, operator)

    def configured(self, host: GroupHost) -> PbftConfig:
        return PbftConfig(
            cluster=CLUSTER,
            key=host.key,
            members=self._members,
            clients=self._clients,
            epoch=self.epoch,
            timeout_s=10.0,
        )

    def __getitem__(self, name: str) -> GroupHost:
        return self._hosts[name]

    def __iter__(self) -> Iterator[GroupHost]:
        return iter(self._hosts.values())

    async def start(self, *names: str) -> None:
        for name in names or self._hosts:
            await self[name].start()

    async def stop(self) -> None:
        for host in self._hosts.values():
            await host.stop()

    def named(self, name: str) -> Named:
        return Named(name=name, key=self[name].public)

    async def change(self, **fields: tuple[object, ...]) -> int:
        """Have the operator propose; returns the new epoch."""
        return (await self.operator.group.propose(Change(**fields))).epoch  # type: ignore[arg-type]

    async def certificate(self, by: str) -> DecisionCertificate:
        """Have a host get a ticket for a domain of its own."""
        self.tickets += 1
        domain = f"00000000-0000-4000-8000-{self.tickets:012}"
        group = self[by].group
        await group.decide(encode_operation(Register(domain)))
        there = "b" if by == "a" else "a"
        decision = await group.decide(
            encode_operation(Issue(domain, there, self.tickets % 256, 0, 60_000)), certify=True
        )
        assert isinstance(decode_result(decision.result), Ticket)
        assert decision.certificate is not None
        return decision.certificate
