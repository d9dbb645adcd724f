"""A client of etcd v3's JSON gateway: HTTP requests to the first member that answers, with a login if one is set.

Answers are limited in size. Of several endpoints one that hangs is left after `HANG_S`, so that a request still has
time for the next.
"""

import asyncio
import base64
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BytesIO
from time import monotonic
from typing import Any, Final

import aiohttp
import msgspec

from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.units import MIB

ANSWER_BYTES_MAX: Final = 8 * MIB

TOTAL_S: Final = 2.0
"""The longest wait for the last endpoint that is tried."""

HANG_S: Final = 0.7
"""The longest wait for an endpoint that has another behind it."""

OK: Final = 200
LOGIN_FAILURES: Final = frozenset({400, 401})
"""Answers of etcd to a token that has ended (401), or that is older than a change of users or roles (400)."""


@dataclass(frozen=True, slots=True)
class EtcdLogin:
    """A user of etcd.

    Attributes:
        username: of it.
        password: reads the password, anew for each login.
    """

    username: str
    password: Callable[[], str]


class EtcdGateway:
    """The members of one etcd.

    Args:
        endpoints: URLs of members, tried in turn.
        context: makes the TLS context for endpoints with https; None takes the system's.
        login: None where etcd asks for none.

    Attributes:
        server_time: the clock of the member that answered last, seconds since the epoch; None before the first answer.
        answered_at: when that was, by this host's monotonic clock.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        context: Callable[[], ssl.SSLContext] | None = None,
        login: EtcdLogin | None = None,
    ) -> None:
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._context = context
        self._login = login
        self._token = ""
        self._session: aiohttp.ClientSession | None = None
        self.server_time: float | None = None
        self.answered_at = 0.0

    async def start(self) -> None:
        """Begin; asks nothing yet.

        Raises:
            CoordinationError: an endpoint is no URL.
        """
        if not all(endpoint.startswith(("http://", "https://")) for endpoint in self._endpoints):
            raise CoordinationError("coordination.endpoints must be URLs", hint='for instance "http://127.0.0.1:2379"')
        secure = any(endpoint.startswith("https://") for endpoint in self._endpoints)
        connector = aiohttp.TCPConnector(ssl=self._context() if secure and self._context else True)
        self._session = aiohttp.ClientSession(connector=connector)

    async def close(self) -> None:
        """Close the connections to etcd."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the first endpoint that answers; it comes first from then on.

        Args:
            method: path below `/v3/`.
            body: of the request.

        Returns:
            The answer.

        Raises:
            CoordinationError: none answers, or etcd refuses.
        """
        failed = "none is configured"
        for position, endpoint in enumerate(list(self._endpoints)):
            patience_s = TOTAL_S if position == len(self._endpoints) - 1 else HANG_S
            try:
                async with asyncio.timeout(patience_s):
                    return await self._ask_one(endpoint, method, body)
            except TimeoutError:
                failed = f"{endpoint} does not answer within {patience_s:g} s"
            except (aiohttp.ClientError, msgspec.DecodeError, CoordinationError) as error:
                failed = str(error) or type(error).__name__
            self._endpoints.remove(endpoint)
            self._endpoints.append(endpoint)
        raise CoordinationError(f"no etcd answers: {failed}", hint="see `etcdctl endpoint status`")

    async def _ask_one(self, endpoint: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        had_token = bool(self._token)
        if self._login is not None and not had_token:
            await self._log_in(endpoint)
        status, data = await self._post(endpoint, method, body)
        if status in LOGIN_FAILURES and had_token:
            await self._log_in(endpoint)
            status, data = await self._post(endpoint, method, body)
        if status != OK:
            raise CoordinationError(f"etcd at {endpoint} answers {status}: {data[:200]!r}")
        answer: dict[str, Any] = msgspec.json.decode(data)
        return answer

    async def _log_in(self, endpoint: str) -> None:
        assert self._login is not None, "there is a token only with a login"
        self._token = ""
        request = {"name": self._login.username, "password": self._login.password()}
        status, data = await self._post(endpoint, "auth/authenticate", request)
        if status != OK:
            raise CoordinationError(
                f"etcd at {endpoint} refuses the login of {self._login.username}: {data[:200]!r}",
                hint="see coordination.etcd.username and password_file",
            )
        self._token = msgspec.json.decode(data).get("token", "")

    async def _post(self, endpoint: str, method: str, body: dict[str, Any]) -> tuple[int, bytes]:
        assert self._session is not None, "started"
        headers = {"Content-Type": "application/json"} | ({"Authorization": self._token} if self._token else {})
        data = BytesIO(msgspec.json.encode(body))  # sent in pieces: a part of a snapshot does not hold the loop up
        async with self._session.post(f"{endpoint}/v3/{method}", data=data, headers=headers) as response:
            with suppress(KeyError, ValueError):
                self.server_time = parsedate_to_datetime(response.headers["Date"]).timestamp()
                self.answered_at = monotonic()
            return response.status, await _read(response)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in response.content.iter_chunked(1 << 16):
        data += part
        if len(data) > ANSWER_BYTES_MAX:
            raise CoordinationError(f"etcd answers with more than {ANSWER_BYTES_MAX} bytes")
    return bytes(data)


def encode(data: bytes) -> str:
    """Write bytes as the gateway takes them."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Read bytes of an answer."""
    return base64.b64decode(text)
