"""Connections in memory: in order as TCP is, with delays, partitions that swallow, and breaks that are noticed late.

A connection that lost one message delivers none after it; it is down for its ends when they have noticed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.state.raft.messages import Message, encode, raft_frames
from dwcp_migrate.state.raft.peer_connections import ROOM_BYTES, Links

if TYPE_CHECKING:
    import random

    from tests.state.raft.simulation.world import World

DETECTED_S = (0.01, 1.5)
"""From a partition to the moment that an end has noticed it."""


@dataclass(eq=False)
class Connection:
    """One connection of two hosts."""

    ends: tuple[str, str]
    is_dead: bool = False
    last_at: dict[str, float] = field(default_factory=dict)


class FakeLinks(Links):
    """The connections of one replica; what is queued leaves with `flush` only, as with the real ones."""

    def __init__(self, world: World, name: str, events: Any) -> None:
        self._world = world
        self._name = name
        self._events = events
        self._connections: dict[str, Connection] = {}
        self._out: dict[str, list[Message]] = {}
        self.inbox: deque[tuple[Connection, str, Message]] = deque()
        self.voters: set[str] = set()
        self.hints: dict[str, tuple[str, ...]] = {}
        self.is_voter = False

    def connected(self, name: str) -> bool:
        return name in self._connections

    @property
    def peers(self) -> list[str]:
        return list(self._connections)

    def send(self, name: str, message: Message) -> bool:
        if name not in self._connections:
            return False
        self._out.setdefault(name, []).append(message)
        return True

    def has_room(self, name: str) -> bool:
        return name in self._connections and len(self._out.get(name, ())) < ROOM_BYTES

    def flush(self) -> None:
        out, self._out = self._out, {}
        for name, messages in out.items():
            connection = self._connections.get(name)
            if connection is not None:
                for message in messages:
                    self._world.network.carry(connection, self._name, name, message)

    def tick(self, now: float) -> None:
        """Dial who is missing."""
        del now
        for name in sorted((self.voters | self.hinted) - self._connections.keys() - {self._name}):
            self._world.network.dial(self._name, name)

    def raised(self, name: str, connection: Connection) -> None:
        """It is connected."""
        self._connections[name] = connection
        self._events.up(name)

    def broken(self, name: str, connection: Connection) -> None:
        """It has noticed that a connection is gone."""
        if self._connections.get(name) is connection:
            del self._connections[name]
            self._out.pop(name, None)
            self._events.down(name)

    def take(self) -> None:
        """Take in what has come."""
        while self.inbox:
            connection, name, message = self.inbox.popleft()
            if self._connections.get(name) is not connection:
                continue
            try:
                self._events.message(name, message)
            except RemoteProtocolError as error:
                self._world.refused.append(f"{self._name} from {name}: {error}")
                self.drop(name)

    def drop(self, name: str) -> None:
        connection = self._connections.get(name)
        if connection is not None:
            self._world.network.end(connection, at_once=self._name)

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._world.network.end(connection)


class Network:
    """All connections.

    Attributes:
        cut: pairs of hosts that do not reach each other.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._frames = raft_frames()
        self._dialled_at: dict[tuple[str, str], float] = {}
        self._open: list[Connection] = []
        self.cut: set[frozenset[str]] = set()
        self.delay_s = 0.001

    def dial(self, name: str, to: str) -> None:
        """Connect two hosts if they reach each other now."""
        now = self._world.now
        if now - self._dialled_at.get((name, to), -1.0) < 0.3:
            return
        self._dialled_at[name, to] = now
        if frozenset((name, to)) in self.cut or not self._world.lives(to):
            return
        connection = Connection((name, to))
        self._open.append(connection)
        for end, other in ((name, to), (to, name)):
            links = self._world.nodes[end].links
            assert links is not None
            links.raised(other, connection)

    def carry(self, connection: Connection, sender: str, to: str, message: Message) -> None:
        """Send a message; it arrives after those that were sent before, or not at all."""
        self._world.promised(sender, message)
        if connection.is_dead:
            return
        if frozenset((sender, to)) in self.cut:
            self.end(connection)
            return
        at = max(self._world.now + self._rng.expovariate(1 / self.delay_s), connection.last_at.get(to, 0.0))
        connection.last_at[to] = at
        (received,) = self._frames.feed(encode(message))
        self._world.call_at(at, lambda: self._arrive(connection, sender, to, received))

    def _arrive(self, connection: Connection, sender: str, to: str, message: Message) -> None:
        links = self._world.nodes[to].links
        if connection.is_dead or links is None:
            return
        if frozenset((sender, to)) in self.cut:
            self.end(connection)
            return
        links.inbox.append((connection, sender, message))
        self._world.wake(to)

    def end(self, connection: Connection, at_once: str = "") -> None:
        """Break a connection; each end notices later, but for the one that broke it."""
        if connection.is_dead:
            return
        connection.is_dead = True
        self._open.remove(connection)
        for end, other in (connection.ends, connection.ends[::-1]):
            delay = 0.0 if end == at_once else self._rng.uniform(*DETECTED_S)
            self._world.call_at(self._world.now + delay, partial(self._notice, end, other, connection))

    def _notice(self, end: str, other: str, connection: Connection) -> None:
        links = self._world.nodes[end].links
        if links is not None:
            links.broken(other, connection)

    def reset(self, name: str) -> None:
        """A host's process ended: its kernel tells all peers at once."""
        for connection in [found for found in self._open if name in found.ends]:
            connection.is_dead = True
            self._open.remove(connection)
            other = connection.ends[connection.ends[0] == name]
            delay = self._rng.choice((0.0005, 0.002, 1.0))
            self._world.call_at(self._world.now + delay, partial(self._notice, other, name, connection))
