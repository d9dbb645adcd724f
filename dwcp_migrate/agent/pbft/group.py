"""The PBFT group as this host's agent uses it: decisions, changes of its members, status.

The rule: a group that cannot be joined fails no migration unless the configuration requires its agreement; the fault is
logged, and shown by `cluster pbft`. Replicas and clients connect through the agents' link port, each authenticated by
its host certificate; the Ed25519 keys of the group sign what third parties verify.

    membership_store   verified memberships, on disk       membership_sync    asks peers for newer ones
    local_member       replica and client of this host     membership_change  changes that an operator asks for
"""

import asyncio
import socket
import ssl
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.pbft.local_member import LocalMember
from dwcp_migrate.agent.pbft.membership_change import Change, following, seated
from dwcp_migrate.agent.pbft.membership_store import MembershipStore
from dwcp_migrate.agent.pbft.membership_sync import MembershipSync
from dwcp_migrate.api.cluster import NO_GROUP, GroupMember, GroupStatus
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.consensus.io.client_node import GroupClient
from dwcp_migrate.consensus.io.key_file import read_identity
from dwcp_migrate.consensus.pbft.client import Decision
from dwcp_migrate.consensus.pbft.core import ReplicaOutput
from dwcp_migrate.consensus.pbft.membership_chain import Lineage
from dwcp_migrate.consensus.pbft.model.membership import Group, Member, Membership
from dwcp_migrate.consensus.pbft.reconfiguration import ACCEPTED, encode_membership
from dwcp_migrate.consensus.tickets.operations import (
    NOBODY,
    Assign,
    Ownership,
    Refusal,
    decode_result,
    encode_operation,
)
from dwcp_migrate.errors import ConfigError, ConsensusError, CoordinationError, DwcpError, EpochError, NoQuorumError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Follow, Successor
from dwcp_migrate.refusals import BY_PBFT_GROUP, explain_code
from dwcp_migrate.tasks import Tasks

if TYPE_CHECKING:
    from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity

KEPT: Final = 256
"""Number of latest batches and decisions whose sizes and times are kept."""

IN_FORCE_S_MAX: Final = 6.0
"""From a decided change of the members to the new epoch: an exchange of signatures, or a member that catches up."""

SEE_S_MAX: Final = 3.0
"""For the answer of one that is to have a vote; with both and `timeout_s` the CLI waits long enough."""

log = get_logger(component="group")


