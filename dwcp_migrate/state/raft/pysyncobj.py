"""pysyncobj with its wire and its disk replaced: the only module that knows the library.

The library's private parts that are used are listed in `HOOKS`, which are compared with the installed version at every
start, and are touched here and nowhere else; `replica` decides, this only gives it the handles. No pickle is left:
commands, membership and snapshots are bytes with a schema of their own.
"""

import os
from collections.abc import Callable
from typing import Any, Final, Protocol

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.monotonic import monotonic
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from pysyncobj.version import VERSION

from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.raft import messages
from dwcp_migrate.state.raft.log_file import LogFile, Record
from dwcp_migrate.state.raft.snapshots import Snapshots

COMPACT_ENTRIES: Final = 8192
"""The log is cut when it is that long; what is cut costs a follower that was away a snapshot."""

QUEUE_MAX: Final = 4096
"""Entries handed over between two ticks."""

COMMIT_NEWS_S: Final = 0.002
"""News of a commit that no other host waits for are sent that much later, or with the next entry, to halve messages."""

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2

HOOKS: Final = (
    "_SyncObj__applyLogEntries",
    "_SyncObj__changeCluster",
    "_SyncObj__connectedNodes",
    "_SyncObj__doApplyCommand",
    "_SyncObj__doChangeCluster",
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__loadDumpFile",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__onMessageReceived",
    "_SyncObj__onReadonlyNodeConnected",
    "_SyncObj__onReadonlyNodeDisconnected",
    "_SyncObj__parseChangeClusterRequest",
    "_SyncObj__pipeNotifier",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftLeader",
    "_SyncObj__raftLog",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__raftState",
    "_SyncObj__readonlyNodes",
    "_SyncObj__selfNode",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__serializer",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__transferInProgress",
    "_SyncObj__votedForNodeId",
    "_applyCommand",
    "_getLeader",
    "_poller",
)
"""Private names of pysyncobj that this module uses or overrides."""

TESTED_VERSION: Final = "0.3.17"
"""Of pysyncobj; another one may mean something else by the same names."""

Answer = Callable[[Any, int], object]
"""Called with the outcome and a FAIL_REASON (0 is success)."""

_REFUSALS: Final = {
    1: "it has too much to do",
    2: "there is no leader",
    3: "another change came before it",
    4: "the host that was asked leads no longer",
    5: "the leader changed meanwhile",
    6: "it refused",
}
"""FAIL_REASONs of pysyncobj in words."""

clock = monotonic
"""The clock that the library's deadlines are in."""


def refusal_words(reason: int) -> str:
    """Say a FAIL_REASON in words."""
    return _REFUSALS.get(reason, f"reason {reason}")


def check_library() -> None:
    """Demand the version of pysyncobj that this module was written for, with every name that it uses.

    Raises:
        CoordinationError: another one is installed; a replica must not run on it.
    """
    known = {*SyncObj.__init__.__code__.co_names, *dir(SyncObj)}
    missing = [name for name in HOOKS if name not in known]
    if VERSION != TESTED_VERSION or missing:
        raise CoordinationError(
            f"pysyncobj {VERSION} is installed, this software runs on {TESTED_VERSION}"
            + (f"; it lacks {', '.join(missing)}" if missing else ""),
            hint=f"install pysyncobj=={TESTED_VERSION}",
        )


class ReplicaOwner(Protocol):
    """Owner of the decisions: `replica.RaftReplica`."""

    name: str

    def applied(self, command: bytes) -> Any:
        """Apply a committed entry."""

    def awaits(self, index: int) -> bool:
        """As the leader: tell whether another host waits for news that the entries up to this one are committed."""

    def held_back(self, payload: bytes) -> bytes:
        """As the leader: return a regular entry's payload with no time that is too late."""

    def may_change(self, verb: str, name: str) -> bool:
        """As the leader: tell whether membership may change so now.

        Args:
            verb: `add` or `rem`.
            name: of the host.
        """

    def change_own(self, *, is_voter: bool) -> bool:
        """Give this host its vote, or take it; returns whether that is a change."""

    def install(self) -> None:
        """Take the snapshot that has come."""

    def post(self, name: str, message: dict[str, Any]) -> bool:
        """Send a message of the library's.

        Args:
            name: of the host.
            message: in the library's form.

        Returns:
            Whether the host is connected.
        """

    def know(self, name: str) -> None:
        """Note that a host has a vote."""

    def forget(self, name: str) -> None:
        """Note that a host has no vote any more."""


class _Log:
    """The journal under the library's names; `as_leader` changes what the leader appends."""

    def __init__(self, journal: LogFile, as_leader: Callable[[bytes], bytes]) -> None:
        self._journal = journal
        self._as_leader = as_leader

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.append((self._as_leader(command), idx, term))

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - the library's names, here and below
        self._journal.truncate(entryFrom)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        self._journal.drop_first(entryTo)

    def __getitem__(self, item: int | slice) -> Record | list[Record]:
        return self._journal[item]

    def __len__(self) -> int:
        return len(self._journal)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        self._journal.set_commit(raftCommitIndex)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        self._journal.set_term(term, votedForNodeId)

    def onOneSecondTimer(self) -> None:  # noqa: N802
        self._journal.store_commit()


