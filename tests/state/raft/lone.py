"""One Raft replica by itself, whose links to the other voters catch what it sends."""

import ssl
from pathlib import Path
from typing import Literal

from dwcp_migrate.state.fleet import commands
from dwcp_migrate.state.fleet.commands import Barrier, Command
from dwcp_migrate.state.fleet.replicated import FleetMachine
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.peer_connections import PeerIdentity
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
        self.connected = {"a", "b", "c", "observer", "second"} - {name}
        self.replica.links.connected = lambda name: name in self.connected  # type: ignore[method-assign]
        for peer in sorted(self.connected):
            self.replica.up(peer)
        self.greetings = dict(self.sent)
        self.sent.clear()

    def _send(self, name: str, message: messages.Message) -> bool:
        self.sent.append((name, message))
        return True

    def stands(self) -> None:
        """Let it ask for votes in term 1."""
        self.replica._elections._won = True
        self.replica._raft.deadline = 0
        self.replica.tick(0)

    def leads(self) -> "Lone":
        """Let it win the election of term 1 by b's vote, and commit its first entry."""
        self.stands()
        self.replica.message("b", messages.Vote(term=1))
        self.acknowledged("b", "observer", "second")
        assert (self.replica.state, self.replica.commit_index) == ("leader", 2)
        return self

    def acknowledged(self, *names: str) -> None:
        """Let hosts hold all entries."""
        next_index = self.replica.last[0] + 1
        for name in names:
            self.replica.message(name, messages.Ack(term=1, next_index=next_index, reset=False, success=True))
        for _ in range(2):
            self.replica.tick(0)

    def changes(self, verb: Literal["add", "rem"], name: str) -> list[int]:
        """Ask for a change of membership; returns the errors that it was answered with so far."""
        answers: list[int] = []
        change = messages.encode_membership(messages.RaftMembership(verb, name))
        self.replica.submit(change, lambda _, error: answers.append(error), messages.MEMBERSHIP)
        self.replica.tick(0)
        return answers

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
