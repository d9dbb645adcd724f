"""A group on one thread in virtual time: real replicas and clients; network, disks and clocks that fail on request.

Everything that happens follows from the seed. Messages wait for the disk as in the real shell: what a replica says is
sent when what it promises is synced; a crash loses what was not, whole or torn.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from dwcp_migrate.consensus import Decision, Membership, Options, PbftClient, PbftReplica, ReplicaOutput
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.messages import Message, Reply, Request, decode_message, encode_frame
from dwcp_migrate.errors import ConsensusError
from tests.consensus.members import Chain, identity
from tests.consensus.simulation.harsh import AimedLoss, wipe
from tests.consensus.simulation.promises import Promises

TICK_S = 0.05
WALL_S = 1_700_000_000.0
OPTIONS = Options(
    checkpoint_interval=4, window=8, pipeline=2, batch_max=4, request_timeout_s=0.5, status_s=0.1, clock_skew_ms=2000
)


class Watcher(Protocol):
    """Holds what happens against what must hold."""

    def sent(self, node: "Node", message: Message) -> None: ...

    def did(self, node: "Node", ready: ReplicaOutput) -> None: ...

    def after(self, node: "Node") -> None: ...

    def accepted(self, client: "ClientNode", decision: Decision) -> None: ...


class Disk:
    """A journal on a disk: what was synced stays, of the rest a crash leaves as much as it likes."""

    def __init__(self) -> None:
        self.synced = b""
        self._unsynced: list[tuple[bool, bytes]] = []
        self._size = 0

    def write(self, ready: ReplicaOutput) -> None:
        if ready.compacted is not None:
            data = records.encode_all(ready.compacted, 0, records.ALL_DURABLE)
            self._unsynced.append((True, data))
            self._size = len(data)
        if ready.entries:
            whole = any(replaces for replaces, _ in self._unsynced)
            data = records.encode_all(ready.entries, self._size, 0 if whole else len(self.synced))
            self._unsynced.append((False, data))
            self._size += len(data)

    @property
    def writes(self) -> int:
        return len(self._unsynced)

    def sync(self, writes: int) -> None:
        for replaces, data in self._unsynced[:writes]:
            self.synced = data if replaces else self.synced + data
        del self._unsynced[:writes]

    def read(self) -> list[records.Entry]:
        """Read what is there after a crash; cut a torn tail off."""
        entries, end = records.decode(self.synced)
        self.synced, self._size = self.synced[:end], end
        return entries

    def crash(self, rng: random.Random) -> None:
        """Lose power: a prefix of the writes is there, the one after it perhaps in part or garbled."""
        kept = rng.randint(0, len(self._unsynced))
        torn = self._unsynced[kept] if kept < len(self._unsynced) else (True, b"")
        self.sync(kept)
        if not torn[0]:
            part = torn[1][: rng.randrange(len(torn[1]))]
            if part and rng.random() < 0.3:
                part = part[:-1] + bytes([part[-1] ^ 0x55])
            self.synced += part
        self._unsynced.clear()


class Node:
    """A replica's process."""

    def __init__(self, world: "World", name: str, membership: Membership) -> None:
        self.world = world
        self.name = name
        self.membership = membership
        self.disk = Disk()
        self.promises = Promises()
        self.is_gone = False
        self.up = False
        self.life = 0
        self.wall_skew_s = 0.0
        self.slowness_s = 0.0
        self.sync_s = 0.001
        self.application = world.make_application()
        self.replica: PbftReplica
        self._held: list[tuple[int, ReplicaOutput]] = []
        self._covered = 0
        self.start()

    def start(self) -> None:
        """Begin, or begin again from the journal; whoever is gone stays away."""
        if self.up or self.is_gone:
            return
        entries = self.disk.read()
        self.application = self.world.make_application()
        self.replica = PbftReplica(
            self.name, identity(self.name), self.membership, self.application, self.world.options
        )
        self.replica.recover(entries, self.world.now)
        self.promises.kept(self.replica.core)
        self.up = True
        self.life += 1
        self._held, self._covered = [], 0
        self._tick(self.life)

    def crash(self, *, power: bool) -> None:
        """Die; with the power on, what was written is there after all."""
        if not self.up:
            return
        self.up = False
        if power:
            self.disk.crash(self.world.rng)
        else:
            self.disk.sync(self.disk.writes)

    def _tick(self, life: int) -> None:
        if not self.up or life != self.life:
            return
        now = self.world.now
        self.replica.set_clock(WALL_S + now + self.wall_skew_s, now)
        self.replica.tick(now)
        self._flush()
        self.world.at(TICK_S, lambda: self._tick(life))

    def deliver(self, sender: str, message: Message) -> None:
        if self.up:
            self.replica.step(sender, message, self.world.now)
            self._flush()

    def _flush(self) -> None:
        ready = self.replica.ready()
        if ready:
            self.disk.write(ready)
            self._held.append((self.replica.membership.epoch, ready))
            self.world.watcher.did(self, ready)
            if not self._covered:
                self._sync()
        self.world.watcher.after(self)

    def _sync(self) -> None:
        """Send what needs no sync; start a sync for what does."""
        while self._held and not self._held[0][1].sync:
            self._send(*self._held.pop(0))
        self._covered = len(self._held)
        if self._covered:
            life, writes = self.life, self.disk.writes
            self.world.at(self.world.rng.random() * self.sync_s, lambda: self._synced(life, writes))

    def _synced(self, life: int, writes: int) -> None:
        if not self.up or life != self.life:
            return
        self.disk.sync(writes)
        done, self._held = self._held[: self._covered], self._held[self._covered :]
        self._covered = 0
        for epoch, ready in done:
            self._send(epoch, ready)
        self._sync()

    def lose_disk(self) -> None:
        """Come back with the key and nothing else."""
        self.crash(power=True)
        wipe(self.disk)
        self.promises = Promises()
        self.start()

    def rot(self) -> None:
        """Lose one bit of what was synced, and start again: a replica that notices stays away."""
        self.crash(power=True)
        self.promises = Promises()
        if self.disk.synced:
            rotten = bytearray(self.disk.synced)
            rotten[self.world.rng.randrange(len(rotten))] ^= 1 << self.world.rng.randrange(8)
            self.disk.synced = bytes(rotten)
        try:
            self.start()
        except ConsensusError:
            self.is_gone = True

    def _send(self, epoch: int, ready: ReplicaOutput) -> None:
        self.promises.made(epoch, ready.entries)
        for to, message in ready.messages:
            self.world.watcher.sent(self, message)
            for name in self.world.others(self.name) if to is None else (to,):
                self.emit(name, message)
        for client, reply in ready.replies:
            self.emit(client, reply)

    def emit(self, to: str, message: Message) -> None:
        """Hand a message to the network; a faulty node does something else here."""
        self.world.network.send(self.name, to, message, self.slowness_s)


