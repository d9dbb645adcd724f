"""Checkpoints: signed votes for a state, and the proof that makes one stable.

Rule: a state that is proven stable was reached by an honest replica, so any replica may adopt it and drop the log below
it. The proof names its epoch: the last checkpoint of an epoch is signed by its members and taken over by those of the
next one.
"""

from collections.abc import Sequence

from dwcp_migrate.consensus.pbft.model.keys import CHECKPOINT, SigningIdentity, is_signed
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import Checkpoint, StableProof

CHECKPOINTS_MAX = 4
"""Votes kept for each replica: it may be ahead of us by the window, which is two checkpoints."""


def statement(epoch: int, sequence: int, digest: bytes) -> bytes:
    """Lay out the bytes that a checkpoint's signature covers.

    Args:
        epoch: of the members that sign.
        sequence: last sequence number that the state includes.
        digest: of the state, `snapshot.manifest_digest`.
    """
    return epoch.to_bytes(8, "big") + sequence.to_bytes(8, "big") + digest


def sign_checkpoint(identity: SigningIdentity, group: Group, sequence: int, digest: bytes) -> Checkpoint:
    """Vote for a state.

    Args:
        identity: this replica's key.
        group: members of its epoch.
        sequence: last sequence number that the state includes.
        digest: of the state, `snapshot.manifest_digest`.
    """
    data = statement(group.epoch, sequence, digest)
    return Checkpoint(group.epoch, sequence, digest, identity.sign(CHECKPOINT, group.cluster, data))


def is_vote(vote: Checkpoint, sender: str, group: Group) -> bool:
    """Tell whether a vote is of this epoch and signed by the member `sender`.

    Args:
        vote: as it came.
        sender: name of the replica that its channel proves.
        group: members of the current epoch.
    """
    key = group.keys.get(sender)
    if key is None or vote.epoch != group.epoch or not _may_sign(group, vote.sequence):
        return False
    data = statement(vote.epoch, vote.sequence, vote.digest)
    return is_signed(key, CHECKPOINT, group.cluster, data, vote.signature)


def is_proven(proof: StableProof, groups: Sequence[Group]) -> bool:
    """Tell whether a quorum of a known epoch's members signed this checkpoint; nothing at sequence 0 needs a proof.

    Args:
        proof: as it came.
        groups: groups whose signatures count.
    """
    if proof.sequence == 0:
        return not proof.digest and not proof.signatures
    for group in groups:
        if group.epoch == proof.epoch:
            break
    else:
        return False
    if not _may_sign(group, proof.sequence):
        return False
    if len(proof.signatures) < group.numbers.quorum or not proof.signatures.keys() <= group.keys.keys():
        return False
    data = statement(proof.epoch, proof.sequence, proof.digest)
    return all(
        is_signed(group.keys[name], CHECKPOINT, group.cluster, data, signature)
        for name, signature in proof.signatures.items()
    )


def _may_sign(group: Group, sequence: int) -> bool:
    """Tell whether a sequence number lies in a group's time: who left may not speak for later ones."""
    return group.until is None or sequence <= group.until


class Ballot:
    """Votes for checkpoints that are not stable yet."""

    def __init__(self) -> None:
        self._votes: dict[str, dict[int, Checkpoint]] = {}

    def add(self, sender: str, vote: Checkpoint) -> None:
        """Count a checked vote; a replica's oldest ones make room, a second one for a sequence is not counted.

        Args:
            sender: name of the voter.
            vote: for which `is_vote` is true.
        """
        votes = self._votes.setdefault(sender, {})
        votes.setdefault(vote.sequence, vote)
        while len(votes) > CHECKPOINTS_MAX:
            del votes[min(votes)]

    def proof(self, sequence: int, digest: bytes, group: Group) -> StableProof | None:
        """Make a proof if a quorum of the group voted for this state.

        Args:
            sequence: last sequence number that the state includes.
            digest: of the state, `snapshot.manifest_digest`.
            group: whose quorum counts; votes of another epoch do not.

        Returns:
            The proof; None as long as votes are missing.
        """
        signatures = {}
        for name in group.names:
            vote = self._votes.get(name, {}).get(sequence)
            if vote is not None and vote.digest == digest and vote.epoch == group.epoch:
                signatures[name] = vote.signature
        if len(signatures) < group.numbers.quorum:
            return None
        return StableProof(group.epoch, sequence, digest, signatures)

    def vote_of(self, name: str, above: int) -> list[Checkpoint]:
        """List a replica's votes above a sequence number.

        Args:
            name: of the replica.
            above: a sequence number; votes for it or lower ones are left out.
        """
        return [vote for sequence, vote in self._votes.get(name, {}).items() if sequence > above]

    def drop(self, stable: int) -> None:
        """Forget votes up to the stable checkpoint."""
        for votes in self._votes.values():
            for sequence in [kept for kept in votes if kept <= stable]:
                del votes[sequence]
