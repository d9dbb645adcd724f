"""What a new view carries on: chosen examples, a naive oracle, and view changes that must not count."""

import random

import msgspec
import pytest

from dwcp_migrate.consensus.pbft.model.checkpoints import sign_checkpoint
from dwcp_migrate.consensus.pbft.model.keys import VIEW_CHANGE
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    NULL_DIGEST,
    Prepared,
    StableProof,
    ViewChange,
    ViewChangeBody,
    ViewEvidence,
    encode_body,
)
from dwcp_migrate.consensus.pbft.new_view import NewViewChoice, check, select
from tests.consensus.members import CLUSTER, identity, membership

GROUP = Group(membership(4))
A, B = b"a" * 32, b"b" * 32
NOTHING = StableProof(0, 0)


def body(name: str, prepared: dict[int, tuple[int, bytes]], seen: dict[int, dict[bytes, int]]) -> ViewChangeBody:
    return ViewChangeBody(
        0,
        5,
        name,
        NOTHING,
        tuple(Prepared(sequence, view, digest) for sequence, (view, digest) in prepared.items()),
        tuple(ViewEvidence(sequence, views) for sequence, views in seen.items()),
    )


def test_fewer_than_a_quorum_decide_nothing() -> None:
    assert select([body("r0", {}, {}), body("r1", {}, {})], GROUP.numbers) is None


def test_nothing_prepared_carries_nothing_on() -> None:
    changes = [body(name, {}, {1: {A: 0}}) for name in ("r0", "r1", "r2")]
    assert select(changes, GROUP.numbers) == NewViewChoice(NOTHING, {})


def test_what_one_prepared_and_two_accepted_is_carried_on() -> None:
    changes = [body("r0", {1: (0, A)}, {1: {A: 0}}), body("r1", {}, {1: {A: 0}}), body("r2", {}, {})]
    assert select(changes, GROUP.numbers) == NewViewChoice(NOTHING, {1: A})


def test_what_only_its_sender_vouches_for_does_not_decide() -> None:
    changes = [body("r0", {1: (0, A)}, {1: {A: 0}}), body("r1", {}, {}), body("r2", {}, {})]
    assert select(changes, GROUP.numbers) is None
    assert select([*changes, body("r3", {}, {})], GROUP.numbers) == NewViewChoice(NOTHING, {1: NULL_DIGEST})


def test_the_later_view_wins() -> None:
    changes = [
        body("r0", {1: (0, A)}, {1: {A: 0}}),
        body("r1", {1: (3, B)}, {1: {A: 0, B: 3}}),
        body("r2", {}, {1: {B: 3}}),
    ]
    assert select(changes, GROUP.numbers) == NewViewChoice(NOTHING, {1: B})


def test_a_gap_is_filled_with_an_empty_batch() -> None:
    changes = [body("r0", {2: (0, A)}, {2: {A: 0}}), body("r1", {2: (0, A)}, {2: {A: 0}}), body("r2", {}, {})]
    assert select(changes, GROUP.numbers) == NewViewChoice(NOTHING, {1: NULL_DIGEST, 2: A})


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_what_was_committed_is_carried_on_whatever_the_liars_report(size: int) -> None:
    """A batch is committed in view 2 by a quorum; liars report what they like; every deciding set carries it on."""
    rng = random.Random(size)
    group = Group(membership(size))
    names, numbers = list(group.names), group.numbers
    decided = 0
    for _ in range(300):
        liars = set(rng.sample(names, numbers.faulty))
        holders = set(rng.sample(names, numbers.quorum))
        changes = []
        for name in names:
            if name in liars:
                changes.append(_random_body(rng, name))
            elif name in holders:
                changes.append(body(name, {1: (2, A)}, {1: {A: 2, B: 1}}))
            else:
                changes.append(body(name, rng.choice([{}, {1: (1, B)}]), {1: {B: 1}}))
        heard = rng.sample(changes, rng.randint(numbers.quorum, size))
        choice = select(heard, group.numbers)
        if choice is not None:
            decided += 1
            assert choice.digests.get(1) == A
    assert decided > 50


def _random_body(rng: random.Random, name: str) -> ViewChangeBody:
    prepared = {1: (rng.randrange(5), rng.choice((A, B)))} if rng.random() < 0.7 else {}
    return body(name, prepared, {1: {rng.choice((A, B)): rng.randrange(5)}})


def test_all_honest_view_changes_together_always_decide() -> None:
    """Liveness: whatever honest replicas of a real run hold, all of them together are enough."""
    for prepared_by in range(5):
        changes = [
            body(f"r{at}", {1: (0, A)} if at < prepared_by else {}, {1: {A: 0}} if at < 3 or prepared_by == 4 else {})
            for at in range(4)
        ]
        assert select(changes, GROUP.numbers) is not None


# --- what does not count


def signed(change: ViewChangeBody, by: str = "") -> ViewChange:
    data = encode_body(change)
    return ViewChange(data, identity(by or change.replica).sign(VIEW_CHANGE, CLUSTER, data))


GOOD = body("r1", {1: (4, A), 8: (0, B)}, {1: {A: 4, B: 3}})


def test_a_good_view_change_counts() -> None:
    assert check(signed(GOOD), (GROUP,), 8) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        signed(GOOD, by="r2"),
        ViewChange(encode_body(GOOD), bytes(64)),
        ViewChange(b"\xc1", bytes(64)),
        signed(msgspec.structs.replace(GOOD, replica="c0")),
        signed(msgspec.structs.replace(GOOD, epoch=1)),
        signed(msgspec.structs.replace(GOOD, view=4)),
        signed(body("r1", {9: (0, A)}, {})),
        signed(body("r1", {0: (0, A)}, {})),
        signed(body("r1", {}, {9: {A: 0}})),
        signed(body("r1", {}, {1: {A: 5}})),
        signed(msgspec.structs.replace(GOOD, prepared=(Prepared(1, 0, A), Prepared(1, 1, B)))),
        signed(msgspec.structs.replace(GOOD, stable=StableProof(0, 4, A, {}))),
        signed(msgspec.structs.replace(GOOD, stable=StableProof(0, 0, A, {}))),
    ],
    ids=[
        "signed by another",
        "not signed",
        "no body",
        "no replica",
        "another epoch",
        "prepared in the view that it leaves for",
        "past the window",
        "before the window",
        "accepted past the window",
        "accepted in a later view",
        "a sequence number twice",
        "a checkpoint without a proof",
        "a digest of nothing",
    ],
)
def test_a_bad_view_change_does_not_count(change: ViewChange) -> None:
    assert check(change, (GROUP,), 8) is None


def test_a_checkpoint_needs_a_quorum_of_members() -> None:
    votes = {name: sign_checkpoint(identity(name), GROUP, 4, A).signature for name in ("r0", "r1", "r2")}
    proof = StableProof(0, 4, A, votes)
    good = ViewChangeBody(0, 5, "r1", proof, (), ())
    assert check(signed(good), (GROUP,), 8) == good
    few = StableProof(0, 4, A, {name: votes[name] for name in ("r0", "r1")})
    other = StableProof(0, 4, B, votes)
    stranger = StableProof(0, 4, A, {**votes, "c0": votes["r0"]})
    swapped = StableProof(0, 4, A, {**votes, "r2": votes["r1"]})
    for wrong in (few, other, stranger, swapped):
        assert check(signed(msgspec.structs.replace(good, stable=wrong)), (GROUP,), 8) is None
