"""A client's process side: channels to all replicas and futures around `PbftClient`."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from dwcp_migrate.consensus.io.channel import MemberChannel
from dwcp_migrate.consensus.io.connector import Dialling
from dwcp_migrate.consensus.io.greeting import Greeter, is_bound
from dwcp_migrate.consensus.io.replica_node import TICK_S, NodeOptions
from dwcp_migrate.consensus.pbft.client import Decision, PbftClient
from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity
from dwcp_migrate.consensus.pbft.model.membership import Membership
from dwcp_migrate.consensus.pbft.model.messages import Message, Reply, encode_frame
from dwcp_migrate.errors import ConsensusError, RemoteProtocolError

DECISION_S_MAX: Final = 10.0
"""Until an undecided request is given up; a change of view takes two."""


class GroupClient:
    """Asks a group.

    Args:
        name: as in the membership and in this host's certificate.
        identity: its key.
        membership: of the current epoch.
        options: where the replicas are; `listen`, `server_context` and `sync` do not matter.
        on_later_epoch: called when a replica answers from a later epoch: its word, so a reason to ask and nothing more;
            None where nobody follows the members.
    """

    def __init__(
        self,
        name: str,
        identity: SigningIdentity,
        membership: Membership,
        options: NodeOptions,
        on_later_epoch: Callable[[], None] | None = None,
    ) -> None:
        first = time.time_ns() // 1000
        self._client = PbftClient(name, identity, membership, first_number=first)
        self._name = name
        self._members = membership
        self._addresses = options.addresses
        greeter = Greeter(name, identity, membership.cluster, "client", options.certificate)
        self._dialling = Dialling(self, greeter.hello, options.route)
        self._on_later_epoch = on_later_epoch
        self._channels: dict[str, MemberChannel] = {}
        self._made: set[MemberChannel] = set()
        self._waiting: dict[int, asyncio.Future[Decision]] = {}
        self._connected = asyncio.Event()
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle

    async def start(self, connections: int) -> None:
        """Dial all replicas; returns when so many are connected."""
        self._loop = asyncio.get_running_loop()
        self._dialling.reach(self._addresses)
        self._tick()
        while len(self._channels) < connections:
            self._connected.clear()
            await self._connected.wait()

    async def stop(self) -> None:
        """Close everything; requests without an answer are cancelled."""
        self._timer.cancel()
        await self._dialling.stop()
        for future in self._waiting.values():
            future.cancel()
        channels = list(self._made)
        for channel in channels:
            channel.close()
        await asyncio.gather(*(channel.gone for channel in channels))

    @property
    def connected(self) -> list[str]:
        """Replicas that are connected."""
        return sorted(self._channels)

    async def decide(
        self, operation: bytes, *, certify: bool = False, reconfigure: bool = False, timeout_s: float = DECISION_S_MAX
    ) -> Decision:
        """Let the group decide.

        Args:
            operation: for the application, or an encoded membership; at most `OPERATION_BYTES_MAX`.
            certify: gather a certificate too.
            reconfigure: the operation is a membership.
            timeout_s: seconds to wait for the decision.

        Raises:
            ConsensusError: no answer in time: it may be decided yet; or too many requests under way.
        """
        future = self.submit(operation, certify=certify, reconfigure=reconfigure)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise ConsensusError(
                f"the group did not decide within {timeout_s:g} s; it may still do so", hint="are enough replicas up?"
            ) from None

    def submit(self, operation: bytes, *, certify: bool = False, reconfigure: bool = False) -> asyncio.Future[Decision]:
        """Ask and return at once; the future gets the decision, whenever that is.

        Args:
            operation: for the application, or an encoded membership; at most `OPERATION_BYTES_MAX`.
            certify: gather a certificate too.
            reconfigure: the operation is a membership.

        Raises:
            ConsensusError: too many requests under way, or too large an operation.
        """
        number = self._client.submit(operation, self._loop.time(), certify=certify, reconfigure=reconfigure)
        future = self._waiting[number] = self._loop.create_future()
        if not self._scheduled:  # what is asked for in one turn of the loop leaves in one write
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def update(self, membership: Membership) -> None:
        """Go on with the members of another epoch."""
        self._members = membership
        self._client.update(membership)

    def reach(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Dial these replicas from now on; channels to replicas that are left out are closed."""
        self._dialling.reach(addresses)
        for name in [peer for peer in self._channels if peer not in addresses]:
            self._channels[name].close()

    def _tick(self) -> None:
        self._client.tick(self._loop.time())
        self._flush()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def made(self, channel: MemberChannel) -> None:
        """Count a channel until it is gone."""
        self._made.add(channel)
        channel.gone.add_done_callback(lambda _: self._made.discard(channel))

    def opened(self, channel: MemberChannel) -> None:
        """Take a channel into use, if it is its member's."""
        keys = {member.name: member.key for member in self._members.replicas}
        key = keys.get(channel.peer)
        if key is None or not is_bound(channel.hello, key, channel.peer, self._name, channel.shown):
            raise RemoteProtocolError(f"{channel.peer} is not who the members say")
        self._client.learn(channel.peer, channel.hello.highest)
        self._channels[channel.peer] = channel
        self._connected.set()

    def closed(self, channel: MemberChannel) -> None:
        """Forget a channel."""
        if self._channels.get(channel.peer) is channel:
            del self._channels[channel.peer]

    def received(self, channel: MemberChannel, messages: list[Message]) -> None:
        """See `ChannelOwner`; a message that is no reply closes the channel."""
        for message in messages:
            if not isinstance(message, Reply):
                raise RemoteProtocolError(f"replica {channel.peer} sent a client a {type(message).__name__}")
            if message.epoch > self._members.epoch and self._on_later_epoch is not None:
                self._on_later_epoch()
            self._client.step(channel.peer, message)
        self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        messages, decisions = self._client.ready()
        for decision in decisions:
            future = self._waiting.pop(decision.number)
            if not future.done():
                future.set_result(decision)
        touched = set()
        for to, request in messages:
            frame = encode_frame(request)
            for name, channel in self._channels.items():
                if to is None or to == name:
                    channel.put(frame)
                    touched.add(channel)
        for channel in touched:
            channel.flush()
