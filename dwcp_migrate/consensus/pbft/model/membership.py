"""Membership: the members of one epoch, and the group that a replica works with.

Rule: an epoch is one membership. It changes only by an operation that the epoch before agreed on, alone in its batch,
and a checkpoint is taken there, signed by the old members: so the new membership is proven by the old one.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.consensus.pbft.model.keys import CLUSTER_BYTES, PUBLIC_KEY_BYTES
from dwcp_migrate.consensus.pbft.model.quorum import REPLICAS_MAX, Quorum, quorum_of

CLIENTS_MAX: Final = 1024
"""Hosts that may ask for decisions: a large fleet."""
NAME_BYTES_MAX: Final = 253
"""A DNS name, RFC 1035."""

Name = Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
PublicKey = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A member or client of a group.

    Attributes:
        name: the DNS name in its certificate.
        key: its Ed25519 public key.
        operator: may change the membership.
    """

    name: Name
    key: PublicKey
    operator: bool = False


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """The members of one epoch.

    Attributes:
        cluster: random name of the cluster, in every signature.
        epoch: counts memberships, from 0.
        replicas: in the order in which they become primary.
        clients: who may ask; replicas are no clients unless they stand here too.
    """

    cluster: Annotated[bytes, Meta(min_length=CLUSTER_BYTES, max_length=CLUSTER_BYTES)]
    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    replicas: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=REPLICAS_MAX)]
    clients: Annotated[tuple[Member, ...], Meta(max_length=CLIENTS_MAX)]


class Group:
    """A membership with what follows from it at hand.

    Args:
        membership: of one epoch.
        since: sequence number of the operation that began the epoch; 0 for the first.

    Attributes:
        until: sequence number of the operation that ended it; None as long as none is known.

    Raises:
        ValueError: two members of one kind share a name.
    """

    def __init__(self, membership: Membership, since: int = 0) -> None:
        self.membership = membership
        self.since = since
        self.until: int | None = None
        self.cluster = membership.cluster
        self.epoch = membership.epoch
        self.names = tuple(member.name for member in membership.replicas)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.keys = {member.name: member.key for member in membership.replicas}
        self.clients = {member.name: member for member in membership.clients}
        self.numbers: Quorum = quorum_of(len(self.names))
        if len(self.keys) != len(self.names) or len(self.clients) != len(membership.clients):
            raise ValueError("two members share a name")

    def primary(self, view: int) -> str:
        """Name the primary of a view."""
        return self.names[view % len(self.names)]
