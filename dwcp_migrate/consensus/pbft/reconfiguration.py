"""Rules for a change of membership: which new membership may follow the present one.

Rule: an operator asks, the epoch grows by one, the cluster stays. Executed on all replicas alike, so a refusal is an
answer like any other.
"""

from typing import Final

import msgspec

from dwcp_migrate.consensus.pbft.model.membership import Group, Membership
from dwcp_migrate.consensus.pbft.model.messages import BROKEN, OPERATION_BYTES_MAX, RequestBody, encode_body

ACCEPTED: Final = b"accepted"
NOT_ALLOWED: Final = b"refused: not an operator"
NOT_A_MEMBERSHIP: Final = b"refused: not a membership"
NOT_NEXT: Final = b"refused: not the next epoch of this cluster"

_membership = msgspec.msgpack.Decoder(Membership)


def encode_membership(membership: Membership) -> bytes:
    """Make the operation that proposes a membership.

    Raises:
        ValueError: past `OPERATION_BYTES_MAX`.
    """
    data = encode_body(membership)
    if len(data) > OPERATION_BYTES_MAX:
        raise ValueError(f"membership of {len(data)} bytes, at most {OPERATION_BYTES_MAX}")
    return data


def next_membership(group: Group, body: RequestBody) -> tuple[Membership | None, bytes]:
    """Judge a proposal.

    Args:
        group: the present members.
        body: the request, authenticated.

    Returns:
        The membership that follows, or None; and the answer to the operator.
    """
    member = group.clients.get(body.client)
    if member is None or not member.operator:
        return None, NOT_ALLOWED
    try:
        membership = _membership.decode(body.operation)
        Group(membership)
    except (*BROKEN, ValueError):
        return None, NOT_A_MEMBERSHIP
    if membership.epoch != group.epoch + 1 or membership.cluster != group.cluster:
        return None, NOT_NEXT
    return membership, ACCEPTED
