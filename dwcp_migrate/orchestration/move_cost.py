"""Cost of a move in a plan: what the local agent predicts or has measured, else the plain model.

The rule here: an agent knows its own guests and the links from its own host. It is asked for a prediction once for
each pair of domain and peer, and for no longer than `ASKING_S_MAX` in all; for its measurements it is asked once, which
takes no time. Where it does not answer, knows no such domain or has never measured that link, the plain model
(`placement.cost.default_cost`) computes with what the operator configured.

    source   destination              forecast
    own      a peer                   the agent's predictor; time is up: the plain model on measured rates
    own      not decided yet          the plain model on the measured dirty rate and the median of the measured links
    other    any                      the plain model on what is configured
"""

import statistics
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from dwcp_migrate.api.schema import Measured, Predicted
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.errors import AgentUnreachableError, DwcpError
from dwcp_migrate.placement.cost import Forecast, default_cost
from dwcp_migrate.placement.fleet import Domain
from dwcp_migrate.units import MIB

ASKING_S_MAX: Final = 30.0
"""For all questions of one command; each takes about a second, in which the dirty rate is measured."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions to the local agent.

    Attributes:
        predict: its prediction for a domain and a peer.
        measured: what it has measured so far.
    """

    predict: Callable[[str, str], Predicted]
    measured: Callable[[], Measured]


class AgentCost:
    """Forecasts by the local agent; a `placement.cost.MoveCost`.

    Args:
        ask: the agent.
        own: this host's name, as the fleet has it.
        peers: the hosts to which it can predict.
        clock: monotonic, seconds.
    """

    def __init__(
        self, ask: Questions, own: str, peers: Collection[str], clock: Callable[[], float] = steady_clock
    ) -> None:
        self._ask, self._own, self._peers, self._clock = ask, own, peers, clock
        self._until: float | None = None
        self._silent = False
        self._known: dict[tuple[str, str], Forecast | None] = {}
        self._rates: Measured | None = None

    def __call__(self, domain: Domain, bytes_per_s: float, source: str = "", destination: str = "") -> Forecast:
        """See `MoveCost`. An undecided destination is the peer, where there is but one."""
        if not destination and len(self._peers) == 1:
            destination = next(iter(self._peers))
        if source != self._own:
            return default_cost(domain, bytes_per_s)
        key = (domain.name, destination)
        if destination in self._peers and key not in self._known:
            self._known[key] = self._predicted(*key)
        predicted = self._known.get(key)
        if predicted is None:
            return self._by_rates(domain, bytes_per_s, destination)
        disks_bytes = domain.copied_mib * MIB  # the agent predicts memory
        return msgspec.structs.replace(
            predicted,
            seconds=predicted.seconds + disks_bytes / bytes_per_s,
            wire_bytes=predicted.wire_bytes + disks_bytes,
        )

    def _predicted(self, domain: str, peer: str) -> Forecast | None:
        if self._until is None:
            self._until = self._clock() + ASKING_S_MAX
        if self._silent or self._clock() >= self._until:
            return None
        try:
            told = self._ask.predict(domain, peer)
        except DwcpError as error:
            self._silent = isinstance(error, AgentUnreachableError)
            return None
        if not told.link_known:
            return None
        expected = told.expected
        return Forecast(
            seconds=expected.time_s[1], downtime_s=expected.downtime_s[1], wire_bytes=expected.wire_bytes[1], by="agent"
        )

    def _by_rates(self, domain: Domain, bytes_per_s: float, destination: str) -> Forecast:
        """The plain model on what was measured of the domain and of the link, as far as either was."""
        rates = self._measured()
        links = {link.peer: link.next_minute[1] for link in rates.links if link.next_minute[1] > 0}
        link = links.get(destination, 0.0) if destination else statistics.median(links.values() or [0.0])
        dirty = next((one.dirty_bytes_per_s for one in rates.guests if one.domain == domain.name), None)
        if dirty is None and not link:
            return default_cost(domain, bytes_per_s)
        known = domain if dirty is None else msgspec.structs.replace(domain, dirty_bytes_per_s=dirty)
        return msgspec.structs.replace(default_cost(known, link or bytes_per_s), by="rates")

    def _measured(self) -> Measured:
        if self._rates is None:
            self._rates = Measured()
            if not self._silent:
                try:
                    self._rates = self._ask.measured()
                except DwcpError as error:
                    self._silent = isinstance(error, AgentUnreachableError)
        return self._rates
