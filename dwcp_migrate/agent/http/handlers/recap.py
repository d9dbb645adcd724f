"""Control API of the sums over migrations, of this host and its peers."""

import asyncio
from typing import Final

from aiohttp import web

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.http.answers import answer_json
from dwcp_migrate.agent.peers.client import code_of
from dwcp_migrate.agent.peers.reach import candidate_addresses, find_address
from dwcp_migrate.api.recap import FleetRecap, recap_of
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.protocol.control import Recall, Recalled

PEERS_AT_ONCE: Final = 32
TOO_OLD: Final = "unknown-request"


class RecapHandlers:
    """The handlers.

    Args:
        runtime: the shared parts.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def add_to(self, app: web.Application) -> None:
        """Add the sums to the control API."""
        app.router.add_get("/v1/recap", self._recap)

    async def _recap(self, request: web.Request) -> web.StreamResponse:
        try:
            since = float(request.query.get("since", 0))
        except ValueError:
            since = -1.0
        if not 0 <= since < float("inf"):
            raise web.HTTPBadRequest(reason="since must be a number of seconds, from 0")
        return answer_json(await self.recap(since))

    async def recap(self, since: float) -> FleetRecap:
        """Sum up since then, seconds since the epoch; peers that do not tell are named with the reason."""
        runtime = self._runtime
        hosts = {runtime.name: recap_of(runtime.ledger.recent(), since)}
        silent: dict[str, str] = {}
        turns = asyncio.Semaphore(PEERS_AT_ONCE)

        async def ask(peer: PeerConfig) -> None:
            async with turns:
                try:
                    address = await find_address(runtime.control, peer, candidate_addresses(peer), runtime.silent)
                    hosts[peer.name] = (await runtime.control.ask(peer, address, Recall(since=since), Recalled)).recap
                except DwcpError as error:
                    silent[peer.name] = "its agent is older than this question" if _is_old(error) else str(error)

        await asyncio.gather(*(ask(peer) for peer in runtime.directory.all()))
        return FleetRecap(since=since, now=wall_clock(), hosts=hosts, silent=silent)


def _is_old(error: DwcpError) -> bool:
    return code_of(error) == TOO_OLD
