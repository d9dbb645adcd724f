"""A PBFT replica without IO: `step` a message, `tick` the time, do what `ready` says.

Rule: the same calls give the same effects: no clock, no randomness, no threads. The shell calls `ready` after each
`step` and `tick` (or after several), writes and syncs what it says, then sends what it says, in that order; it may go
on stepping meanwhile. Messages may be lost, doubled, reordered and late; what matters is said again. A replica that
does not take part in the membership follows: it learns what is decided and votes once a membership names it.

The whole protocol with its diagram: docs/consensus.md.
"""

from collections.abc import Callable, Iterable

from dwcp_migrate.consensus import journal
from dwcp_migrate.consensus.agreement import Agreement
from dwcp_migrate.consensus.catchup import Catchup
from dwcp_migrate.consensus.core import Application, Core, Counters, Options, Ready
from dwcp_migrate.consensus.epochs import Epochs
from dwcp_migrate.consensus.execution import Executor
from dwcp_migrate.consensus.keys import Identity
from dwcp_migrate.consensus.membership import Group, Membership
from dwcp_migrate.consensus.messages import (
    BatchContent,
    Checkpoint,
    Commit,
    Decided,
    EpochLink,
    FetchBatch,
    FetchState,
    Hello,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Reply,
    Request,
    StableCheckpoint,
    StateManifest,
    StatePart,
    Status,
    ViewChange,
)
from dwcp_migrate.consensus.recovery import compact, replay
from dwcp_migrate.consensus.requests import Requests
from dwcp_migrate.consensus.views import Views


class Replica:
    """One member of a group.

    Args:
        name: of this replica.
        identity: its key.
        membership: of the epoch to start in; a journal that knows a later one wins.
        application: in its empty state.
        options: the same on all replicas.
    """

    def __init__(
        self, name: str, identity: Identity, membership: Membership, application: Application, options: Options
    ) -> None:
        self.core = Core(name, identity, Group(membership), application, options)
        self._requests = Requests(self.core)
        self._epochs = Epochs(self.core)
        self._executor = Executor(self.core, self._requests, self._epochs)
        self._agreement = Agreement(self.core, self._requests, self._executor)
        self._views = Views(self.core, self._requests, self._agreement, self._executor)
        self._catchup = Catchup(self.core, self._epochs, self._agreement, self._executor, self._views)
        self._handlers: dict[type[Message], Callable[[str, Message], None]] = {
            **dict.fromkeys((PrePrepare, Prepare, Commit), self._handle_vote),
            **dict.fromkeys((Request, Checkpoint, StableCheckpoint, ViewChange, NewView), self._handle_proof),
            **dict.fromkeys((Status, Decided, FetchBatch, BatchContent), self._handle_help),
            **dict.fromkeys((FetchState, StateManifest, StatePart, EpochLink), self._handle_help),
            **dict.fromkeys((Hello, Reply), self._refuse),
        }

    def recover(self, entries: Iterable[journal.Entry], now: float) -> None:
        """Go on where the journal ends; once, before the first `step`.

        Raises:
            ConsensusError: the journal contradicts itself.
        """
        self.core.now = now
        replay(self.core, self._epochs, self._executor, self._views, entries)

    def set_clock(self, wall_s: float, now: float) -> None:
        """Say what the wall clock shows; often enough that it is never off by a tenth of `clock_skew_ms`."""
        self.core.wall_offset_s = wall_s - now

    def step(self, sender: str, message: Message, now: float) -> None:
        """Take a message from `sender`, as its channel proves.

        Raises:
            ConsensusError: more replicas are faulty than the group can bear, or this one is: it must stop.
        """
        core = self.core
        core.now = now
        executed = core.executed
        self._handlers[type(message)](sender, message)
        if core.executed != executed:
            self._views.progressed()

    def tick(self, now: float) -> None:
        """Let time pass; several times in `status_s`."""
        self.core.now = now
        self._views.tick()
        self._catchup.tick()

    def ready(self) -> Ready:
        """Take over what is to be done since the last call.

        Proposals are made here and not in `step`: what came in one read goes into one.
        """
        core = self.core
        if self._requests.queue:
            self._agreement.propose()
        out = core.out
        if out.compacted is not None:
            out.compacted = compact(core)
            out.entries = []
            out.sync = True
        core.out = Ready()
        return out

    def _handle_vote(self, sender: str, message: Message) -> None:
        """Take what belongs to a view, in its view."""
        match message:
            case PrePrepare():
                if self._views.is_current(sender, message):
                    self._agreement.on_pre_prepare(sender, message)
            case Prepare():
                if self._views.is_current(sender, message):
                    self._agreement.on_prepare(sender, message)
            case Commit():
                if self._views.is_current(sender, message):
                    self._agreement.on_commit(sender, message)

    def _handle_proof(self, sender: str, message: Message) -> None:
        """Take what is signed."""
        match message:
            case Request():
                self._requests.on_request(sender, message)
            case Checkpoint():
                self._executor.on_checkpoint(sender, message)
            case StableCheckpoint():
                self._catchup.on_stable(message)
            case ViewChange():
                self._views.on_view_change(sender, message)
            case NewView():
                self._views.on_new_view(message)

    def _handle_help(self, sender: str, message: Message) -> None:
        """Take what replicas that lag ask and are told."""
        match message:
            case Status():
                self._catchup.on_status(sender, message)
            case Decided():
                self._catchup.on_decided(sender, message)
            case FetchBatch():
                self._catchup.on_fetch_batch(sender, message)
            case BatchContent():
                self._catchup.on_batch(message)
            case FetchState():
                self._catchup.on_fetch_state(sender, message)
            case StateManifest():
                self._catchup.on_manifest(sender, message)
            case EpochLink():
                self._catchup.on_link(message)
            case StatePart():
                self._catchup.on_part(sender, message)

    def _refuse(self, sender: str, message: Message) -> None:
        """Count what no honest peer sends a replica."""
        del sender, message
        self.core.counters.refused += 1

    # --- for whoever watches

    @property
    def view(self) -> int:
        """Current view, entered or waited for."""
        return self.core.view

    @property
    def executed(self) -> int:
        """Last sequence number executed."""
        return self.core.executed

    @property
    def membership(self) -> Membership:
        """Members of the current epoch."""
        return self.core.group.membership

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self.core.counters
