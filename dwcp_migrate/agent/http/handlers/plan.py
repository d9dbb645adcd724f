"""Control API of the plans that are kept; see `api.plans`."""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from dwcp_migrate.agent.http.answers import answer_json
from dwcp_migrate.agent.plans.book import PlanBook
from dwcp_migrate.api.plans import PlanList, decode_record
from dwcp_migrate.api.schema import Failure
from dwcp_migrate.errors import CoordinationError, DwcpError, PlacementError, StalePlanError

STATUSES: Final[tuple[tuple[type[DwcpError], int], ...]] = (
    (StalePlanError, 412),
    (PlacementError, 400),
    (CoordinationError, 503),
)
NUMBER_MAX: Final = 2**53


class PlanHandlers:
    """Handlers of plans.

    Args:
        book: the plans.
    """

    def __init__(self, book: PlanBook) -> None:
        self._book = book

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        app.router.add_get("/v1/plans", self._all)
        app.router.add_post("/v1/plans/put", self._put)

    async def _all(self, _: web.Request) -> web.StreamResponse:
        try:
            return answer_json(PlanList(plans=await self._book.all()))
        except DwcpError as error:
            return refused_by(error)

    async def _put(self, request: web.Request) -> web.StreamResponse:
        try:
            record = decode_record(await request.read())
            number, revision = number_of(request.query, "id"), number_of(request.query, "revision")
            return answer_json(await self._book.put(msgspec.structs.replace(record, id=number), revision))
        except DwcpError as error:
            return refused_by(error)


def number_of(query: Mapping[str, str], name: str) -> int:
    """Read a number of a query.

    Args:
        query: by name.
        name: of the number, 0 to `NUMBER_MAX`.

    Raises:
        PlacementError: it is missing, no number, or too large.
    """
    text = query.get(name, "")
    if not text.isdecimal() or int(text) > NUMBER_MAX:
        raise PlacementError(f"{name} must be a number")
    return int(text)


def refused_by(error: DwcpError) -> web.Response:
    """A refusal, with the status that stands for its kind."""
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    body = msgspec.json.encode(Failure(error=str(error), hint=error.hint))
    return web.Response(body=body, status=status, content_type="application/json")
