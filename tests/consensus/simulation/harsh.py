"""Faults that a plan's own draw leaves out: hostile clients, aimed loss, lost disks, members that stay away.

They are drawn apart, for odd seeds only, so that every even seed is the scenario that it always was. Who loses its disk
or stays away counts as a liar: it is one of those that a group bears.
"""

import random
from typing import TYPE_CHECKING, Final

from dwcp_migrate.consensus.pbft.model.keys import REQUEST, compute_mac
from dwcp_migrate.consensus.pbft.model.messages import (
    BatchContent,
    Commit,
    Decided,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    RequestBody,
    ViewChange,
    encode_body,
)
from tests.consensus.members import identity

if TYPE_CHECKING:
    from tests.consensus.simulation.world import Disk, World

HOSTILE: Final = "c2"
TRICK_S: Final = 0.1
AIM_S: Final = 0.25
AIMED: Final = (PrePrepare, Prepare, Commit, ViewChange, NewView, BatchContent, Decided)


class HostileClient:
    """A client whose requests verify here and not there, whose numbers say two things, jump, and come again."""

    def __init__(self, world: "World", seed: int, until_s: float) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self._until_s = until_s
        self._number = 1
        self._sent: list[Request] = []
        world.at(TRICK_S, self._go_on)

    def _go_on(self) -> None:
        if self._world.now < self._until_s:
            self._trick()
            self._world.at(TRICK_S * (0.5 + self._rng.random()), self._go_on)

    def _trick(self) -> None:
        rng, replicas = self._rng, self._world.replicas
        way = rng.randrange(5)
        if way == 0 and self._sent:
            requests = [rng.choice(self._sent)] * len(replicas)
        elif way == 1:
            favoured = rng.choice(replicas)
            requests = [self._authenticated(self._body(), favoured)] * len(replicas)
        elif way == 2:  # one number, two operations
            requests = [self._signed(self._body()) for _ in replicas]
        elif way == 3:
            self._number += rng.choice((100, 127, 128, 129, 10_000))
            requests = [self._signed(self._body())] * len(replicas)
        else:
            self._number += 1
            requests = [self._signed(self._body())] * len(replicas)
        for name, request in zip(replicas, requests, strict=True):
            if rng.random() < 0.8:
                self._world.network.send(HOSTILE, name, request, 0.0)

    def _body(self) -> bytes:
        operation = f"{HOSTILE} {self._rng.random()}".encode()
        self._world.asked.add((HOSTILE, operation))
        return encode_body(RequestBody(HOSTILE, 0, self._number, operation))

    def _authenticated(self, body: bytes, favoured: str) -> Request:
        members = self._world.nodes[favoured].membership
        key = identity(HOSTILE).shared_key(identity(favoured).public)
        macs = [
            compute_mac(key, members.cluster, body) if each.name == favoured else bytes(16) for each in members.replicas
        ]
        return Request(body, b"".join(macs))

    def _signed(self, body: bytes) -> Request:
        members = self._world.nodes[self._world.replicas[0]].membership
        request = Request(body, b"", identity(HOSTILE).sign(REQUEST, members.cluster, body))
        self._sent.append(request)
        return request


class AimedLoss:
    """An adversary that sees every message: for a while all of some kinds to some replicas are lost."""

    def __init__(self, world: "World", seed: int, until_s: float) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self._until_s = until_s
        self._lost: set[tuple[type, str]] = set()
        self._draw()

    def _draw(self) -> None:
        rng = self._rng
        self._lost.clear()
        if self._world.now >= self._until_s:
            return
        for kind in rng.sample(AIMED, rng.randint(1, 3)):
            for name in rng.sample(self._world.replicas, rng.randint(1, 3)):
                self._lost.add((kind, name))
        self._world.at(AIM_S * (0.5 + rng.random()), self._draw)

    def loses(self, to: str, message: Message) -> bool:
        return (type(message), to) in self._lost


def wipe(disk: "Disk") -> None:
    """Lose a disk."""
    disk.__init__()  # type: ignore[misc]
