"""Membership epochs: recording, serving and verifying the transitions from one membership to the next.

Rule: the old members prove the new ones. The checkpoint at which an epoch begins is signed by the members of the one
before it; its header names the new members. Until a quorum has signed it, everybody stays in the old epoch, so that
replicas that have not executed so far find a quorum there.

Such links form a chain from the membership that a replica was started with to the present one, so that it can verify
everything that lies between. Each replica keeps the last `LINKS_MAX` links; one that lags further is started anew with
a later membership by its operator.
"""

from contextlib import suppress
from typing import Final

from dwcp_migrate.consensus.pbft.core import Core
from dwcp_migrate.consensus.pbft.model import records
from dwcp_migrate.consensus.pbft.model.epoch_links import LINKS_MAX, read_successor, verify_link
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.pbft.model.messages import EpochLink, ReplicaStatus, StableProof
from dwcp_migrate.consensus.pbft.model.snapshot import GroupSnapshot, Header
from dwcp_migrate.errors import EpochError

LINKS_SENT_MAX: Final = 4


class Epochs:
    """The chain of memberships."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def succeed(self, old: Group, new: Group) -> Group:
        """Note that one group follows another; from there on the old one signs nothing.

        Args:
            old: ends where `new` begins, if `new` is of the epoch after it.
            new: the later group.

        Returns:
            The group that is known for the epoch of `new`: the first one that was noted.
        """
        if old.epoch == new.epoch - 1:
            old.until = new.since
        return self._core.known.setdefault(new.epoch, new)

    def record(self, proof: StableProof, snapshot: GroupSnapshot) -> None:
        """Keep the link that a stable checkpoint makes, if it is the last one of an epoch.

        Args:
            proof: of the stable checkpoint.
            snapshot: the state at it.
        """
        if proof.sequence and proof.epoch not in self._core.links:
            link = EpochLink(proof, snapshot.parts, snapshot.header)
            with suppress(EpochError):  # most checkpoints end no epoch
                self._keep(link, read_successor(link))

    def learn(self, link: EpochLink) -> bool:
        """Follow a link from a membership that is known; returns whether it holds and was new."""
        core = self._core
        group = core.known.get(link.proof.epoch)
        if group is None or link.proof.epoch in core.links:
            return False
        try:
            header = verify_link(link, group)
        except EpochError:
            core.counters.refused += 1
            return False
        self._keep(link, header)
        return True

    def _keep(self, link: EpochLink, header: Header) -> None:
        core = self._core
        new = Group(header.membership, header.since)
        old = core.known.get(link.proof.epoch)
        if old is not None:
            self.succeed(old, new)
        core.known.setdefault(new.epoch, new)
        core.links[link.proof.epoch] = link
        core.write(records.Linked(link), sync=False)
        for epoch in sorted(core.links)[:-LINKS_MAX]:
            del core.links[epoch]

    def help(self, sender: str, status: ReplicaStatus) -> None:
        """Send the links that another replica lacks.

        Args:
            sender: name of the replica that lags.
            status: its last report; at most `LINKS_SENT_MAX` links from its epoch on are sent.
        """
        core = self._core
        for epoch in range(status.epoch, min(status.epoch + LINKS_SENT_MAX, core.group.epoch)):
            if epoch in core.links:
                core.send(sender, core.links[epoch])

    @property
    def trusted(self) -> tuple[Group, ...]:
        """The groups whose checkpoints this replica may take over: the current one and those that follow it."""
        core = self._core
        return tuple(group for epoch, group in core.known.items() if epoch >= core.group.epoch)
