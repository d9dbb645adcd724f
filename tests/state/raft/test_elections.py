"""When a replica stands and whom it lets try first; time is a number."""

from collections.abc import Iterable

import pytest

from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.elections import RETRY_S, TURN_S, Elections

ELECTION_S = 0.3
NOW = 1000.0


class Voter:
    """One of five, in term 4, following "a"."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.voters = set("abcde")
        self.term = 4
        self.last = (9, 4)
        self.leads = False
        self.deadline = NOW + ELECTION_S
        self.said: list[tuple[str, messages.Message]] = []
        self.elections = Elections(self, ELECTION_S)
        self.elections.heard(NOW)

    def timeout_s(self) -> float:
        return 2 * ELECTION_S

    def tell(self, names: Iterable[str], message: messages.Message) -> None:
        self.said += [(name, message) for name in names]


QUESTION = messages.PreVote(term=4, last_index=9, last_term=4)
PROMISE = messages.PreVoted(term=4, asked=4)


def test_voters_take_turns_when_the_leaders_connection_breaks() -> None:
    deadlines = []
    for name in "bcde":
        voter = Voter(name)
        voter.elections.lost("a", NOW)
        deadlines.append(voter.deadline)
    assert deadlines == pytest.approx([NOW + turn * TURN_S for turn in range(4)])


def test_it_asks_all_others_and_stands_once_a_majority_has_promised() -> None:
    voter = Voter("b")
    voter.elections.lost("a", NOW)
    voter.elections.consider(NOW)
    assert voter.said == [(name, QUESTION) for name in "acde"]
    assert NOW + RETRY_S <= voter.deadline <= NOW + 3 * RETRY_S
    voter.elections.promised("c", PROMISE)
    assert voter.deadline > NOW
    voter.elections.promised("c", PROMISE)
    assert voter.deadline > NOW
    voter.elections.promised("d", PROMISE)
    assert voter.deadline == 0
    voter.elections.consider(NOW)
    voter.elections.settle(NOW, has_failed=True)
    assert voter.deadline > NOW


def test_who_has_promised_lets_the_other_one_try_first() -> None:
    voter = Voter("c")
    voter.elections.lost("a", NOW)
    voter.elections.asked("b", QUESTION, NOW)
    assert voter.said == [("b", messages.PreVoted(term=4, asked=4))]
    assert voter.deadline == pytest.approx(NOW + RETRY_S)


def test_a_question_that_came_before_the_loss_was_noticed_is_answered_then() -> None:
    voter = Voter("c")
    voter.elections.asked("b", QUESTION, NOW)
    assert voter.said == []
    voter.elections.lost("a", NOW + 0.001)
    assert voter.said == [("b", PROMISE)]


def test_a_leader_that_speaks_makes_the_question_void() -> None:
    voter = Voter("c")
    voter.elections.asked("b", QUESTION, NOW)
    voter.elections.heard(NOW + 0.01)
    voter.elections.lost("a", NOW + 0.02)
    assert voter.said == []


def test_silence_for_an_election_timeout_is_enough_to_promise_and_no_less() -> None:
    voter = Voter("c")
    voter.elections.asked("b", QUESTION, NOW + ELECTION_S)
    assert voter.said == []
    voter.elections.asked("b", QUESTION, NOW + ELECTION_S + 0.001)
    assert voter.said == [("b", PROMISE)]


def test_a_promise_of_another_term_and_a_host_without_a_vote_count_nothing() -> None:
    voter = Voter("b")
    voter.elections.lost("a", NOW)
    voter.elections.consider(NOW)
    for name, promise in (("x", PROMISE), ("y", PROMISE), ("c", messages.PreVoted(term=4, asked=3))):
        voter.elections.promised(name, promise)
    assert voter.deadline > NOW


def test_who_has_no_vote_asks_nobody() -> None:
    voter = Voter("x")
    voter.elections.lost("a", NOW)
    voter.elections.consider(NOW + 10)
    assert voter.said == []
