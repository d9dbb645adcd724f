"""The control API and the metrics over HTTP; what is answered stands in `api`.

The rule: handlers translate, the agent acts. The socket is for root and the agent's group (0660), and no request body
is read: every verb is in the path and its query.
"""

import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from dwcp_migrate.agent.http.answers import answer_json, read_number
from dwcp_migrate.agent.tracking.registry import AmbiguousIdError, MigrationRegistry
from dwcp_migrate.api.schema import (
    HISTORY_LIMIT_DEFAULT,
    HISTORY_LIMIT_MAX,
    WEIGHT_MAX,
    AgentStatus,
    Done,
    Facts,
    Failure,
    Measured,
    Migrations,
    Peers,
    Predicted,
    RunningConfig,
)
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import ConfigError, DwcpError, HypervisorError, NotFoundError
from dwcp_migrate.protocol.load import FleetLoad
from dwcp_migrate.state.fleet.commands import COMMAND_BYTES_MAX
from dwcp_migrate.tasks import wait_within

CONTROL_SOCKET_MODE: Final = 0o660

HEARTBEAT_S: Final = 15.0
"""Between two comment lines of an idle event stream, so that a reader that went away is noticed."""

SHUTDOWN_S_MAX: Final = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiPart(Protocol):
    """A part of the control API with handlers of its own; see `http.handlers`."""

    def add_to(self, app: web.Application) -> None:
        """Add its routes."""


class Served(Protocol):
    """The operations behind the API; `daemon.Agent` has them."""

    ledger: MigrationRegistry

    @property
    def api_parts(self) -> Sequence[ApiPart]:
        """Parts of the API with handlers of their own."""

    def status(self) -> AgentStatus:
        """See `api.Status`."""

    async def peers(self) -> Peers:
        """See `api.Peers`."""

    async def facts(self) -> Facts:
        """See `api.Facts`."""

    def configuration(self) -> RunningConfig:
        """See `api.RunningConfig`."""

    def drain(self) -> Done:
        """No new migrations."""

    def undrain(self) -> Done:
        """New migrations again."""

    async def disable(self, reason: str) -> Done:
        """No new migrations until `enable`, over restarts too."""

    async def enable(self) -> Done:
        """End `disable`."""

    def reload(self) -> Done:
        """Read the configuration again; raises ConfigError."""

    def record(self, directory: str, domain: str) -> Done:
        """Arm the recording of one migration that leaves this host, or disarm it.

        Args:
            directory: absolute path of one that exists; empty disarms.
            domain: only a migration of this domain is recorded; empty for any.

        Raises:
            ConfigError: there is no such directory.
        """

    async def measured(self) -> Measured:
        """See `api.Measured`."""

    async def load(self) -> FleetLoad:
        """Load of the hosts and their guests, asked of the peers now."""

    async def predict(self, domain: str, peer: str, deadline_s: float) -> Predicted:
        """Predict a migration that has not begun.

        Args:
            domain: libvirt's name of one that runs here.
            peer: name of the destination.
            deadline_s: from now until it should be over; 0 is no deadline.

        Raises:
            NotFoundError: the domain or the peer is unknown.
        """

    def share(self, domain: str, weight: float, deadline_s: float) -> Done:
        """Set how a domain's running or next migration shares its link.

        Args:
            domain: libvirt's name.
            weight: share relative to the other migrations'.
            deadline_s: from now until it should be over; 0 is no deadline.
        """


def _status_of(error: DwcpError) -> int:
    if isinstance(error, AmbiguousIdError):
        return 409
    if isinstance(error, NotFoundError):
        return 404
    return 422 if isinstance(error, ConfigError) else 500


@web.middleware
async def _typed_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except DwcpError as error:
        return answer_json(Failure(error=str(error), hint=error.hint), _status_of(error))
    except web.HTTPException as error:
        return answer_json(Failure(error=error.reason), error.status)


