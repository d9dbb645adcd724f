"""Votes: how many decide, in which epoch, and whose they are."""

import msgspec
import pytest

from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.checkpoints import is_proven, is_vote, sign_checkpoint
from dwcp_migrate.consensus.pbft.model.keys import VIEW_CHANGE, compute_digest
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    Batch,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    RequestBody,
    StableProof,
    ViewChange,
    ViewChangeBody,
    encode_body,
)
from dwcp_migrate.consensus.pbft.reconfiguration import encode_membership
from tests.consensus.members import CLUSTER, identity, membership
from tests.consensus.pbft.by_hand import WALL_S, ByHand

NAME = b"n" * 32


def proposal(sequence: int = 1, operation: bytes = b"x", number: int = 1, *, reconfigure: bool = False) -> PrePrepare:
    client = "op" if reconfigure else "c0"
    body = encode_body(RequestBody(client, 0, number, operation, reconfigure=reconfigure))
    request = Request(body, b"", identity(client).sign(b"dwcp-request", CLUSTER, body))
    return PrePrepare(0, 0, sequence, encode_body(Batch(round(WALL_S * 1000), (request,))))


def backup(*proposals: PrePrepare) -> ByHand:
    group = ByHand()
    for each in proposals:
        group.step("r0", "r1", each)
    return group


def accepted(group: ByHand) -> list[int]:
    slots = group.replicas["r1"].core.log.slots
    return sorted(number for number, slot in slots.items() if slot.digest is not None)


def voted(group: ByHand, kind: type[Prepare | Commit], *by: str, epoch: int = 0) -> None:
    name = group.replicas["r1"].core.log.slots[1].digest
    assert name is not None
    for sender in by:
        group.step(sender, "r1", kind(epoch, 0, 1, name))


def test_a_batch_is_decided_by_a_quorum_of_commits_and_not_before() -> None:
    group = backup(proposal())
    voted(group, Prepare, "r2")
    voted(group, Commit, "r2")  # with this replica's own: two of three
    assert group.replicas["r1"].executed == 0
    voted(group, Commit, "r3")
    assert group.replicas["r1"].executed == 1


def test_what_is_said_is_written_before() -> None:
    group = backup(proposal())
    name = group.replicas["r1"].core.log.slots[1].digest
    assert name is not None
    (data,) = group.replicas["r1"].core.log.batches.values()
    assert group.written["r1"] == [records.Accepted(0, 1, name, data)]
    voted(group, Prepare, "r2")
    assert group.written["r1"][1:] == [records.WasPrepared(0, 1, name)]


def test_votes_of_another_epoch_do_not_count() -> None:
    group = backup(proposal())
    voted(group, Prepare, "r2", "r3", epoch=1)
    assert not group.replicas["r1"].core.log.slots[1].sent_commit
    voted(group, Prepare, "r2")
    voted(group, Commit, "r2", "r3", epoch=1)
    assert group.replicas["r1"].executed == 0


def test_a_new_membership_is_proposed_alone() -> None:
    change = proposal(2, encode_membership(membership(5, epoch=1)), reconfigure=True)
    assert accepted(backup(proposal(1), change)) == [1]  # the one before is not executed yet
    first = proposal(1, encode_membership(membership(5, epoch=1)), reconfigure=True)
    assert accepted(backup(proposal(2), first)) == [2]  # a later one is accepted already
    assert accepted(backup(first, proposal(2))) == [1]  # and nothing behind it


@pytest.mark.parametrize("signer", ["r1", "r2"])
def test_a_new_view_counts_with_its_primarys_signature_only(signer: str) -> None:
    changes = []
    for name in ("r0", "r1", "r2"):
        data = encode_body(ViewChangeBody(0, 1, name, StableProof(0, 0), (), ()))
        changes.append(ViewChange(data, identity(name).sign(VIEW_CHANGE, CLUSTER, data)))
    group = ByHand()
    group.replicas["r1"]._views.leave(1)
    group.take("r1")
    for name, change in zip(("r0", "r2"), (changes[0], changes[2]), strict=True):
        group.step(name, "r1", change)
    (proof,) = {message for _, _, message in group.under_way if isinstance(message, NewView)}
    if signer != "r1":
        proof = msgspec.structs.replace(proof, signature=identity(signer).sign(b"dwcp-new-view", CLUSTER, b"?"))
    group.step("r1", "r3", proof)
    assert (group.replicas["r3"].view == 1) == (signer == "r1")


@pytest.mark.parametrize(
    ("names", "views", "holds"),
    [
        (("r0", "r1", "r2"), (1, 1, 1), True),
        (("r0", "r1", "r2"), (1, 1, 2), False),
        (("r0", "r1", "r1"), (1, 1, 1), False),
        (("r0", "r1"), (1, 1), False),
    ],
    ids=["a quorum's", "one of another view", "one twice", "too few"],
)
def test_a_new_view_counts_with_a_quorums_view_changes_for_it(
    names: tuple[str, ...],
    views: tuple[int, ...],
    holds: bool,  # noqa: FBT001
) -> None:
    changes = []
    for name, view in zip(names, views, strict=True):
        data = encode_body(ViewChangeBody(0, view, name, StableProof(0, 0), (), ()))
        changes.append(ViewChange(data, identity(name).sign(VIEW_CHANGE, CLUSTER, data)))
    data = encode_body((0, 1, [compute_digest(change.body) for change in changes]))
    proof = NewView(0, 1, tuple(changes), identity("r1").sign(b"dwcp-new-view", CLUSTER, data))
    group = ByHand()
    group.step("r1", "r3", proof)
    assert (group.replicas["r3"].view == 1) == holds


def test_a_checkpoint_counts_if_its_sender_signed_it_in_this_epoch_and_in_time() -> None:
    group, later = Group(membership(4)), Group(membership(4, epoch=1))
    vote = sign_checkpoint(identity("r1"), group, 4, NAME)
    assert is_vote(vote, "r1", group)
    assert not is_vote(vote, "r2", group)
    assert not is_vote(vote, "stranger", group)
    assert not is_vote(msgspec.structs.replace(vote, digest=b"o" * 32), "r1", group)
    assert not is_vote(sign_checkpoint(identity("r1"), later, 4, NAME), "r1", group)
    group.until = 3
    assert not is_vote(vote, "r1", group)


def test_a_proof_counts_with_a_quorum_of_members_of_its_epoch_and_time() -> None:
    group = Group(membership(4))

    def proof(*names: str, by: Group = group) -> StableProof:
        votes = {name: sign_checkpoint(identity(name), by, 4, NAME).signature for name in names}
        return StableProof(by.epoch, 4, NAME, votes)

    good = proof("r0", "r1", "r2")
    assert is_proven(good, (group,))
    assert not is_proven(proof("r0", "r1"), (group,))
    assert not is_proven(proof("r0", "r1", "c0"), (group,))
    assert not is_proven(msgspec.structs.replace(good, digest=b"o" * 32), (group,))
    assert not is_proven(proof("r0", "r1", "r2", by=Group(membership(4, epoch=1))), (group,))
    assert not is_proven(StableProof(0, 0, NAME), (group,))
    group.until = 3
    assert not is_proven(good, (group,))
