"""Dispatcher of outgoing connections: each goes to the migration to its address and port, or begins one.

The rule: the first connection to an (address, port) decides for all that follow while its migration runs. Migrations of
the agent before this one are taken over here.
"""

import socket
from collections.abc import Coroutine

from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer
from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.migrations.outgoing import FOREIGN, OutgoingMigration
from dwcp_migrate.agent.migrations.stand_in import CaughtConnection
from dwcp_migrate.agent.migrations.warm_outgoing import OutgoingWarmUps
from dwcp_migrate.agent.tracking.running_store import KeptMigration
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.protocol.control import Close


class Outgoing:
    """All migrations that leave this host through the agent."""

    def __init__(self, runtime: Runtime, permits: MigrationAuthorizer) -> None:
        self._runtime = runtime
        self._permits = permits
        self._live: dict[tuple[str, int], OutgoingMigration] = {}
        self.warm_ups = OutgoingWarmUps(runtime)

    def accepted(
        self, sock: socket.socket, address: str, port: int, peer: PeerConfig | None, *, foreign: bool = False
    ) -> None:
        """Take a connection that was opened to `address:port`; owned from now on.

        Args:
            sock: the connection.
            address: of its destination, with `port`.
            port: of it.
            peer: who has the address.
            foreign: a service opened it that migrates no guest. It is relayed, whatever the fleet asks of migrations.
        """
        self._dispatch(CaughtConnection(sock), (address, port), None if foreign else peer, FOREIGN if foreign else "")

    def _dispatch(
        self, connection: CaughtConnection, key: tuple[str, int], peer: PeerConfig | None, again: str = ""
    ) -> None:
        migration = self._live.get(key)
        if migration is None:
            migration = OutgoingMigration(self._runtime, self._permits, key, peer, again)
            self._live[key] = migration
            self._runtime.migrations.begin(self._run(migration, migration.run()))
        migration.add(connection)

    def adopt(self, kept: KeptMigration, process: DataProcess, connections: int) -> None:
        """Take over a migration whose data process runs.

        Args:
            kept: facts of the agent before this one.
            process: the data process.
            connections: of QEMU's that have reached it.
        """
        migration = self._taken_over(kept)
        migration.adopt(kept, process)
        self._live.setdefault(migration.key, migration)  # one that began meanwhile keeps its port
        self._runtime.migrations.begin(self._run(migration, migration.resume(connections)))

    def conclude(self, kept: KeptMigration, reason: str) -> None:
        """End a migration whose data process has gone.

        Args:
            kept: facts of the agent before this one.
            reason: why it failed; empty where its record has the reason.
        """
        self._runtime.migrations.begin(self._taken_over(kept).conclude(kept, reason))

    def _taken_over(self, kept: KeptMigration) -> OutgoingMigration:
        record = kept.record
        peer = self._runtime.directory.by_name(record.peer)
        return OutgoingMigration(
            self._runtime, self._permits, (record.address, record.port), peer, record.passthrough_reason, record
        )

    async def _run(self, migration: OutgoingMigration, work: Coroutine[None, None, list[CaughtConnection]]) -> None:
        try:
            late = await work
        finally:
            if self._live.get(migration.key) is migration:
                del self._live[migration.key]
        for connection in late:  # they came for the next migration to the same port
            again = migration.passthrough if connection.onward else ""  # that one has reached its QEMU already
            self._dispatch(connection, migration.key, migration.peer, again)
        await migration.settle()

    def closed(self, peer: PeerConfig, message: Close) -> bool:
        """See `admission.OutgoingSide.closed`."""
        for migration in self._live.values():
            if migration.session_id == message.session_id and migration.peer is not None:
                if migration.peer.name == peer.name:
                    migration.abort(f"the destination ended it: {message.reason}")
                return True
        return self.warm_ups.closed(peer, message.session_id)

    def carries(self, peer: PeerConfig, session_id: bytes) -> bool:
        """See `admission.OutgoingSide.carries`."""
        return any(
            migration.session_id == session_id and migration.peer is not None and migration.peer.name == peer.name
            for migration in self._live.values()
        )

    def pace(self, identity: str, bytes_per_s: float) -> None:
        """Limit the rate of a migration's channels; nothing happens to one that has ended.

        Args:
            identity: of the migration, 32 hexadecimal digits.
            bytes_per_s: on the wire; 0 is no limit.
        """
        for migration in self._live.values():
            if migration.session_id.hex() == identity:
                migration.pace(bytes_per_s)

    @property
    def carried(self) -> int:
        """Migrations that have a data process: the others' connections would be lost with this agent."""
        return sum(migration.is_carried for migration in self._live.values())
