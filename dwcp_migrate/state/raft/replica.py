"""One Raft replica: the library's log and elections, held to what Raft asks of them.

The library leaves some cases open. They are closed here, and each has a test of its own:

    log             fsync before an acknowledgement, a vote or a commit; torn tails; see `log_file`
    messages        truncation, answers of earlier terms, leaders of earlier terms; see `message_guard`
    elections       asked beforehand, brought forward when the leader's connection breaks; see `elections`
    membership      one change at a time, and none that leaves no majority of connected voters; a host without a vote
                    becomes a voter when its log has caught up, in place
    origin          hosts that began with different voters do not talk; see `origin`
    time            a leader lets no command bring a time that the other clocks contradict; see `command_times`

Not thread-safe: everything runs in the thread that calls `tick`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from dwcp_migrate.errors import JournalError, RemoteProtocolError
from dwcp_migrate.state.fleet.commands import decode_batch
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.command_times import CommandTimes
from dwcp_migrate.state.raft.disk import Disk
from dwcp_migrate.state.raft.elections import Elections
from dwcp_migrate.state.raft.log_file import LogFile
from dwcp_migrate.state.raft.message_guard import Exchange
from dwcp_migrate.state.raft.messages import as_entry, as_record
from dwcp_migrate.state.raft.origin import Origin, voters_of
from dwcp_migrate.state.raft.peer_connections import Events, Links, PeerIdentity
from dwcp_migrate.state.raft.pysyncobj import CANDIDATE, LEADER, Answer, Raft, check_library, clock
from dwcp_migrate.state.raft.snapshots import Image, Snapshots
from dwcp_migrate.units import MIB

COMPACT_BYTES: Final = 16 * MIB
"""The log is cut when it is that large."""

LAG_MAX: Final = 1000
"""Entries that a new voter may be behind: it counts for the quorum at once."""

VOTERS_MAX: Final = 15

TICK_S: Final = 0.01
"""Longest wait of the poller: the grain of timeouts."""

STALL_S: Final = 0.1
"""A tick that took longer did not run: the disk or the CPU was held up, here and not at the leader."""

Role = Literal["follower", "candidate", "leader", "observer"]


class StateMachine(Protocol):
    """State machine that the log drives. Methods may raise a DwcpError to stop the replica."""

    def apply(self, batch: list[bytes]) -> Any:
        """Apply one entry's commands; returns the outcome that their submitter gets."""

    def now(self) -> float:
        """Return the time of the state, seconds since the epoch."""

    def hosts(self) -> int:
        """Return how many hosts the state knows."""

    def save(self) -> bytes:
        """Encode the state."""

    def restore(self, data: bytes) -> None:
        """Take a state."""


class RaftSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a replica.

    Attributes:
        directory: of the journal and the snapshot.
        voters: members with a vote at the very first start; afterwards the log knows. They may lead at any time, so
            that a replica that was away while they became voters follows them.
        election_s: shortest time without a leader's word before an election; the longest is twice that.
        durable: fsync.
    """

    directory: Path
    voters: tuple[str, ...]
    election_s: float = 0.3
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Parts of its host that a replica uses.

    Attributes:
        disk: that its files lie on.
        links: makes its connections.
    """

    disk: Disk
    links: Callable[[PeerIdentity, Raft, Events], Links]


