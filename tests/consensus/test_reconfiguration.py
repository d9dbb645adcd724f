"""Who may change the members, into what."""

import msgspec
import pytest

from dwcp_migrate.consensus.membership import Group, Member, Membership
from dwcp_migrate.consensus.messages import OPERATION_BYTES_MAX, RequestBody, encode_body
from dwcp_migrate.consensus.reconfiguration import (
    ACCEPTED,
    NOT_A_MEMBERSHIP,
    NOT_ALLOWED,
    NOT_NEXT,
    encode_membership,
    next_membership,
)
from tests.consensus.members import member, membership

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
