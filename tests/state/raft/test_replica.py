"""A replica by itself: what it does with messages that a network, a peer or a bug may bring."""

import errno
import os
import ssl
from pathlib import Path

import pytest

from dwcp_migrate.errors import JournalError, RemoteProtocolError
from dwcp_migrate.state.fleet import commands
from dwcp_migrate.state.fleet.commands import Command, PutHost
from dwcp_migrate.state.fleet.fleet_clock import SKEW_S
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.message_guard import UNVOTED_TERMS_MAX
from dwcp_migrate.state.raft.peer_connections import READ, WRITE, PeerConnection
from tests.state.raft.lone import Lone, entry


def test_entries_are_taken_and_acknowledged(lone: Lone) -> None:
    assert lone.append((1, 0), entry(2, 1), entry(3, 1)) == messages.Ack(
        term=1, next_index=4, reset=False, success=True
    )
    assert lone.log == [(1, 0), (2, 1), (3, 1)]


def test_an_append_that_comes_again_or_starts_earlier_takes_nothing_back(lone: Lone) -> None:
    lone.append((1, 0), entry(2, 1), entry(3, 1), entry(4, 1))
    assert lone.append((1, 0), entry(2, 1)).next_index == 3
    assert lone.append((2, 1)).next_index == 3
    assert lone.append((1, 0), entry(2, 1), entry(3, 1)).next_index == 4
    assert lone.log == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert lone.append((2, 1), entry(3, 1), entry(4, 1), entry(5, 1)).next_index == 6
    assert lone.log[-1] == (5, 1)


def test_a_conflict_cuts_the_log_back_to_it(lone: Lone) -> None:
    lone.append((1, 0), entry(2, 1), entry(3, 1), entry(4, 1))
    assert lone.append((2, 1), entry(3, 2), term=2).next_index == 4
    assert lone.log == [(1, 0), (2, 1), (3, 2)]


def test_what_lies_behind_a_heartbeat_is_neither_acknowledged_nor_committed(lone: Lone) -> None:
    lone.append((1, 0), entry(2, 1), entry(3, 1), entry(4, 1))
    assert lone.append((2, 1), term=2, commit=4).next_index == 3
    assert lone.replica.commit_index == 2


def test_a_gap_is_answered_with_where_to_begin(lone: Lone) -> None:
    assert lone.append((5, 1), entry(6, 1)) == messages.Ack(term=1, next_index=2, reset=True, success=False)


def test_a_leader_of_the_past_is_told(lone: Lone) -> None:
    lone.append((1, 0), term=5)
    answer = lone.hears("c", messages.Append(term=4, commit=1, previous_index=1, previous_term=0))
    assert answer == [messages.Stale(term=5)]
    assert lone.hears("c", messages.RaftSnapshot(term=4, commit=1, data=b"", first=True, last=False)) == [
        messages.Stale(term=5)
    ]


def test_a_term_that_a_host_without_a_vote_claims_is_believed_once_in_a_while_and_within_a_limit(lone: Lone) -> None:
    lone.leads()
    lone.hears("observer", messages.Stale(term=1 + UNVOTED_TERMS_MAX + 1))
    assert (lone.replica.state, lone.replica.term) == ("leader", 1)
    lone.hears("observer", messages.Stale(term=1 + UNVOTED_TERMS_MAX))
    assert (lone.replica.state, lone.replica.term) == ("follower", 1 + UNVOTED_TERMS_MAX)
    lone.hears("observer", messages.Ack(term=2 + UNVOTED_TERMS_MAX, next_index=2, reset=True, success=False))
    assert lone.replica.term == 1 + UNVOTED_TERMS_MAX
    lone.hears("b", messages.Stale(term=2**20))
    assert lone.replica.term == 2**20


def test_who_hears_a_leader_does_not_promise_its_vote(lone: Lone) -> None:
    asked = messages.PreVote(term=1, last_index=9, last_term=1)
    assert lone.hears("c", asked) == [messages.PreVoted(term=0, asked=1)]
    lone.append((1, 0))
    assert lone.hears("c", asked) == []
    lone.replica.down("b")
    assert lone.hears("c", asked) == [messages.PreVoted(term=1, asked=1)]
    assert lone.hears("c", messages.PreVote(term=0, last_index=9, last_term=1)) == [messages.Stale(term=1)]


