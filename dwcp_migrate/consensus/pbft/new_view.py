"""Content of a new view: derived from a quorum's signed view changes, equally by every replica.

Rule: what was committed anywhere is carried on. The normal path has no signatures, so a prepared batch cannot be
proven; instead each view change says what its sender prepared (P) and what it accepted (Q), each with its last view,
and the decision of TOCS 2002, section 4.4, finds for each sequence number the one batch that may have been committed:

    a batch d, prepared in view v by some sender, is carried on if
      A1  a quorum prepared nothing there that is newer than v or different in v, and
      A2  `weak` senders accepted d there in v or later: an honest replica vouches that it is genuine, and has it
    an empty batch is carried on if a quorum prepared nothing there
    otherwise these view changes do not decide: wait for more of them

The view changes are signed, so the new primary proves its choice by showing them, and each replica repeats the
decision.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dwcp_migrate.consensus.pbft.model.checkpoints import is_proven
from dwcp_migrate.consensus.pbft.model.keys import VIEW_CHANGE, is_signed
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    NULL_DIGEST,
    StableProof,
    ViewChange,
    ViewChangeBody,
    decode_view_change_body,
)
from dwcp_migrate.consensus.pbft.model.quorum import Quorum


class NewViewChoice(NamedTuple):
    """Starting point of a new view.

    Attributes:
        stable: the newest proven checkpoint among the view changes.
        digests: batch for each sequence number after it, without a gap.
    """

    stable: StableProof
    digests: dict[int, bytes]


def check(change: ViewChange, groups: Sequence[Group], window: int) -> ViewChangeBody | None:
    """Read a view change and hold it against everything that an honest sender keeps.

    Args:
        change: as it came.
        groups: the current group, then older ones whose checkpoints still count.
        window: sequence numbers between the watermarks.

    Returns:
        Its body; None if it is not signed by the member that it names, of another epoch, or breaks a rule.
    """
    group = groups[0]
    body = decode_view_change_body(change.body)
    if body is None or body.epoch != group.epoch or body.replica not in group.keys:
        return None
    if not is_signed(group.keys[body.replica], VIEW_CHANGE, group.cluster, change.body, change.signature):
        return None
    if not is_proven(body.stable, groups):
        return None
    lowest, highest = body.stable.sequence + 1, body.stable.sequence + window
    numbers = [entry.sequence for entry in body.prepared], [entry.sequence for entry in body.seen]
    if any(len(set(kind)) != len(kind) for kind in numbers):
        return None
    if not all(lowest <= sequence <= highest for kind in numbers for sequence in kind):
        return None
    views = [entry.view for entry in body.prepared] + [view for entry in body.seen for view in entry.views.values()]
    return body if all(view < body.view for view in views) else None


def select(bodies: Iterable[ViewChangeBody], numbers: Quorum) -> NewViewChoice | None:
    """Decide what a new view carries on.

    Args:
        bodies: checked view changes for one view, of different replicas.
        numbers: of their group.

    Returns:
        The choice; None if these view changes are too few or do not decide.
    """
    changes = list(bodies)
    if len(changes) < numbers.quorum:
        return None
    stable = max((change.stable for change in changes), key=lambda proof: (proof.sequence, proof.digest))
    prepared = [{entry.sequence: (entry.view, entry.digest) for entry in change.prepared} for change in changes]
    seen = [{entry.sequence: entry.views for entry in change.seen} for change in changes]
    last = max((sequence for held in prepared for sequence in held), default=0)
    digests: dict[int, bytes] = {}
    for sequence in range(stable.sequence + 1, last + 1):
        digest = _select_one(
            [held.get(sequence) for held in prepared], [held.get(sequence, {}) for held in seen], numbers
        )
        if digest is None:
            return None
        digests[sequence] = digest
    return NewViewChoice(stable, digests)


def _select_one(
    prepared: list[tuple[int, bytes] | None], seen: list[dict[bytes, int]], numbers: Quorum
) -> bytes | None:
    """Decide one sequence number; each list has one entry a sender."""
    held = [entry for entry in prepared if entry is not None]
    for view, digest in sorted(set(held), reverse=True):
        agree = len(prepared) - sum(entry[0] > view or (entry[0] == view and entry[1] != digest) for entry in held)
        vouch = sum(views.get(digest, -1) >= view for views in seen)
        if agree >= numbers.quorum and vouch >= numbers.weak:
            return digest
    return NULL_DIGEST if len(prepared) - len(held) >= numbers.quorum else None
