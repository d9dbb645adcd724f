"""The model as the log drives it: batches of commands in, outcomes out.

The rule: bytes that no replica of this version can read are refused by all alike; a command that only a newer version
can read stops this replica before it comes to another state than the rest.
"""

import msgspec

from dwcp_migrate.errors import JournalError, RemoteProtocolError
from dwcp_migrate.state.fleet import commands, model
from dwcp_migrate.state.fleet.invariants import violations
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import FleetState, TicketOutcome


class FleetMachine:
    """The fleet's state behind a log."""

    def __init__(self) -> None:
        self.fleet = FleetState()

    def apply(self, batch: list[bytes]) -> list[TicketOutcome]:
        """Apply one entry's commands.

        Raises:
            UnknownVersionError: a command of a newer version.
        """
        return [self._apply_one(data) for data in batch]

    def _apply_one(self, data: bytes) -> TicketOutcome:
        try:
            command = commands.decode(data)
        except commands.UnknownVersionError:
            raise
        except RemoteProtocolError:
            return TicketOutcome("invalid")
        return apply(self.fleet, command)

    def now(self) -> float:
        """Return the fleet's time, seconds since the epoch."""
        return self.fleet.now

    def hosts(self) -> int:
        """Return how many hosts the fleet knows."""
        return len(self.fleet.hosts)

    def save(self) -> bytes:
        """Encode the state."""
        return model.encode(self.fleet)

    def restore(self, data: bytes) -> None:
        """Take a state.

        Raises:
            JournalError: it is none, of a newer version, or breaks an invariant.
        """
        try:
            fleet = model.decode(data)
        except (msgspec.DecodeError, ValueError) as error:
            raise JournalError(f"the snapshot's state cannot be read: {error}") from error
        wrong = violations(fleet)
        if wrong:
            raise JournalError(f"the snapshot's state is unsound: {wrong[0]}")
        self.fleet = fleet
