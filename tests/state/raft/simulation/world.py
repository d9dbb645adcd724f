"""Replicas with their real code on disks and connections in memory, in virtual time, checked after each step.

After each crash what a replica had promised is compared with what it recovers: its vote of a term, the entries that it
acknowledged, and, of a leader, those that it called committed.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from unittest import mock

import pysyncobj.syncobj

from dwcp_migrate.errors import DwcpError, JournalError
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import log_file, message_guard, messages, replica
from dwcp_migrate.state.raft.peer_connections import PeerIdentity
from dwcp_migrate.state.raft.replica import RaftReplica, RaftSettings, Surroundings
from dwcp_migrate.state.raft.snapshots import decode
from tests.state.engines import no_context
from tests.state.raft.simulation.disk import FakeDisk
from tests.state.raft.simulation.network import FakeLinks, Network

ELECTION_S = 0.3
TICK_S = 0.05
"""A host ticks at the latest so long after it ticked; sooner where something is due, as the engine's thread does."""
GROW_BYTES = 2048
"""Zeros behind the log: few, so that they are written often."""

DIRECTORY = Path("/replica")


@dataclass(eq=False)
class Promises:
    """What a replica has told others, and must therefore hold after any crash."""

    term: int = 0
    vote: str | None = None
    held: dict[int, int] = field(default_factory=dict)
    committed: int = 0


class Node:
    """A host: its disk, its replica while it runs, its clock."""

    def __init__(self, world: "World", name: str, voters: tuple[str, ...]) -> None:
        self.world = world
        self.name = name
        self.voters = voters
        self.disk = FakeDisk(world.rng, lambda act: world.call_at(world.now + world.rng.uniform(0, 0.2), act))
        self.replica: RaftReplica | None = None
        self.links: FakeLinks | None = None
        self.machine = FleetMachine()
        self.promises = Promises()
        self.run_number = 0
        self.busy_until = 0.0
        self.wrong_by_s = 0.0
        self.checked = 0
        self.checked_end = (0, 0)
        self.error = ""

    def start(self) -> None:
        """Start the replica from what the disk holds, and compare that with what was promised."""
        self.run_number += 1
        self.machine = FleetMachine()

        def links(_identity: PeerIdentity, _poller: object, events: object) -> FakeLinks:
            self.links = FakeLinks(self.world, self.name, events)
            return self.links

        identity = PeerIdentity(
            name=self.name, client=no_context, server=no_context, identify=lambda _: None, address=lambda _: None
        )
        settings = RaftSettings(directory=DIRECTORY / self.name, voters=self.voters, election_s=ELECTION_S)
        try:
            self.replica = RaftReplica(settings, identity, self.machine, lambda _: None, Surroundings(self.disk, links))
        except JournalError as error:
            raise AssertionError(f"{self.name} at {self.world.now:.3f} cannot start: {error}") from error
        self._recovered()
        self.checked, self.checked_end = self.replica.applied_index, (0, 0)
        self.error = ""

    def _recovered(self) -> None:
        assert self.replica is not None
        journal, promises = self.replica._journal, self.promises
        where = f"{self.name} at {self.world.now:.3f}"
        assert journal.term >= promises.term, f"{where} promised term {promises.term} and recovers {journal.term}"
        if journal.term == promises.term and promises.vote is not None:
            assert journal.voted_for == promises.vote, f"{where} voted for {promises.vote}, now {journal.voted_for}"
        first = journal[0][1]
        held = {index: term for _, index, term in journal[:]}
        for index, term in promises.held.items():
            assert index < first or held.get(index) == term, f"{where} acknowledged {index} of term {term} and lost it"
        assert journal.last[0] >= promises.committed, f"{where} lost what it called committed: {promises.committed}"

    def crash(self, *, power: bool) -> None:
        """End it: the process alone, or with what the disk had not yet."""
        if self.replica is None:
            return
        self.replica = self.links = None
        self.world.network.reset(self.name)
        self.disk.end_process()
        if power:
            self.disk.crash()

    def step(self) -> None:
        """Take in what has come and do what is due; what the engine takes for a stop is one."""
        if self.replica is None or self.world.now < self.busy_until:
            return
        syncs = self.disk.syncs
        try:
            assert self.links is not None
            self.links.take()
            self.replica.tick(0)
        except (DwcpError, OSError) as error:
            self.error = str(error)
            self.crash(power=True)
            return
        self.busy_until = self.world.now + (self.disk.syncs - syncs) * self.disk.slow_s
        self.world.check(self)


