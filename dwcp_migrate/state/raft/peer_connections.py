"""Connections between replicas: TLS both ways on sockets that never block, driven by the replica's poller.

A connection counts once its other end has proved by certificate to be a host of this fleet, and is known by
that name alone; there is one for each host, the newest. Whatever breaks a limit or the schema closes it. Nothing is
sent before `flush`, so that what has to be on disk first can be put there.

    voters dial each other, the one whose name is less first; observers dial all voters
    dial      TCP, greeting of the agents' link port, TLS 1.3 with the host's name checked
    taken     by the agent on its link port, greeting read there, `adopt`
"""

import random
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dwcp_migrate.errors import DwcpError, RemoteProtocolError
from dwcp_migrate.framing import FrameSplitter
from dwcp_migrate.net import (
    check_connected,
    dns_names,
    end_when_unacknowledged,
    open_tcp_socket,
    probe_when_idle,
    send_at_once,
    wrap_in_tls,
)
from dwcp_migrate.state.raft.messages import Message, encode, raft_frames
from dwcp_migrate.units import KIB, MIB

READ_BYTES: Final = 128 * KIB
TLS_RECORD_BYTES: Final = 16 * KIB
"""A read takes one record; a full one has another behind it."""
READS_MAX: Final = 16
"""Reads of one connection in a row, before others have their turn."""
OUT_BYTES_MAX: Final = 8 * MIB
"""Bytes that wait for a peer; past that its connection is closed, and the log brings the peer up to date later."""
ROOM_BYTES: Final = 1 * MIB
"""While less is waiting, bulk may be added."""
HANDSHAKE_S_MAX: Final = 5.0
DIAL_EVERY_S: Final = 0.3
"""Between two attempts; a killed agent is back within a second."""
WRONG_WAY_S: Final = 3.0
"""A voter that should be dialled by the other one dials itself after this long without it."""
ADOPTED_MAX: Final = 64
"""Connections taken and not yet looked at."""
PENDING_MAX: Final = 64
"""Handshakes at once; each ends after `HANDSHAKE_S_MAX`."""
SILENT_MS_MAX: Final = 3000
"""Unacknowledged bytes for this long are a dead host's (TCP_USER_TIMEOUT)."""

# Events of the poller, as pysyncobj.poller.POLL_EVENT_TYPE numbers them.
READ: Final = 1
WRITE: Final = 2
ERROR: Final = 4


