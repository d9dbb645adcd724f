"""The link port, which peers dial.

Before a connection has authenticated it costs a limited wait and a limited number of bytes, and strangers have a
limited part of both (see `admission`); then it belongs to a session, or is closed and counted.

    preamble of 24 bytes in clear, then: all-zero id = TLS and control, else to the session's data process
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from dwcp_migrate.agent.intake.admission import Admission, AdmissionLimits, SourceRegistry
from dwcp_migrate.agent.log_budget import LogBudget
from dwcp_migrate.agent.peers.server import ControlServer
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config.addresses import normalise_address
from dwcp_migrate.errors import DwcpError, ProtocolError, VersionMismatchError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import CONTROL_SESSION
from dwcp_migrate.tasks import Tasks
from dwcp_migrate.transport.core.frames import MAGIC, PREAMBLE_BYTES, Preamble, decode_preamble, encode_preamble

PREAMBLE_S_MAX: Final = 10.0
"""From accept to the preamble's last byte; one round trip is due."""

HANDSHAKE_S_MAX: Final = 15.0
"""TLS on a control connection."""

GREETINGS: Final = AdmissionLimits(total=2048, strangers=512, source=64)
"""Connections whose preamble is awaited; in all, four migrations that open 512 channels at once."""

HANDSHAKES: Final = AdmissionLimits(total=256, strangers=64, source=16)
"""Control connections whose certificate is awaited: a peer keeps one, and a handshake costs milliseconds of CPU."""

REPLICA_HANDSHAKES: Final = AdmissionLimits(total=2**31, strangers=16, source=4)
"""Connections that strangers may hand to a replica within `HANDSHAKE_S_MAX`; it has room for 64 handshakes, which its
group needs. The replica itself bounds those of peers."""

log = get_logger(component="link")


class LinkIntake:
    """Takes connections on the link port.

    Args:
        context: makes the server's TLS context.
        control: serves control connections.
        channel: takes a channel of a session; False if there is no such session.
        replicas: take connections between replicas, by the session that their preamble names.
        is_configured: says whether an address is one of a peer.
        rejected: counts a connection that was closed, by reason.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        control: ControlServer,
        channel: Callable[[bytes, socket.socket], bool],
        replicas: Mapping[bytes, Callable[[socket.socket], None]],
        is_configured: Callable[[str], bool],
        rejected: Callable[[str], None],
    ) -> None:
        self._context = context
        self._control = control
        self._channel = channel
        self._replicas = replicas
        self._rejected = rejected
        self._tasks = Tasks()
        self._taken: set[socket.socket] = set()  # whose task has not begun to run
        self._sources = SourceRegistry(is_configured)
        self._greetings = Admission(GREETINGS)
        self._handshakes = Admission(HANDSHAKES)
        self._replica_handshakes = Admission(REPLICA_HANDSHAKES)
        self._log_budget = LogBudget()

    def take(self, sock: socket.socket) -> None:
        """Take a connection that was accepted."""
        sock.setblocking(False)
        source = _source(sock)
        leave = self._greetings.enter(source, is_peer=self._sources.is_peer(source, steady_clock()))
        if leave is None:
            self._rejected("full")
            sock.close()
            return
        self._taken.add(sock)
        self._tasks.begin(self._greet(sock, source, leave))

    async def _greet(self, sock: socket.socket, source: str, leave: Callable[[], None]) -> None:
        self._taken.discard(sock)
        try:
            preamble = await self._preamble(sock)
        except BaseException:
            sock.close()
            raise
        finally:
            leave()
        if preamble is None:
            sock.close()
        elif preamble.session_id == CONTROL_SESSION:
            await self._serve_control(sock, source)
        elif preamble.session_id in self._replicas:
            self._hand_to_replica(preamble.session_id, sock, source)
        elif not self._channel(preamble.session_id, sock):
            self._rejected("unknown-session")

    def _hand_to_replica(self, session_id: bytes, sock: socket.socket, source: str) -> None:
        """Give a connection to a replica, which does not say when its handshake ended: a stranger's counts its time."""
        if not self._sources.is_peer(source, steady_clock()):
            leave = self._replica_handshakes.enter(source, is_peer=False)
            if leave is None:
                self._rejected("replicas")
                sock.close()
                return
            asyncio.get_running_loop().call_later(HANDSHAKE_S_MAX, leave)
        self._replicas[session_id](sock)

    async def _preamble(self, sock: socket.socket) -> Preamble | None:
        try:
            async with asyncio.timeout(PREAMBLE_S_MAX):
                return decode_preamble(await _receive_exactly(sock, PREAMBLE_BYTES))
        except VersionMismatchError:
            self._rejected("version")
            await _answer(sock, encode_preamble(Preamble(CONTROL_SESSION)))
        except ProtocolError:
            self._rejected("preamble")
        except TimeoutError:
            self._rejected("preamble-timeout")
        except (OSError, EOFError):
            self._rejected("preamble-cut")
        return None

    async def _serve_control(self, sock: socket.socket, source: str) -> None:
        leave = self._handshakes.enter(source, is_peer=self._sources.is_peer(source, steady_clock()))
        if leave is None:
            self._rejected("handshakes")
            sock.close()
            return
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        try:
            # Where this is cancelled the transport closes the socket, in its time; see `ControlClient`.
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._context(), ssl_handshake_timeout=HANDSHAKE_S_MAX
            )
        except (OSError, TimeoutError, DwcpError) as error:  # ssl.SSLError is an OSError
            sock.close()
            self._rejected("tls")
            left_out = self._log_budget.spend(steady_clock())
            if left_out is not None:
                log.warning("control connection refused", source=source, error=str(error), left_out=left_out)
            return
        finally:
            leave()
        self._sources.prove(source, steady_clock())
        await self._control.serve(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def close(self) -> None:
        """End whatever is in progress."""
        self._control.close()
        await self._tasks.cancel()
        for sock in self._taken:
            sock.close()
        self._taken.clear()


async def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Receive exactly `count` bytes: the bytes that follow are TLS's, and are read elsewhere."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise EOFError("the connection ended")
        data += more
        if not MAGIC.startswith(data[: len(MAGIC)]):
            raise ProtocolError("not an agent of dwcp-migrate")  # no need to wait for the rest of garbage
    return data


async def _answer(sock: socket.socket, data: bytes) -> None:
    try:
        async with asyncio.timeout(PREAMBLE_S_MAX):
            await asyncio.get_running_loop().sock_sendall(sock, data)
    except (OSError, TimeoutError):
        return


def _source(sock: socket.socket) -> str:
    """Source address of a connection; empty if it ended already."""
    with contextlib.suppress(OSError):
        where = sock.getpeername()
        return normalise_address(str(where[0])) if isinstance(where, tuple) else ""
    return ""
