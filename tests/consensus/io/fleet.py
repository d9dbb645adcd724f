"""A group of PBFT nodes on one event loop, over real mutual TLS, and what a host says first to one of them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from dwcp_migrate.consensus import Options, PbftReplica
from dwcp_migrate.consensus.io.client_node import GroupClient
from dwcp_migrate.consensus.io.greeting import Greeter
from dwcp_migrate.consensus.io.journal_file import JournalFile
from dwcp_migrate.consensus.io.replica_node import Node, NodeOptions
from dwcp_migrate.consensus.pbft.model.messages import (
    encode_frame,
)
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.pki import create_authority, issue
from dwcp_migrate.transport.tls import make_context
from tests.consensus.members import CLUSTER, identity, membership
from tests.consensus.processes import free_ports

DOMAIN = "00000000-0000-4000-8000-000000000001"
WAIT_S = 30.0


class Fleet:
    """Certificates and addresses of some hosts, and the nodes that run on them."""

    def __init__(self, directory: Path, replicas: int) -> None:
        self.directory = directory
        self.members = membership(replicas)
        self.names = [each.name for each in self.members.replicas]
        self.ports = dict(zip(self.names, free_ports(replicas), strict=True))
        create_authority(directory)
        for name in (*self.names, "c0", "c1", "op", "stranger"):
            issue(directory, name)

    def context(self, side: str, name: str) -> ssl.SSLContext:
        files = (self.directory / "ca.pem", self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return make_context("server" if side == "server" else "client", *files)

    def options(self, name: str) -> NodeOptions:
        return NodeOptions(
            listen=("127.0.0.1", self.ports.get(name, 0)),
            addresses={other: ("127.0.0.1", port) for other, port in self.ports.items() if other != name},
            server_context=lambda: self.context("server", name),
            client_context=lambda: self.context("client", name),
            certificate=self.directory / f"{name}.pem",
        )

    def node(self, name: str, application: Tickets | None = None) -> Node:
        options = Options(request_timeout_s=1.0, status_s=0.1)
        replica = PbftReplica(name, identity(name), self.members, application or Tickets(), options)
        return Node(replica, JournalFile(self.directory / f"{name}.journal"), self.options(name))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[dict[str, Node]]:
        nodes = {name: self.node(name) for name in self.names}
        for node in nodes.values():
            await node.start()
        try:
            yield nodes
        finally:
            for node in nodes.values():
                await node.stop()

    @asynccontextmanager
    async def client(
        self, name: str, connections: int = 0, on_later_epoch: Callable[[], None] | None = None
    ) -> AsyncIterator[GroupClient]:
        client = GroupClient(name, identity(name), self.members, self.options(name), on_later_epoch)
        await asyncio.wait_for(client.start(connections or len(self.names)), WAIT_S)
        try:
            yield client
        finally:
            await client.stop()

    def lose_disk(self, name: str) -> None:
        """Leave a member its key and nothing else."""
        for path in self.directory.glob(f"{name}.*"):
            if path.suffix not in {".pem", ".key"}:
                path.unlink()

    async def dial(self, name: str, hello: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first replica as `name` and say `hello`, its frame's bytes."""
        context = self.context("client", name)
        port = self.ports[self.names[0]]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=self.names[0])
        writer.write(hello)
        return reader, writer


def hello(fleet: Fleet, name: str = "c0", key: str = "", **changes: object) -> bytes:
    """What a host says first to `r0`, with the one or other thing wrong before it is signed."""
    greeter = Greeter(name, identity(key or name), CLUSTER, "client", fleet.directory / f"{name}.pem")
    greeter._plain = msgspec.structs.replace(greeter._plain, **changes)
    return encode_frame(greeter.hello("r0"))
