"""Control API of the service that relieves the fleet by itself; see `api.watch`."""

from aiohttp import web

from dwcp_migrate.agent.http.answers import answer_json
from dwcp_migrate.agent.http.handlers.plan import number_of, refused_by
from dwcp_migrate.agent.plans.watch_book import WatchBook
from dwcp_migrate.api.watch import decode_watch
from dwcp_migrate.errors import DwcpError


class WatchHandlers:
    """The handlers.

    Args:
        book: the record of the service.
    """

    def __init__(self, book: WatchBook) -> None:
        self._book = book

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        app.router.add_get("/v1/watch", self._read)
        app.router.add_post("/v1/watch/put", self._put)

    async def _read(self, _: web.Request) -> web.StreamResponse:
        try:
            return answer_json(await self._book.read())
        except DwcpError as error:
            return refused_by(error)

    async def _put(self, request: web.Request) -> web.StreamResponse:
        try:
            record = decode_watch(await request.read())
            return answer_json(await self._book.put(record, number_of(request.query, "revision")))
        except DwcpError as error:
            return refused_by(error)
