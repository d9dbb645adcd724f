"""View changes: leave a primary that does not deliver, and prove what its successor starts with.

Rule: a replica that leaves a view takes no part in it or a lower one again, and writes that down before it says so.
It goes on to yet another view only after a quorum has left with it, or further: one that is cut off alone stays one
view ahead, no more.

    all          ---- ViewChange(view + 1, checkpoint, prepared, seen; signed) ---->  all
    new primary  ---- NewView(a quorum's view changes; signed) -------------------->  all: `new_view.select`

A new view counts as its primary's vote for what it carries on. So a primary announces it only once it has all of that
itself (TOCS 2002, section 4.4, condition A3): otherwise a batch could be prepared that too few honest replicas vouch
for, and no later view could choose it or anything else. It asks the others for what it lacks.
"""

from collections import deque
from typing import Final

from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.execution import BatchExecutor
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.keys import NEW_VIEW, VIEW_CHANGE, compute_digest, is_signed
from dwcp_migrate.consensus.pbft.model.messages import (
    NULL_BATCH,
    NULL_DIGEST,
    BatchContent,
    Commit,
    FetchBatch,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    ViewChangeBody,
    encode_body,
)
from dwcp_migrate.consensus.pbft.new_view import NewViewChoice, check, select
from dwcp_migrate.consensus.pbft.normal_case import NormalCase
from dwcp_migrate.consensus.pbft.requests import PendingRequests
from dwcp_migrate.units import KIB

BACKOFF_MAX: Final = 6
"""Doublings of the timeout: a group that a network splits for an hour is back within two minutes."""
EARLY_MAX: Final = 64
"""Messages kept for each replica that is in a later view already: they overtook the proof of it."""
EARLY_BATCH_BYTES_MAX: Final = 64 * KIB
"""Larger proposals are not kept: they come again."""
FETCHES_MAX: Final = 16
"""Batches asked for at once."""

Vote = PrePrepare | Prepare | Commit


