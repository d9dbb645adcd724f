"""Bound on the times that a leader lets into the log: one wrong clock, its own included, does not move the fleet's."""

from collections.abc import Callable

from dwcp_migrate.state.fleet import commands
from dwcp_migrate.state.fleet.fleet_clock import FleetClock


class CommandTimes:
    """The clocks of the hosts whose commands a leader appends.

    Args:
        fleet_now: returns the time of the state.
    """

    def __init__(self, fleet_now: Callable[[], float]) -> None:
        self._fleet_now = fleet_now
        self._clocks = FleetClock()
        self._term = -1

    def held_back(self, payload: bytes, term: int, enough: int, now: float) -> bytes:
        """Return an entry's commands with no time that is too late.

        Args:
            payload: of a regular entry.
            term: that this host leads in; a new one begins without samples of clocks.
            enough: clocks that are believed together.
            now: of this host's monotonic clock.

        Raises:
            RemoteProtocolError: the payload is no batch of commands.
        """
        if term != self._term:
            self._term = term
            self._clocks.anchor(self._fleet_now(), now)
        batch = commands.decode_batch(payload)
        said = commands.times(batch)
        for host, at in said:
            self._clocks.hear(host, at, now)
        latest = self._clocks.latest(now, enough)
        if all(at <= latest for _, at in said):
            return payload
        return commands.encode_batch(commands.held_back(batch, latest))
