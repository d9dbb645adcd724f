"""A few seeds of the simulator, and proof that it finds what it is there to find; the many are `make sim`."""

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from dwcp_migrate.consensus.pbft import recovery, view_change
from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.model import membership as membership_module
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.log import Slot
from dwcp_migrate.consensus.pbft.model.messages import ViewChangeBody
from dwcp_migrate.consensus.pbft.model.quorum import Quorum, quorum_of
from dwcp_migrate.consensus.pbft.new_view import NewViewChoice
from dwcp_migrate.consensus.pbft.normal_case import NormalCase
from dwcp_migrate.consensus.pbft.requests import PendingRequests
from tests.consensus.simulation.byzantine import KINDS
from tests.consensus.simulation.scenario import HARSH, Run, plan, run
from tests.consensus.simulation.script import Script
from tests.consensus.simulation.world import Disk

SEEDS = range(1, 41)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_holds(seed: int) -> None:
    run(seed)


def test_a_batch_that_only_one_honest_replica_can_vouch_for_reaches_all() -> None:
    """One who voted for it has left the view alone, one lies, nothing else is to be decided (found among 100,000)."""
    run(71956)


def test_a_request_that_waits_through_two_changes_of_members_stops_nobody() -> None:
    """A hostile client's, signed in an epoch that no batch may name any more (seed 117 before that was mended)."""
    run(117)


def test_what_was_promised_in_an_epoch_is_held_against_that_epoch() -> None:
    """A slow disk syncs the end of a view when the next epoch has begun (the simulator's own fault until then)."""
    run(22201)


@pytest.mark.parametrize("replicas", [4, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_every_honest_request_completes_beside_as_many_liars_as_a_group_bears(kind: str, replicas: int) -> None:
    """The first replicas lie, all in the same way: so the first primaries do."""
    base = plan(1)
    liars: dict[str, tuple[str, ...]] = {f"r{place}": (kind,) for place in range(quorum_of(replicas).faulty)}
    for seed in range(2):
        scenario = replace(
            base, seed=seed, replicas=replicas, liars=liars, harsh=(), faults=(), reconfigure_s=0.0, changes=0
        )
        done = Run(scenario)
        done.run()
        asked = sum(scenario.operations.values())
        assert sum(len(each.decisions) for each in done.world.clients.values()) == asked


def test_a_seed_replays_event_by_event() -> None:
    first, second = run(17), run(17)
    assert first.world.events == second.world.events
    assert first.world.now == second.world.now
    assert first.invariants.batches == second.invariants.batches


def test_every_kind_of_liar_and_fault_is_drawn() -> None:
    plans = [plan(seed) for seed in range(400)]
    assert {kind for each in plans for kinds in each.liars.values() for kind in kinds} - set(HARSH) == set(KINDS)
    faults = {fault.kind for each in plans for fault in each.faults}
    assert faults == {"power", "kill", "part", "one-way", "slow", "clock", "disk"}
    assert {each.replicas for each in plans} == {4, 5, 6, 7, 10}
    assert any(each.reconfigure_s for each in plans)
    assert {kind for each in plans for kind in each.harsh} == set(HARSH)


def finds_a_fault(seeds: range) -> bool:
    """Tell whether some seed fails; its message names the seed."""
    for seed in seeds:
        try:
            run(seed)
        except AssertionError as error:
            return f"SEED={seed}" in str(error)
    return False


def test_it_finds_quorums_that_are_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership_module, "quorum_of", lambda size: Quorum(size, (size - 1) // 3, size // 2, 1))
    assert finds_a_fault(range(60))


def test_it_finds_promises_that_were_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_everything(self: Disk, rng: random.Random) -> None:
        del rng
        self.synced = b""
        self._unsynced.clear()

    monkeypatch.setattr(Disk, "crash", lose_everything)
    assert finds_a_fault(range(300))


def test_it_finds_new_views_that_nobody_examines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was prepared is forgotten with the view: sooner or later two batches are decided at one place."""

    def forget(bodies: Iterable[ViewChangeBody], _: Quorum) -> NewViewChoice:
        return NewViewChoice(max((body.stable for body in bodies), key=lambda proof: proof.sequence), {})

    monkeypatch.setattr(view_change, "select", forget)
    assert finds_a_fault(range(300))


def test_it_finds_requests_that_nobody_authenticates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingRequests, "is_genuine", lambda *_: True)
    with pytest.raises(AssertionError, match="executed what c0 never asked"):
        Script("replicas 4\nliar r0 garble\nask c0 4\nrun 5").run()


def test_it_finds_a_primary_that_nobody_suspects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PendingRequests, "overdue", lambda *_: False)
    monkeypatch.setattr(NormalCase, "is_stuck", lambda *_: False)
    assert finds_a_fault(range(60))


@pytest.mark.parametrize("kind", [records.WasPrepared, records.Accepted])
def test_it_finds_promises_that_compaction_forgets(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    kept = recovery._records

    def forgetful(core: Core, slot: Slot, written: set[bytes]) -> Iterable[records.Entry]:
        return (entry for entry in kept(core, slot, written) if not isinstance(entry, kind))

    monkeypatch.setattr(recovery, "_records", forgetful)
    assert finds_a_fault(range(200))


def test_liars_are_at_most_as_many_as_a_group_bears() -> None:
    for seed in range(50):
        scenario = plan(seed)
        assert len(scenario.liars) <= (scenario.replicas - 1) // 3
        assert str(Run(scenario).plan).startswith(f"seed {seed}:")
