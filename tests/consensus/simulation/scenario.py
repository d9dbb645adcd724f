"""What one seed does: how many replicas, who lies and how, what fails when. Then all is healed and must end well."""

import random
from dataclasses import dataclass, field, replace

from dwcp_migrate.consensus import Membership
from dwcp_migrate.consensus.pbft.model.quorum import quorum_of
from dwcp_migrate.consensus.pbft.reconfiguration import encode_membership
from tests.consensus.members import member, membership
from tests.consensus.simulation.byzantine import KINDS, Liar, Twins
from tests.consensus.simulation.checks import Invariants
from tests.consensus.simulation.harsh import AimedLoss, HostileClient
from tests.consensus.simulation.ticket_book import TicketBook, next_operation
from tests.consensus.simulation.world import OPTIONS, ClientNode, Network, Node, World

HEAL_S_MAX = 3.0
"""Faults happen until then."""
LIVE_S_MAX = 60.0
"""Virtual seconds after healing in which every request must be answered and every honest replica be level."""
POLL_S = 0.1


@dataclass(frozen=True)
class Fault:
    """Something that happens to the world."""

    at_s: float
    kind: str
    node: str = ""
    until_s: float = 0.0
    value: float = 0.0
    groups: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        where = f" {self.node}" if self.node else ""
        groups = f" {' | '.join(' '.join(group) for group in self.groups)}" if self.groups else ""
        return f"{self.at_s:.2f}-{self.until_s:.2f} s: {self.kind}{where}{groups} ({self.value:.3f})"


@dataclass(frozen=True)
class Plan:
    """A scenario, before it runs."""

    seed: int
    replicas: int
    liars: dict[str, tuple[str, ...]]
    operations: dict[str, int]
    ahead: int
    certify: bool
    loss: float
    doubling: float
    delay_s: float
    pipeline: int
    through_codec: bool
    reconfigure_s: float
    harsh: tuple[str, ...] = ()
    changes: int = 0
    faults: tuple[Fault, ...] = field(default=())

    def __str__(self) -> str:
        liars = ", ".join(f"{name}: {' '.join(kinds)}" for name, kinds in self.liars.items()) or "none"
        head = (
            f"seed {self.seed}: {self.replicas} replicas, liars: {liars}; operations {self.operations}, "
            f"{self.ahead} ahead; loss {self.loss:.2f}, doubling {self.doubling:.2f}, delay {self.delay_s * 1e3:.1f} ms"
            f"{f'; {self.changes} changes of members from {self.reconfigure_s:.2f} s on' if self.reconfigure_s else ''}"
            f"{'; '.join(('', *self.harsh))}"
        )
        return "\n  ".join([head, *map(str, self.faults)])


BROKEN = ("lost disk", "gone for good", "bit rot")
"""What may happen to a replica that counts as one of the liars."""
HARSH = ("hostile client", "aimed loss", *BROKEN, "timed lies", "tickets", "members in a row")


def plan(seed: int) -> Plan:
    """Draw a scenario; for odd seeds with faults of `harsh` too."""
    drawn = _plan(seed)
    return _harsher(drawn) if seed % 2 else drawn


def _harsher(drawn: Plan) -> Plan:
    rng = random.Random(f"harsh {drawn.seed}")
    kinds = [kind for kind in HARSH if rng.random() < 0.5]
    liars, honest = dict(drawn.liars), [f"r{place}" for place in range(drawn.replicas)]
    honest = [name for name in honest if name not in liars]
    for kind in BROKEN:
        if kind in kinds and len(liars) < quorum_of(drawn.replicas).faulty:
            name = honest.pop(rng.randrange(len(honest)))
            liars[name] = (kind,)
        elif kind in kinds:
            kinds.remove(kind)
    faults = tuple(fault for fault in drawn.faults if fault.kind == "part" or fault.node in honest)
    changes = drawn.changes
    if "members in a row" in kinds:
        changes = rng.randint(2, 4)
    reconfigure_s = (drawn.reconfigure_s or rng.random() * HEAL_S_MAX) if changes else 0.0
    return replace(drawn, liars=liars, harsh=tuple(kinds), faults=faults, reconfigure_s=reconfigure_s, changes=changes)


