"""What must hold after every event, on every honest replica, whatever the others do."""

from dwcp_migrate.consensus import Decision, ReplicaOutput
from dwcp_migrate.consensus.pbft.model.keys import compute_digest
from dwcp_migrate.consensus.pbft.model.messages import Commit, Message, Prepare, PrePrepare
from tests.consensus.simulation.world import ClientNode, Node


class Invariants:
    """Agreement, execution once, no two promises, watermarks, answers that are true.

    Args:
        honest: names of the replicas that follow the protocol.
    """

    def __init__(self, honest: set[str]) -> None:
        self.honest = honest
        self.batches: dict[int, bytes] = {}
        self.results: dict[tuple[str, int], tuple[int, bytes]] = {}
        self.states: dict[int, bytes] = {}
        self._promises: dict[tuple[str, type, int, int, int], bytes] = {}
        self.checked = 0

    def sent(self, node: Node, message: Message) -> None:
        """An honest replica says one thing about a sequence number in a view, crashes or not."""
        if node.name not in self.honest:
            return
        if isinstance(message, PrePrepare):
            name = compute_digest(message.batch)
        elif isinstance(message, Prepare | Commit):
            name = message.digest
        else:
            return
        key = (node.name, type(message), message.epoch, message.view, message.sequence)
        assert self._promises.setdefault(key, name) == name, f"{node.name} said two things: {message}"

    def did(self, node: Node, ready: ReplicaOutput) -> None:
        """Honest replicas execute the same at the same place, and each request once."""
        if node.name not in self.honest:
            return
        for execution in ready.executions:
            sequence = execution.sequence
            known = self.batches.setdefault(sequence, execution.digest)
            assert known == execution.digest, f"{node.name} executed another batch at {sequence}"
            for client, number, result in execution.results:
                first = self.results.setdefault((client, number), (sequence, result))
                assert first == (sequence, result), f"{node.name} executed {client} {number} at {sequence}, not {first}"

    def after(self, node: Node) -> None:
        """Nothing that nobody asked for, watermarks, and equal states at equal checkpoints."""
        self.checked += 1
        if node.name not in self.honest:
            return
        for client, operation in node.application.fresh:
            assert (client, operation) in node.world.asked, (
                f"{node.name} executed what {client} never asked: {operation!r}"
            )
        node.application.fresh.clear()
        core = node.replica.core
        stable = core.stable
        assert stable.sequence <= core.executed <= core.log.stable + core.log.window
        assert core.log.stable == stable.sequence
        assert len(core.log.slots) <= core.log.window
        if stable.sequence:
            assert self.states.setdefault(stable.sequence, stable.digest) == stable.digest

    def accepted(self, client: ClientNode, decision: Decision) -> None:
        """A client believes only what an honest replica executed."""
        known = self.results.get((client.name, decision.number))
        assert known == (decision.sequence, decision.result), f"{client.name} was told {decision}, executed: {known}"
        if decision.certificate is not None:
            membership = client.client._group.membership
            keys = {member.name: member.key for member in membership.replicas}
            decision.certificate.verify(keys, membership.epoch, membership.cluster)