def test_a_log_that_is_behind_gets_no_promise(lone: Lone) -> None:
    lone.append((1, 0), entry(2, 1), entry(3, 1))
    lone.replica.down("b")
    assert lone.hears("c", messages.PreVote(term=1, last_index=2, last_term=1)) == []
    assert lone.hears("c", messages.PreVote(term=1, last_index=3, last_term=1)) != []


def test_one_vote_a_term_also_after_a_restart(tmp_path: Path) -> None:
    first = Lone(tmp_path)
    asked = messages.RequestVote(term=3, last_index=1, last_term=0)
    assert first.hears("b", asked) == [messages.Vote(term=3)]
    assert first.hears("c", asked) == []
    first.replica.close()
    again = Lone(tmp_path)
    assert again.hears("c", asked) == []
    assert again.hears("c", messages.RequestVote(term=4, last_index=1, last_term=0)) == [messages.Vote(term=4)]
    again.replica.close()


@pytest.mark.parametrize(
    "message",
    [
        messages.RequestVote(term=9, last_index=9, last_term=9),
        messages.Vote(term=9),
        messages.Append(term=9, commit=1, previous_index=1, previous_term=0),
        messages.RaftSnapshot(term=9, commit=9, data=b"x", first=True, last=True),
        messages.TimeoutNow(term=9),
        messages.Submit(
            term=1, request=1, kind=2, payload=messages.encode_membership(messages.RaftMembership("add", "observer"))
        ),
    ],
)
def test_who_has_no_vote_cannot_lead_elect_or_change_membership(lone: Lone, message: messages.Message) -> None:
    with pytest.raises(RemoteProtocolError):
        lone.replica.message("observer", message)
    assert lone.replica.term == 0


def test_nobody_speaks_in_another_hosts_name(lone: Lone) -> None:
    with pytest.raises(RemoteProtocolError, match="another host's name"):
        lone.hears("b", messages.Submit(term=1, request=1, kind=0, payload=entry(1, 1, by="c").payload))
    lone.hears("b", messages.Submit(term=1, request=1, kind=0, payload=entry(1, 1, by="b").payload))


def test_entries_out_of_a_row_are_refused(lone: Lone) -> None:
    with pytest.raises(RemoteProtocolError, match="in a row"):
        lone.append((1, 0), entry(3, 1))


def test_a_membership_entry_counts_from_when_it_is_in_the_log_and_after_a_restart(tmp_path: Path) -> None:
    first = Lone(tmp_path)
    change = messages.LogEntry(
        2, 1, messages.MEMBERSHIP, messages.encode_membership(messages.RaftMembership("add", "observer"))
    )
    first.append((1, 0), change)
    assert first.replica.voters == {"a", "b", "c", "observer"}
    first.replica.close()
    again = Lone(tmp_path)
    assert again.replica.voters == {"a", "b", "c", "observer"}
    again.append((1, 0), entry(2, 2), term=2)
    assert again.replica.voters == {"a", "b", "c"}
    again.replica.close()


def test_a_change_that_is_committed_brings_no_voter_back_that_a_later_entry_removed(tmp_path: Path) -> None:
    lone = Lone(tmp_path)
    changes = [
        messages.LogEntry(index, 1, messages.MEMBERSHIP, messages.encode_membership(change))
        for index, change in enumerate((messages.RaftMembership("add", "d"), messages.RaftMembership("rem", "d")), 2)
    ]
    lone.append((1, 0), *changes, commit=1)
    lone.append((3, 1), commit=2)
    lone.replica.tick(0)
    assert (lone.replica.applied_index, lone.replica.voters) == (2, {"a", "b", "c"})
    lone.replica.close()
    again = Lone(tmp_path)
    again.replica.message("b", messages.Append(term=1, commit=2, previous_index=3, previous_term=1))
    again.replica.tick(0)
    assert (again.replica.applied_index, again.replica.voters) == (2, {"a", "b", "c"})
    again.replica.close()


