"""Links between memberships for tests: real states, real signatures; keys follow from names."""

from collections.abc import Sequence

from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate, sign_decision
from dwcp_migrate.consensus.pbft.model.checkpoints import sign_checkpoint
from dwcp_migrate.consensus.pbft.model.client_table import ClientTable
from dwcp_migrate.consensus.pbft.model.membership import Group, Membership
from dwcp_migrate.consensus.pbft.model.messages import EpochLink, StableProof
from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot, Header, take_snapshot
from tests.consensus.members import Chain, identity

ENDED_MS = 1_000_000
"""The group's clock at the end of every epoch."""


def state(new: Membership, sequence: int, *, since: int | None = None) -> GroupSnapshot:
    header = Header(sequence, ENDED_MS, new, sequence if since is None else since)
    return take_snapshot(header, ClientTable(), Chain().snapshot())


def link(
    old: Membership, new: Membership, sequence: int, *, signers: Sequence[str] = (), since: int | None = None
) -> EpochLink:
    """The members of `old` sign that `new` follows; all of them unless `signers` are named."""
    taken, group = state(new, sequence, since=since), Group(old)
    names = signers or group.names
    votes = {name: sign_checkpoint(identity(name), group, sequence, taken.digest).signature for name in names}
    return EpochLink(StableProof(old.epoch, sequence, taken.digest, votes), taken.parts, taken.header)


def certificate(members: Membership, sequence: int, result: bytes = b"result") -> DecisionCertificate:
    group = Group(members)
    empty = DecisionCertificate(group.cluster, group.epoch, sequence, "c0", 1, result, {})
    signatures = {name: sign_decision(identity(name), group, empty) for name in group.names}
    return DecisionCertificate(group.cluster, group.epoch, sequence, "c0", 1, result, signatures)
