"""Scenarios: clients take leases while hosts crash, part, stall, err about the time and change their voters.

At the end all hosts are well again: commands must be confirmed, all replicas be equal, the history be linearizable, the
fleet's time be near the real one.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Literal

from dwcp_migrate.state.fleet import commands, model
from dwcp_migrate.state.fleet.commands import Acquire, Command, PutHost
from dwcp_migrate.state.fleet.fleet_clock import SKEW_S
from dwcp_migrate.state.fleet.model import TicketOutcome
from dwcp_migrate.state.raft import messages
from tests.state.histories import Act, anomalies
from tests.state.raft.simulation.world import Node, World, virtual_time

EPOCH = 1.79e9
YEARS_70 = 70 * 365 * 86400.0
DISTURBED_S = 4.5
CALM_S = 12.0
CLIENT_S = 0.12
RETRY_S = 0.6
ATTEMPTS_MAX = 4


@dataclass
class Client:
    """Takes leases at one host, one after the other; a command that is not answered is repeated."""

    node: Node
    acts: list[Act]
    numbers: "count[int]"
    open: tuple[str, float, bytes] | None = None
    attempts: int = 0

    def act(self) -> None:
        """Ask for the next lease, or again for the one that is not answered."""
        world, replica = self.node.world, self.node.replica
        delay = CLIENT_S * world.rng.uniform(0.5, 1.5)
        if replica is not None and replica.has_leader:
            if self.open is None:
                number = next(self.numbers)
                is_first = self.node.name not in self.node.machine.fleet.hosts
                body = (
                    PutHost(name=self.node.name)
                    if is_first or number % 4 == 0
                    else Acquire(name=f"lease-{number}", lifetime_s=3600.0)
                )
                at = EPOCH + world.now + self.node.wrong_by_s
                command = Command(request=f"r{number}", by=self.node.name, at=at, body=body)
                name = body.name if isinstance(body, Acquire) else ""
                self.open, self.attempts = (name, world.now, commands.encode(command)), 0
            name, _, data = self.open
            self.attempts += 1
            replica.submit(commands.encode_batch([data]), partial(self._told, name))
            world.wake(self.node.name)
            delay = RETRY_S
        if self.open is not None and self.attempts >= ATTEMPTS_MAX:
            name, began, _ = self.open
            self.acts += [Act(name, began, world.now, 0)] if name else []
            self.open = None
        world.call_at(world.now + delay, self.act)

    def _told(self, name: str, found: list[TicketOutcome] | None, error: int) -> None:
        if self.open is None or self.open[0] != name or error or not found:
            return
        if name:
            self.acts.append(Act(name, self.open[1], self.node.world.now, found[0].token))
        self.open = None


@dataclass
class Faults:
    """What goes wrong."""

    world: World
    happened: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    def next(self) -> None:
        """Do one bad thing, and restart a host that an error has stopped."""
        if self.is_over:
            return
        for node in self.world.nodes.values():
            if node.error and self.world.rng.random() < 0.3:
                revive(node)
        rng, world = self.world.rng, self.world
        often = (self.crash, self.member)
        other = (self.leader_crash, self.all_crash, self.stall, self.slow, self.sync_fails, self.clock)
        act = rng.choice((*often, *often, *other, self.cut, self.network, self.compact, self.transfer))
        self.happened[act.__name__] += 1
        act()
        world.call_at(world.now + rng.uniform(0.02, 0.45), self.next)

    def _node(self) -> Node:
        return self.world.rng.choice(list(self.world.nodes.values()))

    def _crash(self, node: Node) -> None:
        node.crash(power=self.world.rng.random() < 0.7)
        self.world.call_at(self.world.now + self.world.rng.uniform(0.05, 1.5), lambda: revive(node))

    def crash(self) -> None:
        self._crash(self._node())

    def leader_crash(self) -> None:
        self._crash(self.world.leader() or self._node())

    def all_crash(self) -> None:
        for node in self.world.nodes.values():
            self._crash(node)

    def cut(self) -> None:
        """Part the hosts in two, or one pair only."""
        world = self.world
        names = list(world.nodes)
        if len(names) == 1:
            return
        side = set(world.rng.sample(names, world.rng.randint(1, len(names) - 1)))
        pairs = {frozenset((one, other)) for one in side for other in set(names) - side}
        if world.rng.random() < 0.4:
            pairs = {world.rng.choice(sorted(pairs, key=sorted))}
        world.network.cut |= pairs
        world.call_at(world.now + world.rng.uniform(0.1, 2.0), lambda: world.network.cut.difference_update(pairs))

    def slow(self) -> None:
        disk = self._node().disk
        disk.slow_s = self.world.rng.choice((0.0, 0.005, 0.05, 0.3))

    def stall(self) -> None:
        node = self._node()
        node.busy_until = self.world.now + self.world.rng.uniform(0.1, 1.5)

    def compact(self) -> None:
        node = self._node()
        if node.replica is not None:
            node.replica.compact()

    def clock(self) -> None:
        """Set a clock wrong, or right again; it is the same host's all the time."""
        node = next(iter(self.world.nodes.values()))
        node.wrong_by_s = self.world.rng.choice((YEARS_70, -YEARS_70 / 2, 3600.0, -3600.0, 0.0))

    def member(self) -> None:
        """Ask the leader for one or two changes of voters, whether they may be or not."""
        leader = self.world.leader()
        for _ in range(self.world.rng.choice((1, 1, 2))):
            if leader is None or leader.replica is None:
                return
            name = self.world.rng.choice(list(self.world.nodes))
            verb: Literal["add", "rem"] = "rem" if name in leader.replica.voters else "add"
            change = messages.encode_membership(messages.RaftMembership(verb, name))
            leader.replica.submit(change, lambda *_: None, messages.MEMBERSHIP)

    def sync_fails(self) -> None:
        self._node().disk.fails = True

    def transfer(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.replica is not None:
            leader.replica.transfer("", lambda *_: None)

    def network(self) -> None:
        self.world.network.delay_s = self.world.rng.choice((0.0005, 0.002, 0.02, 0.06))


def revive(node: Node) -> None:
    """Start a host that does not run."""
    if node.replica is None:
        node.disk.fails = False
        node.start()


@dataclass
class Done:
    """A scenario that held."""

    world: World
    happened: Counter[str]
    acts: list[Act]


def run(seed: int, disturbed_s: float = DISTURBED_S) -> Done:
    """Run the scenario of a seed.

    Raises:
        AssertionError: something did not hold; it names the seed.
    """
    rng = random.Random(seed)
    size = rng.choice((1, 3, 3, 3, 5))
    voters = tuple(f"h{number}" for number in range(size))
    observers = tuple(f"o{number}" for number in range(rng.randint(0, 2)))
    world = World(seed, voters, observers)
    faults = Faults(world)
    acts: list[Act] = []
    numbers = count(1)
    try:
        with virtual_time(world):
            world.start()
            for node in world.nodes.values():
                client = Client(node, acts, numbers)
                world.call_at(rng.uniform(0, 1), client.act)
            world.call_at(rng.uniform(0.5, 1.5), faults.next)
            world.run(disturbed_s)
            _heal(world, faults)
            _check_end(world, acts)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error} (faults: {dict(faults.happened)})") from error
    return Done(world, faults.happened, acts)