class Poller(Protocol):
    """The poller of a replica."""

    def watch(self, descriptor: int, callback: Callable[[int, int], None], events: int) -> None:
        """Call back when the descriptor is ready.

        Args:
            descriptor: of the socket; a second call replaces the first.
            callback: gets the descriptor and the events.
            events: any of READ, WRITE and ERROR.
        """

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Identity of this host, and the way to find others.

    Attributes:
        name: of this host.
        client: makes the TLS context for dialling, anew each time, so that renewed certificates count.
        server: likewise for connections taken.
        identify: finds the fleet's host that one of these certificate names belongs to; None for strangers.
        address: of a host's agent; None when it is not configured.
        greeting: sent in clear before TLS.
        mark: socket mark, 0 for none.
    """

    name: str
    client: Callable[[], ssl.SSLContext]
    server: Callable[[], ssl.SSLContext]
    identify: Callable[[list[str]], str | None]
    address: Callable[[str], tuple[str, int] | None]
    greeting: bytes = b""
    mark: int = 0


@dataclass(slots=True, eq=False)
class PeerConnection:
    """One connection."""

    sock: socket.socket
    name: str
    dialled: bool
    since: float
    frames: FrameSplitter[Message] = field(default_factory=raft_frames)
    out: bytearray = field(default_factory=bytearray)
    is_up: bool = False
    is_closed: bool = False
    mask: int = READ


class Events(Protocol):
    """Receiver of the events of connections."""

    def up(self, name: str) -> None:
        """Note that a host is connected."""

    def down(self, name: str) -> None:
        """Note that it is connected no more."""

    def message(self, name: str, message: Message) -> None:
        """Take a message; a DwcpError closes the connection.

        Args:
            name: of the host that sent it.
            message: decoded.
        """

    def rejected(self, reason: str) -> None:
        """Note that a connection was closed by a fault of the other end."""


class Links:
    """All connections of a replica; every method but `adopt` is for the replica's thread.

    Attributes:
        voters: other hosts with a vote, as this host's log says.
        hints: hosts with a vote as each other host said that has a say in it; one that is behind takes back nothing.
        is_voter: whether this host has a vote.
    """

    def __init__(self, identity: PeerIdentity, poller: Poller, events: Events) -> None:
        self._identity = identity
        self._poller = poller
        self._events = events
        self._up: dict[str, PeerConnection] = {}
        self._pending: set[PeerConnection] = set()
        self._unread: set[PeerConnection] = set()
        self._dialled_at: dict[str, float] = {}
        self._adopted: deque[socket.socket] = deque()
        self._encoded: tuple[Message | None, bytes] = (None, b"")
        self.voters: set[str] = set()
        self.hints: dict[str, tuple[str, ...]] = {}
        self.is_voter = False

    @property
    def hinted(self) -> set[str]:
        """Hosts with a vote as others said; they are dialled too, and may lead."""
        return {name for names in self.hints.values() for name in names}

    def adopt(self, sock: socket.socket) -> None:
        """Take a connection whose greeting was read; may be called from any thread."""
        if len(self._adopted) >= ADOPTED_MAX:
            sock.close()
            return
        sock.setblocking(False)
        self._adopted.append(sock)

    def connected(self, name: str) -> bool:
        """Tell whether a host is connected."""
        return name in self._up

    @property
    def peers(self) -> list[str]:
        """Hosts that are connected."""
        return list(self._up)

    def send(self, name: str, message: Message) -> bool:
        """Queue a message; the same object sent to several hosts in a row is encoded once.

        Args:
            name: of the host.
            message: sent by the next `flush`.

        Returns:
            False when the host is not connected, or no longer.
        """
        link = self._up.get(name)
        if link is None:
            return False
        if self._encoded[0] is not message:
            self._encoded = message, encode(message)
        link.out += self._encoded[1]
        if len(link.out) > OUT_BYTES_MAX:
            self._close(link)
            return False
        return True

    def has_room(self, name: str) -> bool:
        """Tell whether bulk may be queued for a host."""
        link = self._up.get(name)
        return link is not None and len(link.out) < ROOM_BYTES

    def flush(self) -> None:
        """Send what is queued, as far as the sockets take it."""
        for link in list(self._up.values()):
            if link.out:
                self._write(link)

    def tick(self, now: float) -> None:
        """Dial missing hosts, end handshakes that take too long, begin those of adopted connections."""
        unread, self._unread = self._unread, set()
        for link in unread:
            self._ready(link, READ)
        while self._adopted and len(self._pending) < PENDING_MAX:
            self._begin(self._adopted.popleft(), now)
        for link in [link for link in self._pending if now - link.since > HANDSHAKE_S_MAX]:
            self._close(link)
        for name in (self.voters | self.hinted) - self._up.keys() - {self._identity.name}:
            self._dial(name, now)

    def _dial(self, name: str, now: float) -> None:
        mine = self._identity.name < name or not self.is_voter
        first = self._dialled_at.setdefault(name, now - DIAL_EVERY_S if mine else now)
        if now - first < (DIAL_EVERY_S if mine else WRONG_WAY_S) or any(link.name == name for link in self._pending):
            return
        self._dialled_at[name] = now + random.uniform(0, DIAL_EVERY_S / 4)  # noqa: S311 - spreads, hides nothing
        where = self._identity.address(name)
        if where is None:
            return
        try:
            sock = open_tcp_socket(where[0], self._identity.mark)
        except OSError:
            return
        try:
            sock.connect_ex(where)
        except OSError:
            sock.close()
            return
        link = PeerConnection(sock, name, dialled=True, since=now, mask=WRITE)
        self._pending.add(link)
        self._subscribe(link)

    def _begin(self, sock: socket.socket, now: float) -> None:
        link = PeerConnection(sock, "", dialled=False, since=now)
        try:
            link.sock = wrap_in_tls(sock, self._identity.server(), None)
            _tune(link.sock)
        except (OSError, DwcpError):
            sock.close()
            self._events.rejected("tls")
            return
        self._pending.add(link)
        self._handshake(link)

    def _subscribe(self, link: PeerConnection) -> None:
        self._poller.watch(link.sock.fileno(), lambda _, event: self._ready(link, event), link.mask | ERROR)

    def _want(self, link: PeerConnection, mask: int) -> None:
        if link.mask != mask:
            link.mask = mask
            self._subscribe(link)

    def _ready(self, link: PeerConnection, event: int) -> None:
        if link.is_closed:
            return
        if not link.is_up:
            self._advance(link)
            return
        if event & WRITE:
            self._want(link, READ)  # the next `flush` goes on: what waits may be a promise that is not on disk yet
        if event & (READ | ERROR):
            self._read(link)

    def _advance(self, link: PeerConnection) -> None:
        """Go on with connecting or the handshake."""
        if link.dialled and not isinstance(link.sock, ssl.SSLSocket):
            try:
                check_connected(link.sock)
                _tune(link.sock)
                link.sock.sendall(self._identity.greeting)
                self._poller.unwatch(link.sock.fileno())
                link.sock = wrap_in_tls(link.sock, self._identity.client(), link.name)
            except (OSError, DwcpError):
                self._close(link)
                return
        self._handshake(link)

    def _handshake(self, link: PeerConnection) -> None:
        sock = link.sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            link.mask = READ
            self._subscribe(link)
            return
        except ssl.SSLWantWriteError:
            link.mask = WRITE
            self._subscribe(link)
            return
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            if not link.dialled:
                self._events.rejected("tls")
            self._close(link)
            return
        name = link.name or self._identity.identify(dns_names(sock.getpeercert())) or ""
        if not name or name == self._identity.name:
            self._events.rejected("unknown-host")
            self._close(link)
            return
        self._raise(link, name)

    def _raise(self, link: PeerConnection, name: str) -> None:
        older = self._up.get(name)
        if older is not None:
            self._close(older)
        self._pending.discard(link)
        link.name, link.is_up, link.mask = name, True, READ
        self._up[name] = link
        self._subscribe(link)
        self._events.up(name)
        self._read(link)

    def _read(self, link: PeerConnection) -> None:
        """Take what has come; a RemoteProtocolError ends the connection, any other error is the replica's."""
        for _ in range(READS_MAX):
            data = self._receive(link)
            if not data:
                return
            is_last = len(data) < TLS_RECORD_BYTES  # the poller tells of later data: another read would be wasted
            try:
                for message in link.frames.feed(data):
                    self._events.message(link.name, message)
                    if link.is_closed:
                        return
            except RemoteProtocolError as error:
                self._events.rejected(f"protocol: {error}")
                self._close(link)
                return
            if is_last and not link.sock.pending():  # type: ignore[attr-defined]
                return
        if link.sock.pending():  # type: ignore[attr-defined] # poll does not see what TLS has decrypted already
            self._unread.add(link)

    def _receive(self, link: PeerConnection) -> bytes:
        """Receive; nothing when there is nothing now, or the link broke and is closed."""
        try:
            data = link.sock.recv(READ_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except (OSError, ValueError):
            data = b""
        if not data:
            self._close(link)
        return data

    def _write(self, link: PeerConnection) -> None:
        try:
            while link.out:
                sent = link.sock.send(link.out)
                del link.out[:sent]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._want(link, READ | WRITE)
            return
        except (OSError, ValueError):
            self._close(link)
            return
        self._want(link, READ)

    def drop(self, name: str) -> None:
        """Close a host's connection."""
        link = self._up.get(name)
        if link is not None:
            self._close(link)

    def _close(self, link: PeerConnection) -> None:
        if link.is_closed:
            return
        link.is_closed = True
        descriptor = link.sock.fileno()
        if descriptor >= 0:
            self._poller.unwatch(descriptor)
        link.sock.close()
        self._pending.discard(link)
        if self._up.get(link.name) is link:
            del self._up[link.name]
            self._dialled_at.pop(link.name, None)
            self._events.down(link.name)

    def close(self) -> None:
        """Close all."""
        for link in [*self._up.values(), *self._pending]:
            self._close(link)
        while self._adopted:
            self._adopted.popleft().close()


def _tune(sock: socket.socket) -> None:
    send_at_once(sock)
    end_when_unacknowledged(sock, SILENT_MS_MAX)
    probe_when_idle(sock, interval_s=1, probes=3)
