"""The allocator in virtual time: four migrations against the best possible order, and a fleet over a day.

Rule: the code that grants is the agent's; only the guests and the links are models (`bandwidth.precopy`).
"""

import itertools
import math
import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.frame import Options, Row
from bench.links.simulation import Link, Moving, by_allocator, in_order
from dwcp_migrate.bandwidth.allocation.allocator import LinkCapacity
from dwcp_migrate.bandwidth.prediction.precopy_model import Fluid

RATE: Final = 25e6
"""200 Mbit/s."""

FOUR: Final = (("a", 400e6, 3e6, 40e6), ("b", 1200e6, 4e6, 60e6), ("c", 250e6, 1e6, 20e6), ("d", 800e6, 6e6, 80e6))
"""Identity, bytes of the first pass, bytes written a second, working set, all on the wire."""

DATED: Final = "d"
DEADLINE_S: Final = 60.0
"""The deadline of `d`, which shortest-first would serve third."""

FLEET_LINKS: Final = 1000
FLEET_S: Final = 86_400
ARRIVALS_PER_DAY: Final = 24.0
FLEET_STEP_S: Final = 10.0
"""Between two allocations of a link where nothing else happens: ten times the agent's interval."""


def rows(options: Options) -> list[Row]:
    """Measure both."""
    return [*four_rows(), *fleet_rows(options)]


