"""A replica's process side: channels, journal, timers around `PbftReplica`.

Rule: what `ready` says happens in its order: records are written and synced, then messages leave. A quick disk is
synced in place; otherwise in a thread, while the replica goes on and writes, so that one sync covers many records.
Records that no message depends on (that something is decided: a crash that loses them costs one question to the
others) wait for the next ones that do, or for the tick. A full disk makes the replica silent until there is room; a
failed sync ends it.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from dwcp_migrate.consensus.io.budget import CheckBudget
from dwcp_migrate.consensus.io.channel import MemberChannel, Route, accept
from dwcp_migrate.consensus.io.connector import REDIAL_S, Dialling
from dwcp_migrate.consensus.io.greeting import Greeter, is_bound
from dwcp_migrate.consensus.io.journal_file import JournalFile, MetJournals
from dwcp_migrate.consensus.pbft.core import ReplicaOutput
from dwcp_migrate.consensus.pbft.model.messages import EpochLink, Hello, Message, Reply, Request, encode_frame
from dwcp_migrate.consensus.pbft.model.records import NEW_KEY_HINT
from dwcp_migrate.consensus.pbft.replica import PbftReplica
from dwcp_migrate.errors import ConsensusError, RemoteProtocolError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.net import family_of
from dwcp_migrate.tasks import begin_task

if TYPE_CHECKING:
    from dwcp_migrate.consensus.pbft.model.records import Entry

log = get_logger(component="group")

TICK_S: Final = 0.05
DISK_RETRY_S: Final = 0.5
SYNC_S_QUICK: Final = 0.001
"""A disk that is quicker than this is waited for in place: the thread and back cost 0.2 ms of CPU, a sync here 0.18."""
SYNC_WEIGHT: Final = 0.125
"""Of the newest sync in their average: one of 10 ms sends the next ones to the thread, until enough were quick."""
HELD_MAX: Final = 4096
"""Steps whose records wait for the disk; past that messages are not taken until it has caught up."""
CHANNELS_MAX: Final = 8192
"""Two for each client of a large fleet: an old one may linger."""
BACKLOG: Final = 128
ADOPTING_MAX: Final = 64
"""Handshakes of adopted connections at once."""


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a node.

    Attributes:
        listen: address and port; port 0 takes a free one; None where something else listens and calls `adopt`.
        addresses: of the other replicas, present and to come, by name.
        server_context: makes the TLS context of accepted connections.
        client_context: makes that of dialled ones.
        certificate: PEM file of this host's certificate in both.
        sync: journal records are made durable; see `JournalFile`.
        greeting: sent before TLS; see `channel.Route`.
        mark: of sockets that dial; see `channel.Route`.
    """

    listen: tuple[str, int] | None
    addresses: Mapping[str, tuple[str, int]]
    server_context: Callable[[], ssl.SSLContext]
    client_context: Callable[[], ssl.SSLContext]
    certificate: Path
    sync: bool = True
    greeting: bytes = b""
    mark: int = 0

    @property
    def route(self) -> Route:
        """Settings for dialling the other replicas."""
        return Route(self.client_context, self.greeting, self.mark)


