"""Changes of the view: who may begin one, and that a group which no later fault touches always goes on."""

from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.checkpoints import sign_checkpoint
from dwcp_migrate.consensus.pbft.model.keys import VIEW_CHANGE, compute_digest
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    NULL_BATCH,
    BatchContent,
    FetchBatch,
    Message,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    StableProof,
    ViewChange,
    ViewChangeBody,
    ViewEvidence,
    encode_body,
)
from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot, Header, take_snapshot
from tests.consensus.members import CLUSTER, Chain, identity
from tests.consensus.pbft.by_hand import ByHand, everything, nothing

OTHERS = ["r1", "r2", "r3"]


def first_proposal(group: ByHand) -> bytes:
    """The client asks, the primary r0 proposes; returns the batch's digest."""
    group.client.submit(b"op", group.now)
    ((_, request),) = group.client.ready()[0]
    group.step("c0", "r0", request)
    return next(iter(group.replicas["r0"].core.log.batches))


def change(by: str, name: bytes | None, *, prepared: bool, view: int = 1) -> ViewChange:
    """A view change of one who accepted `name` at 1 in view 0, or nothing."""
    body = ViewChangeBody(
        0,
        view,
        by,
        StableProof(0, 0),
        (Prepared(1, 0, name),) if name and prepared else (),
        (ViewEvidence(1, {name: 0}),) if name else (),
    )
    data = encode_body(body)
    return ViewChange(data, identity(by).sign(VIEW_CHANGE, CLUSTER, data))


def test_a_group_goes_on_after_one_crash_with_lost_messages() -> None:
    """Nobody lies. The next primary never saw the batch that it carries on, and one who voted for it dies."""
    group = ByHand()
    first_proposal(group)
    group.deliver(
        lambda _, to, message: (
            (isinstance(message, PrePrepare) and to in {"r2", "r3"}) or (isinstance(message, Prepare) and to == "r0")
        )
    )
    group.now = 1.0
    group.ask(group.names)
    group.deliver(nothing)

    def to_the_next_primary(_: str, to: str, message: Message) -> bool:
        return (
            (isinstance(message, ViewChange) and to == "r1")
            or (isinstance(message, NewView) and to in {"r0", "r2"})
            or (isinstance(message, Prepare) and to == "r2")
        )

    for _ in range(40):
        group.tick(group.names)
        group.deliver(to_the_next_primary)
    group.dead.add("r0")
    for _ in range(40):  # the others do not hear each other for a while
        group.tick(OTHERS)
        group.deliver(nothing)
    assert group.run(OTHERS, everything, 60.0, lambda: all(group.replicas[name].executed for name in OTHERS))


def test_a_group_goes_on_after_one_member_vouched_and_fell_silent() -> None:
    """The same by a liar: it reports prepared what only one honest replica accepted, votes once, and is gone."""
    group = ByHand()
    name = first_proposal(group)
    group.deliver(lambda _, to, message: isinstance(message, PrePrepare) and to == "r2")
    for other in group.names:
        group.replicas[other]._views.leave(1)
        group.take(other)
    group.under_way = [
        (sender, to, change("r0", name, prepared=True) if sender == "r0" else message)
        for sender, to, message in group.under_way
        if isinstance(message, ViewChange)
    ]
    group.deliver(
        lambda sender, to, message: (
            (isinstance(message, ViewChange) and to == "r1" and sender in {"r0", "r2"})
            or (isinstance(message, NewView) and to == "r2")
        )
    )
    group.step("r0", "r2", Prepare(0, 1, 1, name))
    group.under_way.clear()
    group.dead.add("r0")
    for _ in range(200):  # all time out of that view, each by itself
        group.tick(OTHERS)
        group.ask(OTHERS)
        group.deliver(nothing)
    assert group.run(OTHERS, everything, 60.0, lambda: all(group.replicas[name].executed for name in OTHERS))


def next_primary(batch: bytes) -> ByHand:
    """R1 knows of a quorum's view changes that carry on a batch which it does not have."""
    group, name = ByHand(), compute_digest(batch)
    group.replicas["r1"]._views.leave(1)
    group.take("r1")
    for by in ("r0", "r2"):
        group.step(by, "r1", change(by, name, prepared=True))
    return group


