"""A PBFT group in one piece for tests of what agents do with its answers: real tickets, real signatures, no network."""

import time
from typing import TYPE_CHECKING

from dwcp_migrate.api.cluster import GroupMember, GroupStatus
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.consensus.pbft.certificate import DecisionCertificate, sign_decision
from dwcp_migrate.consensus.pbft.client import Decision
from dwcp_migrate.consensus.pbft.core import Context
from dwcp_migrate.consensus.pbft.membership_chain import Lineage
from dwcp_migrate.consensus.pbft.model.membership import Group
from dwcp_migrate.consensus.tickets.machine import Tickets
from dwcp_migrate.errors import NoQuorumError
from tests.consensus.epoch_links import link
from tests.consensus.members import identity, membership

if TYPE_CHECKING:
    from dwcp_migrate.consensus.pbft.model.messages import EpochLink


class Deciders:
    """The group of four; `is_up` is whether it decides.

    Attributes:
        signers: who signs; a quorum of three unless a test says otherwise.
    """

    def __init__(self) -> None:
        self.group = Group(membership(4))
        self.tickets = Tickets()
        self.signers = ["r0", "r1", "r2"]
        self.sequence = 0
        self.is_up = True
        self.links: list[EpochLink] = []

    def change(self) -> None:
        """Take one more in, a long time ago."""
        old = self.group.membership
        new = membership(len(old.replicas) + 1, epoch=old.epoch + 1)
        self.links.append(link(old, new, self.sequence + 1))
        self.sequence += 1
        self.group = Group(new, self.sequence)
        self.signers = ["r0", "r1", "r2", "r3"]

    def is_open(self, domain: str) -> bool:
        """Whether a domain has a ticket."""
        return self.tickets._domains[domain].ticket is not None

    def decide(self, client: str, operation: bytes, *, certify: bool) -> Decision:
        if not self.is_up:
            raise NoQuorumError("PBFT: the group did not decide")
        self.sequence += 1
        result = self.tickets.apply(operation, Context(client, self.sequence, round(time.time() * 1000)))
        epoch = self.group.epoch
        empty = DecisionCertificate(self.group.cluster, epoch, self.sequence, client, self.sequence, result, {})
        signatures = {name: sign_decision(identity(name), self.group, empty) for name in self.signers}
        certificate = DecisionCertificate(
            self.group.cluster, epoch, self.sequence, client, self.sequence, result, signatures
        )
        return Decision(self.sequence, self.sequence, result, certificate if certify else None)


class FakeGroup:
    """One host's way to it, in the place of `PbftGroup`; a host that no group is configured for has `deciders` None."""

    def __init__(self, name: str, deciders: Deciders | None) -> None:
        self._name = name
        self._deciders = deciders
        self.group = deciders.group if deciders else None
        self.lineage = Lineage(deciders.group.membership) if deciders else None

    async def decide(self, operation: bytes, *, certify: bool = False) -> Decision:
        assert self._deciders is not None
        return self._deciders.decide(self._name, operation, certify=certify)

    async def follow(self, _: PeerConfig) -> None:
        assert self.lineage is not None
        assert self._deciders is not None
        for one in self._deciders.links:
            self.lineage.follow(one)

    def seats(self) -> list[GroupMember]:
        return []

    def status(self) -> GroupStatus:
        return GroupStatus(role="client" if self._deciders else "none")
