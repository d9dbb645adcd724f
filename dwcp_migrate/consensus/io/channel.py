"""One TLS connection between a replica and a replica or client: frames in, frames out, both ends known by certificate.

Rule: nothing is read from a peer before TLS proved its name and its `Hello` named this cluster; a broken frame ends
the connection. What a peer does not take is held up to `UNSENT_BYTES_MAX` and dropped past that: the protocol says it
again.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from dwcp_migrate.consensus.io.secure_socket import SecureSocket, secure
from dwcp_migrate.consensus.pbft.model.messages import VERSION_MIN, Hello, Message, Role, encode_frame, pbft_frames
from dwcp_migrate.errors import DwcpError, RemoteProtocolError
from dwcp_migrate.net import open_tcp_socket
from dwcp_migrate.units import MIB

UNSENT_BYTES_MAX: Final = 16 * MIB
"""A peer that stands still costs that much memory."""
HANDSHAKE_S_MAX: Final = 5.0


class ChannelOwner(Protocol):
    """Owner of a channel, which gets its events."""

    def made(self, channel: "MemberChannel") -> None:
        """TLS is done; `channel.gone` will tell when the connection ends."""

    def opened(self, channel: "MemberChannel") -> None:
        """The peer said hello; `channel.peer` and `channel.hello` are known. A raised DwcpError closes the channel."""

    def received(self, channel: "MemberChannel", messages: list[Message]) -> None:
        """Take messages; a raised DwcpError closes the channel.

        Args:
            channel: that they came on; it is open.
            messages: in the order in which they came, at least one.
        """

    def closed(self, channel: "MemberChannel") -> None:
        """An opened channel is gone."""


class MemberChannel:
    """A connection to a member or client.

    Args:
        owner: gets its messages.
        greet: makes the hello to a peer of that name.
        identify: the name that this peer is known by, of those in its certificate; None turns it away.
    """

    def __init__(
        self, owner: ChannelOwner, greet: Callable[[str], Hello], identify: Callable[[list[str]], str | None]
    ) -> None:
        self._owner = owner
        self._greeting = greet
        self._said: Hello
        self.hello: Hello
        self._identify = identify
        self._frames = pbft_frames()
        self._socket: SecureSocket
        self._unsent: list[bytes] = []
        self.peer = ""
        self.role: Role = "client"
        self.is_open = False
        self.dropped = 0
        self.gone = asyncio.get_running_loop().create_future()

    def start(self, secured: SecureSocket) -> None:
        """TLS is done: see who it is, say hello."""
        self._socket = secured
        self._owner.made(self)
        secured.start(self._received, self._lost)
        peer = self._identify(secured.names)
        if peer is None:
            secured.close()
            return
        self.peer = peer
        try:
            self._said = self._greeting(peer)
        except DwcpError:  # our own certificate is being replaced
            secured.close()
            return
        secured.send(encode_frame(self._said))

    @property
    def shown(self) -> bytes:
        """Digest of the certificate that the peer proved."""
        return self._socket.shown

    def _received(self, data: memoryview) -> None:
        """Cut the bytes into messages and pass them on."""
        try:
            messages = self._frames.feed(data)
            if not self.is_open and messages:
                self._greet(messages.pop(0))
            if messages:
                self._owner.received(self, messages)
        except DwcpError:
            self._socket.close()

    def _greet(self, message: Message) -> None:
        if not isinstance(message, Hello) or message.cluster != self._said.cluster:
            raise RemoteProtocolError(f"{self.peer} is of another cluster")
        if message.version < VERSION_MIN:
            raise RemoteProtocolError(f"{self.peer} speaks version {message.version}, at least {VERSION_MIN} is needed")
        self.hello = message
        self.role = message.role
        self.is_open = True
        self._owner.opened(self)

    def _lost(self) -> None:
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
        if self._socket.unsent_bytes > UNSENT_BYTES_MAX:
            self.dropped += len(unsent)
        else:
            self._socket.send(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def close(self) -> None:
        """End the connection now."""
        self._socket.close()


def only(name: str) -> Callable[[list[str]], str | None]:
    """Identify the peer that was dialled, and nobody else, whatever other names its certificate carries."""
    return lambda names: name if name in names else None


class Route(NamedTuple):
    """Settings for dialling replicas.

    Attributes:
        context: makes the TLS context, anew each time, so that renewed certificates count.
        greeting: sent in clear before TLS, where something else than a replica listens.
        mark: socket mark, 0 for none.
    """

    context: Callable[[], ssl.SSLContext]
    greeting: bytes = b""
    mark: int = 0


async def dial(
    address: tuple[str, int], name: str, route: Route, factory: Callable[[], MemberChannel]
) -> MemberChannel | None:
    """Connect to a replica; None if it is not there, not who it should be, or our certificate cannot be read now.

    Args:
        address: IP address and port of the replica.
        name: that the certificate of the replica must prove.
        route: settings for all connections that are dialled.
        factory: makes the channel, once TLS is done.
    """
    loop = asyncio.get_running_loop()
    try:
        sock = open_tcp_socket(address[0], route.mark)
    except OSError:
        return None
    try:
        async with asyncio.timeout(HANDSHAKE_S_MAX):
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, route.greeting)
            secured = await secure(sock, route.context, name)
    except (OSError, DwcpError):  # a timeout and ssl.SSLError are OSErrors
        sock.close()
        return None
    except asyncio.CancelledError:
        sock.close()
        raise
    channel = factory()
    channel.start(secured)
    return channel


async def accept(sock: socket.socket, context: Callable[[], ssl.SSLContext], channel: MemberChannel) -> None:
    """Start a channel on a connection that was accepted; closes it if the other side does not prove who it is.

    Args:
        sock: connected and non-blocking, its greeting read.
        context: makes the TLS context.
        channel: to start; it learns the peer's name from the certificate.
    """
    try:
        async with asyncio.timeout(HANDSHAKE_S_MAX):
            secured = await secure(sock, context, None)
    except (OSError, DwcpError):
        return
    channel.start(secured)
