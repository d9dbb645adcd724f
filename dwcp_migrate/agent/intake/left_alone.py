"""Peers towards which nothing is redirected for now, because QEMU alone is faster over their links.

A relay costs time and CPU that QEMU by itself does not spend; where `step_aside` shows that a migration in clear is to
be left to QEMU anyway, its connections are not caught in the first place. Rule: a peer is judged anew only while no
migration leaves this host, so that all connections of one go the same way; and without libvirt's word, which alone
tells of a migration that was not caught, none is left alone.
"""

from collections.abc import Callable

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.step_aside import reason_to_step_aside
from dwcp_migrate.agent.tracking.uncaught import UncaughtMigrations
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig


class PeersLeftAlone:
    """See the head of this module.

    Args:
        runtime: the shared parts.
        requires: says whether migrations to a peer have to be agreed to.

    Attributes:
        reasons: why, by the peer's name.
    """

    def __init__(self, runtime: Runtime, requires: Callable[[PeerConfig], bool]) -> None:
        self._runtime = runtime
        self._requires = requires
        self.reasons: dict[str, str] = {}

    def addresses(self) -> frozenset[str]:
        """Judge the peers anew, if that may be now, and list the addresses of those that are left alone."""
        self._look()
        directory = self._runtime.directory
        return frozenset(address for address, peer in directory.redirected() if peer.name in self.reasons)

    def _look(self) -> None:
        runtime = self._runtime
        leaving = any(record.role == "source" for record in runtime.ledger.running())
        if leaving or runtime.domains.are_leaving:
            return
        self.reasons = {}
        if not runtime.domains.state().connected:
            return
        ended, now = runtime.ledger.recent(), wall_clock()
        for peer in runtime.directory.all():
            if not runtime.departure(peer).in_clear or self._requires(peer):
                continue
            if why := reason_to_step_aside(ended, peer.name, now, in_clear=True):
                self.reasons[peer.name] = why


def uncaught_migrations(runtime: Runtime, left_alone: PeersLeftAlone) -> UncaughtMigrations:
    """Make the keeper of records of migrations that are not caught, which knows who is left alone.

    Args:
        runtime: the shared parts.
        left_alone: the peers that are.
    """
    return UncaughtMigrations(
        lambda: runtime.config,
        lambda: runtime.directory,
        lambda: left_alone.reasons,
        runtime.ledger,
        runtime.domains,
    )
