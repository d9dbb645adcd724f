"""The agent's TCP listeners: redirected connections, the explicit form, and the link port that peers dial.

The rule: what is accepted costs a bounded wait and a bounded number of bytes before it is known who it is; then it
belongs to a session or it is closed and counted. Accepting never stops: not at a full descriptor table either.

    redirect   loopback; SO_ORIGINAL_DST names the destination; not redirected = reset
    explicit   loopback; `virsh migrate --migrateuri tcp://127.0.0.1:PORT`: QEMU listens on the same port of the peer
    link       preamble of 24 bytes in clear, then: all-zero id = TLS and control, else to the session's data process
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from dwcp_migrate.agent.migrations.outgoing import reset
from dwcp_migrate.agent.peers.server import ControlServer
from dwcp_migrate.agent.tasks import Tasks
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, ProtocolError, VersionMismatchError
from dwcp_migrate.hypervisor.intercept import original_destination
from dwcp_migrate.logs import get_logger
from dwcp_migrate.protocol.control import CONTROL_SESSION
from dwcp_migrate.transport.core.frames import MAGIC, PREAMBLE_BYTES, Preamble, decode_preamble, encode_preamble

PREAMBLE_S_MAX: Final = 10.0
"""From accept to the preamble's last byte; one round trip is due."""

HANDSHAKE_S_MAX: Final = 15.0
"""TLS on a control connection."""

GREETINGS_MAX: Final = 2048
"""Connections whose preamble is awaited; four migrations that open 512 channels at once."""

Rejected = Callable[[str], None]

log = get_logger(component="listener")


class RedirectIntake:
    """Takes connections that the redirect sent here.

    Args:
        accepted: takes the connection, its address and its port.
        rejected: counts a connection that nobody redirected.
    """

    def __init__(self, accepted: Callable[[socket.socket, str, int], None], rejected: Rejected) -> None:
        self._accepted = accepted
        self._rejected = rejected

    def take(self, sock: socket.socket) -> None:
        """Take one."""
        sock.setblocking(False)
        destination = original_destination(sock)
        if destination is None:
            self._rejected("not-redirected")
            reset(sock)
            return
        self._accepted(sock, *destination)


class LinkIntake:
    """Takes connections on the link port.

    Args:
        context: makes the server's TLS context.
        control: serves control connections.
        channel: takes a channel of a session; False if there is no such session.
        replicas: take connections between replicas, by the session that their preamble names.
        rejected: counts a connection that was closed, by reason.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        control: ControlServer,
        channel: Callable[[bytes, socket.socket], bool],
        replicas: Mapping[bytes, Callable[[socket.socket], None]],
        rejected: Rejected,
    ) -> None:
        self._context = context
        self._control = control
        self._channel = channel
        self._replicas = replicas
        self._rejected = rejected
        self._tasks = Tasks()
        self._taken: set[socket.socket] = set()  # whose task has not begun to run
        self._greetings = 0

    def take(self, sock: socket.socket) -> None:
        """Take one."""
        sock.setblocking(False)
        if self._greetings >= GREETINGS_MAX:
            self._rejected("full")
            sock.close()
            return
        self._taken.add(sock)
        self._tasks.begin(self._greet(sock))

    async def _greet(self, sock: socket.socket) -> None:
        self._taken.discard(sock)
        self._greetings += 1
        try:
            preamble = await self._preamble(sock)
        except BaseException:
            sock.close()
            raise
        finally:
            self._greetings -= 1
        if preamble is None:
            sock.close()
        elif preamble.session_id == CONTROL_SESSION:
            await self._serve_control(sock)
        elif preamble.session_id in self._replicas:
            self._replicas[preamble.session_id](sock)
        elif not self._channel(preamble.session_id, sock):
            self._rejected("unknown-session")

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

    async def _serve_control(self, sock: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=self._context(), ssl_handshake_timeout=HANDSHAKE_S_MAX
            )
        except (OSError, TimeoutError, DwcpError) as error:  # ssl.SSLError is an OSError
            sock.close()
            self._rejected("tls")
            log.warning("control connection refused", error=str(error))
            return
        await self._control.serve(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def close(self) -> None:
        """End whatever is in progress."""
        self._control.close()
        await self._tasks.cancel()
        for sock in self._taken:
            sock.close()
        self._taken.clear()


async def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Receive `count` bytes and not one more: what follows is TLS, which somebody else reads."""
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


def explicit_intake(
    accepted: Callable[[socket.socket, str, int, PeerConfig | None], None],
    peer: Callable[[], PeerConfig | None],
    port: int,
) -> Callable[[socket.socket], None]:
    """Make the taker of the explicit form: everything goes to one peer, to the port of the same number.

    libvirt makes the destination's QEMU listen on the port that the migration URI names (qemuMigrationDstPrepareDirect
    in src/qemu/qemu_migration.c), so `tcp://127.0.0.1:PORT` is PORT over there too.
    """

    def take(sock: socket.socket) -> None:
        sock.setblocking(False)
        found = peer()
        if found is None:
            reset(sock)
        else:
            accepted(sock, found.addresses[0], port, found)

    return take