def _plan(seed: int) -> Plan:
    rng = random.Random(seed)
    size = rng.choices((4, 5, 6, 7, 10), (70, 8, 8, 12, 2))[0]
    names = [f"r{place}" for place in range(size)]
    liars = {}
    for name in rng.sample(names, rng.randint(0, quorum_of(size).faulty)):
        kinds = rng.sample(KINDS, rng.choice((1, 1, 2)))
        liars[name] = ("twins",) if "twins" in kinds else tuple(kinds)
    honest = [name for name in names if name not in liars]
    faults = tuple(sorted((_fault(rng, names, honest) for _ in range(rng.randint(0, 5))), key=lambda fault: fault.at_s))
    drawn = Plan(
        seed=seed,
        replicas=size,
        liars=liars,
        operations={client: rng.randint(3, 12) for client in ("c0", "c1")},
        ahead=rng.choice((1, 1, 2, 4)),
        certify=rng.random() < 0.1,
        loss=rng.choice((0.0, 0.0, 0.02, 0.1, 0.2)),
        doubling=rng.choice((0.0, 0.0, 0.05, 0.2)),
        delay_s=rng.choice((0.001, 0.002, 0.02, 0.1)),
        pipeline=rng.choice((1, 2, 4)),
        through_codec=rng.random() < 0.05,
        reconfigure_s=rng.random() * HEAL_S_MAX if rng.random() < 0.2 else 0.0,
        faults=faults,
    )
    return replace(drawn, changes=1) if drawn.reconfigure_s else drawn


def _fault(rng: random.Random, names: list[str], honest: list[str]) -> Fault:
    at = rng.random() * HEAL_S_MAX * 0.8
    until = at + rng.random() * (HEAL_S_MAX - at)
    kind = rng.choice(("power", "power", "kill", "part", "part", "one-way", "slow", "clock", "disk"))
    if kind == "part":
        shuffled = rng.sample(names, len(names))
        cut = rng.randint(1, len(names) - 1)
        return Fault(at, kind, until_s=until, groups=(tuple(shuffled[:cut]), tuple(shuffled[cut:])))
    value = {"slow": 0.3, "clock": 20.0, "disk": 0.2}.get(kind, 0.0) * (rng.random() * 2 - 1)
    return Fault(at, kind, rng.choice(honest), until, value if kind == "clock" else abs(value))


