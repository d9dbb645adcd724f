"""Peers towards which nothing is redirected for now, because QEMU alone is faster over their links.

A relay costs time and CPU that QEMU by itself does not spend; where `step_aside` shows that a migration in clear is to
be left to QEMU anyway, its connections are not caught in the first place. Rule: a peer is judged anew only while no
migration leaves this host, so that all connections of one go the same way; and without libvirt's word, which alone
tells of a migration that was not caught, none is left alone.
"""

from collections.abc import Iterable

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.step_aside import reason_to_step_aside
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig


def reason_to_leave_alone(runtime: Runtime, peer: PeerConfig, ended: Iterable[Migration]) -> str:
    """Say why migrations to a peer are left to QEMU, in clear; empty where they are not.

    Args:
        runtime: the shared parts.
        peer: the destination; one to which migrations have to be agreed to is never left alone.
        ended: migrations of this host that ended, newest first.
    """
    if runtime.config.coordination.requires(peer) or not runtime.departure(peer).in_clear:
        return ""
    return reason_to_step_aside(ended, peer.name, wall_clock(), in_clear=True)


class PeersLeftAlone:
    """See the head of this module.

    Args:
        runtime: the shared parts.

    Attributes:
        reasons: why, by the peer's name.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.reasons: dict[str, str] = {}

    def addresses(self) -> frozenset[str]:
        """Judge the peers anew, if that may be now, and list the addresses of those that are left alone."""
        runtime = self._runtime
        leaving = any(record.role == "source" for record in runtime.ledger.running())
        if not leaving and not runtime.domains.are_leaving:
            self.reasons = self._judge() if runtime.domains.state().connected else {}
        redirected = runtime.directory.redirected()
        return frozenset(address for address, peer in redirected if peer.name in self.reasons)

    def _judge(self) -> dict[str, str]:
        """Reasons by peer, of those that migrations went to: of a fleet's thousand peers that is a few."""
        ended: dict[str, list[Migration]] = {}
        for record in self._runtime.ledger.recent():
            ended.setdefault(record.peer, []).append(record)
        peers = (self._runtime.directory.by_name(name) for name in ended)
        reasons = {peer.name: reason_to_leave_alone(self._runtime, peer, ended[peer.name]) for peer in peers if peer}
        return {name: why for name, why in reasons.items() if why}