def sent(group: ByHand, kind: type[Message]) -> list[Message]:
    return [message for _, to, message in group.under_way if isinstance(message, kind) and to == "r2"]


def test_a_new_primary_fetches_what_it_carries_on_before_it_announces_the_view() -> None:
    batch = encode_body_of_one()
    group = next_primary(batch)
    assert (sent(group, NewView), sent(group, FetchBatch)) == ([], [FetchBatch(compute_digest(batch))])
    group.step("r3", "r1", BatchContent(NULL_BATCH))
    assert not group.replicas["r1"].core.active
    group.step("r3", "r1", BatchContent(batch))
    assert len(sent(group, NewView)) == 1
    assert records.Accepted(1, 1, compute_digest(batch), batch) in group.written["r1"]


def test_a_new_primary_asks_again_for_what_it_lacks() -> None:
    group = next_primary(encode_body_of_one())
    group.under_way.clear()
    group.now += 0.2
    group.tick(["r1"])
    assert len(sent(group, FetchBatch)) == 1


def encode_body_of_one() -> bytes:
    group = ByHand()
    return group.replicas["r0"].core.log.batches[first_proposal(group)]


def test_a_new_primary_fetches_the_state_before_it_announces_the_view() -> None:
    """A view that begins behind a checkpoint which its primary has not reached: its vote would be for nothing."""
    group = ByHand()
    state = _state_at(4, group)
    proof = _proof(state, 4)
    group.replicas["r1"]._views.leave(1)
    group.take("r1")
    for by in ("r0", "r2"):
        body = ViewChangeBody(0, 1, by, proof, (), ())
        data = encode_body(body)
        group.step(by, "r1", ViewChange(data, identity(by).sign(VIEW_CHANGE, CLUSTER, data)))
    assert sent(group, NewView) == []
    core = group.replicas["r1"].core
    executed = core.executed
    group.replicas["r1"]._executor.adopt(proof, state)
    assert (executed, core.executed) == (0, 4)
    group.replicas["r1"]._views.progressed()
    group.take("r1")
    assert len(sent(group, NewView)) == 1


def _state_at(sequence: int, group: ByHand) -> GroupSnapshot:
    core = group.replicas["r0"].core
    return take_snapshot(Header(sequence, 0, group.members, 0), core.clients, Chain().snapshot())


def _proof(state: GroupSnapshot, sequence: int) -> StableProof:
    members = Group(ByHand().members)
    votes = {name: sign_checkpoint(identity(name), members, sequence, state.digest) for name in members.names[1:]}
    return StableProof(0, sequence, state.digest, {name: vote.signature for name, vote in votes.items()})


def test_a_primary_that_lost_what_it_accepted_leaves_its_view_after_the_crash() -> None:
    """Torn between "entered" and what was accepted there: nobody heard of the view, and nobody may."""
    batch = encode_body_of_one()
    group = next_primary(batch)
    group.step("r3", "r1", BatchContent(batch))
    written = group.written["r1"]
    at = next(place for place, entry in enumerate(written) if isinstance(entry, records.Entered))
    assert any(isinstance(entry, records.Accepted) for entry in written[at:])
    group.under_way.clear()
    group.replicas["r1"] = group.start("r1", written[: at + 1])
    group.take("r1")
    core = group.replicas["r1"].core
    assert (core.view, core.active, sent(group, NewView)) == (2, False, [])
    assert records.ViewLeft(2) in group.written["r1"]


def test_a_backup_that_lost_what_it_accepted_takes_it_up_after_the_crash() -> None:
    batch = encode_body_of_one()
    group = next_primary(batch)
    group.step("r3", "r1", BatchContent(batch))
    (proof,) = sent(group, NewView)
    backup = group.start("r2", [records.Accepted(0, 1, compute_digest(batch), batch), records.Entered(proof)])  # type: ignore[arg-type]
    assert Prepare(0, 1, 1, compute_digest(batch)) in [message for _, message in backup.ready().messages]
