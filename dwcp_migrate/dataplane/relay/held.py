"""Connections of a migration that is being set up, held by its data process as well.

Until it is set up only the agent knows where they go. If the agent ends first, the data process relays them to QEMU's
own destination, in the order in which they were accepted: nothing has been read of them yet.
"""

import socket
from collections.abc import Callable

from dwcp_migrate.dataplane.relay.passthrough import RelaySession
from dwcp_migrate.errors import SessionError
from dwcp_migrate.net import reset_and_close
from dwcp_migrate.protocol.worker import Happened, StandBy


class HeldConnections:
    """The connections that the agent has not handed over.

    Args:
        where: QEMU's own destination.
    """

    def __init__(self, where: StandBy) -> None:
        self._where = where
        self._sockets: dict[int, socket.socket] = {}

    def __bool__(self) -> bool:
        return bool(self._sockets)

    def hold(self, accepted: int, sock: socket.socket) -> None:
        """Keep a connection until it is released or relayed.

        Args:
            accepted: the agent's number of it, within this migration.
            sock: a duplicate of it, owned from now on.
        """
        self._sockets[accepted] = sock

    def release(self, accepted: int) -> None:
        """Close the connection that the agent has handed over or ended; an unknown number is fine."""
        sock = self._sockets.pop(accepted, None)
        if sock is not None:
            sock.close()

    def take(self) -> list[tuple[int, socket.socket]]:
        """Hand over all of them, in the order in which they were accepted."""
        taken, self._sockets = sorted(self._sockets.items()), {}
        return taken

    def relay(self, session: RelaySession, report: Callable[[Happened], None]) -> int:
        """Connect each onward and have a session relay it; one that cannot be connected is reset.

        Args:
            session: relays them.
            report: takes the reason why one was reset.

        Returns:
            The number after the last one that is relayed; 0 if none is.
        """
        following = 0
        for accepted, sock in self.take():
            try:
                onward = _dial(self._where)
            except (SessionError, OSError) as error:
                report(Happened(event="connection-closed", connection=accepted, detail=str(error)))
                reset_and_close(sock)
                continue
            session.add_connection(accepted, sock, onward)
            following = accepted + 1
        return following


def _dial(where: StandBy) -> socket.socket:
    # Only here: a data process that is never left alone need not carry an event loop's modules.
    import asyncio

    from dwcp_migrate.dataplane.relay.onward import dial_onward

    onward, _ = asyncio.run(dial_onward(where.addresses, where.port, where.mark))
    return onward
