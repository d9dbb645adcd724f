"""Discovery: this host publishes its addresses in the fleet's state and takes its peers from it, without a list.

The rule: missing information changes nothing. Where the fleet cannot be asked, or one of its hosts runs a release that
does not know this record, the peers stay as they are; a peer is removed only when the fleet's state no longer has it.

Only this host's copy of the state is read, and a host that is found is not dialled: connections are made with the first
migration.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from dwcp_migrate.agent.authorization.fleet_state import ClusterStateClient
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.peers.addresses import in_background
from dwcp_migrate.agent.peers.fleet_peers import fleet_peers, ports_that_differ
from dwcp_migrate.agent.peers.own_reach import own_reach
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.state.fleet.commands import PutReach
from dwcp_migrate.state.fleet.model import FleetState, HostRecord
from dwcp_migrate.tasks import Tasks

LOOK_S: Final = 5.0
"""Time between two looks, and so the longest time until migrations to a host that published an address are caught."""

log = get_logger(component="fleet-members")


class FleetMembers:
    """The publishing and the finding.

    Args:
        runtime: the shared parts.
        coordination: the fleet's state.
        found: takes the peers whenever they are others than before.

    Attributes:
        peers: that were found.
        ports_not_redirected: hosts whose published migration ports are not all redirected here, and why.
    """

    def __init__(
        self,
        runtime: Runtime,
        coordination: ClusterStateClient,
        found: Callable[[tuple[PeerConfig, ...]], None],
    ) -> None:
        self._runtime = runtime
        self._coordination = coordination
        self._found = found
        self._problem = ""
        self._tasks = Tasks()
        self.peers: tuple[PeerConfig, ...] = ()
        self.ports_not_redirected: list[str] = []

    def start(self) -> None:
        """Begin, where hosts are to be found at all."""
        self._tasks.begin(self._run())

    async def close(self) -> None:
        """Stop."""
        await self._tasks.cancel()

    async def _run(self) -> None:
        while True:
            coordination = self._runtime.config.coordination
            if coordination.discover and coordination.is_shared:
                try:
                    await self.look()
                    self._say("")
                except CoordinationError as error:
                    self._say(str(error))
            else:
                self._take(())
            await asyncio.sleep(LOOK_S)

    def _say(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("hosts of the fleet are as they were", why=problem)
        self._problem = problem

    async def look(self) -> None:
        """Take over who there is, and tell the fleet where this host is if it does not know.

        Raises:
            CoordinationError: the fleet cannot be asked, or some host does not read what would be told.
        """
        config, name = self._runtime.config, self._runtime.name
        hosts = await self._coordination.look(_hosts)
        self._take(fleet_peers(hosts, name, config))
        self.ports_not_redirected = [
            f"{host}: {why}"
            for host, record in hosts.items()
            if host != name and record.reach.addresses and (why := ports_that_differ(record.reach, config))
        ]
        own = hosts.get(name)
        if own is None:  # it says that it lives first
            return
        reach = await in_background(lambda: own_reach(config, name))
        if reach != own.reach:
            await self._coordination.submit(PutReach(name=name, reach=reach))
            log.info("told the fleet where this host is", addresses=list(reach.addresses), port=reach.port)

    def _take(self, peers: tuple[PeerConfig, ...]) -> None:
        if peers != self.peers:
            self.peers = peers
            log.info("hosts of the fleet", found=len(peers))
            self._found(peers)


def _hosts(fleet: FleetState) -> dict[str, HostRecord]:
    return dict(fleet.hosts)
