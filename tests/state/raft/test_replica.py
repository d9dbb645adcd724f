"""A replica by itself: what it does with messages that a network, a peer or a bug may bring."""

import errno
import ssl
from collections.abc import Iterator
from pathlib import Path

import pysyncobj.syncobj
import pytest

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.state.fleet import commands
from dwcp_migrate.state.fleet.commands import Barrier, Command
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.peer_connections import PeerIdentity
from dwcp_migrate.state.raft.pysyncobj import HOOKS
from dwcp_migrate.state.raft.replica import RaftReplica, RaftSettings


def no_context() -> ssl.SSLContext:
    raise AssertionError("nobody is dialled here")


def entry(index: int, term: int, by: str = "b") -> messages.LogEntry:
    command = commands.encode(Command(request=f"{index}.{term}", by=by, at=0, body=Barrier()))
    return messages.LogEntry(index, term, messages.REGULAR, commands.encode_batch([command]))


class Lone:
    """A replica named a of voters a, b, c whose links catch what it sends."""

    def __init__(self, directory: Path, name: str = "a") -> None:
        self.sent: list[tuple[str, messages.Message]] = []
        identity = PeerIdentity(
            name=name, client=no_context, server=no_context, identify=lambda _: None, address=lambda _: None
        )
        settings = RaftSettings(directory=directory, voters=("a", "b", "c"))
        self.replica = RaftReplica(settings, identity, FleetMachine(), lambda _: None)
        self.replica.links.send = self._send  # type: ignore[method-assign]
        for peer in sorted({"a", "b", "c", "observer"} - {name}):
            self.replica.up(peer)

    def _send(self, name: str, message: messages.Message) -> bool:
        self.sent.append((name, message))
        return True

    def hears(self, name: str, message: messages.Message) -> list[messages.Message]:
        """Let it hear a message; returns its answers to that host."""
        self.sent.clear()
        self.replica.message(name, message)
        return [answer for to, answer in self.sent if to == name]

    def append(
        self, previous: tuple[int, int], *entries: messages.LogEntry, term: int = 1, commit: int = 1
    ) -> messages.Ack:
        """Let it hear an Append of b's."""
        (answer,) = self.hears(
            "b",
            messages.Append(
                term=term, commit=commit, previous_index=previous[0], previous_term=previous[1], entries=entries
            ),
        )
        assert isinstance(answer, messages.Ack)
        return answer

    @property
    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.replica._journal[:]]


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Lone]:
    made = Lone(tmp_path)
    yield made
    made.replica.close()


def test_the_installed_library_has_everything_that_is_hooked() -> None:
    probe = pysyncobj.syncobj.SyncObj.__init__.__code__.co_names
    methods = dir(pysyncobj.syncobj.SyncObj)
    missing = [name for name in HOOKS if name not in probe and name not in methods]
    assert missing == []


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
        messages.PreVote(term=9, last_index=9, last_term=9),
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
    assert lone.hears("c", messages.RequestVote(term=8, last_index=9, last_term=7)) == []


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
