"""The asking side of control connections, kept for reuse.

The rule: a request has one deadline for connecting and one for the answer; every failure closes the connection and
becomes one of four errors: unreachable, certificate, version, refused. A kept connection that turns out to be dead is
replaced once without an error, because the peer's agent may have restarted.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import (
    CertificateError,
    ConfigError,
    DwcpError,
    FleetRefusedError,
    NoMemoryError,
    PeerRefusedError,
    PeerUnreachableError,
    ProtocolError,
    RemoteProtocolError,
    VersionMismatchError,
)
from dwcp_migrate.framing import FrameSplitter
from dwcp_migrate.net import end_when_unacknowledged, open_tcp_socket
from dwcp_migrate.protocol.control import (
    CONTROL_SESSION,
    Envelope,
    Message,
    Refused,
    Request,
    control_frames,
    decode_control,
    encode_control,
)
from dwcp_migrate.refusals import BY_PEER, Explanation
from dwcp_migrate.transport.core.frames import Preamble, encode_preamble
from dwcp_migrate.transport.tls import as_typed
from dwcp_migrate.units import KIB

KEPT_S: Final = 300.0
"""Time for which an idle connection is kept: the next migration to the same peer saves three round trips."""

KEPT_EACH_MAX: Final = 4
"""Idle connections kept to one address; migrations that begin in the same instant each use one."""

KEPT_MAX: Final = 64
"""Idle connections kept in all: a fleet of a thousand hosts is no mesh of them."""

ANSWER_S_MAX: Final = 10.0
"""An `Open` waits for a data process that may still be starting."""

READ_BYTES: Final = 64 * KIB

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class ControlConnection:
    """A control connection, TLS done; `requests` were sent on it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: FrameSplitter[Envelope] = field(default_factory=control_frames)
    used_at: float = 0.0
    requests: int = 0

    def close(self) -> None:
        """Break it off."""
        self.writer.transport.abort()


class ControlClient:
    """Asks peers.

    Args:
        context: makes the TLS context anew for each connection, so that renewed certificates count at once.
        connect_timeout_s: for TCP and TLS together.
        mark: socket mark of the agent's own connections.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext], connect_timeout_s: float, mark: int) -> None:
        self._context = context
        self.connect_timeout_s = connect_timeout_s
        self._mark = mark
        self._kept: dict[tuple[str, str, int], list[ControlConnection]] = {}

    async def ask(
        self, peer: PeerConfig, address: str, request: Request, answer: type[M], timeout_s: float = ANSWER_S_MAX
    ) -> M:
        """Send a request to a peer at one of its addresses and return its answer, of type `answer`.

        Args:
            peer: who has to answer, by its certificate.
            address: where.
            request: what is asked.
            answer: what kind of answer is due.
            timeout_s: for the answer, once there is a connection.

        Raises:
            PeerUnreachableError: no connection in time, or no answer.
            CertificateError: either side's certificate was not accepted.
            VersionMismatchError: no common protocol version.
            PeerRefusedError: it said no, see its `code`.
            RemoteProtocolError: it answered against the rules.
        ConfigError: this host's TLS files cannot be read.
        """
        key = (peer.name, address, peer.port)
        connection = self._take(key)
        if connection is not None:
            try:
                return await self._converse(key, connection, request, answer, timeout_s)
            except PeerUnreachableError as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise  # it is there, and hangs: another connection would wait as long
        connection = await self.connect(peer, address)
        return await self._converse(key, connection, request, answer, timeout_s)

    def _take(self, key: tuple[str, str, int]) -> ControlConnection | None:
        kept = self._kept.get(key, [])
        now = time.monotonic()
        while kept:
            connection = kept.pop()
            if now - connection.used_at < KEPT_S and not connection.reader.at_eof():
                if not kept:
                    del self._kept[key]
                return connection
            connection.close()
        self._kept.pop(key, None)
        return None

    @property
    def kept(self) -> int:
        """Idle connections, to all peers."""
        return sum(map(len, self._kept.values()))

    async def connect(self, peer: PeerConfig, address: str) -> ControlConnection:
        """Make a connection that is the caller's own; raises as `ask` does.

        Args:
            peer: who has to answer, by its certificate.
            address: where.
        """
        where = f"{peer.name} ({address}, port {peer.port})"
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                sock = await self._dial(address, peer.port)
                return await self._secure(sock, peer)
        except TimeoutError as error:
            raise PeerUnreachableError(
                f"{where} did not answer within {self.connect_timeout_s:g} s",
                hint="is its agent running, and does the firewall let the link port in?",
            ) from error
        except ssl.SSLError as error:
            raise _tls_error(where, error) from error
        except OSError as error:
            raise PeerUnreachableError(
                f"{where}: {_words_of(error)}",
                hint="is its agent running and listening there?",
            ) from error

    async def _dial(self, address: str, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        sock = open_tcp_socket(address, self._mark)
        try:
            end_when_unacknowledged(sock, int(ANSWER_S_MAX * 1000))
            await loop.sock_connect(sock, (address, port))
            await loop.sock_sendall(sock, encode_preamble(Preamble(CONTROL_SESSION)))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _secure(self, sock: socket.socket, peer: PeerConfig) -> ControlConnection:
        try:
            context = self._context()
        except BaseException:
            sock.close()
            raise
        # From here on only the transport closes the socket: one that is given up after its handshake still ends TLS,
        # for up to 30 s, and would do so on a descriptor that another connection has by then.
        return ControlConnection(*await asyncio.open_connection(sock=sock, ssl=context, server_hostname=peer.name))

    async def _converse(
        self,
        key: tuple[str, str, int],
        connection: ControlConnection,
        request: Request,
        answer: type[M],
        timeout_s: float,
    ) -> M:
        try:
            async with asyncio.timeout(timeout_s):
                message = await _exchange(connection, request)
        except ssl.SSLError as error:  # in TLS 1.3 the server judges our certificate after we think to be connected
            connection.close()
            raise _tls_error(key[0], error) from error
        except (OSError, TimeoutError, EOFError) as error:
            connection.close()
            how = f"within {timeout_s:g} s" if isinstance(error, TimeoutError) else f"({error or type(error).__name__})"
            raise PeerUnreachableError(
                f"{key[0]} took the connection and did not answer {how}",
                hint="its agent hangs or is being restarted: see its log",
            ) from error
        except BaseException:
            connection.close()
            raise
        self._keep(key, connection)
        return expect_answer(key[0], message, answer)

    def _keep(self, key: tuple[str, str, int], connection: ControlConnection) -> None:
        connection.used_at = time.monotonic()
        kept = self._kept.setdefault(key, [])
        kept.append(connection)
        while len(kept) > KEPT_EACH_MAX:
            kept.pop(0).close()
        while self.kept > KEPT_MAX:
            self._close_oldest()

    def _close_oldest(self) -> None:
        oldest = min(self._kept, key=lambda each: self._kept[each][0].used_at)
        self._kept[oldest].pop(0).close()
        if not self._kept[oldest]:
            del self._kept[oldest]

    def forget(self) -> None:
        """Close all kept connections: the next request proves this host's certificate anew."""
        for kept in self._kept.values():
            for connection in kept:
                connection.close()
        self._kept.clear()


