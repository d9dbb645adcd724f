"""Who may change the members, into what."""

import msgspec
import pytest

from dwcp_migrate.consensus import Options, PbftClient, PbftReplica
from dwcp_migrate.consensus.pbft.model.checkpoints import sign_checkpoint
from dwcp_migrate.consensus.pbft.model.membership import Group, Member, Membership
from dwcp_migrate.consensus.pbft.model.messages import (
    OPERATION_BYTES_MAX,
    Batch,
    Prepare,
    PrePrepare,
    Request,
    RequestBody,
    StableProof,
    encode_body,
)
from dwcp_migrate.consensus.pbft.reconfiguration import (
    ACCEPTED,
    NOT_A_MEMBERSHIP,
    NOT_ALLOWED,
    NOT_NEXT,
    encode_membership,
    next_membership,
)
from tests.consensus.epoch_links import state
from tests.consensus.members import Chain, identity, member, membership

NOW = membership(4)
NEXT = membership(5, epoch=1)


def judge(operation: bytes, client: str = "op") -> tuple[Membership | None, bytes]:
    return next_membership(Group(NOW), RequestBody(client, 0, 1, operation, reconfigure=True))


def test_the_next_epoch_by_an_operator_is_accepted() -> None:
    assert judge(encode_membership(NEXT)) == (NEXT, ACCEPTED)


@pytest.mark.parametrize("client", ["c0", "r0", "nobody"])
def test_nobody_else_may(client: str) -> None:
    assert judge(encode_membership(NEXT), client) == (None, NOT_ALLOWED)


@pytest.mark.parametrize("change", [{"epoch": 0}, {"epoch": 2}, {"cluster": bytes(16)}])
def test_another_epoch_or_cluster_is_refused(change: dict[str, object]) -> None:
    assert judge(encode_membership(msgspec.structs.replace(NEXT, **change))) == (None, NOT_NEXT)


@pytest.mark.parametrize(
    "operation",
    [
        b"",
        b"\xc1",
        encode_body(msgspec.structs.replace(NEXT, replicas=())),
        encode_body(msgspec.structs.replace(NEXT, replicas=(member("a"), member("a")))),
        encode_body(msgspec.structs.replace(NEXT, clients=(member("a"), member("a")))),
    ],
)
def test_what_is_no_membership_is_refused(operation: bytes) -> None:
    assert judge(operation) == (None, NOT_A_MEMBERSHIP)


def test_a_membership_must_fit_into_one_operation() -> None:
    clients = tuple(Member(f"client-{at:06}.example", bytes(32)) for at in range(800))
    assert len(encode_membership(msgspec.structs.replace(NEXT, clients=clients))) <= OPERATION_BYTES_MAX
    with pytest.raises(ValueError, match="at most"):
        encode_membership(msgspec.structs.replace(NEXT, clients=clients * 2))


def pre_prepare_of(request: Request) -> PrePrepare:
    return PrePrepare(0, 0, 1, encode_body(Batch(1_000_000, (request,))))


@pytest.mark.parametrize("key", ["r1", "new r1"])
def test_who_is_named_with_another_key_follows_and_does_not_vote(key: str) -> None:
    of = PbftClient("c0", identity("c0"), NOW, first_number=1, retry_s=0.0)
    of.submit(b"x", 0.0)
    of.tick(0.0)
    request = of.ready()[0][-1][1]
    replica = PbftReplica("r1", identity(key), NOW, Chain(), Options())
    replica.set_clock(1000.0, 0.0)
    replica.step("r0", pre_prepare_of(request), 0.0)
    votes = [message for _, message in replica.ready().messages if isinstance(message, Prepare)]
    assert len(votes) == (1 if key == "r1" else 0)


@pytest.mark.parametrize("key", ["r0", "new r0"])
def test_who_is_named_with_another_key_does_not_propose(key: str) -> None:
    of = PbftClient("c0", identity("c0"), NOW, first_number=1, retry_s=0.0)
    of.submit(b"x", 0.0)
    of.tick(0.0)
    replica = PbftReplica("r0", identity(key), NOW, Chain(), Options())
    replica.set_clock(1000.0, 0.0)
    replica.step("c0", of.ready()[0][-1][1], 0.0)
    proposals = [message for _, message in replica.ready().messages if isinstance(message, PrePrepare)]
    assert len(proposals) == (1 if key == "r0" else 0)


def test_a_host_that_starts_in_a_later_epoch_learns_since_when_it_holds() -> None:
    replica = PbftReplica("r9", identity("r9"), NEXT, Chain(), Options())
    taken = state(NEXT, 40, since=7)
    votes = {f"r{at}": sign_checkpoint(identity(f"r{at}"), Group(NEXT), 40, taken.digest).signature for at in range(4)}
    replica._executor.adopt(StableProof(1, 40, taken.digest, votes), taken)
    assert (replica.executed, replica.core.group.since) == (40, 7)
    assert replica.membership == NEXT
