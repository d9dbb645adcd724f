"""What plans take for the cost of a move: what the local agent predicts, else the plain model.

The rule here: an agent knows its own guests and the links from its own host; it is asked for those, once each, and for
no longer than `ASKING_S_MAX` in all. Where it is silent, knows no such domain or has never measured that link, the
plain model (`placement.cost.default_cost`) says what the operator configured.
"""

from collections.abc import Callable, Collection
from typing import Final

from dwcp_migrate.agent.api import Predicted
from dwcp_migrate.agent.clocks import steady_clock
from dwcp_migrate.errors import AgentUnreachableError, DwcpError
from dwcp_migrate.placement.cost import Forecast, default_cost
from dwcp_migrate.placement.fleet import Domain

ASKING_S_MAX: Final = 30.0
"""For all questions of one command; each takes about a second, in which the dirty rate is measured."""


class AgentCost:
    """Forecasts by the local agent; a `placement.cost.MoveCost`.

    Args:
        ask: the agent's prediction for a domain and a peer.
        own: this host's name, as the fleet has it.
        peers: the hosts to which it can predict.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        ask: Callable[[str, str], Predicted],
        own: str,
        peers: Collection[str],
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        self._ask, self._own, self._peers, self._clock = ask, own, peers, clock
        self._until: float | None = None
        self._silent = False
        self._known: dict[tuple[str, str], Forecast | None] = {}

    def __call__(self, domain: Domain, bytes_per_s: float, source: str = "", destination: str = "") -> Forecast:
        """See `MoveCost`. An undecided destination is the peer, where there is but one."""
        if not destination and len(self._peers) == 1:
            destination = next(iter(self._peers))
        if source != self._own or destination not in self._peers:
            return default_cost(domain, bytes_per_s)
        key = (domain.name, destination)
        if key not in self._known:
            self._known[key] = self._asked(*key)
        return self._known[key] or default_cost(domain, bytes_per_s)

    def _asked(self, domain: str, peer: str) -> Forecast | None:
        if self._until is None:
            self._until = self._clock() + ASKING_S_MAX
        if self._silent or self._clock() >= self._until:
            return None
        try:
            told = self._ask(domain, peer)
        except DwcpError as error:
            self._silent = isinstance(error, AgentUnreachableError)
            return None
        if not told.link_known:
            return None
        expected = told.expected
        return Forecast(
            seconds=expected.time_s[1], downtime_s=expected.downtime_s[1], wire_bytes=expected.wire_bytes[1], by="agent"
        )
