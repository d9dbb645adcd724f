"""Elections: when a replica stands for leader, and whether it would vote for another (pre-vote).

The rule: Raft's safety is the library's and does not depend on anything here; this decides only which replica asks
when.

    a vote is asked for beforehand (`PreVote`), so that a replica that was cut off does not depose a leader that works
    a lost connection to the leader brings the election forward: a dead process is noticed at once
    then the voters take turns, `TURN_S` apart in the order of their names, and one that has promised its vote lets
    the other try first: when all of them ask at once, each holds its own vote and none wins
    a voter that is asked before it has noticed the loss itself answers when it has
"""

import random
from collections.abc import Iterable
from typing import Final, Protocol

from dwcp_migrate.state.raft import messages

TURN_S: Final = 0.01
"""Between the turns of two voters; a round of questions takes 2 to 8 ms with eleven replicas on two cores."""

RETRY_S: Final = 0.03
"""Least wait for another attempt after one that failed, and what a promise gives the other one; the most is thrice."""

NEVER: Final = float("-inf")


class Candidate(Protocol):
    """The replica that may stand; attributes as of `replica.RaftReplica` and `pysyncobj.Raft`."""

    name: str
    deadline: float

    @property
    def voters(self) -> set[str]:
        """Members with a vote."""

    @property
    def term(self) -> int:
        """Current term."""

    @property
    def last(self) -> tuple[int, int]:
        """Index and term of the log's end."""

    @property
    def leads(self) -> bool:
        """Tell whether it leads now."""

    def timeout_s(self) -> float:
        """Draw an election timeout."""

    def tell(self, names: Iterable[str], message: messages.Message) -> None:
        """Send a message to hosts.

        Args:
            names: of the hosts; those that are not connected are left out.
            message: the same to all.
        """


class Elections:
    """The questions of one replica.

    Args:
        candidate: see there.
        election_s: shortest time without a leader's word before an election.
    """

    def __init__(self, candidate: Candidate, election_s: float) -> None:
        self._candidate = candidate
        self._election_s = election_s
        self._heard_at = NEVER
        self._promised: set[str] | None = None
        self._unanswered: dict[str, messages.PreVote] = {}
        self._won = self._campaigning = False

    def heard(self, now: float) -> None:
        """Note a message from the leader of this term."""
        self._heard_at = now
        self._unanswered.clear()

    def lost(self, leader: str, now: float) -> None:
        """Note that the connection to the leader broke.

        Args:
            leader: its name.
            now: seconds of `pysyncobj.clock`.
        """
        candidate = self._candidate
        self._heard_at = NEVER
        turn = sorted(candidate.voters - {leader}).index(candidate.name) if candidate.name in candidate.voters else 0
        candidate.deadline = min(candidate.deadline, now + turn * TURN_S)
        unanswered, self._unanswered = self._unanswered, {}
        for name, question in unanswered.items():
            self.asked(name, question, now)

    def consider(self, now: float) -> None:
        """Ask beforehand whether an election would be won; the library holds it once the deadline has passed."""
        candidate = self._candidate
        if candidate.name not in candidate.voters or candidate.leads or candidate.deadline > now:
            return
        if self._won or len(candidate.voters) == 1:
            self._won, self._promised, self._campaigning = False, None, True
            return
        self._promised = {candidate.name}
        self.put_off(now)
        index, term = candidate.last
        question = messages.PreVote(term=candidate.term, last_index=index, last_term=term)
        candidate.tell(sorted(candidate.voters - {candidate.name}), question)

    def settle(self, now: float, *, has_failed: bool) -> None:
        """Note that the library has held the election that `consider` allowed, if it did.

        Args:
            now: seconds of `pysyncobj.clock`.
            has_failed: this replica is still a candidate.
        """
        if self._campaigning and has_failed:
            self.put_off(now)
        self._campaigning = False

    def put_off(self, now: float) -> None:
        """Set the next deadline: soon, when the connection to the leader is lost."""
        soon = random.uniform(1, 3) * RETRY_S  # noqa: S311 - spreads, hides nothing
        self._candidate.deadline = now + (soon if self._heard_at == NEVER else self._candidate.timeout_s())

    def asked(self, name: str, question: messages.PreVote, now: float) -> None:
        """Answer a host that asks for a promise: now, later, or not at all.

        Args:
            name: of the host.
            question: term and end of its log.
            now: seconds of `pysyncobj.clock`.
        """
        candidate = self._candidate
        if question.term < candidate.term:
            candidate.tell([name], messages.Stale(term=candidate.term))
            return
        index, term = candidate.last
        if candidate.leads or (question.last_term, question.last_index) < (term, index):
            return
        if now - self._heard_at <= self._election_s:
            self._unanswered[name] = question
            return
        if not self._won:
            candidate.deadline = max(candidate.deadline, now + RETRY_S)
        candidate.tell([name], messages.PreVoted(term=candidate.term, asked=question.term))

    def promised(self, name: str, answer: messages.PreVoted) -> None:
        """Count a promise; with a majority of them the election is due at once.

        Args:
            name: of the host.
            answer: one to a question of another term does not count.
        """
        candidate = self._candidate
        if self._promised is None or answer.asked != candidate.term or candidate.leads:
            return
        self._promised.add(name)
        if len(self._promised & candidate.voters) * 2 > len(candidate.voters):
            self._won, self._promised = True, None
            candidate.deadline = 0