class Api:
    """The control API's handlers."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def application(self) -> web.Application:
        """Make the application."""
        app = web.Application(middlewares=[_typed_errors], client_max_size=COMMAND_BYTES_MAX)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/migrations", self._migrations)
        app.router.add_get("/v1/migrations/{id}", self._migration)
        app.router.add_get("/v1/history", self._history)
        app.router.add_get("/v1/peers", self._peers)
        app.router.add_get("/v1/config", self._config)
        app.router.add_get("/v1/doctor", self._doctor)
        app.router.add_get("/v1/events", self._events)
        app.router.add_get("/v1/predict", self._predict)
        app.router.add_get("/v1/measured", self._measured)
        app.router.add_get("/v1/load", self._load)
        app.router.add_post("/v1/share", self._share)
        app.router.add_post("/v1/drain", self._drain)
        app.router.add_post("/v1/undrain", self._undrain)
        app.router.add_post("/v1/disable", self._disable)
        app.router.add_post("/v1/enable", self._enable)
        app.router.add_post("/v1/reload", self._reload)
        app.router.add_post("/v1/record", self._record)
        for part in self._served.api_parts:
            part.add_to(app)
        return app

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return answer_json(self._served.status())

    async def _migrations(self, _: web.Request) -> web.StreamResponse:
        return answer_json(Migrations(now=wall_clock(), migrations=self._served.ledger.running()))

    async def _migration(self, request: web.Request) -> web.StreamResponse:
        return answer_json(self._served.ledger.find(request.match_info["id"]))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        text = request.query.get("limit", str(HISTORY_LIMIT_DEFAULT))
        if not text.isdecimal() or not 1 <= int(text) <= HISTORY_LIMIT_MAX:
            raise web.HTTPBadRequest(reason=f"limit must be 1 to {HISTORY_LIMIT_MAX}")
        return answer_json(Migrations(now=wall_clock(), migrations=self._served.ledger.recent()[: int(text)]))

    async def _peers(self, _: web.Request) -> web.StreamResponse:
        return answer_json(await self._served.peers())

    async def _config(self, _: web.Request) -> web.StreamResponse:
        return answer_json(self._served.configuration())

    async def _doctor(self, _: web.Request) -> web.StreamResponse:
        return answer_json(await self._served.facts())

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        domain, peer = request.query.get("domain", ""), request.query.get("peer", "")
        if not (domain and peer):
            raise web.HTTPBadRequest(reason="domain and peer are needed")
        return answer_json(await self._served.predict(domain, peer, read_number(request, "deadline_s", 0.0)))

    async def _measured(self, _: web.Request) -> web.StreamResponse:
        return answer_json(await self._served.measured())

    async def _load(self, _: web.Request) -> web.StreamResponse:
        return answer_json(await self._served.load())

    async def _share(self, request: web.Request) -> web.StreamResponse:
        domain, weight = request.query.get("domain", ""), read_number(request, "weight", 1.0)
        if not domain or not 0 < weight <= WEIGHT_MAX:
            raise web.HTTPBadRequest(reason=f"a domain and a weight up to {WEIGHT_MAX:.0f} are needed")
        return answer_json(self._served.share(domain, weight, read_number(request, "deadline_s", 0.0)))

    async def _drain(self, _: web.Request) -> web.StreamResponse:
        return answer_json(self._served.drain())

    async def _undrain(self, _: web.Request) -> web.StreamResponse:
        return answer_json(self._served.undrain())

    async def _disable(self, request: web.Request) -> web.StreamResponse:
        return answer_json(await self._served.disable(request.query.get("reason", "")))

    async def _enable(self, _: web.Request) -> web.StreamResponse:
        return answer_json(await self._served.enable())

    async def _reload(self, _: web.Request) -> web.StreamResponse:
        return answer_json(self._served.reload())

    async def _record(self, request: web.Request) -> web.StreamResponse:
        return answer_json(self._served.record(request.query.get("directory", ""), request.query.get("domain", "")))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        queue = self._served.ledger.subscribe()
        if queue is None:
            raise web.HTTPServiceUnavailable(reason="too many readers of events")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            await self._stream(queue, response)
        except ConnectionError:
            pass  # the reader left
        finally:
            self._served.ledger.unsubscribe(queue)
        return response

    async def _stream(self, queue: Any, response: web.StreamResponse) -> None:
        while True:
            try:
                update = await wait_within(queue.get(), HEARTBEAT_S)
            except TimeoutError:
                await response.write(b":\n\n")
                continue
            if update is None:
                return
            await response.write(b"data: " + msgspec.json.encode(update) + b"\n\n")


class HttpServer:
    """An application that listens."""

    def __init__(self, application: web.Application) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S_MAX)

    async def listen_unix(self, path: Path) -> None:
        """Listen on a unix socket; one left behind is replaced.

        Raises:
            HypervisorError: the socket cannot be made.
        """
        await self._runner.setup()
        before = os.umask(0o777 & ~CONTROL_SOCKET_MODE)
        try:
            await web.UnixSite(self._runner, path).start()  # it replaces a socket that a dead agent left
        except OSError as error:
            raise HypervisorError(f"control socket {path}: {error.strerror}") from error
        finally:
            os.umask(before)

    async def listen_tcp(self, address: str, port: int, context: ssl.SSLContext | None = None) -> None:
        """Listen on a TCP port, over TLS where a context is given.

        Args:
            address: IP address to listen on.
            port: TCP port.
            context: None listens without TLS.

        Raises:
            HypervisorError: the port cannot be listened on.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, address, port, ssl_context=context).start()
        except OSError as error:
            raise HypervisorError(f"cannot listen on {address} port {port}: {error.strerror}") from error

    @property
    def listening(self) -> bool:
        """Whether it listens somewhere."""
        return bool(self._runner.sites)

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
