"""Migrations over one link in virtual time, driven by the allocator or by a fixed order (pure).

The rule: time moves from event to event (a pass ends, a second is over, a migration arrives), the allocator is asked at
each, and what it grants is held against what there is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dwcp_migrate.bandwidth.allocation.allocator import Demand, LinkCapacity, allocate_rates
from dwcp_migrate.bandwidth.prediction.precopy_model import Fluid

STEP_S: Final = 1.0
"""As often as the agent allocates."""

HORIZON_S: Final = 1e6
"""A simulation that is not over by then never is."""


@dataclass(slots=True)
class Moving:
    """One migration.

    Attributes:
        identity: of it.
        fluid: its guest.
        weight: for the allocator.
        deadline_s: absolute, in virtual time; None without one.
        ended_s: when it was over.
        rate_min: the least that it ever got while it ran.
    """

    identity: str
    fluid: Fluid
    weight: float = 1.0
    deadline_s: float | None = None
    ended_s: float | None = None
    rate_min: float = float("inf")

    def demand(self, now: float) -> Demand:
        """What the agent would tell the allocator of it."""
        fluid = self.fluid
        return Demand(
            identity=self.identity,
            weight=self.weight,
            remaining_bytes=fluid.left_bytes,
            dirty_bytes_per_s=fluid.dirty_bytes_per_s,
            working_set_bytes=fluid.working_set_bytes,
            deadline_s=None if self.deadline_s is None else self.deadline_s - now,
            is_switching=fluid.is_switching,
        )


Rates = Callable[[float, Sequence[Moving]], Sequence[float]]
"""Virtual time and the migrations that run, to the rate of each."""


@dataclass(slots=True)
class Link:
    """One link and the migrations that cross it.

    Attributes:
        rates: who gets what.
        moving: migrations that are under way.
        now: virtual time.
        granted_bytes_per_s: the sum of the last rates.
        step_s: the rates are asked for at least that often.
    """

    rates: Rates
    moving: list[Moving] = field(default_factory=list)
    now: float = 0.0
    granted_bytes_per_s: float = 0.0
    step_s: float = STEP_S

    def step(self, until: float) -> None:
        """Advance to the next event, no further than `until`."""
        rates = self.rates(self.now, self.moving)
        self.granted_bytes_per_s = sum(rates)
        events = (one.fluid.next_event_s(rate) for one, rate in zip(self.moving, rates, strict=True))
        seconds = max(min(until - self.now, *events, self.step_s) if self.moving else until - self.now, 0.0)
        for one, rate in zip(self.moving, rates, strict=True):
            one.rate_min = min(one.rate_min, rate)
            one.fluid.advance(seconds, rate)
        self.now += seconds
        for one in self.moving:
            if one.fluid.is_over:
                one.ended_s = self.now
        self.moving = [one for one in self.moving if not one.fluid.is_over]

    def run(self) -> None:
        """Advance until all are over.

        Raises:
            ValueError: that is not before `HORIZON_S`.
        """
        while self.moving:
            self.step(HORIZON_S)
            if self.now >= HORIZON_S:
                raise ValueError("these migrations never end")


def by_allocator(capacity: Callable[[float], LinkCapacity], *, running_max: int = 1) -> Rates:
    """Let the allocator share the link, whose capacity at each time is that of `capacity`."""

    def rates(now: float, moving: Sequence[Moving]) -> Sequence[float]:
        grants = allocate_rates(capacity(now), [one.demand(now) for one in moving], running_max=running_max)
        return [grant.rate_bytes_per_s for grant in grants]

    return rates


def in_order(identities: Sequence[str], available_bytes_per_s: float) -> Rates:
    """Give the whole link to the first of these that is not over: one try of an exhaustive search."""
    places = {identity: place for place, identity in enumerate(identities)}

    def rates(now: float, moving: Sequence[Moving]) -> Sequence[float]:
        del now
        first = min(moving, key=lambda one: places[one.identity]) if moving else None
        return [available_bytes_per_s if one is first else 0.0 for one in moving]

    return rates
