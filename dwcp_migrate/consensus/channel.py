"""One TLS connection between a replica and a replica or client: frames in, frames out, both ends known by certificate.

Rule: nothing is read from a peer before TLS proved its name and its `Hello` named this cluster; a broken frame ends
the connection. What a peer does not take is held up to `UNSENT_BYTES_MAX` and dropped past that: the protocol says it
again.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from dwcp_migrate.consensus.messages import VERSION, Frames, Hello, Message, encode_frame
from dwcp_migrate.errors import DwcpError, RemoteProtocolError
from dwcp_migrate.units import KIB, MIB

UNSENT_BYTES_MAX: Final = 16 * MIB
"""A peer that stands still costs that much memory."""
HANDSHAKE_S_MAX: Final = 5.0
READ_BYTES: Final = 64 * KIB
_buffer: Final = memoryview(bytearray(READ_BYTES))
"""For all channels of the process: one thread, one read at a time."""

Role = Literal["replica", "client"]


class Owner(Protocol):
    """Who a channel belongs to."""

    def made(self, channel: "Channel") -> None:
        """TLS is done; `channel.gone` will tell when the connection ends."""

    def opened(self, channel: "Channel") -> None:
        """Both hellos are done; `channel.peer` and `channel.role` are known."""

    def received(self, channel: "Channel", messages: list[Message]) -> None:
        """Take messages; a raised DwcpError closes the channel."""

    def closed(self, channel: "Channel") -> None:
        """An opened channel is gone."""


class Channel(asyncio.BufferedProtocol):
    """The connection.

    Buffered, since both event loops otherwise allocate 256 KiB for each TLS read: measured 42 us a read, 14 without.

    Args:
        owner: gets its messages.
        hello: to say first.
        identify: the name that this peer is known by, of those in its certificate; None turns it away.
    """

    def __init__(self, owner: Owner, hello: Hello, identify: Callable[[list[str]], str | None]) -> None:
        self._owner = owner
        self._hello = hello
        self._identify = identify
        self._frames = Frames()
        self._transport: asyncio.Transport
        self._unsent: list[bytes] = []
        self.peer = ""
        self.role: Role = "client"
        self.is_open = False
        self.dropped = 0
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is done: see who it is, say hello."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._owner.made(self)
        peer = self._identify(_names_in(transport.get_extra_info("peercert")))
        if peer is None:
            self._transport.abort()
            return
        self.peer = peer
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self._transport.write(encode_frame(self._hello))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the loop a buffer for one read; it is done with it before it calls anything else."""
        del sizehint
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Cut the bytes into messages and pass them on."""
        if self._transport.is_closing():
            return
        try:
            messages = self._frames.feed(bytes(_buffer[:nbytes]))
            if not self.is_open and messages:
                self._greet(messages.pop(0))
            if messages:
                self._owner.received(self, messages)
        except DwcpError:
            self._transport.abort()

    def _greet(self, message: Message) -> None:
        if not isinstance(message, Hello) or message.cluster != self._hello.cluster:
            raise RemoteProtocolError(f"{self.peer} is of another cluster")
        if message.version != VERSION:
            raise RemoteProtocolError(f"{self.peer} speaks version {message.version}, this is {VERSION}")
        self.role = message.role
        self.is_open = True
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        del exc
        if self.is_open:
            self.is_open = False
            self._owner.closed(self)
        if not self.gone.done():
            self.gone.set_result(None)

    def put(self, frame: bytes) -> None:
        """Add a frame to what the next `flush` sends."""
        self._unsent.append(frame)

    def flush(self) -> None:
        """Send what was put, or drop it if the peer has stood still too long."""
        unsent, self._unsent = self._unsent, []
        if self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self.dropped += len(unsent)
        else:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def close(self) -> None:
        """End the connection now."""
        self._transport.abort()


def _names_in(certificate: Any) -> list[str]:
    return [value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]


def only(name: str) -> Callable[[list[str]], str | None]:
    """Identify the peer that was dialled, and nobody else, whatever other names its certificate carries."""
    return lambda names: name if name in names else None


class Route(NamedTuple):
    """How replicas are reached.

    Attributes:
        context: makes the TLS context, anew each time, so that renewed certificates count.
        greeting: sent in clear before TLS, where something else than a replica listens.
        mark: socket mark, 0 for none.
    """

    context: Callable[[], ssl.SSLContext]
    greeting: bytes = b""
    mark: int = 0


async def dial(address: tuple[str, int], name: str, route: Route, factory: Callable[[], Channel]) -> Channel | None:
    """Connect to a replica; None if it is not there, not who it should be, or our certificate cannot be read now."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if route.mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, route.mark)
        async with asyncio.timeout(HANDSHAKE_S_MAX):
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, route.greeting)
            _, channel = await loop.create_connection(factory, sock=sock, ssl=route.context(), server_hostname=name)
    except (OSError, DwcpError):  # a timeout and ssl.SSLError are OSErrors
        sock.close()
        return None
    except asyncio.CancelledError:
        sock.close()
        raise
    return channel
