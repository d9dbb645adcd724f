"""Budget of signature checks for each peer: the processor time that one peer may cost a replica.

Rule: checking a signature takes 72 us, thirty times as long as anything else that a message asks for, and a peer that
may connect can send as many messages as it likes. So each peer has a budget that honest ones do not use up; messages
past it are dropped unread. The protocol repeats everything.
"""

from typing import Final

from dwcp_migrate.consensus.pbft.model.messages import (
    Checkpoint,
    EpochLink,
    Message,
    NewView,
    Request,
    StableCheckpoint,
    StateManifest,
    ViewChange,
)

CHECKS_PER_S: Final = 256
"""For each peer: 2 % of a processor. A client's requests are signed only when they are sent again."""
CHECKS_SAVED_MAX: Final = 1024
"""At once: what a client has under way, when all of it is sent again; a new view's proofs, several times."""


class CheckBudget:
    """The budget of one peer.

    Args:
        members: of the group; a proof has a signature of each, a new view a proof of each.
        now: monotonic seconds.
    """

    def __init__(self, members: int, now: float) -> None:
        self._members = members
        self._rate = CHECKS_PER_S + members * members
        self._saved_max = CHECKS_SAVED_MAX + 4 * members * members
        self._saved = float(self._saved_max)
        self._at = now
        self.dropped = 0

    def allows(self, message: Message, now: float) -> bool:
        """Pay for a message; False if there is nothing left: it is to be dropped.

        Args:
            message: from the peer, decoded and not yet looked at.
            now: monotonic seconds, not less than in the call before.
        """
        cost = self._cost(message)
        if not cost:
            return True
        self._saved = min(self._saved_max, self._saved + (now - self._at) * self._rate)
        self._at = now
        if self._saved < cost:
            self.dropped += 1
            return False
        self._saved -= cost
        return True

    def _cost(self, message: Message) -> int:
        """Count the signatures that a message may make this replica check."""
        match message:
            case Request():
                return 1 if message.signature else 0
            case Checkpoint():
                return 1
            case ViewChange():
                return 1 + self._members
            case NewView():
                return 1 + len(message.changes) * (1 + self._members)
            case StableCheckpoint() | StateManifest() | EpochLink():
                return self._members
        return 0
