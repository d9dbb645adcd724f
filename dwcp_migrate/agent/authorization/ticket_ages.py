"""Ages of open tickets, as this host has seen them. No IO, no clock: `now` is an argument.

The rule: no two clocks are compared. A ticket's own time is the fleet's, which a wrong clock can have set; its age is
how long this host has seen it unchanged.
"""

from collections.abc import Collection

from dwcp_migrate.state.fleet.model import Ticket


class TicketAges:
    """The tickets that were open at the last look, and when each was first seen as it is."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str, float], float] = {}

    def look(self, tickets: Collection[Ticket], now: float) -> dict[int, float]:
        """Tell the ages of the open tickets by token, in seconds; those that are not among them are forgotten.

        Args:
            tickets: all that are open now.
            now: the caller's steady clock, seconds.
        """
        before = self._seen
        self._seen = {key: before.get(key, now) for key in map(_key, tickets)}
        return {ticket.token: now - self._seen[_key(ticket)] for ticket in tickets}


def _key(ticket: Ticket) -> tuple[int, str, float]:
    return ticket.token, ticket.state, ticket.changed_at
