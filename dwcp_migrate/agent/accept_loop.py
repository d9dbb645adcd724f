"""A listening socket whose connections are accepted on the event loop.

It ends only when it is closed: an error with one connection costs that connection, is logged and counted, and accepting
goes on.

The rule: accepting a connection and giving it to `take` is one step of the loop. A task that waits in
`loop.sock_accept` may be cancelled between the two, and the connection would then never be closed.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final, Self

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.net import family_of

BACKLOG: Final = 1024
"""A migration opens up to 512 channels at once."""

AT_ONCE: Final = 64
"""Connections accepted in one turn of the loop, before other events have theirs."""

ACCEPT_PAUSE_S: Final = 0.2
"""Pause when no descriptor or memory is left; the connections wait in the backlog."""

ANY_IPV6: Final = "::"
ANY_IPV4: Final = "0.0.0.0"  # noqa: S104 - peers dial in; mTLS is the gate

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_SUCH_FAMILY: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
_IP_FREEBIND: Final = 15

log = get_logger(component="listener")


class AcceptLoop:
    """Accepts on one socket and gives each connection to `take`, in order.

    Args:
        listener: bound and listening, see `open_listener`; owned from now on.
        take: owns the connection from its call on, unless it raises.
        failed: counts a connection that `take` raised for, and an accept that failed, by reason.
    """

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket], None], failed: Callable[[str], None]
    ) -> None:
        name = listener.getsockname()
        self.address, self.port = name[:2] if isinstance(name, tuple) else (name, 0)
        self._take = take
        self._failed = failed
        self._socket = listener
        self._socket.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pause: asyncio.TimerHandle | None = None

    def start(self) -> Self:
        """Begin to accept."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)
        return self

    @property
    def accepting(self) -> bool:
        """Whether a connection that comes now is taken, if need be after a pause."""
        return self._loop is not None and self._socket.fileno() >= 0

    def _accept(self) -> None:
        """Take what waits in the backlog."""
        for _ in range(AT_ONCE):
            if self._socket.fileno() < 0:  # `take` closed it
                return
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._failed("accept")
                log.error("accept failed", port=self.port, error=str(error))  # noqa: TRY400 - no bug, no trace
                if error.errno in _EXHAUSTED:
                    self._rest()
                return
            sock.setblocking(False)
            try:
                self._take(sock)
            except Exception:
                self._failed("error")
                log.exception("connection dropped", port=self.port)
                sock.close()

    def _rest(self) -> None:
        """Stop reading for a while: the socket stays readable while connections wait, and would keep the loop busy."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self.start)

    def close(self) -> None:
        """Stop accepting; connections that exist are not touched."""
        if self._pause is not None:
            self._pause.cancel()
        if self._loop is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
        self._socket.close()


def open_listener(address: str, port: int, *, late: bool = False) -> socket.socket:
    """Listen on a TCP port.

    Args:
        address: of this host; `::` is every address of both families, of IPv4 alone where the host has no IPv6.
        port: the port.
        late: the host may not have the address yet, as that of a bond or a VLAN that is still to come up.

    Raises:
        HypervisorError: the address cannot be listened on.
    """
    try:
        return _bound(address, port, late=late)
    except OSError as error:
        if address == ANY_IPV6 and error.errno in _NO_SUCH_FAMILY:
            return open_listener(ANY_IPV4, port)
        raise HypervisorError(
            f"cannot listen on {address} port {port}: {error.strerror}",
            hint="another agent may be running, or another service has the port",
        ) from error


def _bound(address: str, port: int, *, late: bool) -> socket.socket:
    family = family_of(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != ANY_IPV6)
        if late:
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # counts for IPv6 sockets too
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
