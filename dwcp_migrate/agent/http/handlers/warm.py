"""Control API of the warm-ups of peers' page stores."""

from aiohttp import web

from dwcp_migrate.agent.http.answers import answer_json, read_number
from dwcp_migrate.agent.migrations.warm_outgoing import OutgoingWarmUps
from dwcp_migrate.api.limits import LIMIT_BYTES_PER_S_MIN
from dwcp_migrate.api.warm import WARM_S_MAX, WarmUpList


class WarmHandlers:
    """The handlers of warm-ups; see `api.warm`.

    Args:
        warm_ups: from this host.
    """

    def __init__(self, warm_ups: OutgoingWarmUps) -> None:
        self._warm_ups = warm_ups

    def add_to(self, app: web.Application) -> None:
        """Add warm-ups to the control API."""
        app.router.add_get("/v1/warm", self._list)
        app.router.add_post("/v1/warm", self._begin)
        app.router.add_post("/v1/warm/end", self._end)

    async def _list(self, _: web.Request) -> web.StreamResponse:
        return answer_json(WarmUpList(warm_ups=self._warm_ups.book.all()))

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        rate, for_s = read_number(request, "bytes_per_s"), read_number(request, "for_s")
        if 0 < rate < LIMIT_BYTES_PER_S_MIN:
            raise web.HTTPBadRequest(reason=f"a rate is at least {LIMIT_BYTES_PER_S_MIN:.0f} bytes a second")
        if for_s > WARM_S_MAX:
            raise web.HTTPBadRequest(reason=f"a warm-up takes {WARM_S_MAX:.0f} seconds at most")
        domain, peer = request.query.get("domain", ""), request.query.get("peer", "")
        if not (domain and peer):
            raise web.HTTPBadRequest(reason="domain and peer are needed")
        return answer_json(await self._warm_ups.begin(domain, peer, rate, for_s))

    async def _end(self, request: web.Request) -> web.StreamResponse:
        return answer_json(self._warm_ups.end(request.query.get("id", "")))