def test_a_snapshot_names_the_voters_of_its_entry_and_not_of_what_may_be_taken_back(lone: Lone) -> None:
    added = messages.LogEntry(
        4, 1, messages.MEMBERSHIP, messages.encode_membership(messages.RaftMembership("add", "observer"))
    )
    removed = messages.LogEntry(
        5, 1, messages.MEMBERSHIP, messages.encode_membership(messages.RaftMembership("rem", "c"))
    )
    lone.append((1, 0), entry(2, 1), entry(3, 1), added, removed, commit=3)
    lone.replica.tick(0)
    assert lone.replica.applied_index == 3
    assert lone.replica.voters == {"a", "b", "observer"}
    assert lone.replica._image().voters == ("a", "b", "c")


def test_a_disk_that_fails_is_not_taken_for_a_link_that_does(lone: Lone, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(lone.replica._journal, "append", full)
    with pytest.raises(OSError, match="no space"):
        lone.append((1, 0), entry(2, 1))


def test_a_host_that_loses_its_vote_follows_on_without_it(lone: Lone) -> None:
    change = messages.LogEntry(
        2, 1, messages.MEMBERSHIP, messages.encode_membership(messages.RaftMembership("rem", "a"))
    )
    lone.append((1, 0), change)
    assert (lone.replica.state, lone.replica.voters) == ("observer", {"b", "c"})
    assert lone.append((2, 1), entry(3, 1)).next_index == 4


def test_a_host_without_a_vote_gives_one_where_it_is_asked_and_only_once_a_term(lone: Lone) -> None:
    """It may be a voter by entries that have not reached it, and be needed for the majority that brings them."""
    change = messages.LogEntry(
        2, 1, messages.MEMBERSHIP, messages.encode_membership(messages.RaftMembership("rem", "a"))
    )
    lone.append((1, 0), change)
    assert lone.hears("c", messages.RequestVote(term=8, last_index=9, last_term=7)) == [messages.Vote(term=8)]
    assert lone.hears("b", messages.RequestVote(term=8, last_index=9, last_term=7)) == []
    assert lone.hears("b", messages.RequestVote(term=9, last_index=1, last_term=0)) == []
    assert lone.replica.state == "observer"


def test_a_host_that_handed_a_command_over_is_told_of_its_commit_at_once_and_once(lone: Lone) -> None:
    answer = {"type": "apply_command_response", "request_id": 1, "log_idx": 5, "log_term": 1}
    lone.replica.post("b", answer)
    assert not lone.replica.awaits(4)
    assert lone.replica.awaits(5)
    assert not lone.replica.awaits(6)
    lone.replica.post("b", {"type": "apply_command_response", "request_id": 2, "error": 4})
    assert not lone.replica.awaits(9)


def test_one_append_for_several_hosts_is_one_object(lone: Lone) -> None:
    append = {"type": "append_entries", "commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 0}
    for name in ("b", "c"):
        lone.replica.post(name, {**append, "entries": [(b"\0x", 2, 1)]})
    lone.replica.post("b", {**append, "entries": [(b"\0x", 2, 1), (b"\0y", 3, 1)]})
    first, second, third = [message for _, message in lone.sent]
    assert first is second
    assert isinstance(third, messages.Append)
    assert [entry.payload for entry in third.entries] == [b"x", b"y"]


def test_a_second_change_of_membership_waits_for_the_first(lone: Lone) -> None:
    lone.leads()
    assert lone.changes("add", "observer") == []
    refused = lone.changes("add", "second")
    assert len(refused) == 1
    assert refused[0] != 0
    assert lone.replica.voters == {"a", "b", "c", "observer"}
    lone.acknowledged("b", "observer")
    assert lone.changes("add", "second") == []
    assert lone.replica.voters == {"a", "b", "c", "observer", "second"}


def test_a_live_voter_is_not_removed_while_the_rest_has_no_majority(lone: Lone) -> None:
    lone.leads()
    lone.connected.discard("c")
    lone.replica.down("c")
    assert lone.changes("rem", "b") != []
    assert lone.replica.voters == {"a", "b", "c"}
    assert lone.changes("rem", "c") == []
    assert lone.replica.voters == {"a", "b"}


def test_a_voter_is_not_added_that_leaves_no_majority_connected(lone: Lone) -> None:
    lone.leads()
    for name in ("b", "c"):
        lone.connected.discard(name)
        lone.replica.down(name)
    assert lone.changes("add", "observer") != []


def test_a_connection_begins_with_the_voters_that_the_fleet_began_with(lone: Lone) -> None:
    greeting = messages.Stale(term=0, origin=("a", "b", "c"), voters=("a", "b", "c"))
    assert lone.greetings == dict.fromkeys(("b", "c", "observer", "second"), greeting)
    assert lone.hears("b", greeting) == []
    assert lone.hears("b", messages.Stale(term=0)) == []


def test_a_host_that_began_with_other_voters_is_not_listened_to(lone: Lone) -> None:
    with pytest.raises(RemoteProtocolError, match="b began with the voters b, this host with a, b, c"):
        lone.replica.message("b", messages.Stale(term=0, origin=("b",)))


def test_who_was_away_while_voters_changed_is_led_by_one_that_it_did_not_know(lone: Lone) -> None:
    append = messages.Append(term=9, commit=1, previous_index=1, previous_term=0)
    with pytest.raises(RemoteProtocolError, match="has no vote"):
        lone.replica.message("second", append)
    lone.replica.message("observer", messages.Stale(term=0, voters=("second",)))  # has no say in who has a vote
    assert lone.replica.links.hinted == set()
    lone.replica.message("b", messages.Stale(term=0, voters=("b", "second")))
    assert lone.replica.links.hinted == {"b", "second"}
    lone.replica.message("second", append)
    assert lone.replica.leader == "second"


def test_a_host_that_is_behind_does_not_take_back_whom_another_named(lone: Lone) -> None:
    """Else a voter that lacks the entry by which its leader got its vote refuses the leader for good."""
    lone.replica.message("b", messages.Stale(term=0, voters=("a", "b", "c", "observer")))
    lone.replica.message("c", messages.Stale(term=0, voters=("a", "b", "c")))
    news = messages.Append(term=2, commit=1, previous_index=1, previous_term=0, entries=(entry(2, 2),))
    assert [type(answer) for answer in lone.hears("observer", news)] == [messages.Ack]
    lone.replica.message("b", messages.Stale(term=0, voters=("a", "b", "c")))
    assert lone.replica.links.hinted == {"a", "b", "c"}


def test_who_asks_for_votes_without_having_one_is_told_who_has(lone: Lone) -> None:
    change = messages.LogEntry(
        2, 1, messages.MEMBERSHIP, messages.encode_membership(messages.RaftMembership("rem", "c"))
    )
    lone.append((1, 0), change)
    answers = lone.hears("c", messages.PreVote(term=1, last_index=1, last_term=0))
    assert answers == [messages.Stale(term=0, origin=("a", "b", "c"), voters=("a", "b"))]


def test_who_lost_its_vote_while_it_was_away_is_told_so_and_stays_connected(lone: Lone) -> None:
    answers = lone.hears("observer", messages.PreVote(term=9, last_index=9, last_term=9))
    assert answers == [lone.greetings["observer"]]  # and no promise
    assert lone.replica.term == 0


def test_the_origin_is_known_after_the_first_entry_is_cut_off(tmp_path: Path) -> None:
    first = Lone(tmp_path)
    first.append((1, 0), *(entry(index, 1) for index in range(2, 8)), commit=7)
    first.replica.tick(0)
    first.replica.compact()
    first.replica.tick(0)
    first.replica._snapshots.close()
    first.replica.tick(0)
    assert first.log[0][0] > 1
    first.replica.close()
    again = Lone(tmp_path)
    greeting = again.greetings["b"]
    assert isinstance(greeting, messages.Stale)
    assert greeting.origin == ("a", "b", "c")
    again.replica.close()


def test_a_log_that_begins_behind_its_snapshot_is_refused(tmp_path: Path) -> None:
    first = Lone(tmp_path)
    first.append((1, 0), entry(2, 1), entry(3, 1), commit=3)
    first.replica.tick(0)
    first.replica._snapshots.keep(first.replica._image())
    first.replica._journal.replace([messages.as_record(entry(index, 1)) for index in (5, 6)])
    first.replica.close()
    with pytest.raises(JournalError, match="begins with entry 5, the snapshot ends with 3"):
        Lone(tmp_path)


def test_a_part_of_a_snapshot_commits_nothing_of_what_is_in_the_log(lone: Lone) -> None:
    lone.append((1, 0), entry(2, 1), entry(3, 1))
    for data in (b"part", b""):
        lone.hears("c", messages.RaftSnapshot(term=2, commit=9, data=data, first=bool(data), last=False))
        lone.replica.tick(0)
    assert (lone.replica.commit_index, lone.replica.applied_index) == (1, 1)


def test_a_part_of_a_snapshot_is_answered_so_that_the_leader_hears_of_this_host(lone: Lone) -> None:
    part = messages.RaftSnapshot(term=1, commit=1, data=b"part", first=True, last=False)
    assert lone.hears("b", part) == [messages.Ack(term=1, next_index=2, reset=False, success=False)]


class Promised:
    """What a socket of a voter saw, and the syncs before it, in their order."""

    def __init__(self, incoming: bytes) -> None:
        self._incoming = incoming
        self.order: list[object] = []

    def recv(self, _: int) -> bytes:
        if not self._incoming:
            raise ssl.SSLWantReadError
        data, self._incoming = self._incoming, b""
        return data

    def send(self, data: bytes) -> int:
        self.order += messages.raft_frames().feed(bytes(data))
        return len(data)

    def pending(self) -> int:
        return 0

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


def test_an_acknowledgement_behind_a_backlog_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = Lone(tmp_path)
    lone.append((1, 0))
    lone.replica._flush()
    links = lone.replica.links
    del links.send, links.connected  # the real ones
    monkeypatch.setattr(links._poller, "watch", lambda *_: None)
    append = messages.Append(term=1, commit=1, previous_index=1, previous_term=0, entries=(entry(2, 1),))
    socket = Promised(messages.encode(append))
    monkeypatch.setattr(os, "fdatasync", lambda _: socket.order.append("synced"))
    link = PeerConnection(socket, "b", dialled=False, since=0.0, is_up=True, mask=READ | WRITE)  # type: ignore[arg-type]
    link.out += messages.encode(messages.Stale(term=0))  # the socket had no room for it: the poller says when it has
    links._up["b"] = link
    links._ready(link, READ | WRITE)
    assert socket.order == []
    lone.replica._flush()
    acknowledged = messages.Ack(term=1, next_index=3, reset=False, success=True)
    assert socket.order == ["synced", messages.Stale(term=0), acknowledged]
    lone.replica.close()


def test_a_vote_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lone = Lone(tmp_path)
    order: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: order.append("synced"))
    monkeypatch.setattr(lone.replica.links, "flush", lambda: order.append("sent"))
    lone.hears("b", messages.RequestVote(term=3, last_index=1, last_term=0))
    lone.replica._flush()
    assert order == ["synced", "sent"]
    lone.replica.close()


def command_at(at: float, by: str) -> bytes:
    return commands.encode(Command(request=f"{by}{at}", by=by, at=at, body=PutHost(name=by)))


def test_a_leader_lets_no_command_bring_a_time_that_the_other_clocks_contradict(lone: Lone) -> None:
    lone.leads()
    now, years_70 = 1.79e9, 70 * 365 * 86400.0
    machine = lone.replica._machine
    assert isinstance(machine, FleetMachine)
    for by, at in (("b", now), ("c", now + 1), ("b", now + years_70), ("a", now + 2)):
        payload = commands.encode_batch([command_at(at, by)])
        if by == "a":
            lone.replica.submit(payload, lambda *_: None)
        else:
            lone.replica.message(by, messages.Submit(term=1, request=1, kind=messages.REGULAR, payload=payload))
        lone.replica.tick(0)
    lone.acknowledged("b")
    assert now <= machine.fleet.now <= now + 2 + SKEW_S


def test_a_leader_whose_own_clock_is_wrong_does_not_move_the_fleets_time(lone: Lone) -> None:
    lone.leads()
    now, years_70 = 1.79e9, 70 * 365 * 86400.0
    machine = lone.replica._machine
    assert isinstance(machine, FleetMachine)
    machine.fleet.now = now
    lone.replica.submit(commands.encode_batch([command_at(now + years_70, "a")]), lambda *_: None)
    lone.replica.tick(0)
    lone.acknowledged("b")
    assert now <= machine.fleet.now <= now + SKEW_S + 1
