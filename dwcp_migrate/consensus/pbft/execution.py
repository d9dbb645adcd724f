"""Execution: runs decided batches in order, once; takes checkpoints; begins epochs.

Rule: the state after a sequence number depends on the batches up to it and on nothing else.
"""

from dwcp_migrate.consensus.pbft.core import Context, Core, Execution
from dwcp_migrate.consensus.pbft.epochs import Epochs
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.checkpoints import is_vote, sign_checkpoint
from dwcp_migrate.consensus.pbft.model.client_table import ClientProgress, ClientTable, RequestOutcome
from dwcp_migrate.consensus.pbft.model.log import Slot
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import Checkpoint, RequestBody, StableProof
from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot, Header, read_body, read_header, take_snapshot
from dwcp_migrate.consensus.pbft.reconfiguration import next_membership
from dwcp_migrate.consensus.pbft.requests import PendingRequests
from dwcp_migrate.errors import ConsensusError


class BatchExecutor:
    """Runs the application."""

    def __init__(self, core: Core, requests: PendingRequests, epochs: Epochs) -> None:
        self._core = core
        self._requests = requests
        self._epochs = epochs

    def decide(self, slot: Slot, batch_digest: bytes, data: bytes = b"") -> None:
        """Note that a slot is decided, and execute what has become possible.

        Args:
            slot: which.
            batch_digest: of the batch, which is kept.
            data: the encoded batch, if the journal does not have it.

        Raises:
            ConsensusError: another batch was decided there before: more replicas lie than the group can bear.
        """
        core = self._core
        if slot.decided is not None:
            if slot.decided != batch_digest:
                raise ConsensusError(f"two batches are decided at {slot.sequence}", hint="too many replicas are faulty")
            return
        slot.decision = slot.content if slot.digest == batch_digest else core.log.content(batch_digest)
        slot.decided = batch_digest
        core.write(records.Committed(slot.sequence, batch_digest, data), sync=False)
        self.run()

    def run(self) -> None:
        """Execute decided slots as far as they follow each other."""
        core = self._core
        while core.pending is None:
            slot = core.log.slots.get(core.executed + 1)
            if slot is None or slot.decided is None:
                return
            self._execute(slot, slot.decided)

    def _execute(self, slot: Slot, batch_digest: bytes) -> None:
        core = self._core
        content = slot.decision
        assert content is not None, "decide keeps the batch"
        core.executed = slot.sequence
        core.time_ms = max(core.time_ms, content.time_ms)
        results: list[tuple[str, int, bytes]] = []
        for _, body in content.requests:
            client, number = body.client, body.number
            if core.clients.progress_of(client, number) is ClientProgress.NEW and client in core.group.clients:
                outcome = RequestOutcome(slot.sequence, self._apply(body, slot.sequence))
                core.clients.record(client, number, outcome)
                results.append((client, number, outcome.result))
                self._requests.answer(body, outcome)
            else:
                self._requests.reply(body)
            self._requests.done((client, number))
        core.counters.executed += len(results)
        core.counters.batches += 1
        if not core.recovering:
            core.out.executions.append(Execution(slot.sequence, batch_digest, results))
        if core.pending is not None:
            core.clients.forget(core.group.clients.keys() - core.pending.clients.keys())
        if core.pending is not None or slot.sequence % core.options.checkpoint_interval == 0:
            self._checkpoint(slot.sequence)

    def _apply(self, body: RequestBody, sequence: int) -> bytes:
        core = self._core
        if not body.reconfigure:
            is_operator = core.group.clients[body.client].operator
            context = Context(body.client, sequence, core.time_ms, is_operator)
            return core.application.apply(body.operation, context)
        membership, answer = next_membership(core.group, body)
        if membership is not None:
            core.pending = Group(membership, sequence)
        return answer

    def _begin_epoch(self) -> None:
        """Start anew in view 0 with the new members: a quorum of the old ones has executed all that was theirs."""
        core = self._core
        core.pending = None
        core.view, core.active, core.new_view = 0, True, None
        core.carried, core.carried_last = {}, core.executed
        for sequence in [later for later in core.log.slots if later > core.executed]:
            del core.log.slots[sequence]
        for begin in core.on_epoch:
            begin()

    def _checkpoint(self, sequence: int) -> None:
        """Keep the state and vote for it."""
        core = self._core
        group = core.pending or core.group
        header = Header(sequence, core.time_ms, group.membership, group.since)
        snapshot = take_snapshot(header, core.clients, core.application.snapshot())
        core.snapshots[sequence] = snapshot
        if core.is_voter:
            vote = sign_checkpoint(core.identity, core.group, sequence, snapshot.digest)
            core.broadcast(vote)
            core.ballot.add(core.name, vote)
        self._try_stable(sequence)

    def on_checkpoint(self, sender: str, vote: Checkpoint) -> None:
        """Count another replica's vote.

        Args:
            sender: the replica, as its channel proves.
            vote: not yet checked.
        """
        core = self._core
        if vote.sequence <= core.stable.sequence:
            return
        if is_vote(vote, sender, core.group):
            core.ballot.add(sender, vote)
            self._try_stable(vote.sequence)

    def _try_stable(self, sequence: int) -> None:
        snapshot = self._core.snapshots.get(sequence)
        if snapshot is not None:
            proof = self._core.ballot.proof(sequence, snapshot.digest, self._core.group)
            if proof is not None:
                self.make_stable(proof)

    def make_stable(self, proof: StableProof) -> None:
        """Adopt a proven checkpoint that this replica has executed itself; others are for `Catchup`.

        Raises:
            ConsensusError: this replica's own state there is another one: it must not go on.
        """
        core = self._core
        snapshot = core.snapshots.get(proof.sequence)
        if snapshot is None or proof.sequence <= core.stable.sequence:
            return
        if snapshot.digest != proof.digest:
            raise ConsensusError(
                f"this replica's state at {proof.sequence} is not the group's",
                hint="start it with an empty journal and a new key",
            )
        self._epochs.record(proof, snapshot)
        self._settle(proof, snapshot)
        if core.pending is not None and core.pending.since == proof.sequence:
            core.group = self._epochs.succeed(core.group, core.pending)
            self._begin_epoch()

    def adopt(self, proof: StableProof, snapshot: GroupSnapshot) -> None:
        """Replace the state by a proven one that was fetched.

        Args:
            proof: checked, of a checkpoint that this replica has not reached.
            snapshot: the state at it; its digest is the proof's.
        """
        core = self._core
        header, body = read_header(snapshot.header), read_body(snapshot.body)
        core.application.restore(body.application)
        core.clients = ClientTable.load(body.clients)
        core.executed = header.sequence
        core.time_ms = header.time_ms
        core.pending = None
        if header.membership.epoch != core.group.epoch:
            old = core.known.get(header.membership.epoch - 1, core.group)
            core.group = self._epochs.succeed(old, Group(header.membership, header.since))
            self._begin_epoch()
        elif core.group.since != header.since:  # started with a membership that does not say since when it holds
            core.group.since = header.since
        self._epochs.record(proof, snapshot)
        self._settle(proof, snapshot)
        self._requests.prune()
        self.run()

    def _settle(self, proof: StableProof, snapshot: GroupSnapshot) -> None:
        core = self._core
        core.stable, core.state = proof, snapshot
        core.log.advance(proof.sequence)
        core.ballot.drop(proof.sequence)
        for sequence in [kept for kept in core.snapshots if kept <= proof.sequence]:
            del core.snapshots[sequence]
        if not core.recovering:
            core.out.compacted = []
