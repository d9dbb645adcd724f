"""What a replica has promised, as its synced records say, held against what it knows after a crash."""

from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.messages import DIGESTS_MAX


class Promises:
    """The promises of one replica in one epoch: views left, and P and Q for each sequence number."""

    def __init__(self) -> None:
        self._epoch = 0
        self._view = 0
        self._prepared: dict[int, tuple[int, bytes]] = {}
        self._seen: dict[int, dict[bytes, int]] = {}

    def made(self, epoch: int, entries: list[records.Entry]) -> None:
        """Note what was synced and is about to be said.

        Args:
            epoch: in which it was written: by now the replica may be in a later one.
            entries: of the journal.
        """
        if epoch != self._epoch:
            self.__init__()  # type: ignore[misc]
            self._epoch = epoch
        for entry in entries:
            match entry:
                case records.ViewLeft(view):
                    self._view = max(self._view, view)
                case records.Entered(proof):
                    self._view = max(self._view, proof.view)
                case records.WasPrepared(view, sequence, name):
                    self._prepared[sequence] = max(self._prepared.get(sequence, (-1, b"")), (view, name))
                case records.Accepted(view, sequence, name):
                    self._seen.setdefault(sequence, {})[name] = view

    def kept(self, core: Core) -> None:
        """Hold a replica that has just recovered against them; raises AssertionError."""
        if core.group.epoch != self._epoch:
            return
        assert core.view >= self._view, f"{core.name} left view {self._view}, and is in {core.view} after a crash"
        for sequence in [kept for kept in (*self._prepared, *self._seen) if kept > core.stable.sequence]:
            slot = core.log.slots.get(sequence)
            assert slot is not None, f"{core.name} forgot {sequence}"
            promised = self._prepared.get(sequence)
            assert promised is None or slot.prepared >= promised, f"{core.name} forgot that {sequence} was prepared"
            newest = sorted(self._seen.get(sequence, {}).items(), key=lambda item: item[1])[-DIGESTS_MAX:]
            for name, view in newest:
                assert slot.seen.get(name, -1) >= view, f"{core.name} forgot that it accepted {sequence} in {view}"
