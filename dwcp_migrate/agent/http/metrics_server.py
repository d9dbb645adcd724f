"""The metrics' own listener: `/metrics`, `/healthz` and the agent's page at `/`.

It speaks TLS and asks for a password where that is configured. It is for readers on the network, as the control socket
is for this host: nothing can be changed here.
"""

import base64
import binascii
import hmac
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from dwcp_migrate.agent.http import metrics
from dwcp_migrate.agent.http.server import HttpServer
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import AgentStatus
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import MetricsConfig
from dwcp_migrate.errors import ConfigError, HypervisorError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.pages.agent_page import status_page
from dwcp_migrate.pages.document import POLICY, page_of
from dwcp_migrate.pages.markup import make_element

PASSWORD_BYTES_MAX: Final = 1024

log = get_logger(component="metrics")

PAGE_KEPT_S: Final = 1.0
"""Whoever asks within it is given the same page: however many look, it is made once a second."""

PAGE_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

LANDING: Final = (("metrics", "Metrics"), ("healthz", "Health"))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Pages:
    """The page at `/`, made anew at most once in `PAGE_KEPT_S`."""

    def __init__(self, status: Callable[[], AgentStatus], recent: Callable[[], list[Migration]]) -> None:
        self._status = status
        self._recent = recent
        self._kept: dict[bool, tuple[float, str]] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Show the whole page; `?hold` is one that does not load itself again."""
        is_held = "hold" in request.query
        made_at, page = self._kept.get(is_held, (-PAGE_KEPT_S, ""))
        if steady_clock() - made_at >= PAGE_KEPT_S:
            page = status_page(self._status(), self._recent(), is_held=is_held)
            self._kept[is_held] = (steady_clock(), page)
        return web.Response(text=page, content_type="text/html", headers=PAGE_HEADERS)

    async def landing(self, _: web.Request) -> web.StreamResponse:
        """Show where the metrics are, and nothing of any guest."""
        now = self._status()
        ways = make_element("nav", *(make_element("a", name, href=where) for where, name in LANDING))
        page = page_of(now.name, [make_element("h1", now.name), ways], f"dwcp-migrate {now.version}.")
        return web.Response(text=page, content_type="text/html", headers=PAGE_HEADERS)


def metrics_application(
    status: Callable[[], AgentStatus], recent: Callable[[], list[Migration]], access: MetricsConfig
) -> web.Application:
    """Make the application of the metrics listener.

    Args:
        status: the agent's.
        recent: migrations that ended, the newest first.
        access: who may read, and what.
    """
    pages = _Pages(status, recent)

    async def answer(_: web.Request) -> web.StreamResponse:
        body = metrics.render(status(), process=True)
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def healthy(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=1024, middlewares=[_behind_password(access)] if access.username else [])
    app.router.add_get("/", pages.answer if access.status_page else pages.landing)
    app.router.add_get("/metrics", answer)
    app.router.add_get("/healthz", healthy)
    return app


def _behind_password(access: MetricsConfig) -> Middleware:
    @web.middleware
    async def demand(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_authorised(request.headers.get("Authorization", ""), access):
            return await handler(request)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="dwcp-migrate"'}, text="password\n")

    return demand


def is_authorised(header: str, access: MetricsConfig) -> bool:
    """Whether a request is from the configured user; the password's file is read each time.

    Args:
        header: the request's `Authorization`; empty without one.
        access: user and password file.
    """
    scheme, _, coded = header.partition(" ")
    try:
        given = base64.b64decode(coded, validate=True)
        with Path(access.password_file).open("rb") as file:
            password = file.read(PASSWORD_BYTES_MAX).split(b"\n", 1)[0].rstrip(b"\r")
    except (OSError, ValueError, binascii.Error):
        return False
    wanted = access.username.encode() + b":" + password
    return scheme.lower() == "basic" and bool(password) and hmac.compare_digest(given, wanted)


async def listen_for_metrics(server: HttpServer, where: str, access: MetricsConfig) -> str:
    """Listen for Prometheus; the agent also starts where it cannot.

    Args:
        server: that answers.
        where: `ADDRESS:PORT`.
        access: certificate and user.

    Returns:
        Why it does not listen; empty when it does.
    """
    address, _, port = where.rpartition(":")
    try:
        await server.listen_tcp(address.strip("[]"), int(port), server_context(access))
    except (HypervisorError, ConfigError) as error:
        log.error("no metrics", error=str(error))  # noqa: TRY400 - no bug, no trace
        return str(error)
    return ""


def server_context(access: MetricsConfig) -> ssl.SSLContext | None:
    """Read the listener's certificate; None where it speaks plain HTTP.

    Raises:
        ConfigError: a file is missing or not what it should be.
    """
    if not access.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(access.certificate, access.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"metrics.certificate {access.certificate}, metrics.key {access.key}: {error}",
            hint="name a PEM certificate and its key that the agent's user can read",
        ) from error
    return context
