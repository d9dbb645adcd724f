"""Check of ownership: the host that brings a migration has to be the one that runs its domain, as far as can be asked.

An announcement of libvirt's hook names a domain and no source, so any configured peer could take it. Where the fleet
keeps a record of who owns which domain, a peer that is not the owner is believed only if the owner does not object:
records can be late, and a migration that stock libvirt would carry must not fail because of one.

    claimed by X ── the record knows no owner, X, or this host ──> X's
                └── the record says Y ── Y says that it does not run there, or cannot be asked ──> X's
                                     └── Y runs it, or moves it just now ──> not X's
"""

from collections.abc import Collection

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.config import PeerConfig, same_name
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import Ask, Runs

log = get_logger(component="permits")


class OwnershipCheck:
    """Check of claimed domains against the fleet's record and their owners.

    Args:
        runtime: the shared parts.
        coordination: the fleet's state.
    """

    def __init__(self, runtime: Runtime, coordination: ClusterStateClient) -> None:
        self._runtime = runtime
        self._coordination = coordination

    async def held_by_others(self, claimant: PeerConfig, uuids: Collection[str]) -> frozenset[str]:
        """Find the domains that another host than the claimant runs.

        Args:
            claimant: who would bring them.
            uuids: of the domains.
        """
        if not self._runtime.config.coordination.is_shared:
            return frozenset()
        owners = await self._coordination.look(
            lambda fleet: {uuid: fleet.domains[uuid].owner for uuid in uuids if uuid in fleet.domains}
        )
        held = {uuid for uuid, owner in owners.items() if await self._objects(owner, claimant, uuid)}
        return frozenset(held)

    async def _objects(self, owner: str, claimant: PeerConfig, uuid: str) -> bool:
        if same_name(owner, claimant.name) or same_name(owner, self._runtime.name):
            return False
        peer = self._runtime.directory.by_name(owner)
        if peer is None or not peer.addresses:
            return False
        control = self._runtime.control
        try:
            answer = await control.ask(peer, peer.addresses[0], Ask(uuid=uuid), Runs, control.connect_timeout_s)
        except DwcpError:
            return False
        if answer.runs is False:
            return False
        log.warning("domain claimed by a host that does not run it", uuid=uuid, claimant=claimant.name, owner=owner)
        return True
