"""A group whose messages are delivered by hand: a test says which arrive, the rest is lost."""

from collections.abc import Callable

from dwcp_migrate.consensus import Options, PbftClient, PbftReplica
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.messages import Message
from tests.consensus.members import Chain, identity, membership

OPTIONS = Options(checkpoint_interval=4, window=8, request_timeout_s=0.5, status_s=0.1, clock_skew_ms=2000)
WALL_S = 1.7e9
STEP_S = 0.05

Choice = Callable[[str, str, Message], bool]
"""Whether a message arrives: from, to, what."""


def nothing(*_: object) -> bool:
    return False


def everything(*_: object) -> bool:
    return True


class ByHand:
    """Four replicas and a client, without disks: what is written is kept in `written`."""

    def __init__(self) -> None:
        self.members = membership(4)
        self.names = [member.name for member in self.members.replicas]
        self.now = 0.0
        self.under_way: list[tuple[str, str, Message]] = []
        self.written: dict[str, list[records.Entry]] = {name: [] for name in self.names}
        self.replicas = {name: self.start(name, []) for name in self.names}
        self.dead: set[str] = set()
        self.client = PbftClient("c0", identity("c0"), self.members, first_number=1)

    def start(self, name: str, entries: list[records.Entry]) -> PbftReplica:
        replica = PbftReplica(name, identity(name), self.members, Chain(), OPTIONS)
        replica.recover(entries, self.now)
        replica.set_clock(WALL_S + self.now, self.now)
        return replica

    def take(self, name: str) -> None:
        """Take over what a replica wants to say."""
        ready = self.replicas[name].ready()
        if ready.compacted is not None:
            self.written[name] = []
        self.written[name] += [*(ready.compacted or []), *ready.entries]
        for to, message in ready.messages:
            receivers = self.names if to is None else [to]
            self.under_way += [(name, receiver, message) for receiver in receivers if receiver != name]

    def step(self, sender: str, to: str, message: Message) -> None:
        self.replicas[to].step(sender, message, self.now)
        self.take(to)

    def deliver(self, arrives: Choice) -> None:
        """Deliver what is chosen, and what follows from it, until nothing does; lose the rest."""
        while True:
            for at, (sender, to, message) in enumerate(self.under_way):
                if not {sender, to} & self.dead and arrives(sender, to, message):
                    del self.under_way[at]
                    self.step(sender, to, message)
                    break
            else:
                self.under_way.clear()
                return

    def tick(self, names: list[str]) -> None:
        """Let a step of time pass for some."""
        self.now += STEP_S
        for name in names:
            self.replicas[name].set_clock(WALL_S + self.now, self.now)
            self.replicas[name].tick(self.now)
            self.take(name)

    def ask(self, names: list[str]) -> None:
        """Let the client's request, first or again, reach these."""
        self.client.tick(self.now)
        for _, request in self.client.ready()[0]:
            for name in names:
                self.step("c0", name, request)

    def run(self, names: list[str], arrives: Choice, seconds: float, until: Callable[[], bool]) -> bool:
        """Let time pass; returns whether the condition came true."""
        end = self.now + seconds
        while self.now < end and not until():
            self.tick(names)
            self.ask(names)
            self.deliver(arrives)
        return until()
