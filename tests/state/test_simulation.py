"""Seeded histories on the pure model: hosts that race, repeat, speak late and in doubt. One seed replays one history.

A history is a log: commands of several hosts that act on what they knew some commands ago, doubled at random. After
each command the invariants hold; ownership moves exactly once for each ticket that completed; two replicas of one log
are equal byte for byte, also when one of them started from a snapshot in the middle.
"""

import random

import pytest

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.invariants import violations
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import FleetState, Limits

HOSTS = ("a", "b", "c", "d")
DOMAINS = tuple(f"domain-{number}" for number in range(5))
COMMANDS = 250
SEEDS = 400


def history(rng: random.Random) -> list[do.Command]:
    """Draw a log; the model runs along so that commands often make sense."""
    fleet = FleetState()
    log = [
        do.Command(request="up", by=name, at=0.0, body=do.PutHost(name=name, trust_domain=rng.choice(("", "x"))))
        for name in HOSTS
    ]
    for command in log:
        apply(fleet, command)
    tokens = [0]
    for number in range(COMMANDS):
        at = max(0.0, number + rng.gauss(0, 3))
        by = rng.choice(HOSTS)
        body = _body(rng, by, tokens)
        ticket = next((found for found in fleet.open_tickets.values() if rng.random() < 0.3), None)
        if ticket is not None:
            by, body = _follow(rng, ticket)
        command = do.Command(request=f"r{number}", by=by, at=at, body=body)
        for _ in range(1 + (rng.random() < 0.2)):
            tokens.append(apply(fleet, command).token)
            log.append(command)
        if rng.random() < 0.1:
            log.append(rng.choice(log))
            apply(fleet, log[-1])
    return log


def _follow(rng: random.Random, ticket: model.Ticket) -> tuple[str, do.Body]:
    """Let a host of an open ticket do what is next."""
    token = ticket.token
    runs = rng.random() < 0.5
    return rng.choice(
        (
            (ticket.destination, do.Begin(token=token)),
            (ticket.destination, do.Resume(token=token)),
            (ticket.source, do.Fail(token=token, reason="cancelled")),
            (ticket.source, do.Resolve(token=token, source_runs=runs, destination_runs=not runs)),
        )
    )


def _body(rng: random.Random, by: str, tokens: list[int]) -> do.Body:
    uuid, other, token = rng.choice(DOMAINS), rng.choice(HOSTS), rng.choice(tokens[-12:])
    knows = (True, False, None)
    choices: list[do.Body] = [
        do.HandOver(uuid=uuid, destination=other),
        do.PutDomain(uuid=uuid),
        do.ForgetDomain(uuid=uuid),
        do.SetHostState(name=other, state=rng.choice(("up", "up", "draining"))),
        do.RemoveHost(name=other),
        do.PutHost(name=by, trust_domain=rng.choice(("", "x"))),
        do.SetLimits(limits=Limits(fleet=rng.randrange(4), link_bytes_per_s={"a>b": 10})),
        do.Acquire(name=uuid, lifetime_s=rng.uniform(1, 20)),
        do.Release(name=uuid, token=token),
        do.Reserve(name=uuid, source="a", destination="b", bytes_per_s=rng.randrange(8), lifetime_s=rng.uniform(1, 20)),
        do.Unreserve(name=uuid, token=token),
        do.Resolve(token=token, source_runs=rng.choice(knows), destination_runs=rng.choice(knows)),
    ]
    moves: list[do.Body] = [
        do.Propose(
            uuid=uuid, source=by, destination=other, lifetime_s=rng.uniform(1, 30), certificate=rng.choice((b"", b"c"))
        ),
        do.Begin(token=token),
        do.Resume(token=token),
        do.Fail(token=token),
    ]
    return rng.choice(moves if rng.random() < 0.7 else choices)


@pytest.mark.parametrize("block", range(8))
def test_every_history_keeps_every_invariant_on_every_replica(block: int) -> None:
    moved = 0
    for seed in range(block * SEEDS // 8, (block + 1) * SEEDS // 8):
        log = history(random.Random(seed))
        fleet, late = FleetState(), FleetState()
        snapshot_at = random.Random(seed).randrange(len(log))
        for number, command in enumerate(log):
            if number == snapshot_at:
                late = model.decode(model.encode(fleet))
            before = {uuid: (domain.owner, domain.generation) for uuid, domain in fleet.domains.items()}
            apply(fleet, command)
            assert violations(fleet) == [], f"seed {seed}, command {number}: {command}"
            moved += _check_moves(before, fleet, command, f"seed {seed}, command {number}")
        for command in log[snapshot_at:]:
            apply(late, command)
        assert model.encode(late) == model.encode(fleet), f"seed {seed}"
    assert moved > 2 * SEEDS // 8, "the histories move nothing: they test nothing"


def _check_moves(before: dict[str, tuple[str, int]], fleet: FleetState, command: do.Command, where: str) -> int:
    """Ownership changes by a resume or a resolution only, by one generation, to the ticket's destination."""
    moves = 0
    for uuid, (owner, generation) in before.items():
        domain = fleet.domains.get(uuid)
        if domain is None or (domain.owner, domain.generation) == (owner, generation):
            continue
        if isinstance(command.body, do.HandOver):
            assert (command.by, domain.generation) == (owner, generation + 1), where
            continue
        assert isinstance(command.body, do.Resume | do.Resolve), where
        ticket = fleet.ended_tickets[command.body.token]
        assert (ticket.uuid, ticket.source, ticket.destination) == (uuid, owner, domain.owner), where
        assert (ticket.generation, domain.generation) == (generation, generation + 1), where
        moves += 1
    return moves
