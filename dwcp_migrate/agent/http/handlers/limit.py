"""Control API of the limits of links to peers."""

import asyncio
from functools import partial

from aiohttp import web

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.http.answers import answer_json, read_number
from dwcp_migrate.agent.peers.limits import CommandedLimit
from dwcp_migrate.api.limits import LIMIT_BYTES_PER_S_MIN, LinkLimit, LinkLimits
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.logs import get_logger

log = get_logger(component="peers")


class LimitHandlers:
    """The handlers.

    Args:
        runtime: the shared parts.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._turn = asyncio.Lock()

    def add_to(self, app: web.Application) -> None:
        """Add the limits to the control API."""
        app.router.add_get("/v1/limits", self._list)
        app.router.add_post("/v1/limit", self._set)

    async def _list(self, _: web.Request) -> web.StreamResponse:
        return answer_json(LinkLimits(limits=[self._of(peer) for peer in self._runtime.directory.all()]))

    async def _set(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("peer", "")
        peer = self._runtime.directory.by_name(name)
        if peer is None:
            raise NotFoundError(f"no peer {name!r}", hint="`dwcp-migrate status` lists the peers")
        rate, for_s = read_number(request, "bytes_per_s"), read_number(request, "for_s")
        if 0 < rate < LIMIT_BYTES_PER_S_MIN:
            raise web.HTTPBadRequest(reason=f"a limit is at least {LIMIT_BYTES_PER_S_MIN:.0f} bytes a second")
        now = wall_clock()
        limit = CommandedLimit(bytes_per_s=rate, until=now + for_s if for_s else 0.0) if rate else None
        async with self._turn:  # one after the other: each is written before the next begins
            await asyncio.to_thread(partial(self._runtime.limits.put, peer.name, limit, now))
        log.info("limit commanded", peer=peer.name, bytes_per_s=rate, for_s=for_s)
        return answer_json(self._of(peer))

    def _of(self, peer: PeerConfig) -> LinkLimit:
        commanded = self._runtime.limits.of_peer(peer.name, wall_clock())
        return LinkLimit(
            peer=peer.name,
            commanded_bytes_per_s=commanded.bytes_per_s if commanded else 0.0,
            until=commanded.until if commanded else 0.0,
            configured_bytes_per_s=self._runtime.configured_ceiling(peer),
            bytes_per_s=self._runtime.link_ceiling(peer.name),
        )
