"""Answers of the control API as JSON, and numbers out of a request's query."""

import msgspec
from aiohttp import web


def answer_json(value: object, status: int = 200) -> web.Response:
    """Answer with a value as JSON.

    Args:
        value: a struct, or what msgspec can encode.
        status: of HTTP.
    """
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def read_number(request: web.Request, name: str, otherwise: float = 0.0) -> float:
    """Read a number from 0 on out of the query.

    Args:
        request: of the control API.
        name: of the parameter.
        otherwise: where it is not there.

    Raises:
        web.HTTPBadRequest: it is no such number.
    """
    try:
        value = float(request.query.get(name, otherwise))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise web.HTTPBadRequest(reason=f"{name} must be a number from 0")
    return value