class ViewChanges:
    """Moves a replica from view to view."""

    def __init__(self, core: Core, requests: PendingRequests, agreement: NormalCase, executor: BatchExecutor) -> None:
        self._core = core
        self._requests = requests
        self._agreement = agreement
        self._executor = executor
        self._changes: dict[str, tuple[ViewChangeBody, ViewChange]] = {}
        self._early: dict[str, deque[Vote]] = {}
        self._wanted: list[bytes] = []
        self._fetched: dict[bytes, bytes] = {}
        self._failures = 0
        self._deadline: float | None = None
        core.on_epoch.append(self._on_epoch)

    @property
    def timeout_s(self) -> float:
        """Time that a request or a new primary may take now."""
        factor: int = 2 ** min(self._failures, BACKOFF_MAX)
        return self._core.options.request_timeout_s * factor

    def progressed(self) -> None:
        """Note that something was executed: the view works, or a state was fetched that this replica's view needs."""
        self._failures = 0
        self._try()

    def tick(self) -> None:
        """Suspect the primary if something waits too long; the primary suspects itself like any other."""
        core = self._core
        if not core.is_voter:
            return
        if not core.active:
            if self._deadline is not None and core.now > self._deadline:
                self.leave(core.view + 1)
        elif self._requests.overdue(self.timeout_s) or self._agreement.is_stuck(self.timeout_s):
            self.leave(core.view + 1)

    def leave(self, view: int) -> None:
        """Leave the current view for `view`."""
        core = self._core
        core.view, core.active, core.new_view = view, False, None
        core.carried, core.carried_last = {}, 0
        core.counters.views_left += 1
        self._wanted, self._fetched = [], {}
        self._deadline = None
        self._failures += 1
        core.write(records.ViewLeft(view))
        self.announce()
        self._try()

    def announce(self) -> None:
        """Sign and send what this replica knows; repeated, with what was learned meanwhile, until the view begins."""
        core = self._core
        prepared, seen = core.log.prepared(), core.log.seen()
        body = ViewChangeBody(core.group.epoch, core.view, core.name, core.stable, prepared, seen)
        data = encode_body(body)
        change = ViewChange(data, core.identity.sign(VIEW_CHANGE, core.group.cluster, data))
        self._changes[core.name] = (body, change)
        core.broadcast(change)

    def on_view_change(self, sender: str, change: ViewChange) -> None:
        """Take another replica's view change; join if `weak` replicas are ahead.

        Args:
            sender: the replica, as its channel proves.
            change: not yet checked.
        """
        core = self._core
        body = check(change, core.groups, core.options.window)
        if body is None or body.replica != sender:
            core.counters.refused += 1
            return
        if body.view < core.view or (body.view == core.view and core.active):
            return
        known = self._changes.get(sender)
        if known is not None and known[0].view > body.view:
            return
        self._changes[sender] = (body, change)
        ahead = sorted((held.view for held, _ in self._changes.values() if held.view > core.view), reverse=True)
        weak = core.group.numbers.weak
        if len(ahead) >= weak and core.is_voter:
            self.leave(ahead[weak - 1])
        else:
            self._try()

    def _try(self) -> None:
        """Begin the view if this replica is its primary and knows enough; else wait for the one who is."""
        core = self._core
        if core.active or not core.is_voter:
            return
        if sum(body.view >= core.view for body, _ in self._changes.values()) < core.group.numbers.quorum:
            return
        if self._deadline is None:
            self._deadline = core.now + self.timeout_s
        if core.primary != core.name:
            return
        held = [(body, change) for body, change in self._changes.values() if body.view == core.view]
        choice = select([body for body, _ in held], core.group.numbers)
        if choice is None or not self._holds(choice):
            return
        changes = tuple(change for _, change in held)
        data = _statement(core.group.epoch, core.view, changes)
        proof = NewView(core.group.epoch, core.view, changes, core.identity.sign(NEW_VIEW, core.group.cluster, data))
        self._enter(proof, choice)

    def _holds(self, choice: NewViewChoice) -> bool:
        """Tell whether this replica has what the view that it is to begin carries on; ask for it once if not."""
        core = self._core
        if choice.stable.sequence > core.executed:
            return False  # `Catchup` fetches the state
        held = {NULL_DIGEST, *core.log.batches, *self._fetched}
        lacking = [name for name in dict.fromkeys(choice.digests.values()) if name not in held]
        if lacking and not self._wanted:
            for name in lacking[:FETCHES_MAX]:
                core.broadcast(FetchBatch(name))
        self._wanted = lacking
        return not lacking

    def missing(self) -> list[bytes]:
        """Name batches that this view carries on, or the one that this replica is to begin, and that it lacks."""
        if not self._core.active:
            return self._wanted[:FETCHES_MAX]
        return [name for _, name in self._agreement.missing()[:FETCHES_MAX]]

    def on_batch(self, message: BatchContent) -> None:
        """Take a batch that was missing."""
        core = self._core
        name = compute_digest(message.batch)
        if core.active:
            for sequence, missing in self._agreement.missing():
                if missing == name:
                    self._agreement.carry(sequence, name, message.batch)
        elif name in self._wanted:
            self._fetched[name] = message.batch
            self._try()

    def on_new_view(self, proof: NewView) -> None:
        """Enter a view that is proven, whoever passes the proof on."""
        core = self._core
        if proof.epoch != core.group.epoch or proof.view < core.view or (proof.view == core.view and core.active):
            return
        choice = self.examine(proof)
        if choice is None:
            core.counters.refused += 1
            return
        self._enter(proof, choice)

    def examine(self, proof: NewView) -> NewViewChoice | None:
        """Repeat the new primary's decision; None if it does not hold."""
        core = self._core
        group = core.group
        data = _statement(proof.epoch, proof.view, proof.changes)
        if not is_signed(group.keys[group.primary(proof.view)], NEW_VIEW, group.cluster, data, proof.signature):
            return None
        bodies = {}
        for change in proof.changes:
            body = check(change, core.groups, core.options.window)
            if body is None or body.view != proof.view or body.replica in bodies:
                return None
            bodies[body.replica] = body
        return select(bodies.values(), group.numbers)

    def _enter(self, proof: NewView, choice: NewViewChoice) -> None:
        core = self._core
        core.view, core.active, core.new_view = proof.view, True, proof
        core.counters.views_entered += 1
        core.write(records.Entered(proof))
        self._deadline = None
        self._changes = {name: held for name, held in self._changes.items() if held[0].view > proof.view}
        self.begin(choice)
        if core.is_primary:
            core.broadcast(proof)
        self._replay_early()

    def begin(self, choice: NewViewChoice) -> None:
        """Take over what the view carries on."""
        core = self._core
        core.carried = choice.digests
        core.carried_last = max(choice.digests, default=choice.stable.sequence)
        self._executor.make_stable(choice.stable)
        self._agreement.enter_view(self._fetched)
        self._wanted, self._fetched = [], {}
        keys: set[tuple[str, int]] = set()
        for name in choice.digests.values():
            content = core.log.content(name)
            if content is not None:
                keys.update((body.client, body.number) for _, body in content.requests)
        self._requests.enter_view(keys)

    def resume(self) -> None:
        """Go on after a restart: batches that were carried on count as proposed.

        A crash may have kept the record that the view was entered and lost those of batches accepted in it. They are
        accepted again; a primary that lacks one has told nobody of its view yet, and leaves it.
        """
        core = self._core
        self._agreement.proposed = max([core.carried_last, core.executed, *core.log.slots])
        for sequence, name in core.carried.items():
            self._agreement.carry(sequence, name, NULL_BATCH if name == NULL_DIGEST else None)
        if core.is_primary and self._agreement.missing():
            self.leave(core.view + 1)

    # --- messages that overtake the proof of their view

    def is_current(self, sender: str, message: Vote) -> bool:
        """Tell whether a message belongs to the view that this replica is in; one of a later view is kept.

        Args:
            sender: the replica, as its channel proves.
            message: a vote of any view.
        """
        core = self._core
        if message.view == core.view and core.active and message.epoch == core.group.epoch:
            return True
        if isinstance(message, PrePrepare) and len(message.batch) > EARLY_BATCH_BYTES_MAX:
            return False
        if (message.epoch, message.view) >= (core.group.epoch, core.view) and sender in core.group.keys:
            self._early.setdefault(sender, deque(maxlen=EARLY_MAX)).append(message)
        return False

    def _replay_early(self) -> None:
        early, self._early = self._early, {}
        for sender, messages in early.items():
            for message in messages:
                if not self.is_current(sender, message):
                    continue
                if isinstance(message, PrePrepare):
                    self._agreement.on_pre_prepare(sender, message)
                elif isinstance(message, Prepare):
                    self._agreement.on_prepare(sender, message)
                else:
                    self._agreement.on_commit(sender, message)

    def _on_epoch(self) -> None:
        core = self._core
        self._changes.clear()
        self._early.clear()
        self._wanted, self._fetched = [], {}
        self._failures = 0
        self._deadline = None
        self._agreement.proposed = core.executed


def _statement(epoch: int, view: int, changes: tuple[ViewChange, ...]) -> bytes:
    """Lay out what a new view's signature covers."""
    return encode_body((epoch, view, [compute_digest(change.body) for change in changes]))