def _heal(world: World, faults: Faults) -> None:
    faults.is_over = True
    world.network.cut.clear()
    world.network.delay_s = 0.001
    for node in world.nodes.values():
        node.disk.fails, node.disk.slow_s, node.wrong_by_s = False, 0.0, 0.0
        node.busy_until = 0.0
        revive(node)


def _check_end(world: World, acts: list[Act]) -> None:
    """With everything well again: progress, equal states, a linearizable history, a sane clock."""
    healed_at = world.now
    nodes = list(world.nodes.values())

    def is_calm() -> bool:
        ran = [node.replica for node in nodes if node.replica]
        return (
            len(ran) == len(nodes)
            and world.now > healed_at + 1.2
            and sum(1 for act in acts if act.began > healed_at and act.token) >= len(nodes)
        )

    assert world.run(healed_at + CALM_S, is_calm), f"no progress when everything was well: {_where(nodes)}"
    world.run(world.now + 1.0)
    leader = world.leader()
    assert leader is not None, "nobody leads in the end"
    assert leader.replica is not None
    index = leader.replica.commit_index
    assert world.run(
        world.now + CALM_S, lambda: all(node.replica and node.replica.applied_index >= index for node in nodes)
    ), f"a replica does not catch up to {index}: {_where(nodes)}"
    states = [model.encode(node.machine.fleet) for node in nodes if node.replica]
    latest = max(node.machine.fleet.index for node in nodes)
    same = {state for node, state in zip(nodes, states, strict=True) if node.machine.fleet.index == latest}
    assert len(same) == 1, "states differ"
    table = {name: lease.token for name, lease in leader.machine.fleet.leases.items()}
    settled = [act for act in acts if act.token <= leader.machine.fleet.index]
    wrong = anomalies(settled, [], [table])
    assert not wrong, wrong[0]
    now = leader.machine.fleet.now
    if len(nodes[0].voters) == 1:
        return  # one voter may have heard nobody's clock but the wrong one
    assert now <= EPOCH + world.now + SKEW_S + 1, f"the fleet's time is {now - EPOCH - world.now:.0f} s ahead"


def _where(nodes: list[Node]) -> str:
    """Say where each replica stands."""
    found = []
    for node in nodes:
        replica = node.replica
        if replica is None:
            found.append(f"{node.name} stopped: {node.error}")
            continue
        found.append(
            f"{node.name} {replica.state} of {replica.leader or 'nobody'}, term {replica.term}, voters "
            f"{' '.join(sorted(replica.voters))}, connected to {' '.join(replica.links.peers)}, applied "
            f"{replica.applied_index}, committed {replica.commit_index}, log "
            f"{replica._journal[0][1]} to {replica.last[0]}"
        )
    return "; ".join(found)