class ClientNode:
    """A client's process: asks for a number of operations, `ahead` of them at once."""

    def __init__(self, world: "World", name: str, membership: Membership, *, operations: int, ahead: int) -> None:
        self.world = world
        self.name = name
        self.client = PbftClient(name, identity(name), membership, first_number=1, retry_s=0.3)
        self.left = operations
        self.ahead = ahead
        self.certify = False
        self.decisions: list[Decision] = []
        self.under_way = 0
        self._tick()

    @property
    def is_done(self) -> bool:
        return not self.left and not self.under_way

    def _tick(self) -> None:
        self.client.tick(self.world.now)
        self._flush()
        self.world.at(TICK_S, self._tick)

    def deliver(self, sender: str, message: Message) -> None:
        if isinstance(message, Reply):
            self.client.step(sender, message)
            self._flush()

    def ask(self, operation: bytes, *, certify: bool = False, reconfigure: bool = False) -> int:
        self.under_way += 1
        self.world.asked.add((self.name, operation))
        number = self.client.submit(operation, self.world.now, certify=certify, reconfigure=reconfigure)
        self._flush()
        return number

    def _flush(self) -> None:
        messages, decisions = self.client.ready()
        for decision in decisions:
            self.under_way -= 1
            self.decisions.append(decision)
            self.world.watcher.accepted(self, decision)
        for to, request in messages:
            for name in self.world.replicas if to is None else (to,):
                self.world.network.send(self.name, name, request, 0.0)
        while self.left and self.under_way < self.ahead and self.client.has_room:
            self.left -= 1
            self.ask(self.world.operation(self.name, self.left), certify=self.certify)


class Network:
    """Delays, loses, doubles, reorders; parts."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.loss = 0.0
        self.doubling = 0.0
        self.delay_s = (0.0005, 0.002)
        self.cut: set[tuple[str, str]] = set()
        self.through_codec = False
        self.aimed: AimedLoss | None = None

    def send(self, source: str, to: str, message: Message, extra_s: float) -> None:
        rng = self._world.rng
        if (source, to) in self.cut or (self.loss and rng.random() < self.loss):
            return
        if self.aimed is not None and self.aimed.loses(to, message):
            return
        if self.through_codec:
            message = decode_message(encode_frame(message)[4:])
        low, high = self.delay_s
        self._world.at(low + rng.random() * (high - low) + extra_s, lambda: self._arrive(source, to, message))
        if self.doubling and rng.random() < self.doubling:
            self._world.at(rng.random() * 10 * high, lambda: self._arrive(source, to, message))

    def _arrive(self, source: str, to: str, message: Message) -> None:
        if (source, to) not in self.cut:
            self._world.deliver(source, to, message)

    def part(self, groups: Iterable[Iterable[str]]) -> None:
        """Let only members of one group reach each other."""
        sides = [set(group) for group in groups]
        names = [name for side in sides for name in side]
        self.cut = {(a, b) for a in names for b in names if not any(a in side and b in side for side in sides)}


class World:
    """Everything, from a seed."""

    def __init__(self, seed: int, options: Options = OPTIONS) -> None:
        self.rng = random.Random(seed)
        self.options = options
        self.now = 0.0
        self.events = 0
        self.watcher: Watcher
        self.network = Network(self)
        self.nodes: dict[str, Node] = {}
        self.clients: dict[str, ClientNode] = {}
        self.replicas: list[str] = []
        self.asked: set[tuple[str, bytes]] = set()
        self.make_application: Callable[[], Any] = Chain
        self.operation: Callable[[str, int], bytes] = lambda name, left: f"{name} {left}".encode()
        self.is_moody = False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def others(self, name: str) -> list[str]:
        return [other for other in self.replicas if other != name]

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay_s, self._order, action))

    def deliver(self, source: str, to: str, message: Message) -> None:
        if to in self.nodes:
            self.nodes[to].deliver(source, message)
        elif to in self.clients:
            self.clients[to].deliver(source, message)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let virtual time pass; returns whether the condition came true."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            self.events += 1
            if until():
                return True
        self.now = end
        return until()


__all__ = ["OPTIONS", "ClientNode", "Disk", "Network", "Node", "Request", "Watcher", "World"]
