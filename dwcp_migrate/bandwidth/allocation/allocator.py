"""Shares a link between the migrations that cross it, by need first and by weight for the rest (pure).

The rules:
1. Grants never exceed the capacity: the low quantile of the link's forecast, no more than its speed, less the head-room
   for other traffic and the reserve for storage. The order is judged by its median: sums of many seconds are near that,
   and by the low quantile a deadline would come first that can wait.
2. Nobody starves: every migration gets its part of `TRICKLE_SHARE`, so that connections live and passes go on.
3. Needs come in this order: a guest that is paused, or is about to be; a deadline; a guest that would not converge at
   its share. A need that cannot be met takes nothing from those that can, except that a deadline gets what is left.
4. The rest goes to the first migrations of the sequence, in proportion to their weights, none beyond the rate that it
   can use.

    forecast ── low quantile ── head-room, storage ── trickle ── paused ── deadlines ── convergence ── weights
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.bandwidth.allocation.ordering import OrderedJob, late, order

TRICKLE_SHARE: Final = 0.05
"""Of the capacity, together for all migrations: 1.2 Mbit/s each for eight of them on 200 Mbit/s."""

DEADLINE_MARGIN: Final = 1.1
"""A deadline's rate is asked for with 10 % to spare, because forecasts err and passes are not even."""

STAY_MARGIN: Final = 1.3
"""The same for one that has the link already: it keeps it until there is clearly time for others. With one margin for
both, two migrations changed places every second on each flutter of a forecast, and each change cost a slow start."""

CONVERGENCE_MARGIN: Final = 1.5
"""Times the guest's dirty rate: each pass then takes two thirds of the one before, eight passes for a factor of 25."""

