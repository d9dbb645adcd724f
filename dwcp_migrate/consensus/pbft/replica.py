"""A PBFT replica without IO: `step` a message, `tick` the time, do what `ready` says.

Rule: the same calls give the same effects: no clock, no randomness, no threads. The shell calls `ready` after each
`step` and `tick` (or after several), writes and syncs what it says, then sends what it says, in that order; it may go
on stepping meanwhile. Messages may be lost, doubled, reordered and late; what matters is said again. A replica that
is not in the membership follows: it learns what is decided and votes once a membership names it.

The whole protocol with its diagram: docs/consensus.md.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from dwcp_migrate.consensus.pbft.core import Application, Core, Options, ReplicaCounters, ReplicaOutput
from dwcp_migrate.consensus.pbft.epochs import Epochs
from dwcp_migrate.consensus.pbft.execution import BatchExecutor
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.keys import SigningIdentity
from dwcp_migrate.consensus.pbft.model.membership import Group, Membership
from dwcp_migrate.consensus.pbft.model.messages import (
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
    ReplicaStatus,
    Reply,
    Request,
    StableCheckpoint,
    StateManifest,
    StatePart,
    ViewChange,
)
from dwcp_migrate.consensus.pbft.normal_case import NormalCase
from dwcp_migrate.consensus.pbft.recovery import compact, replay
from dwcp_migrate.consensus.pbft.requests import PendingRequests
from dwcp_migrate.consensus.pbft.state_transfer import Catchup
from dwcp_migrate.consensus.pbft.view_change import ViewChanges

_VOTES: Final = frozenset((PrePrepare, Prepare, Commit))
"""Messages that count only in the view that they name."""


class PbftReplica:
    """One member of a group.

    Args:
        name: of this replica.
        identity: its key.
        membership: of the epoch to start in; a journal that knows a later one wins.
        application: in its empty state.
        options: the same on all replicas.
    """

    def __init__(
        self, name: str, identity: SigningIdentity, membership: Membership, application: Application, options: Options
    ) -> None:
        self.core = Core(name, identity, Group(membership), application, options)
        self._requests = PendingRequests(self.core)
        self._epochs = Epochs(self.core)
        self._executor = BatchExecutor(self.core, self._requests, self._epochs)
        self._agreement = NormalCase(self.core, self._requests, self._executor)
        self._views = ViewChanges(self.core, self._requests, self._agreement, self._executor)
        self._catchup = Catchup(self.core, self._epochs, self._agreement, self._executor, self._views)
        views, agreement, catchup = self._views, self._agreement, self._catchup
        self._handlers: dict[type[Message], Callable[[str, Any], None]] = {
            PrePrepare: agreement.on_pre_prepare,
            Prepare: agreement.on_prepare,
            Commit: agreement.on_commit,
            Request: self._requests.on_request,
            Checkpoint: self._executor.on_checkpoint,
            ViewChange: views.on_view_change,
            NewView: lambda _, message: views.on_new_view(message),
            StableCheckpoint: lambda _, message: catchup.on_stable(message),
            ReplicaStatus: catchup.on_status,
            Decided: catchup.on_decided,
            FetchBatch: catchup.on_fetch_batch,
            BatchContent: lambda _, message: views.on_batch(message),
            FetchState: catchup.on_fetch_state,
            StateManifest: catchup.on_manifest,
            StatePart: catchup.on_part,
            EpochLink: lambda _, message: catchup.on_link(message),
            **dict.fromkeys((Hello, Reply), self._refuse),
        }

    def recover(self, entries: Iterable[records.Entry], now: float) -> None:
        """Go on where the journal ends; once, before the first `step`.

        Args:
            entries: of the journal, in their order; none for a new one.
            now: monotonic seconds.

        Raises:
            ConsensusError: the journal contradicts itself.
        """
        self.core.now = now
        replay(self.core, self._epochs, self._executor, self._views, entries)

    def set_clock(self, wall_s: float, now: float) -> None:
        """Set the wall clock; often enough that it is never off by a tenth of `clock_skew_ms`.

        Args:
            wall_s: Unix seconds.
            now: monotonic seconds of the same moment.
        """
        self.core.wall_offset_s = wall_s - now

    def step(self, sender: str, message: Message, now: float) -> None:
        """Take a message from `sender`, as its channel proves.

        Args:
            sender: name of the replica or client that the channel proves.
            message: decoded, and otherwise unchecked.
            now: monotonic seconds.

        Raises:
            ConsensusError: more replicas are faulty than the group can bear, or this one is: it must stop.
        """
        core = self.core
        core.now = now
        executed = core.executed
        kind = type(message)
        if kind not in _VOTES or self._views.is_current(sender, message):  # type: ignore[arg-type]
            self._handlers[kind](sender, message)
        if core.executed != executed:
            self._views.progressed()

    def tick(self, now: float) -> None:
        """Let time pass; several times in `status_s`."""
        self.core.now = now
        self._views.tick()
        self._catchup.tick()

    def ready(self) -> ReplicaOutput:
        """Hand over the work that has come up since the last call.

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
        core.out = ReplicaOutput()
        return out

    def _refuse(self, sender: str, message: Message) -> None:
        """Count what no honest peer sends a replica."""
        del sender, message
        self.core.counters.refused += 1

    # --- for observers

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
    def counters(self) -> ReplicaCounters:
        """Totals since the start."""
        return self.core.counters
