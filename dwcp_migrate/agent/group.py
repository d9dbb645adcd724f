"""This host's part in the PBFT group: a replica where it is a member, and the client that asks.

The rule: as in `coordination`: a group that cannot be joined costs no migration that the configuration does not ask to
be refused; it is logged, and shown by `cluster pbft`. Replicas and clients meet on the agents' link port, each proven
by its host certificate; the Ed25519 keys of the configuration are for what third parties verify.
"""

import asyncio
import socket
import ssl
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from dwcp_migrate.agent.cluster_views import GroupStatus
from dwcp_migrate.agent.runtime import Runtime
from dwcp_migrate.config import Pbft, PbftMember
from dwcp_migrate.consensus.client import Decision
from dwcp_migrate.consensus.core import Options, Ready
from dwcp_migrate.consensus.group_client import GroupClient
from dwcp_migrate.consensus.journal_file import JournalFile
from dwcp_migrate.consensus.key_file import read_identity
from dwcp_migrate.consensus.keys import Identity
from dwcp_migrate.consensus.membership import Group, Member, Membership
from dwcp_migrate.consensus.node import Node, NodeOptions
from dwcp_migrate.consensus.replica import Replica
from dwcp_migrate.consensus.tickets import Tickets
from dwcp_migrate.errors import ConfigError, ConsensusError, DwcpError, NoQuorumError
from dwcp_migrate.session.control import PBFT_SESSION
from dwcp_migrate.telemetry.logs import get_logger
from dwcp_migrate.transport.frames import Preamble, encode_preamble

KEPT: Final = 256
"""Batches and decisions of which sizes and times are kept."""

log = get_logger(component="group")


def membership_of(configured: Pbft) -> Membership:
    """Say who the configured group is; members ask too."""
    members = tuple(_member(member) for member in configured.members)
    return Membership(
        cluster=bytes.fromhex(configured.cluster),
        epoch=0,
        replicas=members,
        clients=members + tuple(_member(member) for member in configured.clients),
    )


def _member(configured: PbftMember) -> Member:
    return Member(configured.name, bytes.fromhex(configured.key))


class PbftGroup:
    """The group.

    Args:
        runtime: the shared parts; what is configured is read at the start.
        context: makes TLS contexts.
    """

    def __init__(self, runtime: Runtime, context: Callable[[Literal["client", "server"]], ssl.SSLContext]) -> None:
        self._runtime = runtime
        self._context = context
        self._configured = runtime.config.coordination.pbft
        self._node: Node | None = None
        self._client: GroupClient | None = None
        self._error = "" if self._configured.is_used else "no group is configured"
        self._batches: deque[int] = deque(maxlen=KEPT)
        self._batch_count = self._request_count = 0
        self._took_ms: deque[float] = deque(maxlen=KEPT)
        self._failed = 0
        self._decided = 0
        self.group = Group(membership_of(self._configured)) if self._configured.is_used else None

    async def start(self) -> None:
        """Take part, if that is configured."""
        if self.group is None:
            return
        try:
            identity = read_identity(self._configured.key)
            self._check(identity, self.group)
            await self._join(identity, self.group)
        except (DwcpError, ValueError) as error:  # ValueError: a public key that is none
            await self.close()
            self._error = str(error)
            log.error("no part in the PBFT group", error=str(error))  # noqa: TRY400 - no bug, no trace

    def _check(self, identity: Identity, group: Group) -> None:
        name = self._runtime.name
        member = group.clients.get(name)
        if member is None or member.key != identity.public:
            raise ConfigError(
                f"{self._configured.key} is not the key that coordination.pbft has for {name}",
                hint="`dwcp-migrate cluster key` shows the public key",
            )

    async def _join(self, identity: Identity, group: Group) -> None:
        name = self._runtime.name
        addresses = {member: self._address(member) for member in group.names}
        options = NodeOptions(
            listen=None,
            addresses=addresses,
            server_context=lambda: self._context("server"),
            client_context=lambda: self._context("client"),
            greeting=encode_preamble(Preamble(PBFT_SESSION)),
            mark=self._runtime.config.intercept.mark,
        )
        if name in group.keys:
            others = {member: address for member, address in addresses.items() if member != name}
            journal = JournalFile(Path(self._runtime.config.state_directory) / "pbft" / "replica.journal")
            replica = Replica(name, identity, group.membership, Tickets(), Options())
            node = Node(replica, journal, msgspec.structs.replace(options, addresses=others))
            node.watcher = self._watch
            await node.start()
            node.failed.add_done_callback(lambda done: None if done.cancelled() else self._stopped(done.result()))
            self._node = node
        self._client = GroupClient(name, identity, group.membership, options)
        await self._client.start(0)

    def _address(self, name: str) -> tuple[str, int]:
        link = self._runtime.config.link
        if name == self._runtime.name:
            here = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on
            return here.get(link.listen, link.listen), link.port
        peer = self._runtime.directory.by_name(name)
        if peer is None:
            raise ConfigError(f"coordination.pbft names {name}, which is no peer", hint="add it to [[peers]]")
        return peer.addresses[0], peer.port

    def _stopped(self, error: ConsensusError) -> None:
        self._error = str(error)
        log.error("the replica here stopped", error=str(error), hint=error.hint)

    def _watch(self, ready: Ready) -> None:
        sizes = [len(done.results) for done in ready.executions if done.results]
        self._batches.extend(sizes)
        self._batch_count += len(sizes)
        self._request_count += sum(sizes)

    async def close(self) -> None:
        """Stop; what the replica promised stays in its journal."""
        if self._client is not None:
            await self._client.stop()
        if self._node is not None:
            await self._node.stop()
        self._client = self._node = None

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection of a replica or client."""
        if self._node is None:
            sock.close()
        else:
            self._node.adopt(sock)

    async def decide(self, operation: bytes, *, certify: bool = False) -> Decision:
        """Have the group decide within `coordination.pbft.timeout_s`.

        Raises:
            NoQuorumError: it did not; it may still do so.
        """
        if self._client is None:
            raise NoQuorumError(f"this agent cannot ask the PBFT group: {self._error}", hint="see the agent's log")
        began = time.monotonic()
        try:
            decision = await self._client.decide(operation, certify=certify, timeout_s=self._configured.timeout_s)
        except (ConsensusError, asyncio.CancelledError) as error:
            self._failed += 1
            if isinstance(error, asyncio.CancelledError):
                raise
            raise NoQuorumError(f"PBFT: {error}", hint=error.hint) from error
        self._decided += 1
        self._took_ms.append((time.monotonic() - began) * 1000)
        return decision

    def status(self) -> GroupStatus:
        """Say where it stands."""
        group, node, client = self.group, self._node, self._client
        if group is None:
            return GroupStatus(error=self._error)
        replica = node.replica if node else None
        return GroupStatus(
            role="replica" if node else "client" if client else "none",
            members=list(group.names),
            connected=client.connected if client else [],
            faulty_max=group.numbers.faulty,
            primary=replica.core.primary if replica else "",
            view=replica.view if replica else 0,
            sequence=replica.executed if replica else 0,
            view_changes=replica.counters.views_entered if replica else 0,
            batches=self._batch_count,
            batched_requests=self._request_count,
            batch_p50=statistics.median(self._batches) if self._batches else 0.0,
            batch_max=max(self._batches, default=0),
            decisions=self._decided,
            decisions_failed=self._failed,
            decision_ms_p50=statistics.median(self._took_ms) if self._took_ms else -1.0,
            decision_ms_max=max(self._took_ms, default=-1.0),
            error=self._error,
        )
