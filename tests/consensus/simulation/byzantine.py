"""Replicas that lie. Two ways: twins (two honest replicas with one identity, OPODIS 2021) and a mutating replica.

A liar has its own key and channel and nobody else's: it can send what it likes, not speak for others.
"""

import random
from collections.abc import Callable

import msgspec

from dwcp_migrate.consensus import Membership
from dwcp_migrate.consensus.pbft.model.checkpoints import statement
from dwcp_migrate.consensus.pbft.model.keys import CHECKPOINT, NEW_VIEW, VIEW_CHANGE, compute_digest
from dwcp_migrate.consensus.pbft.model.messages import (
    Batch,
    BatchContent,
    Checkpoint,
    Commit,
    Decided,
    Message,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    ReplicaStatus,
    Reply,
    Request,
    StateManifest,
    StatePart,
    ViewChange,
    ViewChangeBody,
    ViewEvidence,
    decode_batch,
    decode_request_body,
    decode_view_change_body,
    encode_body,
)
from tests.consensus.members import identity
from tests.consensus.simulation.world import Node, World

MOOD_S = (0.05, 0.8)
"""For how long a liar that times its lies keeps to one way."""

Mutation = Callable[["Liar", str, Message], list[Message]]


class Liar(Node):
    """An honest replica inside whose messages are changed on the way out, by the mutations named."""

    def __init__(self, world: World, name: str, membership: Membership, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.rng = random.Random(world.rng.random())
        self.past: list[Message] = []
        self._mood_until_s = 0.0
        self.favoured = set(self.rng.sample(world.replicas, len(world.replicas) // 2))
        super().__init__(world, name, membership)

    def deliver(self, sender: str, message: Message) -> None:
        if "censor" in self.kinds and isinstance(message, Request):
            body = decode_request_body(message.body)
            if body is not None and body.client == "c0":
                return
        super().deliver(sender, message)

    def _change_mind(self) -> None:
        """Lie in another way for a while, or not at all."""
        self._mood_until_s = self.world.now + self.rng.uniform(*MOOD_S)
        self.kinds = tuple(self.rng.sample([kind for kind in KINDS if kind != "twins"], self.rng.randint(0, 2)))

    def emit(self, to: str, message: Message) -> None:
        if self.world.is_moody and self.world.now >= self._mood_until_s:
            self._change_mind()
        messages = [message]
        for kind in self.kinds:
            if kind in MUTATIONS:
                messages = [changed for sent in messages for changed in MUTATIONS[kind](self, to, sent)]
        slow = self.rng.random() * 1.5 if "slow" in self.kinds and isinstance(message, PrePrepare) else 0.0
        for changed in messages:
            self.world.network.send(self.name, to, changed, self.slowness_s + slow)

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        return identity(self.name).sign(purpose, self.membership.cluster, data)

    def noise(self) -> bytes:
        return self.rng.randbytes(32)


def _equivocate(liar: Liar, to: str, message: Message) -> list[Message]:
    """Propose one batch to some and another to the rest, and vote for whatever each of them was told."""
    if to in liar.favoured:
        return [message]
    if isinstance(message, PrePrepare):
        batch = decode_batch(message.batch)
        if batch is None:  # another lie made it so
            return [message]
        other = encode_body(Batch(batch.time_ms + 1, batch.requests[::-1]))
        return [msgspec.structs.replace(message, batch=other), *_votes(message, compute_digest(other))]
    return [message]


def _votes(message: PrePrepare, name: bytes) -> list[Message]:
    place = message.epoch, message.view, message.sequence
    return [Prepare(*place, name), Commit(*place, name)]


def _wrong(liar: Liar, to: str, message: Message) -> list[Message]:
    """Vote for batches and states that do not exist."""
    del to
    if liar.rng.random() < 0.5:
        if isinstance(message, Prepare | Commit):
            return [msgspec.structs.replace(message, digest=liar.noise())]
        if isinstance(message, Checkpoint):
            name = liar.noise()
            signature = liar.sign(CHECKPOINT, statement(message.epoch, message.sequence, name))
            return [msgspec.structs.replace(message, digest=name, signature=signature)]
    if isinstance(message, Reply):
        return [msgspec.structs.replace(message, result=b"a lie")]
    return [message]


def _forge(liar: Liar, to: str, message: Message) -> list[Message]:
    """Report things prepared that were not, and pass wrong proofs of new views on."""
    del to
    if isinstance(message, ViewChange):
        return [_forged_change(liar, message)]
    if isinstance(message, NewView):
        changes = list(message.changes)
        way = liar.rng.randrange(4)
        if way == 0:
            changes.pop()
        elif way == 1:
            changes[-1] = changes[0]
        elif way == 2:
            changes[0] = msgspec.structs.replace(changes[0], signature=liar.rng.randbytes(64))
        else:
            changes[0] = _forged_change(liar, changes[0])
        data = encode_body((message.epoch, message.view, [compute_digest(change.body) for change in changes]))
        return [NewView(message.epoch, message.view, tuple(changes), liar.sign(NEW_VIEW, data))]
    return [message]


def _forged_change(liar: Liar, change: ViewChange) -> ViewChange:
    body = decode_view_change_body(change.body)
    assert body is not None, "this replica checked it"
    first = body.stable.sequence + 1
    name = liar.noise()
    view = max(0, body.view - 1)
    lies = {
        "prepared": tuple(Prepared(first + at, view, name) for at in range(liar.rng.randrange(4))),
        "seen": tuple(ViewEvidence(first + at, {name: view}) for at in range(liar.rng.randrange(4))),
    }
    body = msgspec.structs.replace(body, **lies)
    data = encode_body(body)
    return ViewChange(data, liar.sign(VIEW_CHANGE, data))


def _omit(liar: Liar, to: str, message: Message) -> list[Message]:
    """Say nothing to some, and less than it should to the rest."""
    return [] if to in liar.favoured or liar.rng.random() < 0.3 else [message]


def _silent(liar: Liar, to: str, message: Message) -> list[Message]:
    del liar, to, message
    return []


def _replay(liar: Liar, to: str, message: Message) -> list[Message]:
    """Say old things again."""
    del to
    if len(liar.past) < 200 and not isinstance(message, Reply):
        liar.past.append(message)
    again = [liar.rng.choice(liar.past)] if liar.past and liar.rng.random() < 0.2 else []
    return [message, *again]


def _hurry(liar: Liar, to: str, message: Message) -> list[Message]:
    """Leave view after view, and claim to be far ahead."""
    del to
    if isinstance(message, ReplicaStatus):
        core = liar.replica.core
        view = message.view + liar.rng.randrange(1, 50)
        data = encode_body(ViewChangeBody(core.group.epoch, view, liar.name, core.stable, (), ()))
        far = msgspec.structs.replace(message, executed=10**6, stable=10**6, view=10**6)
        return [far, ViewChange(data, liar.sign(VIEW_CHANGE, data))]
    return [message]


def _state(liar: Liar, to: str, message: Message) -> list[Message]:
    """Hand out wrong states, batches and decisions."""
    del to
    if isinstance(message, StatePart):
        return [msgspec.structs.replace(message, data=message.data[:-1] + b"!")]
    if isinstance(message, StateManifest) and liar.rng.random() < 0.5:
        return [msgspec.structs.replace(message, parts=(liar.noise(),))]
    if isinstance(message, Decided | BatchContent):
        batch = decode_batch(message.batch)
        if batch is None:  # another lie made it so
            return [message]
        return [msgspec.structs.replace(message, batch=encode_body(Batch(batch.time_ms + 1, batch.requests)))]
    return [message]


def _time(liar: Liar, to: str, message: Message) -> list[Message]:
    """Propose with a clock that is far off."""
    del to, liar
    if isinstance(message, PrePrepare):
        batch = decode_batch(message.batch)
        if batch is None:  # another lie made it so
            return [message]
        return [msgspec.structs.replace(message, batch=encode_body(Batch(batch.time_ms + 10**7, batch.requests)))]
    return [message]


def _garble(liar: Liar, to: str, message: Message) -> list[Message]:
    """Propose requests that no client made, and batches that are none."""
    del to
    if isinstance(message, PrePrepare) and liar.rng.random() < 0.5:
        batch = decode_batch(message.batch)
        if batch is None:  # another lie made it so
            return [message]
        forged = [
            msgspec.structs.replace(request, body=request.body[:-3] + b"x" + request.body[-2:])
            for request in batch.requests
        ]
        wrong = encode_body(Batch(batch.time_ms, tuple(forged))) if liar.rng.random() < 0.7 else b"\xc1"
        return [msgspec.structs.replace(message, batch=wrong)]
    return [message]


MUTATIONS: dict[str, Mutation] = {
    "equivocate": _equivocate,
    "wrong": _wrong,
    "forge": _forge,
    "omit": _omit,
    "silent": _silent,
    "replay": _replay,
    "hurry": _hurry,
    "state": _state,
    "time": _time,
    "garble": _garble,
}
KINDS = (*MUTATIONS, "censor", "slow", "twins")
"""All ways of being faulty that the simulator knows."""


class Twins(Node):
    """Two honest replicas with one identity; each talks to its own side, and to the middle."""

    def __init__(self, world: World, name: str, membership: Membership) -> None:
        self.ours: set[str] = set()
        self.theirs: set[str] = set()
        self.second: Node | None = None
        super().__init__(world, name, membership)
        self.second = _Second(world, name, membership, self)
        self.redraw()

    def redraw(self) -> None:
        """Draw anew whom each of the two talks to."""
        others = self.world.others(self.name)
        self.ours = set(self.world.rng.sample(others, self.world.rng.randint(1, len(others))))
        self.theirs = set(self.world.rng.sample(others, self.world.rng.randint(1, len(others))))

    def deliver(self, sender: str, message: Message) -> None:
        super().deliver(sender, message)
        if self.second is not None:
            self.second.deliver(sender, message)

    def emit(self, to: str, message: Message) -> None:
        if to in self.world.clients or to in self.ours:
            super().emit(to, message)


class _Second(Node):
    def __init__(self, world: World, name: str, membership: Membership, first: Twins) -> None:
        self._first = first
        super().__init__(world, name, membership)

    def emit(self, to: str, message: Message) -> None:
        if to in self._first.theirs:
            super().emit(to, message)
