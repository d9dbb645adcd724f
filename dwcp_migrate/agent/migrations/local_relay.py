"""Relay on threads of the agent itself, for a migration that passes through where no data process is to be had.

It costs the agent some of its interpreter and ends with it; without it the connections could only be reset.
"""

import asyncio
from collections.abc import Sequence
from socket import socket

from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import apply_finished, apply_happened
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.dataplane.relay.passthrough import RelaySession
from dwcp_migrate.protocol.worker import AddConnection, Finished, Happened


class LocalRelay:
    """A relay in the place of a data process, see `DataProcessHandle`.

    Args:
        identity: of the migration's record.
        ledger: where the record is.
        held: sockets to keep until the end, as `StartRelay` brings them.
    """

    def __init__(self, identity: str, ledger: MigrationRegistry, held: Sequence[socket]) -> None:
        self._identity = identity
        self._ledger = ledger
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[Finished] = self._loop.create_future()
        self._session = RelaySession(self._report)
        self.returned: list[tuple[socket, socket | None]] = []

    def send(self, message: AddConnection, sockets: Sequence[socket]) -> None:
        """Carry one more connection.

        Args:
            message: number of the connection.
            sockets: QEMU's end, and the one towards the destination.
        """
        inner, onward = sockets
        self._session.add_connection(message.connection, inner, onward)

    def abort(self, reason: str) -> None:
        """Reset every connection."""
        self._session.abort(reason)
        self._look()

    def leave(self) -> None:
        """Reset every connection: the agent ends, and these end with it."""
        self.abort("the agent ended")

    async def finish(self) -> Finished:
        """Wait for the last connection's end, and take it into the record."""
        message = await self._finished
        self._ledger.change(self._identity, lambda record: apply_finished(record, message))
        return message

    async def gone(self) -> None:
        """Let go what was held."""
        for sock in self._held:
            sock.close()

    def _report(self, event: Happened) -> None:
        """Take what a relay's thread says over to the loop."""
        self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: Happened) -> None:
        self._ledger.change(self._identity, lambda record: apply_happened(record, event, wall_clock()))
        self._look()

    def _look(self) -> None:
        message = self._session.finished()
        if message is not None and not self._finished.done():
            self._finished.set_result(message)
