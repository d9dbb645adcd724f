"""A data process that holds a migration's connections from the first moment on, see `dataplane.relay.held`.

It is the one that carries them later. Without it an agent that ends while it still asks its peer would take QEMU's
connections with it, and the migration would fail.
"""

import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.peers.reach import candidate_addresses
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import SessionError
from dwcp_migrate.net import reset_and_close
from dwcp_migrate.protocol.worker import Hold, Release, StandBy


class CaughtConnection(NamedTuple):
    """One of QEMU's connections.

    Attributes:
        sock: as it was accepted.
        onward: to where it wanted to go, where there is one already.
        accepted: its number in this migration, in the order in which they were accepted.
    """

    sock: socket.socket
    onward: socket.socket | None = None
    accepted: int = -1

    def reset(self) -> None:
        """End it at both ends."""
        reset_and_close(self.sock)
        if self.onward is not None:
            reset_and_close(self.onward)


class StandIn:
    """The data process, and what it is told of the connections.

    Attributes:
        process: nothing is started in it yet.

    Args:
        process: ready.
        where: the connections want to go.
        kept_open: sockets that it has to keep until its end.
    """

    def __init__(self, process: DataProcess, where: StandBy, kept_open: Sequence[socket.socket]) -> None:
        self.process = process
        with contextlib.suppress(SessionError):  # it is gone: whoever starts a session in it finds that out
            process.send(where, kept_open)

    def hold(self, accepted: int, sock: socket.socket) -> None:
        """Have it hold a connection, too; `sock` stays the caller's.

        Args:
            accepted: the connection's number in this migration, in the order in which they were accepted.
            sock: the connection.
        """
        with contextlib.suppress(SessionError, OSError):  # without a descriptor to spare it is the agent's alone
            self.process.send(Hold(accepted=accepted), [sock.dup()])

    def release(self, accepted: int) -> None:
        """Have it let go of a connection that the caller has ended."""
        with contextlib.suppress(SessionError):
            self.process.send(Release(accepted=accepted))


def stand_in_for(runtime: Runtime, session_id: bytes, key: tuple[str, int], peer: PeerConfig) -> StandIn | None:
    """Have a spare data process stand in for a migration that begins; None where none is ready at once.

    Args:
        runtime: the shared parts.
        session_id: of the migration.
        key: address and port that its connections want to reach.
        peer: who has the address.
    """
    process = runtime.spares.take_ready()
    if process is None:
        return None
    where = StandBy(
        session_id=session_id,
        addresses=tuple(candidate_addresses(peer, key[0])),
        port=key[1],
        mark=runtime.config.intercept.mark,
    )
    return StandIn(process, where, runtime.keep_translation())
