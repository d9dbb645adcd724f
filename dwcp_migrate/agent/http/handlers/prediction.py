"""Control API of predictions, and of the operator's weights and deadlines for a domain's migration.

The rule: a question costs at most a second: the dirty rate of a domain that has none, and a round trip to the peer.
"""

import statistics
from typing import Final

from dwcp_migrate.agent.context import Runtime
from dwcp_migrate.agent.forecasting.loop import ForecastLoop
from dwcp_migrate.agent.forecasting.predictions import Subject
from dwcp_migrate.agent.forecasting.rate_control import SharePreference
from dwcp_migrate.api.schema import Done, GuestRate, LinkForecast, Measured, Predicted
from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.bandwidth.targets import over_transfer
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, NoAnswerError, NotFoundError
from dwcp_migrate.hypervisor.base import DomainInfo
from dwcp_migrate.protocol.control import VERSIONS, Ping, Pong

MINUTE_STEPS = 60.0

RATES_KEPT: Final = 5
"""Measurements of a dirty rate that count: the newest alone may have met a guest between two bursts."""


class PredictionHandlers:
    """Answers of one agent.

    Args:
        runtime: the shared parts.
        planner: what measures, forecasts and shares.
    """

    def __init__(self, runtime: Runtime, planner: ForecastLoop) -> None:
        self._runtime = runtime
        self._planner = planner

    async def predict(self, domain: str, peer: str, deadline_s: float) -> Predicted:
        """Predict a migration that has not begun.

        Args:
            domain: its name or UUID.
            peer: its destination, as configured.
            deadline_s: until when it should be over; 0 without one.

        Raises:
            NotFoundError: no such domain runs here, or no such peer is configured.
        """
        known = self._runtime.directory.by_name(peer)
        if known is None:
            raise NotFoundError(f"no peer {peer!r}", hint="`dwcp-migrate status` lists the peers")
        found = await self._domain(domain)
        await self._planner.dirty_rate(found.uuid)
        subject = Subject(
            uuid=found.uuid,
            memory_bytes=found.memory_bytes,
            peer=known.name,
            rtt_s=await self._rtt(known),
            deadline_s=deadline_s,
            downtime_s_max=await self._planner.downtime_limit(found.uuid),
        )
        told = self._planner.predictions.tell(subject)
        return Predicted(
            domain=found.name,
            peer=known.name,
            expected=told.expected,
            reason=told.advice.reason,
            memory_bytes=found.memory_bytes,
            dirty_bytes_per_s=_three(told.guest.dirty_bytes_per_s),
            link_bytes_per_s=_three(told.path.bytes_per_s),
            link_known=told.link_known,
            rtt_s=subject.rtt_s,
        )

    async def measured(self) -> Measured:
        """Measurements of the domains that run here and of the links that exist already; takes none."""
        guests = []
        for found in await self._runtime.domains.listed():
            rates = self._planner.forecasts.known(Key("domain", "dirty", found.uuid), RATES_KEPT)
            if rates:
                guests.append(GuestRate(domain=found.name, dirty_bytes_per_s=statistics.median(rates)))
        return Measured(guests=guests, links=self.links())

    async def _domain(self, name: str) -> DomainInfo:
        domains = await self._runtime.domains.here()
        if domains is None:
            raise NoAnswerError("libvirt does not say which domains run here", hint="see `dwcp-migrate doctor`")
        for found in domains:
            if name in {found.name, found.uuid}:
                return found
        raise NotFoundError(f"no domain {name!r} runs here", hint="`virsh list` lists those that do")

    async def _rtt(self, peer: PeerConfig) -> float:
        """A round trip of the control connection; 0 where the peer does not answer."""
        try:
            await self._runtime.control.ask(peer, peer.addresses[0], Ping(versions=VERSIONS), Pong)
            before = steady_clock()  # the first one may have connected
            await self._runtime.control.ask(peer, peer.addresses[0], Ping(versions=VERSIONS), Pong)
        except DwcpError:
            return 0.0
        return steady_clock() - before

    def share(self, domain: str, weight: float, deadline_s: float) -> Done:
        """Take a wish for a domain's next or running migration.

        Args:
            domain: its name.
            weight: relative to the others.
            deadline_s: from now until it should be over; 0 without a deadline.
        """
        due_at = wall_clock() + deadline_s if deadline_s else 0.0
        self._planner.sharing.wish(domain, SharePreference(weight=weight, due_at=due_at))
        when = f", to be over in {deadline_s:.0f} s" if deadline_s else ""
        return Done(state=self._runtime.ledger.state, message=f"{domain}: weight {weight:g}{when}")

    def links(self) -> list[LinkForecast]:
        """Forecasts for the peers to which migrations were measured."""
        found = []
        for peer in self._runtime.directory.all():
            forecast = self._planner.forecasts.quantiles(Key("link", "rate", peer.name))
            if forecast is not None:
                quantiles = Range.of(over_transfer(forecast, MINUTE_STEPS))
                found.append(LinkForecast(peer=peer.name, next_minute=_three(quantiles)))
        return found


def _three(value: Range) -> tuple[float, float, float]:
    return (value.low, value.median, value.high)
