"""Scenarios as text: one step a line, `#` begins a comment.

replicas 4                      first; names are r0, r1, ...
liar r0 equivocate omit         before anything runs
checkpoints 4                   sequence numbers between checkpoints
ask c0 3                        client c0 asks for three operations
run 2                           two seconds pass
crash r1 | crash r1 power       the process dies | the host does
start r1                        again, from its journal
part r0 r1 / r2 r3 | heal       the network
slow r0 0.3 | clock r0 20       a replica's messages, its wall clock
join r4                         a replica that is no member yet
reconfigure r0 r1 r2 r4         the operator asks for these replicas
expect decided c0 3             within 30 s
expect undecided c0 3           still after 3 s: fewer than that are decided
expect view 1 r1 r2             each is active there, within 30 s
expect level r0 r1 r2           the same executed, the same state, within 30 s
expect fetched r3               it took over a state
expect members r0 r1 r2 r4      as each of them sees it
"""

from collections.abc import Callable

import msgspec

from dwcp_migrate.consensus import Membership
from dwcp_migrate.consensus.pbft.reconfiguration import encode_membership
from tests.consensus.members import member, membership
from tests.consensus.simulation.byzantine import Liar, Twins
from tests.consensus.simulation.checks import Invariants
from tests.consensus.simulation.world import OPTIONS, ClientNode, Node, World

PATIENCE_S = 30.0


class Script:
    """Runs one scenario."""

    def __init__(self, text: str, seed: int = 1) -> None:
        self.lines = [line.split("#")[0].split() for line in text.splitlines()]
        self.seed = seed
        self.world = World(seed, OPTIONS)
        self.members: Membership
        self.liars: dict[str, tuple[str, ...]] = {}
        self.invariants: Invariants
        self.asked: dict[str, int] = {}

    def run(self) -> None:
        """Run it; an AssertionError names the line that does not hold."""
        for number, words in enumerate(self.lines, 1):
            if words:
                try:
                    self._step(words)
                except Exception as error:
                    raise AssertionError(f"line {number}, `{' '.join(words)}`: {error!r}") from error

    def _step(self, words: list[str]) -> None:
        command, *arguments = words
        if command == "replicas":
            self.members = membership(int(arguments[0]))
            return
        if command == "liar":
            self.liars[arguments[0]] = tuple(arguments[1:])
            return
        if command == "checkpoints":
            interval = int(arguments[0])
            self.world.options = msgspec.structs.replace(OPTIONS, checkpoint_interval=interval, window=2 * interval)
            return
        if not self.world.nodes:
            self._build()
        steps: dict[str, Callable[[list[str]], None]] = {
            "ask": self._ask,
            "crash": lambda args: self.world.nodes[args[0]].crash(power=len(args) > 1),
            "start": lambda args: self.world.nodes[args[0]].start(),
            "part": lambda args: self.world.network.part(group.split() for group in " ".join(args).split("/")),
            "heal": lambda _: self.world.network.cut.clear(),
            "run": lambda args: self._run(float(args[0])),
            "slow": lambda args: setattr(self.world.nodes[args[0]], "slowness_s", float(args[1])),
            "clock": lambda args: setattr(self.world.nodes[args[0]], "wall_skew_s", float(args[1])),
            "join": self._join,
            "reconfigure": self._reconfigure,
            "expect": self._expect,
        }
        steps[command](arguments)

    def _build(self) -> None:
        world = self.world
        world.replicas = [each.name for each in self.members.replicas]
        self.invariants = world.watcher = Invariants(set(world.replicas) - self.liars.keys())
        for name in world.replicas:
            kinds = self.liars.get(name)
            if kinds is None:
                world.nodes[name] = Node(world, name, self.members)
            elif kinds == ("twins",):
                world.nodes[name] = Twins(world, name, self.members)
            else:
                world.nodes[name] = Liar(world, name, self.members, kinds)
        for name in ("c0", "c1", "op"):
            world.clients[name] = ClientNode(world, name, self.members, operations=0, ahead=8)

    def _run(self, seconds: float) -> None:
        self.world.run(seconds)

    def _ask(self, arguments: list[str]) -> None:
        name, count = arguments[0], int(arguments[1])
        self.asked[name] = self.asked.get(name, 0) + count
        for number in range(count):
            self.world.clients[name].ask(f"{name} {number}".encode())

    def _join(self, arguments: list[str]) -> None:
        (name,) = arguments
        self.world.replicas.append(name)
        self.invariants.honest.add(name)
        self.world.nodes[name] = Node(self.world, name, self.members)

    def _reconfigure(self, names: list[str]) -> None:
        replicas = tuple(member(name) for name in names)
        self.members = Membership(self.members.cluster, self.members.epoch + 1, replicas, self.members.clients)
        operator = self.world.clients["op"]
        operator.ask(encode_membership(self.members), reconfigure=True)
        count = len(operator.decisions) + 1
        assert self.world.run(PATIENCE_S, lambda: len(operator.decisions) >= count), "not decided"
        assert operator.decisions[-1].result == b"accepted", operator.decisions[-1]
        for client in self.world.clients.values():
            client.client.update(self.members)

    def _expect(self, arguments: list[str]) -> None:
        what, *rest = arguments
        if what == "undecided":
            client = self.world.clients[rest[0]]
            self.world.run(3.0)
            assert len(client.decisions) < int(rest[1]), f"{len(client.decisions)} are decided"
            return
        condition = self._condition(what, rest)
        assert self.world.run(PATIENCE_S, condition), f"not within {PATIENCE_S} s: {self.standing()}"

    def _condition(self, what: str, rest: list[str]) -> Callable[[], bool]:
        nodes, clients = self.world.nodes, self.world.clients
        if what == "decided":
            return lambda: len(clients[rest[0]].decisions) >= int(rest[1])
        if what == "view":
            cores = [nodes[name] for name in rest[1:]]
            return lambda: all(n.replica.view == int(rest[0]) and n.replica.core.active for n in cores)
        if what == "level":
            return lambda: len({(nodes[name].replica.executed, nodes[name].application.value) for name in rest}) == 1
        if what == "fetched":
            return lambda: all(nodes[name].replica.counters.states_fetched for name in rest)
        if what == "members":
            return lambda: all(nodes[name].replica.core.group.names == tuple(rest) for name in rest)
        raise ValueError(f"nothing called {what} can be expected")

    def standing(self) -> list[tuple[str, int, bool, int, int]]:
        """Say where each replica is."""
        cores = [(name, node.replica.core) for name, node in self.world.nodes.items()]
        return [(name, core.view, core.active, core.executed, core.stable.sequence) for name, core in cores]