class World:
    """All of it.

    Args:
        seed: everything follows from it, given the order that Python hashes strings in.
        voters: that the fleet begins with.
        observers: more hosts.
    """

    def __init__(self, seed: int, voters: tuple[str, ...], observers: tuple[str, ...] = ()) -> None:
        self.rng = random.Random(seed)
        random.seed(seed)
        self.now = 0.0
        self.refused: list[str] = []
        self.network = Network(self, self.rng)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._leaders: dict[int, str] = {}
        self._committed: dict[int, tuple[int, bytes]] = {}
        self._woken: set[str] = set()
        self.steps = 0
        self.nodes = {name: Node(self, name, voters) for name in (*voters, *observers)}

    def start(self) -> None:
        """Start all hosts."""
        for node in self.nodes.values():
            node.start()
            self._tick(node)

    def lives(self, name: str) -> bool:
        return self.nodes[name].replica is not None

    def call_at(self, at: float, act: Callable[[], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._events, (max(at, self.now), next(self._numbers), act))

    def _tick(self, node: Node) -> None:
        node.step()
        self.steps += 1
        self.call_at(self.now + self._pause_s(node), lambda: self._tick(node))

    def _pause_s(self, node: Node) -> float:
        pause_s = self.rng.uniform(0.5, 1.0) * TICK_S
        if node.replica is None:
            return pause_s
        raft = node.replica._raft
        left_s = (raft.news_at() if node.replica.state == "leader" else raft.deadline) - self.now
        return pause_s if left_s <= 0 else min(pause_s, left_s + 0.0005)

    def wake(self, name: str) -> None:
        """Have a host look at what has come; it sends the answers with the tick after."""
        if name not in self._woken:
            self._woken.add(name)
            self.call_at(self.now, lambda: self._wake_up(name))

    def _wake_up(self, name: str) -> None:
        self._woken.discard(name)
        node = self.nodes[name]
        node.step()
        self.steps += 1
        self.call_at(self.now + 0.0002, node.step)

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; True when it was done before that time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
            if done():
                return True
        self.now = until
        return done()

    def leader(self) -> Node | None:
        """The leader of the newest term, if one runs."""
        leaders = [node for node in self.nodes.values() if node.replica and node.replica.state == "leader"]
        return max(leaders, key=lambda node: node.replica.term if node.replica else 0, default=None)

    def promised(self, name: str, message: messages.Message) -> None:
        """Note what a message that leaves a host promises."""
        node = self.nodes[name]
        promises = node.promises
        if node.replica is None:
            return
        if isinstance(message, messages.Vote | messages.RequestVote) and message.term >= promises.term:
            promises.term = message.term
            promises.vote = node.replica._journal.voted_for if node.replica.term == message.term else promises.vote
        journal = node.replica._journal
        if isinstance(message, messages.Ack) and message.success and len(journal):
            first = journal[0][1]
            for _, index, term in journal[-8:]:
                if index < message.next_index:
                    promises.held[index] = term
            for index in [index for index in promises.held if index < first or index > journal.last[0]]:
                del promises.held[index]
        if isinstance(message, messages.Append) and node.replica.state == "leader":
            promises.committed = max(promises.committed, message.commit)

    def truncated(self, name: str, last: int) -> None:
        """A replica took entries back that were not committed: nobody counts on them any more."""
        promises = self.nodes[name].promises
        assert last >= promises.committed or self.nodes[name].replica is None, f"{name} takes committed entries back"
        for index in [index for index in promises.held if index > last]:
            del promises.held[index]

    def _voters_by(self, found: RaftReplica) -> set[str]:
        """The voters by the snapshot, or the first entry, and all that is in the log, committed or not."""
        image = decode(found._snapshots._current) if found._snapshots._current else None
        voters = found._first_voters(image)
        for change in found._changes(image.last.index if image else 0):
            (voters.add if change.verb == "add" else voters.discard)(change.name)
        return voters

    def check(self, node: Node) -> None:
        """Check what must hold after a step of a host."""
        found = node.replica
        if found is None:
            return
        where = f"{node.name} at {self.now:.3f}"
        if found.state == "leader":
            other = self._leaders.setdefault(found.term, node.name)
            assert other == node.name, f"{where}: {other} and {node.name} both lead in term {found.term}"
        journal = found._journal
        if node.checked_end != journal.last:
            node.checked_end = journal.last
            wanted = self._voters_by(found)
            assert found.voters == wanted, f"{where}: voters are {found.voters}, by the log {wanted}"
        first = journal[0][1]
        for index in range(max(node.checked + 1, first), found.applied_index + 1):
            command, _, term = journal[index - first]
            known = self._committed.setdefault(index, (term, command))
            assert known == (term, command), f"{where}: two entries {index} were committed, of terms {known[0]}, {term}"
        node.checked = found.applied_index


@contextmanager
def virtual_time(world: World) -> Iterator[None]:
    """Let all replicas' code read the world's time while the block runs."""

    def clock() -> float:
        return world.now

    truncate, take = log_file.LogFile.truncate, log_file.LogFile.replace

    def taken(self: log_file.LogFile, records: list[log_file.Record]) -> None:
        if world.nodes[self._path.parent.name].replica is not None:  # at the start nothing is taken back
            world.truncated(self._path.parent.name, records[-1][1])
        take(self, records)

    def noted(self: log_file.LogFile, kept: int) -> None:
        if kept < len(self):
            world.truncated(self._path.parent.name, self[kept][1] - 1)
        truncate(self, kept)

    with (
        mock.patch.object(pysyncobj.syncobj, "monotonicTime", clock),
        mock.patch.object(replica, "clock", clock),
        mock.patch.object(message_guard, "clock", clock),
        mock.patch.object(log_file, "GROW_BYTES", GROW_BYTES),
        mock.patch.object(log_file.LogFile, "truncate", noted),
        mock.patch.object(log_file.LogFile, "replace", taken),
    ):
        yield
