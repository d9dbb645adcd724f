"""TCP sockets and certificates, as far as all connections of agents and data processes handle them alike.

The four kinds of connection differ in who drives them: a link's thread (`transport.io`), the replica's poller
(`state.raft`), the event loop by hand (`consensus.io`) and asyncio's streams (`agent.peers`); each says why. What they
have in common is here: the family, the socket options, the names in a certificate, and the reset.
"""

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, Final

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, on, for no time: `close` sends a reset."""


def family_of(address: str) -> socket.AddressFamily:
    """The family of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def open_tcp_socket(address: str, mark: int = 0) -> socket.socket:
    """Make a socket to dial an address with; it does not block, and sends small messages at once.

    Args:
        address: an IP address; only its family counts.
        mark: SO_MARK, 0 for none.

    Raises:
        OSError: the kernel has no socket left, or this process may not set marks.
    """
    sock = socket.socket(family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        send_at_once(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def send_at_once(sock: socket.socket) -> None:
    """Turn Nagle's algorithm off: a message of less than a packet does not wait for an acknowledgement (40 ms)."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def end_when_unacknowledged(sock: socket.socket, timeout_ms: int) -> None:
    """Let the kernel end a connection whose bytes stay unacknowledged: the other host is dead or out of reach.

    Args:
        sock: a TCP socket, connected or not.
        timeout_ms: TCP_USER_TIMEOUT, counted from the first byte that is not acknowledged; 0 is the kernel's own limit.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def probe_when_idle(sock: socket.socket, interval_s: int, probes: int) -> None:
    """Let the kernel probe an idle connection, and end it when no probe is answered.

    Args:
        sock: a TCP socket, connected or not.
        interval_s: silence before the first probe, and time between two.
        probes: unanswered in a row before the connection ends.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)


def check_connected(sock: socket.socket) -> None:
    """See what became of a connection that was being made, once the socket is writable.

    Raises:
        OSError: it failed, with the kernel's reason.
    """
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def reset_and_close(sock: socket.socket) -> None:
    """Close a TCP socket so that the other end sees a broken connection, at once, and not an end."""
    with contextlib.suppress(OSError):  # it may be gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


class _TlsSocket(ssl.SSLSocket):
    """A TLS socket that closes with its last reference: `wrap_socket` drops one where the peer resets within it."""

    def __del__(self) -> None:
        self.close()


def wrap_in_tls(sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None) -> ssl.SSLSocket:
    """Put TLS on a connected socket, its handshake to come.

    Args:
        sock: owned by the result from now on; still the caller's where this raises.
        context: decides what of the peer has to be proven.
        server_hostname: name that the peer must prove; None where the peer dialled.

    Raises:
        OSError: it was reset meanwhile.
    """
    sock.getpeername()  # `wrap_socket` would take one that is not connected any more
    context.sslsocket_class = _TlsSocket
    return context.wrap_socket(
        sock, server_side=server_hostname is None, server_hostname=server_hostname, do_handshake_on_connect=False
    )


def dns_names(certificate: Mapping[str, Any] | None) -> list[str]:
    """DNS names in a certificate as `SSLSocket.getpeercert` returns it."""
    return [str(value) for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS"]