class RaftReplica:
    """A replica.

    Args:
        settings: see there.
        identity: of this host.
        machine: what the log drives.
        rejected: counts a connection that was closed for the other end's fault.
        surroundings: disk and connections; a simulation has others than a host.

    Raises:
        JournalError: the disk's state cannot be used.
        CoordinationError: another pysyncobj is installed than this software was written for.
    """

    def __init__(
        self,
        settings: RaftSettings,
        identity: PeerIdentity,
        machine: StateMachine,
        rejected: Callable[[str], None],
        surroundings: Surroundings | None = None,
    ) -> None:
        check_library()
        around = surroundings or Surroundings(Disk(durable=settings.durable), Links)
        self.name = identity.name
        self.rejected = rejected
        self._settings = settings
        self._machine = machine
        self._disk = around.disk
        self._journal = LogFile(settings.directory, self._disk)
        self._snapshots = Snapshots(
            settings.directory / "snapshot",
            self._image,
            lambda node: self.links.has_room(node.id),
            self._disk,
        )
        self._times = CommandTimes(machine.now)
        self._ticked_at = clock()
        self._told: set[str] = set()
        self._raft = Raft(self, settings.election_s)
        self.links = around.links(identity, self._raft, self)
        self._elections = Elections(self, settings.election_s)
        self._exchange = Exchange(self._raft, self._journal, self.links, self._elections)
        self._raft.addOnTickCallback(self._before_wait)
        self._start()

    # -- from the disk

    def _start(self) -> None:
        journal, raft = self._journal, self._raft
        image = self._snapshots.load()
        if image is None and not len(journal):
            journal.append((bytes([messages.NO_OP]) + msgspec.msgpack.encode(sorted(self._settings.voters)), 1, 0))
            journal.sync()
        journal.check(image.last.index if image else 0)
        self._origin = Origin(self._settings.directory, self._disk, journal[0] if len(journal) else None)
        voters = self._first_voters(image)
        if image is not None:
            self._machine.restore(image.state)
            self._align(image)
        raft.load(journal, self._snapshots)
        if image is not None:
            raft.applied_to(image.last.index)
        self.links.is_voter = self.name in voters
        raft.set_own(is_voter=self.links.is_voter)
        for name in sorted(voters - {self.name}):
            raft.change("add", name)
        self._change_after(image.last.index if image else 0)

    def _change_after(self, index: int) -> None:
        """Let the changes of membership behind an entry count: they do from when they are in the log."""
        for change in self._changes(index):
            self._raft.change(change.verb, change.name)

    def _changes(self, index: int) -> list[messages.RaftMembership]:
        found = [command[1:] for command, at, _ in self._journal[:] if at > index and command[0] == messages.MEMBERSHIP]
        return [messages.decode_membership(payload) for payload in found]

    def _first_voters(self, image: Image | None) -> set[str]:
        if image is not None:
            return set(image.voters)
        return set(voters_of(self._journal[0]))

    def _align(self, image: Image) -> None:
        """Let the log begin with the snapshot's two entries, keeping what follows them if it does follow them.

        Raises:
            JournalError: the log begins behind the snapshot: what was acknowledged is between them.
        """
        journal = self._journal
        records = [as_record(image.before), as_record(image.last)]
        start = image.before.index - (journal[0][1] if len(journal) else 0)
        if len(journal) and journal[0][1] > image.last.index:
            raise JournalError(
                f"the log begins with entry {journal[0][1]}, the snapshot ends with {image.last.index}",
                hint="remove this member from the fleet, delete the directory, add the member again",
            )
        if len(journal) and start >= 0 and journal[start : start + 2] == records:
            if start:
                journal.drop_first(start)
            return
        journal.replace(records)

    def install(self) -> None:
        """Take the snapshot that came from the leader, unless the log is past it already."""
        image = self._snapshots.received()
        self._exchange.acknowledged_max = image.last.index + 1
        if image.last.index <= self.applied_index:
            return
        self._machine.restore(image.state)
        self._snapshots.keep(image)
        self._align(image)
        self._raft.applied_to(image.last.index)
        self._set_voters(image.voters)
        self._change_after(image.last.index)

    def _set_voters(self, voters: Iterable[str]) -> None:
        wanted = set(voters)
        self.change_own(is_voter=self.name in wanted)
        for name in sorted(wanted - self.links.voters - {self.name}):
            self._raft.change("add", name)
        for name in sorted(self.links.voters - wanted):
            self._raft.change("rem", name)

    def _image(self) -> Image:
        start = self.applied_index - 1 - self._journal[0][1]
        before, last = self._journal[start : start + 2]
        voters = self.voters
        for change in reversed(self._changes(self.applied_index)):  # not committed: not the snapshot's
            (voters.discard if change.verb == "add" else voters.add)(change.name)
        return Image(as_entry(before), as_entry(last), tuple(sorted(voters)), self._machine.save())

    # -- what others see

    @property
    def voters(self) -> set[str]:
        """Members with a vote, this host included if it has one."""
        return self.links.voters | ({self.name} if self.links.is_voter else set())

    @property
    def leader(self) -> str:
        """The leader as far as it is known here; empty while there is none."""
        return self._raft.leader

    @property
    def has_leader(self) -> bool:
        """Tell whether commands can go to a leader now."""
        leader = self.leader
        return bool(leader) and (leader == self.name or self.links.connected(leader))

    @property
    def state(self) -> Role:
        """Role of this replica."""
        if not self.links.is_voter:
            return "observer"
        role = self._raft.role
        return "leader" if role == LEADER else "candidate" if role == CANDIDATE else "follower"

    @property
    def term(self) -> int:
        """Current term."""
        return self._raft.term

    @property
    def commit_index(self) -> int:
        """Last entry known to be committed."""
        return int(self._raft.raftCommitIndex)

    @property
    def applied_index(self) -> int:
        """Last entry applied."""
        return int(self._raft.raftLastApplied)

    @property
    def log_bytes(self) -> int:
        """Size of the log on disk."""
        return self._journal.size_bytes

    def matched(self, name: str) -> int:
        """As the leader: the last entry that a host is known to hold; -1 when unknown."""
        return self._raft.matched(name)

    # -- acts

    def watch(self, descriptor: int, callback: Callable[[int, int], None], events: int) -> None:
        """Have `tick` wait for a descriptor too; see `pysyncobj.Raft.watch`.

        Args:
            descriptor: to wait for.
            callback: gets the descriptor and the events.
            events: any of `peer_connections.READ`, `WRITE` and `ERROR`.
        """
        self._raft.watch(descriptor, callback, events)

    def submit(self, payload: bytes, answer: Answer, kind: int = messages.REGULAR) -> None:
        """Have an entry appended.

        Args:
            payload: a batch of commands, or a change of membership.
            answer: called when the entry is applied here, or failed, or never.
            kind: `messages.REGULAR` or `messages.MEMBERSHIP`.
        """
        self._raft.propose(payload, answer, kind)

    def transfer(self, name: str, answer: Answer) -> None:
        """As the leader: ask another voter to take over.

        Args:
            name: of the voter; empty for the one that is furthest along.
            answer: called with the outcome.
        """
        self._raft.transfer(name, answer)

    def compact(self) -> None:
        """Write a snapshot and cut the log soon."""
        self._raft.forceLogCompaction()

    def tick(self, wait_s: float = TICK_S) -> None:
        """Do what is due and wait for the network at most `wait_s`.

        Raises:
            OSError: the disk failed.
            DwcpError: the state or the log cannot go on.
        """
        now = clock()
        if now - self._ticked_at > STALL_S:  # messages of the leader may wait in the sockets
            self._raft.deadline = max(self._raft.deadline, now + STALL_S)
        self._ticked_at = now
        if self._told != self.voters:
            self._told = self.voters
            for name in self.links.peers:
                self._greet(name)
        self.links.tick(now)
        self._flush()
        if self._journal.size_bytes > COMPACT_BYTES:
            self.compact()
        self._elections.consider(now)
        left_s = (self._raft.news_at() if self._raft.role == LEADER else self._raft.deadline) - now
        self._raft.doTick(wait_s if left_s <= 0 else min(wait_s, left_s))
        self._elections.settle(clock(), has_failed=self.state == "candidate")

    def _before_wait(self) -> None:
        """Entries travel while they are being written here; a commit waits for both."""
        self._flush()
        self._journal.sync()

    def _flush(self) -> None:
        if self._exchange.must_sync:
            self._journal.sync()
            self._exchange.must_sync = False
        self.links.flush()

    def close(self) -> None:
        """Close links and files."""
        self.links.close()
        self._snapshots.close()
        self._journal.close()

    # -- a candidate, see `elections.Candidate`

    @property
    def last(self) -> tuple[int, int]:
        """Index and term of the log's end."""
        return self._journal.last

    @property
    def leads(self) -> bool:
        """Tell whether it leads, or was asked to and will."""
        return self._raft.role == LEADER or self._raft.is_transferring

    @property
    def deadline(self) -> float:
        """Time at which an election is due without a leader's message."""
        return self._raft.deadline

    @deadline.setter
    def deadline(self, at: float) -> None:
        self._raft.deadline = at

    def timeout_s(self) -> float:
        """Draw an election timeout."""
        return self._raft.timeout_s()

    def tell(self, names: Iterable[str], message: messages.Message) -> None:
        """See `elections.Candidate`."""
        for name in names:
            self.links.send(name, message)

    # -- links' events

    def up(self, name: str) -> None:
        """See `peer_connections.Events`."""
        self._raft.connected(name, is_voter=name in self.links.voters)
        self._greet(name)

    def _greet(self, name: str) -> None:
        greeting = messages.Stale(term=0, origin=self._origin.voters, voters=tuple(sorted(self.voters)))
        self.links.send(name, greeting)

    def down(self, name: str) -> None:
        """See `peer_connections.Events`."""
        self._raft.disconnected(name)
        if name == self.leader:
            self._elections.lost(name, clock())

    def message(self, name: str, message: messages.Message) -> None:
        """See `peer_connections.Events`; a message that the sender's role does not allow is refused."""
        has_say = name in self.links.voters or name in self._settings.voters or name in self.links.hinted
        if isinstance(message, messages.PreVote) and name not in self.links.voters:
            self._greet(name)  # it does not know that it has no vote: the greeting names those that have one
            if not has_say:
                return
        if not (has_say or isinstance(message, messages.OBSERVER_MAY)):
            raise RemoteProtocolError(f"{name} has no vote and sent {type(message).__name__}")
        if isinstance(message, messages.Stale):
            self._origin.compare(name, message.origin)
            if has_say and message.voters:
                self.links.hints[name] = message.voters
        if has_say or self._exchange.believes_unvoted(message.term):
            self._exchange.hear(name, message)

    # -- the library's calls, see `pysyncobj.ReplicaOwner`

    def post(self, name: str, message: dict[str, Any]) -> bool:
        """See `pysyncobj.ReplicaOwner`."""
        return self._exchange.say(name, message)

    def awaits(self, index: int) -> bool:
        """See `pysyncobj.ReplicaOwner`."""
        return self._exchange.awaits(index)

    def know(self, name: str) -> None:
        """See `pysyncobj.ReplicaOwner`."""
        self.links.voters.add(name)

    def forget(self, name: str) -> None:
        """See `pysyncobj.ReplicaOwner`; the host may come back without a vote."""
        self.links.voters.discard(name)
        self.links.drop(name)

    def applied(self, command: bytes) -> Any:
        """Apply a committed entry; returns the outcomes of its commands.

        A change of voters counts from when it is in the log (`_change_after`), so nothing is left to do when it is
        committed. Carrying it out again here would bring back voters that a later entry has removed.
        """
        return self._machine.apply(decode_batch(command[1:])) if command[0] == messages.REGULAR else None

    def held_back(self, payload: bytes) -> bytes:
        """As the leader: return a regular entry's payload with no time that is too late."""
        enough = max(len(self.voters) // 2 + 1, min(2, self._machine.hosts()))
        return self._times.held_back(payload, self.term, enough, clock())

    def may_change(self, verb: str, name: str) -> bool:
        """See `pysyncobj.ReplicaOwner`: one change at a time, and only with a majority that is connected."""
        if self._changes(self.applied_index):
            return False
        if verb == "rem":
            may = name != self.name and name in self.links.voters
            return may and self._has_majority(self.voters - {name})
        behind = self._journal.last[0] - self.matched(name)
        may = self.links.connected(name) and behind <= LAG_MAX and len(self.voters) < VOTERS_MAX
        return may and self._has_majority(self.voters | {name})

    def _has_majority(self, voters: set[str]) -> bool:
        """Tell whether more than half of these are connected to this host or are it."""
        present = [name for name in voters if name == self.name or self.links.connected(name)]
        return len(present) * 2 > len(voters)

    def change_own(self, *, is_voter: bool) -> bool:
        """See `pysyncobj.ReplicaOwner`."""
        if self.links.is_voter == is_voter:
            return False
        self.links.is_voter = is_voter
        self._raft.set_own(is_voter=is_voter)
        self._elections.put_off(clock())
        return True
