"""Guard around the library's messages: checks what arrives and what leaves against Raft's rules.

The library leaves some cases open. They are closed here:

    truncation      the library cuts its log back at every Append that starts earlier; here only at a conflict, so that
                    a repeated or shorter Append never takes back what was acknowledged (Raft paper, figure 2)
    answers         an Ack of an earlier term is dropped; the library would count it
    commits         a part of a snapshot says nothing of the log before it; the library would take its own entries up to
                    the leader's commit index for committed, those of a deposed leader too
    stale leaders   are told (`Stale`); the library leaves them in the dark
    promises        a message that promises something is sent after the disk has it: `must_sync`
    terms           the library steps down for anybody's newer term; here a host without a vote is seldom believed
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from dwcp_migrate.errors import RemoteProtocolError
from dwcp_migrate.state.fleet.commands import decode_batch, read_author
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.elections import Elections
from dwcp_migrate.state.raft.log_file import LogFile
from dwcp_migrate.state.raft.peer_connections import Links
from dwcp_migrate.state.raft.pysyncobj import Raft, clock
from dwcp_migrate.state.raft.pysyncobj_messages import to_library, to_wire

_Act = Callable[[str, Any], None]

_PROMISES: Final = messages.Ack | messages.Vote | messages.RequestVote

UNVOTED_TERM_S: Final = 300.0
"""A newer term is believed once in so long of hosts without a vote. One that gave its vote where it was asked may
be a term ahead, and could not follow otherwise; one that errs costs an election in that time."""

UNVOTED_TERMS_MAX: Final = 1024
"""Terms that it may be ahead: an election that nobody won is one."""


class Exchange:
    """The messages of one replica.

    Args:
        raft: the library's object.
        journal: its log.
        links: where messages go.
        elections: told of leaders and of questions before elections.

    Attributes:
        must_sync: a message that waits to be sent promises something that is not on disk yet.
        acknowledged_max: the next Ack says no more than this, if not 0.
    """

    def __init__(
        self,
        raft: Raft,
        journal: LogFile,
        links: Links,
        elections: Elections,
    ) -> None:
        self._raft = raft
        self._journal = journal
        self._links = links
        self._elections = elections
        self._awaited: deque[int] = deque()
        self._appended: tuple[object, messages.Message | None] = (None, None)
        self.must_sync = False
        self.acknowledged_max = 0
        self._unvoted_until = 0.0
        self._acts: dict[type[messages.Message], _Act] = {
            messages.PreVote: lambda name, message: elections.asked(name, message, clock()),
            messages.PreVoted: elections.promised,
            messages.Stale: lambda _, message: self._newer_term(message.term),
            messages.Append: self._append,
            messages.RaftSnapshot: self._snapshot,
            messages.Ack: self._ack,
            messages.Submit: self._submitted,
        }

    def hear(self, name: str, message: messages.Message) -> None:
        """Take in a message.

        Args:
            name: of the host that sent it.
            message: decoded; its sender's role allows it.

        Raises:
            RemoteProtocolError: it is none that a replica sends.
        """
        self._acts.get(type(message), self._pass_on)(name, message)

    def _pass_on(self, name: str, message: messages.Message) -> None:
        self._raft.hear(name, to_library(message))

    def believes_unvoted(self, term: int) -> bool:
        """Tell whether the term of a host without a vote may count; a newer one seldom does."""
        ahead, now = term - self._raft.term, clock()
        if ahead <= 0:
            return True
        if ahead > UNVOTED_TERMS_MAX or now < self._unvoted_until:
            return False
        self._unvoted_until = now + UNVOTED_TERM_S
        return True

    def _newer_term(self, term: int) -> None:
        """Step down if a peer is in a newer term, and let an election settle it."""
        if term > self._raft.term:
            self._raft.step_down(term)

    def _is_current(self, name: str, term: int) -> bool:
        if term < self._raft.term:
            self._links.send(name, messages.Stale(term=self._raft.term))
            return False
        self._elections.heard(clock())
        return True

    def _snapshot(self, name: str, message: messages.RaftSnapshot) -> None:
        if self._is_current(name, message.term):
            self._pass_on(name, replace(message, commit=0))
            if not message.last:  # the leader hears that this host lives; it counts silence as a lost majority
                index = self._journal.last[0] + 1
                self._links.send(name, messages.Ack(term=self._raft.term, next_index=index, reset=False, success=False))

    def _append(self, name: str, message: messages.Append) -> None:
        """Hand an Append to the library so that it cuts the log back at a conflict only."""
        entries = message.entries
        end = message.previous_index + len(entries)
        if [entry.index for entry in entries] != list(range(message.previous_index + 1, end + 1)):
            raise RemoteProtocolError(f"entries of {name} are not in a row")
        if not self._is_current(name, message.term):
            return
        if self._holds(message.previous_index, message.previous_term):
            known = 0
            while known < len(entries) and self._holds(entries[known].index, entries[known].term):
                known += 1
            if known:
                previous = entries[known - 1]
                message = replace(
                    message, previous_index=previous.index, previous_term=previous.term, entries=entries[known:]
                )
            last = self._journal.last
            if known == len(entries) and message.previous_index < last[0]:
                self.acknowledged_max = end + 1
                commit = min(message.commit, end)
                message = replace(message, previous_index=last[0], previous_term=last[1], commit=commit)
        self._pass_on(name, message)

    def _holds(self, index: int, term: int) -> bool:
        position = index - self._journal[0][1]
        return 0 <= position < len(self._journal) and self._journal[position][2] == term

    def _ack(self, name: str, message: messages.Ack) -> None:
        self._newer_term(message.term)
        if message.term != self._raft.term or self._raft.matched(name) < 0:
            return  # of an earlier term of ours, or we have just left the one that it is of
        if message.success and message.next_index > self._journal.last[0] + 1:
            raise RemoteProtocolError(f"{name} claims entries that were never sent")
        self._pass_on(name, message)

    def _submitted(self, name: str, message: messages.Submit) -> None:
        if message.kind == messages.MEMBERSHIP:
            if name not in self._links.voters:
                raise RemoteProtocolError(f"{name} has no vote and no say in who has one")
            messages.decode_membership(message.payload)
        elif any(read_author(command) != name for command in decode_batch(message.payload)):
            raise RemoteProtocolError(f"{name} speaks in another host's name")
        self._pass_on(name, message)

    def say(self, name: str, message: dict[str, Any]) -> bool:
        """Send a message of the library's; those that promise something wait for the disk.

        Args:
            name: of the host.
            message: in the library's form.

        Returns:
            Whether the host is connected.
        """
        translated = self._translated(message)
        self.must_sync |= isinstance(translated, _PROMISES)
        if isinstance(translated, messages.Ack):
            if self.acknowledged_max and translated.success:
                translated = replace(translated, next_index=min(translated.next_index, self.acknowledged_max))
            self.acknowledged_max = 0
        if isinstance(translated, messages.Submitted) and translated.index:
            self._awaited.append(translated.index)
        return self._links.send(name, translated)

    def _translated(self, message: dict[str, Any]) -> messages.Message:
        """Give equal Appends to several hosts as one object, so that they are encoded once.

        Index and term name an entry for good (log matching), so the ends of what is sent say all of it.
        """
        entries = message.get("entries")
        if not entries:
            return to_wire(message, self._raft.term)
        key = (self._raft.term, message["commit_index"], message["prevLogIdx"], entries[0][2], *entries[-1][1:])
        if key != self._appended[0]:
            self._appended = key, to_wire(message, self._raft.term)
        known = self._appended[1]
        assert known is not None
        return known

    def awaits(self, index: int) -> bool:
        """See `pysyncobj.ReplicaOwner`."""
        found = False
        while self._awaited and self._awaited[0] <= index:
            self._awaited.popleft()
            found = True
        return found
