"""Verification of a link between memberships: the members of the old epoch sign the state that names the new ones.

Rule: the one place that says when a link holds, for replicas and for hosts that only keep the chain. The checkpoint at
which an epoch begins is the last one of the epoch before; its header names the new members, and a quorum of the old
ones has signed it.
"""

from typing import Final

from dwcp_migrate.consensus.pbft.model.checkpoints import is_proven
from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import BROKEN, EpochLink
from dwcp_migrate.consensus.pbft.model.snapshot import Header, manifest_digest, read_header
from dwcp_migrate.errors import EpochError

LINKS_MAX: Final = 64
"""Links that a replica or a host keeps; a fleet changes its membership a few times a year."""


def verify_link(link: EpochLink, old: Group) -> Header:
    """Verify a link by the keys of the group that it starts from.

    Args:
        link: as it came.
        old: the group of the link's epoch.

    Returns:
        The header of the state that begins the next epoch.

    Raises:
        EpochError: it does not hold.
    """
    if manifest_digest(link.parts) != link.proof.digest or compute_digest(link.header) != link.parts[0]:
        raise EpochError(f"link from epoch {old.epoch}: its header is not what the proof is about")
    if not link.proof.sequence or not is_proven(link.proof, (old,)):
        raise EpochError(f"link from epoch {old.epoch}: no quorum of its members signed it")
    header = read_successor(link)
    if header.membership.cluster != old.cluster:
        raise EpochError(f"link from epoch {old.epoch}: it names a membership of another cluster")
    return header


def read_successor(link: EpochLink) -> Header:
    """Read the header of a link whose proof is believed.

    Raises:
        EpochError: it names no group, not the next epoch, or is not the last state of the epoch before.
    """
    epoch = link.proof.epoch
    try:
        header = read_header(link.header)
        Group(header.membership, header.since)
    except (*BROKEN, ValueError) as error:
        raise EpochError(f"link from epoch {epoch}: its header is none: {error}") from error
    if header.membership.epoch != epoch + 1:
        raise EpochError(f"link from epoch {epoch}: it names epoch {header.membership.epoch}, not the next one")
    if not header.since == header.sequence == link.proof.sequence:
        raise EpochError(f"link from epoch {epoch}: its state is not the epoch's last")
    return header