class Node:
    """Runs a replica on an event loop.

    Args:
        replica: fresh; `start` recovers it.
        journal: its own.
        options: see there.
        watch: takes all that the replica does, once it counts; None where nobody counts it.
    """

    def __init__(
        self,
        replica: PbftReplica,
        journal: JournalFile,
        options: NodeOptions,
        watch: Callable[[ReplicaOutput], None] | None = None,
    ) -> None:
        self.replica = replica
        self._watch = watch
        self._journal = journal
        self._options = options
        core = replica.core
        self._greeter = Greeter(
            core.name, core.identity, core.group.cluster, "replica", options.certificate, journal.name
        )
        self._met = MetJournals(journal.beside(".met"))
        self._peers: dict[str, MemberChannel] = {}
        self._clients: dict[str, MemberChannel] = {}
        self._channels: set[MemberChannel] = set()
        self._budgets: dict[str, CheckBudget] = {}
        self._dialling = Dialling(self, self._hello, options.route)
        self._resting: asyncio.TimerHandle | None = None
        self._disk = ThreadPoolExecutor(1, "journal")
        self._held: list[ReplicaOutput] = []
        self._written = 0  # of those held, from the first on
        self._sync_s = 0.0
        self._late: list[Entry] = []
        self._syncing = False
        self._scheduled = False
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop
        self._server: socket.socket | None = None
        self._adopting: dict[asyncio.Task[None], socket.socket] = {}
        self._timer: asyncio.TimerHandle
        self.failed: asyncio.Future[ConsensusError]

    # --- life

    async def start(self) -> int:
        """Recover, listen, dial; returns the port, 0 where nothing listens.

        Raises:
            ConsensusError: the journal is damaged.
            OSError: the address cannot be listened on.
        """
        self._loop = asyncio.get_running_loop()
        self.failed = self._loop.create_future()
        self.replica.recover(self._journal.read(), self._loop.time())
        port = self._listen(*self._options.listen) if self._options.listen else 0
        self.reach(self._options.addresses)
        self._tick()
        return port

    def reach(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Connect to these replicas, at these addresses, from now on; channels to others are closed."""
        self._options = msgspec.structs.replace(self._options, addresses=addresses)
        me = self.replica.core.name  # of two replicas the one with the lower name dials
        self._dialling.reach({name: address for name, address in addresses.items() if name > me})
        for name in [peer for peer in self._peers if peer not in addresses]:
            self._peers[name].close()

    def learn(self, link: EpochLink) -> None:
        """Take a link that came another way than from a replica; it is verified like any other."""
        if self._stopped:
            return
        try:
            self.replica.step(self.replica.core.name, link, self._loop.time())
        except ConsensusError as error:
            self._fail(error)
            return
        self._flush()

    def _listen(self, address: str, port: int) -> int:
        self._server = socket.create_server((address, port), family=family_of(address), backlog=BACKLOG)
        self._server.setblocking(False)
        self._loop.add_reader(self._server, self._accept, self._server)
        taken: int = self._server.getsockname()[1]
        return taken

    def _accept(self, server: socket.socket) -> None:
        """Take one connection, in one step from the kernel's queue into `adopt`'s hands: a task could be cancelled."""
        try:
            sock, _ = server.accept()
        except BlockingIOError:  # it is gone again
            return
        except OSError:  # there are too many open files
            self._loop.remove_reader(server)
            self._resting = self._loop.call_later(REDIAL_S, self._loop.add_reader, server, self._accept, server)
            return
        self.adopt(sock)

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection that something else accepted; its greeting was read."""
        if self._stopped or len(self._adopting) >= ADOPTING_MAX:
            sock.close()
            return
        sock.setblocking(False)
        channel = MemberChannel(self, self._hello, self._identify)
        task = begin_task(accept(sock, self._options.server_context, channel))
        self._adopting[task] = sock
        task.add_done_callback(self._adopting.pop)

    async def stop(self) -> None:
        """Close everything; what was written stays."""
        self._stopped = True
        self._timer.cancel()
        await self._dialling.stop()
        adopting = dict(self._adopting)
        self._close_server()
        for task in adopting:
            task.cancel()
        await asyncio.gather(*adopting, return_exceptions=True)
        for task, sock in adopting.items():
            if task.cancelled():  # perhaps before it began to run
                sock.close()
        for channel in list(self._channels):
            channel.close()
        await asyncio.gather(*(channel.gone for channel in list(self._channels)))
        await self._loop.run_in_executor(None, self._disk.shutdown)
        if self._late and not self.failed.done():
            with suppress(OSError):  # a full disk: the others know what was decided
                self._journal.append(self._late, sync=False)
        self._journal.close()

    def _close_server(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        if self._server is not None:
            self._loop.remove_reader(self._server)
            self._server.close()

    def _fail(self, error: ConsensusError) -> None:
        self._stopped = True
        if not self.failed.done():
            self.failed.set_result(error)

    def _tick(self) -> None:
        if self._stopped:
            return
        now = self._loop.time()
        self.replica.set_clock(time.time(), now)
        try:
            self.replica.tick(now)
        except ConsensusError as error:
            self._fail(error)
            return
        self._flush()
        if self._late:
            self._record(ReplicaOutput())
        self._timer = self._loop.call_later(TICK_S, self._tick)

    # --- channels

    def made(self, channel: MemberChannel) -> None:
        """Count a channel until it is gone."""
        self._channels.add(channel)
        channel.gone.add_done_callback(lambda _: self._channels.discard(channel))

    def _hello(self, peer: str) -> Hello:
        return self._greeter.hello(peer, self.replica.core.clients.highest(peer))

    def _check(self, channel: MemberChannel, key: bytes | None) -> None:
        """Hold a hello against the key that the membership has for its sender; who has none yet has no vote either.

        Raises:
            RemoteProtocolError: it is somebody else's, or of a member that lost its journal.
        """
        hello = channel.hello
        if key is None:
            return
        if not is_bound(hello, key, channel.peer, self.replica.core.name, channel.shown):
            raise RemoteProtocolError(f"{channel.peer} is not who the members say")
        if hello.role == "replica" and not self._met.is_same(key, hello.journal):
            log.error("a member lost its journal and is turned away", member=channel.peer, hint=NEW_KEY_HINT)
            raise RemoteProtocolError(f"{channel.peer} lost its journal")

    def _identify(self, names: list[str]) -> str | None:
        if len(self._channels) > CHANNELS_MAX or self._stopped:
            return None
        group = self.replica.core.group
        for name in names:
            if name in group.keys or name in group.clients or name in self._options.addresses:
                return name
        return None

    def opened(self, channel: MemberChannel) -> None:
        """Take a channel into use; an older one of the same peer ends."""
        core = self.replica.core
        if channel.role == "client":
            known = self._clients
            allowed = channel.peer in core.group.clients
            key = core.group.clients[channel.peer].key if allowed else None
        else:
            known = self._peers
            allowed = channel.peer in core.group.keys or channel.peer in self._options.addresses
            key = core.group.keys.get(channel.peer)
        if not allowed:
            raise RemoteProtocolError(f"{channel.peer} is no {channel.role} here")
        self._check(channel, key)
        old = known.get(channel.peer)
        known[channel.peer] = channel
        if old is not None:
            old.close()

    def closed(self, channel: MemberChannel) -> None:
        """Forget a channel."""
        known = self._clients if channel.role == "client" else self._peers
        if known.get(channel.peer) is channel:
            del known[channel.peer]

    def received(self, channel: MemberChannel, messages: list[Message]) -> None:
        """See `ChannelOwner`; the replica's output is carried out once the loop has delivered what else is there."""
        if self._stopped or len(self._held) >= HELD_MAX:
            return
        now = self._loop.time()
        replica, peer = self.replica, channel.peer
        budget = self._budgets.get(peer)
        if budget is None:
            budget = self._budgets[peer] = CheckBudget(len(replica.core.group.names), now)
        try:
            for message in messages:
                if channel.role == "client" and not isinstance(message, Request):
                    raise RemoteProtocolError(f"client {peer} sent a {type(message).__name__}")
                if budget.allows(message, now):
                    replica.step(peer, message, now)
        except ConsensusError as error:
            self._fail(error)
            return
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    # --- doing what the replica says

    def _flush(self) -> None:
        self._scheduled = False
        ready = self.replica.ready()
        if not ready or self._stopped:
            return
        if not ready.sync and not self._held:
            self._late += ready.entries
        elif not self._record(ready):
            return
        self._send([ready])

    def _record(self, ready: ReplicaOutput) -> bool:
        """Write records, after the late ones; False if the rest of `ready` waits for the disk."""
        ready.entries, self._late = [*self._late, *ready.entries], []
        must_wait = bool(self._held) or (ready.sync and self._options.sync)
        if self._written == len(self._held) and not (must_wait and ready.compacted is not None):
            try:
                _write(self._journal, [ready])
            except OSError:
                must_wait = True
            else:
                self._written += must_wait
        if must_wait:
            self._held.append(ready)
            if len(self._held) == self._written == 1 and self._sync_s < SYNC_S_QUICK:
                self._sync_in_place()
            else:
                self._sync()
        return not must_wait

    def _sync_in_place(self) -> None:
        """Sync what was just written while everything else waits, as long as the disk is quick."""
        try:
            self._learn(_make_durable(self._journal, []))
        except ConsensusError as error:
            self._fail(error)
            return
        taken, self._held, self._written = self._held, [], 0
        self._send(taken)

    def _learn(self, sync_s: float) -> None:
        self._sync_s += (sync_s - self._sync_s) * SYNC_WEIGHT

    def _sync(self) -> None:
        """Make everything held durable in the thread, unless it is at work already."""
        if self._syncing or not self._held or self._stopped:
            return
        self._syncing = True
        count = len(self._held)
        future = self._loop.run_in_executor(self._disk, _make_durable, self._journal, self._held[self._written :])
        future.add_done_callback(lambda done: self._synced(count, done))

    def _synced(self, count: int, done: "asyncio.Future[float]") -> None:
        self._syncing = False
        if self._stopped or done.cancelled():
            return
        error = done.exception()
        if isinstance(error, ConsensusError):
            self._fail(error)
        elif isinstance(error, OSError):
            self._loop.call_later(DISK_RETRY_S, self._sync)
        elif error is not None:
            raise error
        else:
            self._learn(done.result())
            taken = self._held[:count]
            del self._held[:count]
            self._written = max(0, self._written - count)
            while self._written and not self._held[0].sync:  # it only waited for its turn
                self._written -= 1
                taken.append(self._held.pop(0))
            self._send(taken)
            self._sync()

    def _send(self, readies: list[ReplicaOutput]) -> None:
        touched: set[MemberChannel] = set()
        peers = self._peers
        for ready in readies:
            for to, message in ready.messages:
                frame = encode_frame(message)
                for channel in peers.values() if to is None else filter(None, (peers.get(to),)):
                    channel.put(frame)
                    touched.add(channel)
            for client, reply in ready.replies:
                self._reply(client, reply, touched)
            if self._watch is not None:
                self._watch(ready)
        for channel in touched:
            channel.flush()

    def _reply(self, client: str, reply: Reply, touched: set[MemberChannel]) -> None:
        channel = self._clients.get(client)
        if channel is not None:
            channel.put(encode_frame(reply))
            touched.add(channel)


def _write(journal: JournalFile, readies: list[ReplicaOutput]) -> None:
    """Write what several `ReplicaOutput` want written."""
    for at in reversed(range(len(readies))):
        compacted = readies[at].compacted
        if compacted is not None:
            journal.replace(compacted)
            readies = readies[at + 1 :]
            break
    entries = [entry for ready in readies for entry in ready.entries]
    if entries:
        journal.append(entries, sync=False)


def _make_durable(journal: JournalFile, unwritten: list[ReplicaOutput]) -> float:
    """Write what is not written yet, then sync all of it once; returns the seconds that the sync took."""
    _write(journal, unwritten)
    began = time.monotonic()
    journal.sync()
    return time.monotonic() - began
