"""The simulator: it holds on a few seeds, and finds what it is there for when a rule of the replica is taken away."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.log_file import LogFile
from tests.state.raft.simulation import scenario
from tests.state.raft.simulation.world import World, virtual_time

RUN = Path(scenario.__file__).with_name("run.py")
SEEDS = 40
TRIED_MAX = 200


def test_scenarios_hold() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(RUN), str(SEEDS), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all held" in done.stdout


def find(first: int) -> str:
    """Run scenarios until one does not hold; returns what it says."""
    for seed in range(first, first + TRIED_MAX):
        try:
            scenario.run(seed)
        except AssertionError as error:
            return str(error)
    raise AssertionError(f"nothing was found in {TRIED_MAX} scenarios")


def test_it_finds_promises_that_do_not_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(self: LogFile) -> None:
        self._dirty = self._vote_dirty = False

    monkeypatch.setattr(LogFile, "sync", forget)
    assert any(word in find(1) for word in ("promised", "acknowledged", "committed", "voted", "lost"))


def test_a_voter_that_was_removed_while_it_was_away_follows_again() -> None:
    """What seed 11860 did on earlier code: the only voter left, restarted, took the other for a stranger."""
    world = World(1, ("h0",), ("o0",))
    leader, removed = world.nodes.values()

    def change(verb: Literal["add", "rem"]) -> None:
        assert leader.replica is not None
        data = messages.encode_membership(messages.RaftMembership(verb, "o0"))
        leader.replica.submit(data, lambda *_: None, messages.MEMBERSHIP)

    with virtual_time(world):
        world.start()
        world.run(1.0)
        change("add")
        world.run(2.0)
        assert removed.replica is not None
        assert removed.replica.voters == {"h0", "o0"}
        world.network.cut.add(frozenset(world.nodes))  # it hears nothing of its removal
        change("rem")
        world.run(2.5)
        leader.crash(power=True)
        leader.start()
        world.run(5.0)
        world.network.cut.clear()
        world.run(10.0)
        assert leader.replica is not None
        assert removed.replica.voters == leader.replica.voters == {"h0"}
        assert removed.replica.applied_index == leader.replica.applied_index
        assert world.refused == []


@pytest.mark.parametrize(("kind", "ahead"), [("stale", 1), ("ack", 1), ("stale", 2**61)])
def test_a_host_without_a_vote_does_not_depose_a_leader_again_and_again(kind: str, ahead: int) -> None:
    world = World(1, ("h0", "h1", "h2"), ("o0",))
    terms = set()

    def claim() -> None:
        leader = world.leader()
        connection = leader.links._connections.get("o0") if leader is not None and leader.links is not None else None
        if leader is not None and leader.replica is not None and connection is not None:
            terms.add(leader.replica.term)
            term = leader.replica.term + ahead
            claimed: messages.Message = messages.Stale(term=term)
            if kind == "ack":
                claimed = messages.Ack(term=term, next_index=2, reset=False, success=True)
            world.network.carry(connection, "o0", leader.name, claimed)
        world.call_at(world.now + 0.05, claim)

    with virtual_time(world):
        world.start()
        world.run(1.5)
        claim()
        world.run(7.0)
        leader = world.leader()
    assert leader is not None
    assert leader.replica is not None
    assert leader.replica.commit_index == leader.replica.last[0]
    assert len(terms) <= 3, f"led in terms {sorted(terms)}"
    assert max(terms) < 2**32