async def _exchange(connection: ControlConnection, request: Request) -> Message | None:
    connection.requests += 1
    connection.writer.write(encode_control(connection.requests, request))
    await connection.writer.drain()
    while True:
        data = await connection.reader.read(READ_BYTES)
        if not data:
            raise EOFError("it closed the connection")
        for envelope in connection.frames.feed(data):
            if envelope.id != connection.requests:
                raise RemoteProtocolError(f"answer to request {envelope.id}, asked was {connection.requests}")
            return decode_control(envelope)


def expect_answer(name: str, message: Message | None, answer: type[M]) -> M:
    """Take an answer for what it has to be.

    Args:
        name: of the peer.
        message: as it came; None for a kind that this version does not know.
        answer: the kind that is due.

    Raises:
        VersionMismatchError: no common protocol version.
        PeerRefusedError: it said no.
        RemoteProtocolError: it is of another kind.
    """
    if isinstance(message, answer):
        return message
    if isinstance(message, Refused):
        known = BY_PEER.get(message.code, Explanation(""))
        said, hint = message.message or known.text, known.remedy
        if message.code == "version":
            raise VersionMismatchError(f"{name}: {said}", hint=hint)
        raise PeerRefusedError(f"{name} refused: {said}", code=message.code, hint=hint, is_final=message.required)
    raise RemoteProtocolError(f"{name} answered {type(message).__name__} to a request for {answer.__name__}")


def _words_of(error: OSError) -> str:
    """The system's words; a resolver's error has numbers of its own, and asyncio words the others anew."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _tls_error(name: str, error: ssl.SSLError) -> DwcpError:
    typed = as_typed(error)
    return type(typed)(f"{name}: {typed}", hint=typed.hint)


def code_of(error: DwcpError) -> str:
    """The key under which a failed request is counted (`api.Totals.passthrough`)."""
    if isinstance(error, PeerRefusedError):
        return error.code if error.code in BY_PEER else "other"
    if isinstance(error, FleetRefusedError):
        return error.code
    if isinstance(error, NoMemoryError):
        return "memory"
    if isinstance(error, CertificateError | ConfigError):
        return "certificate"
    if isinstance(error, VersionMismatchError):
        return "version"
    return "protocol" if isinstance(error, ProtocolError) else "unreachable"
