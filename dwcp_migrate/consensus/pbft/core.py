"""State that all parts of a replica share: identity, position in the protocol, and output to be carried out.

Rule: nothing here does IO. `Core` collects in `out` what the shell is to write, sync and send, in that order; what is
sent may promise only what is written. Time is `now`, the shell's monotonic seconds, and `wall_ms`, which only proposals
and their check look at.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.checkpoints import Ballot
from dwcp_migrate.consensus.pbft.model.client_table import ClientTable
from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity
from dwcp_migrate.consensus.pbft.model.log import Log
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import (
    BATCH_REQUESTS_MAX,
    WINDOW_MAX,
    EpochLink,
    Message,
    NewView,
    Reply,
    StableProof,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a replica; the same on all of a group unless it says otherwise.

    Attributes:
        checkpoint_interval: sequence numbers between checkpoints.
        window: sequence numbers under way; two intervals, so that proposals never wait for a checkpoint.
        pipeline: proposals under way at once.
        batch_max: requests in a proposal; 1 is no batching.
        request_timeout_s: a request that is not executed that long makes its replicas change the view. Doubles with
            each view that decides nothing.
        status_s: how often a replica says where it stands; what was lost is sent again that much later.
        clock_skew_ms: proposals whose clock is further off than that are refused.
    """

    checkpoint_interval: int = 128
    window: int = 256
    pipeline: int = 2
    batch_max: int = BATCH_REQUESTS_MAX
    request_timeout_s: float = 1.0
    status_s: float = 0.25
    clock_skew_ms: int = 5000

    def __post_init__(self) -> None:
        if not 1 <= self.checkpoint_interval < self.window <= WINDOW_MAX:
            raise ValueError("1 <= checkpoint_interval < window <= WINDOW_MAX")
        if not 1 <= self.batch_max <= BATCH_REQUESTS_MAX or self.pipeline < 1:
            raise ValueError("1 <= batch_max <= BATCH_REQUESTS_MAX, 1 <= pipeline")


class Context(NamedTuple):
    """Inputs of an operation beside the state: the same on all replicas.

    Attributes:
        client: who asked, authenticated.
        sequence: place in the group's order; grows, so that it serves as a fencing token.
        time_ms: the group's clock; never goes back.
        is_operator: the client may change the membership.
    """

    client: str
    sequence: int
    time_ms: int
    is_operator: bool = False


class Application(Protocol):
    """The deterministic state machine that a group replicates."""

    def apply(self, operation: bytes, context: Context) -> bytes:
        """Execute one operation. It must not raise, whatever it is given.

        Args:
            operation: as the client sent it: any bytes, at most `OPERATION_BYTES_MAX`.
            context: the inputs that are the same on all replicas.

        Returns:
            The result, at most `RESULT_BYTES_MAX`.
        """

    def snapshot(self) -> bytes:
        """Encode the state, the same bytes for the same state."""

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` encoded."""


class Execution(NamedTuple):
    """One sequence number was executed.

    Attributes:
        digest: of its batch.
        results: client, number and result of each request that was executed here, not of repeated ones.
    """

    sequence: int
    digest: bytes
    results: list[tuple[str, int, bytes]]


class ReplicaOutput:
    """Work for the shell, in this order.

    Attributes:
        compacted: if not None: write a new journal with these records in place of the old one.
        entries: append these records.
        sync: make them durable before anything below is sent.
        messages: to a replica, or to all others (None).
        replies: to clients, if they are connected.
        executions: for observers.
    """

    __slots__ = ("compacted", "entries", "executions", "messages", "replies", "sync")

    def __init__(self) -> None:
        self.compacted: list[records.Entry] | None = None
        self.entries: list[records.Entry] = []
        self.sync = False
        self.messages: list[tuple[str | None, Message]] = []
        self.replies: list[tuple[str, Reply]] = []
        self.executions: list[Execution] = []

    def __bool__(self) -> bool:
        return bool(self.messages or self.replies or self.entries or self.executions or self.compacted)


class ReplicaCounters(msgspec.Struct):
    """Totals for metrics."""

    executed: int = 0
    batches: int = 0
    views_left: int = 0
    views_entered: int = 0
    states_fetched: int = 0
    refused: int = 0


class Core:
    """State that all parts of a replica see.

    Args:
        name: of this replica; one that the membership does not name follows without a vote.
        identity: its key.
        group: members of the epoch to start in.
        application: what the group replicates, in its empty state.
        options: see there.
    """

    def __init__(
        self, name: str, identity: SigningIdentity, group: Group, application: Application, options: Options
    ) -> None:
        self.name = name
        self.identity = identity
        self.group = group
        self.pending: Group | None = None
        self.known: dict[int, Group] = {group.epoch: group}
        self.links: dict[int, EpochLink] = {}
        self.application = application
        self.options = options
        self.now = 0.0
        self.wall_offset_s = 0.0
        self.view = 0
        self.active = True
        self.new_view: NewView | None = None
        self.carried: dict[int, bytes] = {}
        self.carried_last = 0
        self.executed = 0
        self.time_ms = 0
        self.clients = ClientTable()
        self.log = Log(options.window)
        self.ballot = Ballot()
        self.stable = StableProof(0, 0)
        self.state: GroupSnapshot | None = None
        self.snapshots: dict[int, GroupSnapshot] = {}
        self.out = ReplicaOutput()
        self.counters = ReplicaCounters()
        self.recovering = False
        self.on_epoch: list[Callable[[], None]] = []

    @property
    def is_voter(self) -> bool:
        """Tell whether the membership names this replica, with its key: under another one it promised what it lost."""
        return self.group.keys.get(self.name) == self.identity.public

    @property
    def primary(self) -> str:
        """Name the primary of the current view."""
        return self.group.primary(self.view)

    @property
    def is_primary(self) -> bool:
        """Tell whether this replica proposes now."""
        return self.active and self.group.primary(self.view) == self.name and self.is_voter

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups whose signatures count: this epoch's, and the one's before for what it left."""
        previous = self.known.get(self.group.epoch - 1)
        return (self.group,) if previous is None else (self.group, previous)

    @property
    def wall_ms(self) -> int:
        """The wall clock, as the shell last set it."""
        return max(0, int((self.now + self.wall_offset_s) * 1000))

    def send(self, to: str, message: Message) -> None:
        """Send to one replica once everything written so far is durable.

        Args:
            to: name of the replica.
            message: dropped while the journal is replayed.
        """
        if not self.recovering:
            self.out.messages.append((to, message))

    def broadcast(self, message: Message) -> None:
        """Send to all other replicas once everything written so far is durable."""
        if not self.recovering:
            self.out.messages.append((None, message))

    def write(self, entry: records.Entry, *, sync: bool = True) -> None:
        """Append to the journal.

        Args:
            entry: dropped while the journal is replayed: it is there already.
            sync: make it durable before the next messages leave; not needed where no message promises it.
        """
        if not self.recovering:
            self.out.entries.append(entry)
            self.out.sync = self.out.sync or sync
