"""The control group of the process that opened a connection; the kernel finds it by the connection's two ends.

Any user may ask (`inet_diag`); an agent in its sandbox could not look into other processes. Structures and numbers are
those of linux/inet_diag.h and linux/sock_diag.h.
"""

import socket
import struct
import sys
from ipaddress import ip_address
from typing import Final

from dwcp_migrate.hypervisor.netlink.attributes import attributes
from dwcp_migrate.net import family_of

ANSWER_TIMEOUT_S: Final = 0.2
"""The kernel answers within the call; this only keeps the loop from waiting for ever."""

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = 1
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = bytes([0xFF]) * 8
_CGROUP_ID: Final = 21
_HEADER: Final = struct.Struct("=IHHII")
_PORTS: Final = struct.Struct("!HH")
_MESSAGE_BYTES: Final = 72
_ADDRESS_BYTES: Final = 16
_RECEIVE_BYTES: Final = 8192


class SocketOwners:
    """Asks the kernel for the control groups of this network namespace's sockets.

    Raises:
        OSError: the kernel has no such interface.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self._sequence = 0

    def cgroup(self, local: tuple[str, int], remote: tuple[str, int]) -> int | None:
        """Find the number of the control group of version 2 that a connected TCP socket was opened in.

        Args:
            local: address and port of that socket's own end.
            remote: those that it connected to, before any translation.

        Returns:
            None where there is no such socket, or the kernel (before 5.7) does not tell.
        """
        self._sequence += 1
        family = family_of(local[0])
        ends = _PORTS.pack(local[1], remote[1]) + _packed(local[0]) + _packed(remote[0])
        request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + ends + bytes(4) + _NO_COOKIE
        header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST, self._sequence, 0)
        try:
            self._socket.send(header + request)
            while True:
                answer = self._socket.recv(_RECEIVE_BYTES)
                _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                if sequence == self._sequence:
                    break
        except (OSError, struct.error):
            return None
        if kind != _SOCK_DIAG_BY_FAMILY:
            return None
        number = attributes(answer[_HEADER.size + _MESSAGE_BYTES :]).get(_CGROUP_ID)
        return int.from_bytes(number, sys.byteorder) if number else None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _packed(address: str) -> bytes:
    return ip_address(address).packed.ljust(_ADDRESS_BYTES, b"\0")