class _Courier(Transport):  # type: ignore[misc] # the library has no types
    """The replica's links under the library's names; `put_off` is told of a follower that has to wait."""

    def __init__(self, owner: ReplicaOwner, put_off: Callable[[Node], None]) -> None:
        super().__init__(None, None, ())
        self._owner = owner
        self._put_off = put_off

    def addNode(self, node: Any) -> None:  # noqa: N802
        self._owner.know(node.id)

    def dropNode(self, node: Any) -> None:  # noqa: N802
        self._owner.forget(node.id)

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        if message.get("serialized", b"") is None:
            self._put_off(node)
        return self._owner.post(node.id, message)


class _Mute:
    """In the place of the library's wake-up pipe: the thread that proposes is the one that ticks, and ticks next."""

    def notify(self) -> None:
        """Wake nobody."""


class Raft(SyncObj):  # type: ignore[misc] # the library has no types
    """The library's object: its algorithm, our bytes.

    Args:
        owner: decides.
        election_s: shortest time without a leader's word before an election; the longest is twice that.
    """

    def __init__(self, owner: ReplicaOwner, election_s: float) -> None:
        self.owner = owner
        self._later: set[Node] = set()
        courier = _Courier(owner, self._put_off)
        super().__init__(Node(owner.name), [], conf=_conf(election_s), nodeClass=Node, transport=courier)
        self._mute()

    def _mute(self) -> None:
        """Do without the library's wake-up pipe, and close it: the library never does."""
        pipe: Any = self._SyncObj__pipeNotifier  # type: ignore[has-type]
        self._SyncObj__pipeNotifier = _Mute()
        self._poller.unsubscribe(pipe._PipeNotifier__pipeR)  # noqa: SLF001 - the version is pinned
        os.close(pipe._PipeNotifier__pipeR)  # noqa: SLF001
        os.close(pipe._PipeNotifier__pipeW)  # noqa: SLF001

    def _put_off(self, node: Node) -> None:
        self._SyncObj__connectedNodes.discard(node)
        self._later.add(node)

    # -- overridden

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        """Send each follower what it lacks, once; one for whom no part of the snapshot is ready gets it the next time.

        The library goes on asking for that part, and tells the follower each time that there is none.
        """
        SyncObj._SyncObj__sendAppendEntries(self)  # noqa: SLF001
        self._SyncObj__connectedNodes |= self._later
        self._later.clear()

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        """Apply, and tell the others of a commit at once only if one waits for it; else with what is sent next."""
        if not SyncObj._SyncObj__applyLogEntries(self):  # noqa: SLF001
            return False
        if self.owner.awaits(self._SyncObj__raftLastApplied):
            return True
        self._SyncObj__newAppendEntriesTime: float = min(self.news_at(), clock() + COMMIT_NEWS_S)
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> Any:  # noqa: N802
        return self.owner.applied(command)

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> tuple[str, str] | None:  # noqa: N802
        if command[0] != messages.MEMBERSHIP:
            return None
        change = messages.decode_membership(command[1:])
        return change.verb, change.name

    def _SyncObj__changeCluster(self, request: tuple[str, str]) -> bool:  # noqa: N802
        allowed = self.owner.may_change(*request)
        return allowed and bool(SyncObj._SyncObj__changeCluster(self, request))  # noqa: SLF001

    def _SyncObj__doChangeCluster(self, request: tuple[str, str], reverse: bool = False) -> bool:  # noqa: N802, FBT001, FBT002
        verb, name = request
        adding = (verb == "add") != reverse
        if name == self.owner.name:
            return self.owner.change_own(is_voter=adding)
        if adding:
            self._SyncObj__readonlyNodes.discard(Node(name))
        return bool(SyncObj._SyncObj__doChangeCluster(self, request, reverse))  # noqa: SLF001

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803, FBT001
        del clearJournal
        self.owner.install()

    # -- handles

    def load(self, journal: LogFile, snapshots: Snapshots) -> None:
        """Work on these from now on; term, vote and commit index come from the journal.

        Args:
            journal: read; its term, vote and commit index count.
            snapshots: serve the library as its serializer.
        """
        self._SyncObj__raftLog = _Log(journal, self._held_back)
        self._SyncObj__serializer = snapshots
        self._SyncObj__raftCurrentTerm = max(journal.term, journal.last[1])
        self._SyncObj__votedForNodeId = journal.voted_for if journal.term >= journal.last[1] else None
        self._SyncObj__raftCommitIndex = max(1, min(journal.commit, journal.last[0]))

    def _held_back(self, command: bytes) -> bytes:
        """Hold times back where a command enters the log: who leads by then may not have when it was asked for."""
        if self.role != LEADER or command[0] != messages.REGULAR:
            return command
        return command[:1] + self.owner.held_back(command[1:])

    def applied_to(self, index: int) -> None:
        """Note that the state is that of an entry, which is committed."""
        self._SyncObj__raftLastApplied = index
        self._SyncObj__raftCommitIndex = max(index, self._SyncObj__raftCommitIndex)

    def set_own(self, *, is_voter: bool) -> None:
        """Take part in votes, or only listen."""
        self._SyncObj__selfNode = Node(self.owner.name) if is_voter else None

    def change(self, verb: str, name: str) -> None:
        """Apply a change of membership.

        Args:
            verb: `add` or `rem`.
            name: of the host.
        """
        self._SyncObj__doChangeCluster((verb, name))

    def hear(self, name: str, message: dict[str, Any]) -> None:
        """Take a message.

        A host without a vote votes too when it is asked: it may have one already by entries that have not reached it,
        and where its vote is needed nobody else could lead to bring them (Raft paper, section 6).

        Args:
            name: of the host that sent it.
            message: in the library's form.
        """
        lends_vote = message["type"] == "request_vote" and self._SyncObj__selfNode is None
        if lends_vote:
            self.set_own(is_voter=True)
        self._SyncObj__onMessageReceived(Node(name), message)
        if lends_vote:
            self.set_own(is_voter=False)

    def connected(self, name: str, *, is_voter: bool) -> None:
        """Note that a host is connected.

        Args:
            name: of the host.
            is_voter: it has a vote.
        """
        if is_voter:
            self._SyncObj__connectedNodes.add(Node(name))
        else:
            self._SyncObj__onReadonlyNodeConnected(Node(name))

    def disconnected(self, name: str) -> None:
        """Note that a host is connected no more."""
        node = Node(name)
        if node in self._SyncObj__readonlyNodes:
            self._SyncObj__onReadonlyNodeDisconnected(node)
        self._SyncObj__connectedNodes.discard(node)
        self._later.discard(node)

    def step_down(self, term: int) -> None:
        """Follow in a newer term, without a leader yet."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None

    def propose(self, payload: bytes, answer: Answer, kind: int) -> None:
        """Have an entry appended.

        Args:
            payload: of the entry.
            answer: called with the outcome.
            kind: `messages.REGULAR` or `messages.MEMBERSHIP`.
        """
        self._applyCommand(payload, answer, kind)

    def transfer(self, name: str, answer: Answer) -> None:
        """As the leader: ask another voter to take over.

        Args:
            name: of the voter; empty for any.
            answer: called with the outcome.
        """
        self.transferLeadership(Node(name) if name else None, answer)

    def watch(self, descriptor: int, callback: Callable[[int, int], None], events: int) -> None:
        """Have the poller wait for a descriptor.

        Args:
            descriptor: to wait for.
            callback: gets the descriptor and the events.
            events: any of `peer_connections.READ`, `WRITE` and `ERROR`.
        """
        self._poller.subscribe(descriptor, callback, events)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor."""
        self._poller.unsubscribe(descriptor)

    @property
    def term(self) -> int:
        """Current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def role(self) -> int:
        """FOLLOWER, CANDIDATE or LEADER."""
        return int(self._SyncObj__raftState)

    @property
    def leader(self) -> str:
        """The leader as far as it is known; empty while there is none."""
        node = self._getLeader()
        return node.id if node is not None else ""

    @property
    def is_transferring(self) -> bool:
        """Tell whether the leader asked this host to take over."""
        return bool(self._SyncObj__transferInProgress)

    @property
    def deadline(self) -> float:
        """Time at which an election is due without a leader's message."""
        return float(self._SyncObj__raftElectionDeadline)

    @deadline.setter
    def deadline(self, at: float) -> None:
        self._SyncObj__raftElectionDeadline = at

    def news_at(self) -> float:
        """As the leader: the time, by `clock`, of the next message to the others."""
        return float(self._SyncObj__newAppendEntriesTime)

    def timeout_s(self) -> float:
        """Draw an election timeout."""
        return float(self._SyncObj__generateRaftTimeout())

    def matched(self, name: str) -> int:
        """As the leader: the last entry that a host is known to hold; -1 when unknown."""
        return int(self._SyncObj__raftMatchIndex.get(Node(name), -1)) if self.role == LEADER else -1


def _conf(election_s: float) -> Any:
    longest = 2 * election_s
    return SyncObjConf(
        autoTick=False,
        raftMinTimeout=election_s,
        raftMaxTimeout=longest,
        appendEntriesPeriod=election_s / 6,
        connectionTimeout=longest,
        leaderFallbackTimeout=2 * longest,
        appendEntriesUseBatch=False,
        appendEntriesBatchSizeBytes=messages.APPEND_BYTES,
        logCompactionMinEntries=COMPACT_ENTRIES,
        logCompactionMinTime=10**9,
        commandsWaitLeader=False,
        dynamicMembershipChange=True,
        commandsQueueSize=QUEUE_MAX,
        useFork=False,
    )
