"""The ways by which QEMU's connections come in.

redirect   loopback; SO_ORIGINAL_DST names the destination; not redirected = reset
explicit   loopback; `virsh migrate --migrateuri tcp://127.0.0.1:PORT`: QEMU listens on the same port of the peer
"""

import socket
from collections.abc import Callable

from dwcp_migrate.config import PeerConfig
from dwcp_migrate.hypervisor.intercept import original_destination
from dwcp_migrate.net import reset_and_close

Rejected = Callable[[str], None]


class RedirectIntake:
    """Takes connections that the redirect sent here.

    Args:
        accepted: takes the connection, its address, its port, and whether a service opened it that migrates no guest.
        is_foreign: whether a service that migrates no guest opened a connection, by its ends as that side has them.
        rejected: counts a connection that was not redirected.
    """

    def __init__(
        self,
        accepted: Callable[[socket.socket, str, int, bool], None],
        is_foreign: Callable[[tuple[str, int], tuple[str, int]], bool],
        rejected: Rejected,
    ) -> None:
        self._accepted = accepted
        self._is_foreign = is_foreign
        self._rejected = rejected

    def take(self, sock: socket.socket) -> None:
        """Take a connection that was accepted."""
        sock.setblocking(False)
        destination = original_destination(sock)
        if destination is None:
            self._rejected("not-redirected")
            reset_and_close(sock)
            return
        self._accepted(sock, *destination, self._is_foreign(_far_end(sock), destination))


def _far_end(sock: socket.socket) -> tuple[str, int]:
    try:
        address, port, *_ = sock.getpeername()
    except OSError:  # it ended already
        return "0.0.0.0", 0  # noqa: S104 - nobody's
    return address, port


def explicit_intake(
    accepted: Callable[[socket.socket, str, int, PeerConfig | None], None],
    peer: Callable[[], PeerConfig | None],
    port: int,
) -> Callable[[socket.socket], None]:
    """Make the handler of connections to the explicit port, which all go to one peer, to the port of the same number.

    libvirt makes the destination's QEMU listen on the port that the migration URI names (qemuMigrationDstPrepareDirect
    in src/qemu/qemu_migration.c), so `tcp://127.0.0.1:PORT` is PORT over there too.

    Args:
        accepted: receives the socket, the peer's first address, the port, and the peer.
        peer: returns the configured peer; None resets the connection.
        port: the explicit port.
    """

    def take(sock: socket.socket) -> None:
        sock.setblocking(False)
        found = peer()
        if found is None:
            reset_and_close(sock)
        else:
            accepted(sock, found.addresses[0], port, found)

    return take
