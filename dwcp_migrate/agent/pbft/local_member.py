"""This host's part in the PBFT group as its newest membership has it: a replica, a client, both, or none.

The rule: `settle` brings this about from any earlier state, and may be called at any time. A replica runs while the
newest membership names this host with its key; it starts from the first membership that is known and catches up from
there. A host that is no longer named stops its replica at once and keeps the journal. Addresses are those of [[peers]],
never the group's.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.pbft.membership_store import MembershipStore
from dwcp_migrate.consensus.io.client_node import GroupClient
from dwcp_migrate.consensus.io.journal_file import JournalFile
from dwcp_migrate.consensus.io.replica_node import Node, NodeOptions
from dwcp_migrate.consensus.pbft.core import Options, ReplicaOutput
from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.replica import PbftReplica
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.errors import ConfigError, ConsensusError, DwcpError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import PBFT_SESSION
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble

JOURNAL: Final = Path("pbft/replica.journal")
"""Below the state directory."""

Addresses = dict[str, tuple[str, int]]

log = get_logger(component="group")


class LocalMember:
    """This host's member of the group.

    Args:
        runtime: the shared parts.
        context: makes TLS contexts.
        memberships: what is believed.
        watch: told of all that the replica here does.
        on_later_epoch: called when a replica answers from a later epoch.

    Attributes:
        node: the replica, while it runs.
        client: likewise.
        unreachable: members that are no peers here, so that they cannot be dialled.
    """

    def __init__(
        self,
        runtime: Runtime,
        context: Callable[[Literal["client", "server"]], ssl.SSLContext],
        memberships: MembershipStore,
        watch: Callable[[ReplicaOutput], None],
        on_later_epoch: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._context = context
        self._memberships = memberships
        self._watch = watch
        self._on_later_epoch = on_later_epoch
        self._key = runtime.config.coordination.pbft.key
        self._settling = asyncio.Lock()
        self._settled: tuple[int, Addresses] | None = None
        self._is_closed = False
        self.node: Node | None = None
        self.client: GroupClient | None = None
        self._error = self._failure = ""
        self.unreachable: list[str] = []

    @property
    def error(self) -> str:
        """Reason for which this host takes no part or its replica stopped; empty if nothing is wrong."""
        return self._error or self._failure

    async def settle(self, identity: SigningIdentity) -> None:
        """Start or stop replica and client by the newest membership; a failure is in `error`."""
        async with self._settling:
            group = self._memberships.newest
            addresses = self._addresses(group)
            if self._is_closed or self._settled == (group.epoch, addresses):
                return
            self._settled = (group.epoch, addresses)
            self._error, voted = "", self.node is not None
            try:
                self._check(identity, group)
                await self._settle_replica(identity, group, addresses)
                await self._settle_client(identity, group, addresses)
            except (DwcpError, ValueError) as error:  # ValueError: a public key that is none
                self._error = str(error)
                log.error("no part in the PBFT group", error=str(error))  # noqa: TRY400 - no bug, no trace
                await self._leave()
            if voted and self.node is None:
                log.warning("this host has no vote any more", epoch=group.epoch, members=list(group.names))

    def _check(self, identity: SigningIdentity, group: Group) -> None:
        name, epoch = self._runtime.name, group.epoch
        member = group.clients.get(name)
        if member is None and self._settled_before:
            raise ConfigError(f"{name} has no part in the group since epoch {epoch}: it was removed")
        if member is None or member.key != identity.public:
            where = f"epoch {epoch} of the group" if self._memberships.note else "coordination.pbft"
            raise ConfigError(
                f"{self._key} is not the key that {where} has for {name}"
                if member
                else f"{where} does not name {name}: it follows and has no part yet",
                hint="`dwcp-migrate cluster key` shows the public key",
            )

    @property
    def _settled_before(self) -> bool:
        """Whether an earlier membership that is known names this host."""
        return self._runtime.name in self._memberships.lineage.names_before

    def _addresses(self, group: Group) -> Addresses:
        """Find where the members are; those who are no peers are left out and named in `unreachable`."""
        found = {name: self._address(name) for name in group.names}
        self.unreachable = sorted(name for name, address in found.items() if address is None)
        return {name: address for name, address in found.items() if address is not None}

    def _address(self, name: str) -> tuple[str, int] | None:
        link = self._runtime.config.link
        if name == self._runtime.name:
            here = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # noqa: S104 - compared, not listened on
            return here.get(link.listen, link.listen), link.port
        peer = self._runtime.directory.by_name(name)
        return None if peer is None else (peer.addresses[0], peer.port)

    # -- replica

    async def _settle_replica(self, identity: SigningIdentity, group: Group, addresses: Addresses) -> None:
        name = self._runtime.name
        others = {member: address for member, address in addresses.items() if member != name}
        if group.keys.get(name) != identity.public:
            await self._stop_node()
        elif self.node is None:
            await self._start_node(identity, group, others)
        else:
            self.node.reach(others)
            self._teach(self.node)

    async def _start_node(self, identity: SigningIdentity, group: Group, others: Addresses) -> None:
        origin = self._memberships.lineage.origin
        path = Path(self._runtime.config.state_directory) / JOURNAL
        is_old = origin.epoch and origin.keys.get(self._runtime.name) == identity.public
        if is_old and not (path.exists() and path.stat().st_size):
            raise ConfigError(
                f"epoch {origin.epoch} names {self._runtime.name}, and what it promised there is not in {path}",
                hint="configure an epoch before it got its vote; if it lost its disk, a new key and `propose --add`",
            )
        journal = JournalFile(path)
        replica = PbftReplica(self._runtime.name, identity, origin.membership, Tickets(), Options())
        node = Node(replica, journal, self._options(others), self._watch)
        try:
            await node.start()
        except BaseException:
            journal.close()
            raise
        node.failed.add_done_callback(lambda done: None if done.cancelled() else self._stopped(done.result()))
        self.node = node
        self._teach(node)
        log.info("this host has a vote", epoch=group.epoch, members=list(group.names))

    def _teach(self, node: Node) -> None:
        """Give the replica the links that came another way: who voted with it may have left before it heard them."""
        for epoch, link in self._memberships.lineage.links.items():
            if epoch >= node.replica.membership.epoch:
                node.learn(link)

    def _options(self, addresses: Addresses) -> NodeOptions:
        return NodeOptions(
            listen=None,
            addresses=addresses,
            server_context=lambda: self._context("server"),
            client_context=lambda: self._context("client"),
            certificate=self._runtime.config.tls.certificate,
            greeting=encode_preamble(Preamble(PBFT_SESSION)),
            mark=self._runtime.config.intercept.mark,
        )

    def _stopped(self, error: ConsensusError) -> None:
        self._failure = str(error)
        log.error("the replica here stopped", error=str(error), hint=error.hint)

    # -- client

    async def _settle_client(self, identity: SigningIdentity, group: Group, addresses: Addresses) -> None:
        if self.client is None:
            client = GroupClient(
                self._runtime.name, identity, group.membership, self._options(addresses), self._on_later_epoch
            )
            await client.start(0)
            self.client = client
        else:
            self.client.update(group.membership)
            self.client.reach(addresses)

    # -- end

    async def close(self) -> None:
        """Stop; what the replica promised stays in its journal."""
        async with self._settling:
            self._is_closed = True
            await self._leave()

    async def _leave(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            await client.stop()
        await self._stop_node()

    async def _stop_node(self) -> None:
        node, self.node, self._failure = self.node, None, ""
        if node is not None:
            await node.stop()