class PbftGroup:
    """The PBFT group, as far as this agent has to do with it.

    Args:
        runtime: the shared parts; what is configured is read at the start.
        context: makes TLS contexts.
    """

    def __init__(self, runtime: Runtime, context: Callable[[Literal["client", "server"]], ssl.SSLContext]) -> None:
        self._runtime = runtime
        self._configured = runtime.config.coordination.pbft
        self._identity: SigningIdentity | None = None
        self._memberships: MembershipStore | None = None
        self._error = "" if self._configured.is_used else NO_GROUP
        self._batches: deque[int] = deque(maxlen=KEPT)
        self._batch_count = self._request_count = 0
        self._took_ms: deque[float] = deque(maxlen=KEPT)
        self._failed = 0
        self._decided = 0
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        if self._configured.is_used:
            self._open(context)

    def _open(self, context: Callable[[Literal["client", "server"]], ssl.SSLContext]) -> None:
        runtime = self._runtime
        try:
            self._memberships = MembershipStore(self._configured, runtime.config.state_directory, runtime.disk)
        except DwcpError as error:
            self._error = str(error)
            log.error("no part in the PBFT group", error=str(error), hint=error.hint)  # noqa: TRY400
            return
        self._follower = MembershipSync(
            runtime.control, lambda: runtime.directory, self._memberships, self._settle_soon
        )
        self._part = LocalMember(runtime, context, self._memberships, self._watch, self._follower.wake)

    @property
    def lineage(self) -> Lineage | None:
        """The memberships that are believed; None where there is no group."""
        return self._memberships.lineage if self._memberships else None

    @property
    def group(self) -> Group | None:
        """The group of now, as far as is known here; None where there is none."""
        return self._memberships.newest if self._memberships else None

    @property
    def _client(self) -> GroupClient | None:
        return self._part.client if self._memberships else None

    async def start(self) -> None:
        """Take part, if that is configured, and follow who the members are."""
        if self._memberships is None:
            return
        try:
            self._identity = read_identity(self._configured.key)
        except DwcpError as error:
            self._error = str(error)
            log.error("no part in the PBFT group", error=str(error), hint=error.hint)  # noqa: TRY400
        await self._settle()
        self._follower.start()

    async def close(self) -> None:
        """Stop; what the replica promised stays in its journal."""
        if self._memberships is None:
            return
        await self._follower.close()
        await self._tasks.cancel()
        await self._part.close()

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection of a replica or client."""
        if self._memberships is None:
            sock.close()
        elif self._part.node is None:
            sock.close()
            self._follower.wake()  # members dial who got a vote: it may be this host
        else:
            self._part.node.adopt(sock)

    # -- decisions

    async def decide(self, operation: bytes, *, certify: bool = False) -> Decision:
        """Have the group decide within `coordination.pbft.timeout_s`.

        Args:
            operation: encoded, see `consensus.tickets.operations`.
            certify: ask for a certificate of the decision too.

        Raises:
            NoQuorumError: it did not; it may still do so.
        """
        began = time.monotonic()
        decision = await self._ask(operation, certify=certify)
        self._decided += 1
        self._took_ms.append((time.monotonic() - began) * 1000)
        return decision

    async def _ask(self, operation: bytes, *, certify: bool = False, reconfigure: bool = False) -> Decision:
        await self._settle()  # a membership that was heard a moment ago: replicas ignore requests of earlier epochs
        client, timeout_s = self._client, self._configured.timeout_s
        if client is None:
            raise NoQuorumError(f"this agent cannot ask the PBFT group: {self.error}", hint="see the agent's log")
        try:
            return await client.decide(operation, certify=certify, reconfigure=reconfigure, timeout_s=timeout_s)
        except ConsensusError as error:
            self._failed += 1
            raise NoQuorumError(f"PBFT: {error}", hint=error.hint) from error
        except asyncio.CancelledError:
            self._failed += 1
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise NoQuorumError(f"PBFT: this host left the group: {self.error}", hint="see the agent's log") from None

    # -- members

    async def follow(self, peer: PeerConfig) -> None:
        """Ask a peer who follows the members that are known, and become what that makes of this host."""
        if self._memberships is not None:
            await self._follower.follow(peer)
            await self._settle()

    def successor(self, request: Follow) -> Successor:
        """Answer a peer that asks for the members after the ones that it knows."""
        if self._memberships is None:
            return Successor(newest=-1)
        return self._memberships.answer(request, self._identity.public if self._identity else b"")

    async def propose(self, change: Change) -> Membership:
        """Have the group change its members; returns when the new ones are in force.

        Raises:
            ConfigError: the change breaks a rule, or this host is no operator.
            NoQuorumError: the group did not decide in time; it may still do so.
            CoordinationError: the group refuses it.
        """
        group = self._may_propose()
        assert self._identity is not None, "who may propose has a key"
        membership = following(group, change, self._identity)
        if not change.unseen:
            await asyncio.gather(*(self._see(member) for member in seated(group, membership)))
        log.info("change of members proposed", epoch=membership.epoch, members=[m.name for m in membership.replicas])
        decision = await self._ask(encode_membership(membership), reconfigure=True)
        if decision.result != ACCEPTED:
            raise CoordinationError(
                f"the PBFT group {decision.result.decode()}", hint="`dwcp-migrate cluster pbft` shows what it is now"
            )
        await self._in_force(membership)
        return membership

    async def assign(self, domain: str, owner: str) -> Ownership:
        """Say, as an operator, which host runs a domain; a ticket for the domain ends.

        Args:
            domain: UUID.
            owner: name of the host; `NOBODY` for none.

        Raises:
            ConfigError: this host is no operator, or `owner` is none of the group's hosts.
            NoQuorumError: the group did not decide in time; it may still do so.
            CoordinationError: the group refuses it.
        """
        group = self._may_propose()
        if owner != NOBODY and owner not in group.clients and owner not in group.keys:
            raise ConfigError(f"{owner} has no part in the group", hint="`dwcp-migrate cluster pbft` lists who has")
        decision = await self._ask(encode_operation(Assign(domain, owner)))
        result = decode_result(decision.result)
        if not isinstance(result, Ownership):
            code = result.code if isinstance(result, Refusal) else "malformed"
            words = explain_code(BY_PBFT_GROUP, code).text
            raise CoordinationError(f"the PBFT group refuses it: {words}", hint="see `dwcp-migrate cluster pbft`")
        return result

    def _may_propose(self) -> Group:
        name, group = self._runtime.name, self.group
        if group is None or self._client is None:
            raise NoQuorumError(f"this agent cannot ask the PBFT group: {self.error}", hint="see the agent's log")
        if not group.clients[name].operator:
            operators = sorted(member.name for member in group.clients.values() if member.operator)
            raise ConfigError(
                f"{name} is no operator of the group; {', '.join(operators) or 'nobody'} is",
                hint="propose it there; the first operators have `operator = true` in coordination.pbft on every host",
            )
        return group

    async def _see(self, member: Member) -> None:
        """Make sure that a host that is to have a vote is there, follows, and has the key that it is named with."""
        if member.name == self._runtime.name:
            return
        unseen = "start its agent with the group of now in its configuration; or --unseen"
        peer = self._runtime.directory.by_name(member.name)
        if peer is None:
            raise ConfigError(f"{member.name} is no peer here", hint="add it to [[peers]] of every host, and reload")
        assert self._memberships is not None, "who may propose knows the group"
        try:
            async with asyncio.timeout(SEE_S_MAX):
                answer = await self._follower.ask(peer, self._memberships.newest.epoch)
        except (DwcpError, TimeoutError) as error:
            raise ConfigError(f"{member.name} does not answer: {error or SEE_S_MAX}", hint=unseen) from error
        if answer.newest < 0 or not answer.key:
            raise ConfigError(f"{member.name} knows nothing of the group, or has no key", hint=unseen)
        if answer.key != member.key:
            raise ConfigError(
                f"{member.name} has the key {answer.key.hex()}, not {member.key.hex()}",
                hint="compare with `dwcp-migrate cluster key` there",
            )

    async def _in_force(self, membership: Membership) -> None:
        assert self._memberships is not None, "somebody proposed"
        try:
            async with asyncio.timeout(IN_FORCE_S_MAX):
                while self._memberships.newest.epoch < membership.epoch:
                    self._changed.clear()
                    self._follower.wake()
                    await self._changed.wait()
        except TimeoutError:
            raise NoQuorumError(
                f"the group decided epoch {membership.epoch}, and no quorum has signed its end yet",
                hint="it begins as soon as they do: `dwcp-migrate cluster pbft` shows it",
            ) from None

    def _settle_soon(self) -> None:
        self._tasks.begin(self._settle())

    async def _settle(self) -> None:
        if self._identity is not None:
            await self._part.settle(self._identity)
        self._changed.set()

    def _watch(self, ready: ReplicaOutput) -> None:
        sizes = [len(done.results) for done in ready.executions if done.results]
        self._batches.extend(sizes)
        self._batch_count += len(sizes)
        self._request_count += sum(sizes)
        memberships, node = self._memberships, self._part.node
        if memberships is None or node is None:
            return
        core = node.replica.core
        try:
            for epoch in range(memberships.newest.epoch, core.group.epoch):
                if epoch in core.links and memberships.follow(core.links[epoch]):
                    self._settle_soon()
        except EpochError as error:
            log.error("the replica here follows other members", error=str(error))  # noqa: TRY400

    # -- what it says

    @property
    def error(self) -> str:
        """Reason for which this host takes no part; empty if it does."""
        return self._error or (self._part.error if self._memberships else "")

    def seats(self) -> list[GroupMember]:
        """List who has a part in the group."""
        group = self.group
        if group is None:
            return []
        hosts = {member.name: member for member in (*group.membership.replicas, *group.membership.clients)}
        return [
            GroupMember(name=name, key=host.key.hex(), votes=name in group.keys, operator=host.operator)
            for name, host in hosts.items()
        ]

    def status(self) -> GroupStatus:
        """Say where it stands."""
        group, memberships = self.group, self._memberships
        if group is None or memberships is None:
            return GroupStatus(error=self._error)
        node, client = self._part.node, self._part.client
        replica = node.replica if node else None
        heard = self._follower.epoch_heard(group.numbers.faulty) if self._follower else 0
        return GroupStatus(
            role="replica" if node else "client" if client else "none",
            members=list(group.names),
            connected=client.connected if client else [],
            faulty_max=group.numbers.faulty,
            epoch=group.epoch,
            epoch_configured=self._configured.epoch,
            epoch_replica=replica.membership.epoch if replica else -1,
            unreachable=self._part.unreachable,
            note=memberships.note,
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
            epoch_heard=heard if heard > group.epoch else 0,
            error=self.error,
        )