def four() -> list[Moving]:
    """The four migrations, one with a deadline."""
    return [
        Moving(name, Fluid(first, dirty, working), deadline_s=DEADLINE_S if name == DATED else None)
        for name, first, dirty, working in FOUR
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of four migrations.

    Attributes:
        total_s: sum of the times at which they ended.
        last_s: when all were over.
        is_kept: the deadline was.
        rate_min: the least that one ever got.
    """

    total_s: float
    last_s: float
    is_kept: bool
    rate_min: float


def allocated() -> Outcome:
    """Let the allocator share the link among the four, no head-room left."""
    capacity = LinkCapacity(forecast_bytes_per_s=RATE, headroom_share=0.0)
    return _outcome(Link(by_allocator(lambda _: capacity), four()))


def best() -> Outcome:
    """The best of all orders that keep the deadline, each with the whole link for one after the other."""
    names = [name for name, *_ in FOUR]
    outcomes = [_outcome(Link(in_order(order, RATE), four())) for order in itertools.permutations(names)]
    return min((outcome for outcome in outcomes if outcome.is_kept), key=lambda outcome: outcome.total_s)


def _outcome(link: Link) -> Outcome:
    all_of_them = list(link.moving)
    link.run()
    ends = [one.ended_s or math.inf for one in all_of_them]
    kept = all(one.deadline_s is None or end <= one.deadline_s for one, end in zip(all_of_them, ends, strict=True))
    return Outcome(sum(ends), max(ends), kept, min(one.rate_min for one in all_of_them))


def four_rows() -> list[Row]:
    """Four concurrent migrations over 200 Mbit/s, a deadline on one, in virtual time."""
    ours, ideal = allocated(), best()
    method = "virtual time; best of the 24 orders that keep the deadline, each migration alone with the whole link"

    def row(metric: str, value: float, unit: str) -> Row:
        return Row(case="sharing/four", metric=metric, value=round(value, 3), unit=unit, n=1, method=method)

    return [
        row("total_over_best_percent", 100 * (ours.total_s / ideal.total_s - 1), "percent"),
        row("last_over_best_percent", 100 * (ours.last_s / ideal.last_s - 1), "percent"),
        row("deadline_kept", float(ours.is_kept), "1"),
        row("least_rate", ours.rate_min, "bytes/s"),
    ]


@dataclass(slots=True)
class _Tally:
    grants: int = 0
    over_capacity: int = 0
    over_actual: int = 0
    migrations: int = 0
    ended: int = 0
    busy_s: float = 0.0
    late: int = 0
    dated: int = 0
    problems: list[str] = field(default_factory=list)


class _FleetLink:
    """One link for a day: its rate by the hour and by chance, migrations as they come."""

    def __init__(self, draw: np.random.Generator, seconds: int) -> None:
        self._base = float(10 ** draw.uniform(6.5, 9.1))
        self._phase = draw.uniform(0, 2 * math.pi)
        minutes = seconds // 60 + 2
        shocks = np.zeros(minutes)
        for minute, shock in enumerate(draw.normal(0, 0.05, minutes - 1)):
            shocks[minute + 1] = 0.9 * shocks[minute] + shock
        hours = np.arange(minutes) / 60
        self._rates = self._base * (0.75 + 0.25 * np.sin(2 * math.pi * hours / 24 + self._phase)) * np.exp(shocks)
        count = draw.poisson(ARRIVALS_PER_DAY * seconds / FLEET_S)
        self._arrivals = sorted(float(at) for at in draw.uniform(0, seconds, count))
        self._draw = draw
        self._seconds = seconds

    def actual(self, now: float) -> float:
        """What the link carries then."""
        return float(self._rates[int(now) // 60])

    def capacity(self, now: float) -> LinkCapacity:
        """What the agent thinks then: the low quantile of a forecast made from the minute before."""
        before = float(self._rates[max(0, int(now) // 60 - 1)])
        return LinkCapacity(forecast_bytes_per_s=before * math.exp(-1.28 * 0.06), speed_bytes_per_s=1.25 * self._base)

    def live(self, tally: _Tally) -> None:
        """Play the day."""
        link = Link(by_allocator(self.capacity, running_max=2), step_s=FLEET_STEP_S)
        for number, arrival in enumerate([*self._arrivals, float(self._seconds)]):
            while link.now < arrival and (link.moving or link.now < arrival):
                if not link.moving:
                    link.now = arrival
                    break
                before = link.now
                link.step(min(arrival, (link.now // 60 + 1) * 60))
                self._look(link, before, tally)
            if arrival < self._seconds:
                link.moving.append(self._new(str(number), link.now, tally))

    def _look(self, link: Link, before: float, tally: _Tally) -> None:
        capacity = self.capacity(before)
        tally.grants += 1
        tally.busy_s += link.now - before
        tally.over_capacity += link.granted_bytes_per_s > capacity.available_bytes_per_s * (1 + 1e-9)
        tally.over_actual += link.granted_bytes_per_s > self.actual(before)

    def _new(self, name: str, now: float, tally: _Tally) -> Moving:
        tally.migrations += 1
        first = self._base * float(self._draw.uniform(20, 240))
        working = first * float(self._draw.uniform(0.02, 0.2))
        dirty = self._base * float(self._draw.uniform(0.01, 0.5))
        dated = self._draw.random() < 0.2  # noqa: PLR2004 - one in five has a deadline
        tally.dated += dated
        return Moving(name, Fluid(first, dirty, working), deadline_s=now + 8 * first / self._base if dated else None)


def fleet_rows(options: Options) -> list[Row]:
    """A thousand links for a day; quick: fifty for two hours."""
    links, seconds = (50, 7200) if options.quick else (FLEET_LINKS, FLEET_S)
    tally = _Tally()
    begin = time.perf_counter()
    for number in range(links):
        _FleetLink(np.random.default_rng([options.seed, number]), seconds).live(tally)
    elapsed = time.perf_counter() - begin
    method = f"virtual time, seed {options.seed}, {ARRIVALS_PER_DAY:.0f} migrations a link and day, two at once"

    def row(metric: str, value: float, unit: str = "1") -> Row:
        return Row(case=f"fleet/{links}/{seconds}", metric=metric, value=value, unit=unit, n=1, method=method)

    return [
        row("migrations", tally.migrations),
        row("allocations", tally.grants),
        row("reservations_above_capacity", tally.over_capacity),
        row("reservations_above_actual_percent", round(100 * tally.over_actual / max(1, tally.grants), 3), "percent"),
        row("busy_percent", round(100 * tally.busy_s / (links * seconds), 2), "percent"),
        row("runtime", round(elapsed, 1), "s"),
    ]