DEMANDS_MAX: Final = 512
"""Twice the agent's `policy.sessions_max` at its largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One migration's demand on a link, in bytes on the wire.

    Attributes:
        identity: of the migration.
        weight: its share of what is left, relative to the others.
        remaining_bytes: still to be sent in this pass, at least.
        dirty_bytes_per_s: what the guest adds by writing.
        working_set_bytes: what it writes to again and again; infinite where unknown.
        rate_bytes_per_s_max: what it can use: its encoder's rate.
        deadline_s: from now until it should be over; None without one.
        is_switching: its guest is paused or about to be.
        is_first: it has the link now.
    """

    identity: str
    weight: float = 1.0
    remaining_bytes: float
    dirty_bytes_per_s: float = 0.0
    working_set_bytes: float = float("inf")
    rate_bytes_per_s_max: float = float("inf")
    deadline_s: float | None = None
    is_switching: bool = False
    is_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCapacity:
    """Capacity of a link.

    Attributes:
        forecast_bytes_per_s: low quantile of what migrations can carry over it in seconds in which it is not dead.
        speed_bytes_per_s: of the interface; infinite where unknown.
        headroom_share: left for other traffic.
        reserved_bytes_per_s: left for storage.
        median_bytes_per_s: of what it carries in all, dead seconds included; 0 takes the low quantile for it.
    """

    forecast_bytes_per_s: float
    speed_bytes_per_s: float = float("inf")
    headroom_share: float = 0.1
    reserved_bytes_per_s: float = 0.0
    median_bytes_per_s: float = 0.0

    @property
    def available_bytes_per_s(self) -> float:
        """Rate that all migrations may use together."""
        return self._less_others(self.forecast_bytes_per_s)

    @property
    def expected_bytes_per_s(self) -> float:
        """Rate that they will have had in the end, as likely more as less."""
        return self._less_others(self.median_bytes_per_s or self.forecast_bytes_per_s)

    def _less_others(self, forecast: float) -> float:
        whole = min(forecast, self.speed_bytes_per_s)
        return max(0.0, whole * (1 - self.headroom_share) - self.reserved_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Grant:
    """One migration's share of a link, and the strongest reason for it.

    Attributes:
        reason: `switchover`, `deadline`, `convergence`, `share`, or `queued` when the sequence has others first.
        is_met: whether the need behind the reason is met.
    """

    identity: str
    rate_bytes_per_s: float
    reason: str
    is_met: bool = True


def allocate_rates(capacity: LinkCapacity, demands: Sequence[Demand], *, running_max: int = 1) -> list[Grant]:
    """Share a link.

    Args:
        capacity: what it has.
        demands: of all migrations over it, each identity once, at most `DEMANDS_MAX`.
        running_max: how many of those without a need of their own get more than a trickle at once. One after the
            other is soonest done in all: what waits is written to meanwhile at no cost before its first pass.

    Returns:
        A grant for each demand, in their order; together at most `capacity.available_bytes_per_s`.

    Raises:
        ValueError: more than `DEMANDS_MAX`, an identity twice, or a weight that is not positive.
    """
    _check(demands)
    share = _Share(capacity, demands, running_max)
    share.trickle()
    share.switching()
    share.deadlines()
    share.convergence()
    share.rest()
    return share.grants()


def _check(demands: Sequence[Demand]) -> None:
    if len(demands) > DEMANDS_MAX:
        raise ValueError(f"{len(demands)} migrations on one link, at most {DEMANDS_MAX}")
    if len({demand.identity for demand in demands}) != len(demands):
        raise ValueError("a migration asks twice")
    if any(demand.weight <= 0 for demand in demands):
        raise ValueError("a weight must be positive")


class _Share:
    """The link while it is being shared."""

    def __init__(self, capacity: LinkCapacity, demands: Sequence[Demand], running_max: int) -> None:
        self._available = self._left = capacity.available_bytes_per_s
        self._demands = demands
        jobs = [_job(demand) for demand in demands]
        expected = capacity.expected_bytes_per_s * (1 - TRICKLE_SHARE)
        ordered = order(jobs, expected)
        self._late = late(jobs, ordered, expected)
        places = {identity: place for place, identity in enumerate(ordered)}
        ranked = sorted(range(len(demands)), key=lambda index: places[demands[index].identity])
        self._first = ranked[:running_max]
        self._rates = [0.0] * len(demands)
        self._reasons = ["queued"] * len(demands)
        self._met = [True] * len(demands)

    def _raise_to(self, index: int, rate: float, reason: str) -> bool:
        """Lift one to a rate as far as possible; False if it fell short of it."""
        wanted = min(rate, self._demands[index].rate_bytes_per_s_max)
        step = max(0.0, min(wanted - self._rates[index], self._left))
        self._rates[index] += step
        self._left -= step
        if self._reasons[index] in {"queued", "share"}:
            self._reasons[index] = reason
        return self._rates[index] >= wanted * (1 - 1e-9)

    def trickle(self) -> None:
        each = self._available * TRICKLE_SHARE / max(1, len(self._demands))
        for index in range(len(self._demands)):
            self._raise_to(index, each, "queued")

    def switching(self) -> None:
        """Paused guests share all that is left, evenly: each millisecond of theirs is downtime."""
        paused = [index for index, demand in enumerate(self._demands) if demand.is_switching]
        self._fill(paused, "switchover", dict.fromkeys(paused, 1.0))

    def deadlines(self) -> None:
        """The earliest deadline first; one that the sequence keeps anyway needs nothing."""
        dated = [
            (demand.deadline_s, index)
            for index, demand in enumerate(self._demands)
            if demand.deadline_s is not None and demand.identity in self._late
        ]
        for deadline_s, index in sorted(dated):
            self._met[index] = self._raise_to(index, needed_for_deadline(self._demands[index], deadline_s), "deadline")

    def convergence(self) -> None:
        """The smallest need first, so that as many as possible converge; one that cannot be met takes nothing."""
        needs = sorted((self._demands[index].dirty_bytes_per_s * CONVERGENCE_MARGIN, index) for index in self._first)
        for need, index in needs:
            if self._rates[index] < need <= self._rates[index] + self._left:
                self._raise_to(index, need, "convergence")

    def rest(self) -> None:
        """Give the rest to the first of the sequence by weight, then to any that can use more."""
        weights = {index: demand.weight for index, demand in enumerate(self._demands)}
        self._fill(self._first, "share", weights)
        self._fill(range(len(self._demands)), "queued", weights)

    def _fill(self, indices: Sequence[int], reason: str, weights: dict[int, float]) -> None:
        """Share what is left among some in proportion to weights, none beyond what it can use (max-min)."""
        open_ones = [index for index in indices if self._rates[index] < self._demands[index].rate_bytes_per_s_max]
        while open_ones and self._left > 0:
            unit = self._left / sum(weights[index] for index in open_ones)
            full = [
                index
                for index in open_ones
                if self._rates[index] + unit * weights[index] >= self._demands[index].rate_bytes_per_s_max
            ]
            for index in full or open_ones:
                self._raise_to(index, self._rates[index] + unit * weights[index], reason)
            if not full:
                return
            open_ones = [index for index in open_ones if index not in full]

    def grants(self) -> list[Grant]:
        return [
            Grant(demand.identity, rate, reason, met)
            for demand, rate, reason, met in zip(self._demands, self._rates, self._reasons, self._met, strict=True)
        ]


def _job(demand: Demand) -> OrderedJob:
    """As the sequence sees it: with a deadline that leaves the margin."""
    margin = STAY_MARGIN if demand.is_first else DEADLINE_MARGIN
    deadline_s = None if demand.deadline_s is None else demand.deadline_s / margin
    return OrderedJob(
        demand.identity,
        demand.remaining_bytes,
        deadline_s,
        demand.weight,
        demand.dirty_bytes_per_s,
        demand.working_set_bytes,
    )


def needed_for_deadline(demand: Demand, deadline_s: float) -> float:
    """Return the rate that meets a deadline, with a margin: bytes left and bytes that the guest adds until then.

    Args:
        demand: of the migration.
        deadline_s: from now.

    Returns:
        Bytes a second; infinite once the deadline has passed.
    """
    if deadline_s <= 0:
        return float("inf")
    return DEADLINE_MARGIN * (demand.remaining_bytes / deadline_s + demand.dirty_bytes_per_s)