class Run:
    """Runs a plan."""

    def __init__(self, scenario: Plan) -> None:
        import msgspec

        self.plan = scenario
        world = self.world = World(scenario.seed, msgspec.structs.replace(OPTIONS, pipeline=scenario.pipeline))
        members = membership(scenario.replicas)
        world.replicas = [member.name for member in members.replicas]
        self.honest = set(world.replicas) - scenario.liars.keys()
        self.memberships = [members]
        self.epoch_asked = 0
        self.invariants = world.watcher = Invariants(self.honest)
        self._set_network(world.network)
        world.is_moody = "timed lies" in scenario.harsh
        if "tickets" in scenario.harsh:
            wishes = random.Random(f"tickets {scenario.seed}")
            world.make_application = TicketBook
            world.operation = lambda name, _: next_operation(world, name, wishes)
        for name in world.replicas:
            kinds = scenario.liars.get(name)
            if kinds is None or kinds[0] in BROKEN:
                world.nodes[name] = Node(world, name, members)
            elif "twins" in kinds:
                world.nodes[name] = Twins(world, name, members)
            else:
                world.nodes[name] = Liar(world, name, members, kinds)
        for name, operations in scenario.operations.items():
            client = ClientNode(world, name, members, operations=operations, ahead=scenario.ahead)
            client.certify = scenario.certify
            world.clients[name] = client
        self._be_harsh(scenario)
        if scenario.reconfigure_s:
            self._prepare_epochs(members)
        for fault in scenario.faults:
            world.at(fault.at_s, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
            world.at(fault.until_s, lambda fault=fault: self._end(fault))  # type: ignore[misc]

    def _be_harsh(self, scenario: Plan) -> None:
        world = self.world
        if "hostile client" in scenario.harsh:
            HostileClient(world, scenario.seed, HEAL_S_MAX)
        if "aimed loss" in scenario.harsh:
            world.network.aimed = AimedLoss(world, scenario.seed, HEAL_S_MAX)
        rng = random.Random(scenario.seed)
        for name, (kind, *_) in scenario.liars.items():
            if kind == "lost disk":
                world.at(rng.random() * HEAL_S_MAX, world.nodes[name].lose_disk)
            elif kind == "bit rot":
                world.at(rng.random() * HEAL_S_MAX, world.nodes[name].rot)
            elif kind == "gone for good":
                world.at(rng.random() * HEAL_S_MAX, lambda name=name: self._go_away(name))  # type: ignore[misc]

    def _go_away(self, name: str) -> None:
        node = self.world.nodes[name]
        node.crash(power=True)
        node.is_gone = True

    def _prepare_epochs(self, members: Membership) -> None:
        """Let those follow who are to come, and an operator ask for one change after the other.

        Members come and go in turns, so that the group is never smaller than at first.
        """
        world, rng = self.world, random.Random(f"members {self.plan.seed}")
        world.clients["op"] = ClientNode(world, "op", members, operations=0, ahead=1)
        replicas = list(members.replicas)
        for epoch in range(1, self.plan.changes + 1):
            if epoch % 2:
                name = f"r{self.plan.replicas + epoch // 2}"
                world.replicas.append(name)
                self.honest.add(name)
                world.nodes[name] = Node(world, name, members)
                replicas.append(member(name))
            else:
                replicas.remove(rng.choice(replicas))
            self.memberships.append(Membership(members.cluster, epoch, tuple(replicas), members.clients))
        world.at(self.plan.reconfigure_s, self._ask_operator)

    def _ask_operator(self) -> None:
        self.epoch_asked += 1
        operation = encode_membership(self.memberships[self.epoch_asked])
        self.world.clients["op"].ask(operation, reconfigure=True)
        self.world.at(POLL_S, self._follow_epoch)

    def _follow_epoch(self) -> None:
        """Tell the clients of the new members, as their operator does, and ask for the next ones at once."""
        if len(self.world.clients["op"].decisions) < self.epoch_asked:
            self.world.at(POLL_S, self._follow_epoch)
            return
        for client in self.world.clients.values():
            client.client.update(self.memberships[self.epoch_asked])
        if self.epoch_asked < self.plan.changes:
            self._ask_operator()

    @property
    def _level(self) -> set[str]:
        """Honest members of now; a removed one is told nothing any more."""
        return self.honest & {each.name for each in self.memberships[self.epoch_asked].replicas}

    def _set_network(self, network: Network) -> None:
        network.loss, network.doubling = self.plan.loss, self.plan.doubling
        network.delay_s = (self.plan.delay_s / 4, self.plan.delay_s)
        network.through_codec = self.plan.through_codec

    def _begin(self, fault: Fault) -> None:
        world = self.world
        node = world.nodes.get(fault.node)
        if fault.kind == "part":
            world.network.part(fault.groups)
        elif node is None:
            raise AssertionError(f"a fault without a node: {fault}")
        elif fault.kind in {"power", "kill"}:
            node.crash(power=fault.kind == "power")
        elif fault.kind == "one-way":
            world.network.cut |= {(fault.node, other) for other in world.others(fault.node)}
        elif fault.kind == "slow":
            node.slowness_s = fault.value
        elif fault.kind == "clock":
            node.wall_skew_s = fault.value
        elif fault.kind == "disk":
            node.sync_s = fault.value

    def _end(self, fault: Fault) -> None:
        world = self.world
        node = world.nodes.get(fault.node)
        if fault.kind in {"part", "one-way"} or node is None:
            world.network.cut = set()
        elif fault.kind in {"power", "kill"}:
            node.start()
        else:
            node.slowness_s, node.wall_skew_s, node.sync_s = 0.0, 0.0, 0.001
        for other in world.nodes.values():
            if isinstance(other, Twins):
                other.redraw()

    def heal(self) -> None:
        """End all faults but the liars."""
        network = self.world.network
        network.loss = network.doubling = 0.0
        network.cut = set()
        network.delay_s = (0.0005, 0.002)
        for node in self.world.nodes.values():
            node.slowness_s, node.wall_skew_s, node.sync_s = 0.0, 0.0, 0.001
            node.start()

    def _is_level(self) -> bool:
        world = self.world
        if not all(client.is_done for client in world.clients.values()):
            return False
        executed = {world.nodes[name].replica.executed for name in self._level}
        return len(executed) == 1 and self.epoch_asked == self.plan.changes

    def run(self) -> None:
        """Let everything happen; raises AssertionError with the plan if something does not hold."""
        try:
            self.world.run(HEAL_S_MAX)
            self.heal()
            healed = self.world.run(LIVE_S_MAX, self._is_level)
            assert healed, f"not level {LIVE_S_MAX} s after healing: {self._standing()}"
            values = {self.world.nodes[name].application.value for name in self._level}
            assert len(values) == 1, "honest replicas differ"
        except Exception as error:
            raise AssertionError(f"{self.plan}\nreplay: make sim SEEDS=1 SEED={self.plan.seed}\n{error!r}") from error

    def _standing(self) -> str:
        nodes = self.world.nodes.values()
        clients = {client.name: (client.left, client.under_way) for client in self.world.clients.values()}
        cores = [(n.name, n.replica.core) for n in nodes]
        stand = [(name, core.view, core.active, core.executed, core.stable.sequence) for name, core in cores]
        return f"{stand}, clients {clients}"


def run(seed: int) -> Run:
    """Run a seed's scenario."""
    simulation = Run(plan(seed))
    simulation.run()
    return simulation
