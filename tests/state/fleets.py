"""Small fleets and commands for the tests of the model."""

from itertools import count

from dwcp_migrate.state.fleet import commands as do
from dwcp_migrate.state.fleet.invariants import violations
from dwcp_migrate.state.fleet.machine import apply
from dwcp_migrate.state.fleet.model import FleetState, TicketOutcome

UUID = "0123abcd-0000-1111-2222-333344445555"


class World:
    """A fleet with hosts a, b and c, and the means to command it; every command is checked against the invariants."""

    def __init__(self, *hosts: str) -> None:
        self.fleet = FleetState()
        self.now = 1000.0
        self._ids = count()
        for name in hosts or ("a", "b", "c"):
            self.does(name, do.PutHost(name=name))

    def does(self, by: str, body: do.Body, request: str = "") -> TicketOutcome:
        """Apply one command of a host."""
        command = do.Command(request=request or f"r{next(self._ids)}", by=by, at=self.now, body=body)
        outcome = apply(self.fleet, do.decode(do.encode(command)))
        assert violations(self.fleet) == []
        return outcome

    def propose(self, source: str = "a", destination: str = "b", uuid: str = UUID, **how: object) -> TicketOutcome:
        """Ask for a ticket."""
        how = {"lifetime_s": 60.0, **how}
        return self.does(
            source,
            do.Propose(uuid=uuid, name="web1", source=source, destination=destination, **how),  # type: ignore[arg-type]
        )

    def owner(self, uuid: str = UUID) -> str:
        """Who owns a domain."""
        return self.fleet.domains[uuid].owner
