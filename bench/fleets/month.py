"""A fleet over days, played: recorded daily load, hosts that fail, maintenance, with and without a balancer.

All is drawn beforehand from one generator, so that every way to balance meets the same days. Guests of a host that
fails are started elsewhere by promises, rules kept; one host after the other is drained for an hour and comes back.

What a guest uses was recorded: `recorded_days.npz` holds the CPU of 96 virtual machines of PlanetLab on five days each
of March and April 2011, in percent by quarter hours, out of the trace that CoMon took every five minutes. Each guest
takes one of them, begins on one of its days, in one of three time zones, and goes through them again and again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dwcp_migrate.placement.check import violations
from dwcp_migrate.placement.contention import due_hosts, hot_since, plan_relief
from dwcp_migrate.placement.fleet import Domain, Fleet, Host, Rule
from dwcp_migrate.placement.planner import plan_rebalance
from dwcp_migrate.placement.watch_settings import WatchSettings

STEP_S: Final = 300.0
STEPS_A_DAY: Final = 288
HOUR: Final = 12
HIGH: Final = 0.9
CPU: Final = "cpu_used"
CORES: Final = 32.0
MEMORY_MIB: Final = 262144.0
MAINTENANCE_STEPS: Final = 12
RECORDED: Final = Path(__file__).with_name("recorded_days.npz")
QUARTER: Final = 3
"""Steps of a quarter of an hour."""

MEAN_LEVEL: Final = 0.5
"""Use of all cores over all the days: recorded machines idle more than a fleet that wants balancing."""

ZONE_STEPS: Final = 8 * HOUR

LOOKS_EACH: Final = 3
"""Steps between two rounds that may move somebody."""

Floats = npt.NDArray[np.floating[Any]]
Whole = npt.NDArray[np.int64]


@dataclass(slots=True)
class Outcome:
    """What came of some days.

    Attributes:
        moves: for balance alone; evacuations are the same for everybody. `first_day` are those of the first one, which
            even out what a start by promises left.
        hot_s: host-seconds above the threshold, by what is used at that moment.
        worst: highest level of any host at any moment; `worst_p99` leaves out one moment in a hundred.
        broken: rules that were broken at the end of a step.
        early: moves of a guest that balance moved within the cool-down before.
    """

    moves: int = 0
    first_day: int = 0
    hot_s: float = 0.0
    worst: float = 0.0
    worst_p99: float = 0.0
    broken: int = 0
    early: int = 0
    tops: list[float] = field(default_factory=list)


class Month:
    """The days.

    Args:
        rng: all chance.
        hosts: of 32 cores and 256 GiB each.
        guests: of 2 to 8 vCPUs; every tenth pair is kept apart.
        days: how many.
    """

    def __init__(self, rng: np.random.Generator, hosts: int, guests: int, days: int) -> None:
        self.hosts, self.guests, self.steps = hosts, guests, days * STEPS_A_DAY
        self.vcpus = rng.choice([2.0, 4.0, 8.0], guests, p=[0.5, 0.35, 0.15])
        self.memory = self.vcpus * 2048.0
        self.pairs = [(2 * one, 2 * one + 1) for one in range(0, guests // 2, 10)]
        self.start = self._start()
        with np.load(RECORDED, allow_pickle=False) as kept:
            self.recorded: npt.NDArray[np.float32] = kept["percent"].astype(np.float32) / 100
        self.machine = rng.integers(len(self.recorded), size=guests)
        self.first = rng.integers(self.recorded.shape[1], size=guests) * STEPS_A_DAY
        self.first += rng.choice(3, guests, p=[0.6, 0.25, 0.15]) * ZONE_STEPS
        mean = self.vcpus @ self.recorded.mean(axis=(1, 2))[self.machine]
        self.scale = MEAN_LEVEL * hosts * CORES / mean
        self.seed = int(rng.integers(2**31))
        self.failures = {
            int(step): int(rng.integers(hosts)) for step in rng.integers(0, self.steps, max(1, hosts * days // 500))
        }
        self.drains = {
            int(day * STEPS_A_DAY + 2 * HOUR + slot * MAINTENANCE_STEPS): (day * 4 + slot) % hosts
            for day in range(days)
            for slot in range(4)
        }

    def _start(self) -> Whole:
        """By promises, the least promised host first, pairs apart."""
        where = np.full(self.guests, -1)
        promised = np.zeros(self.hosts)
        for guest in range(self.guests):
            where[guest] = self._place(guest, where, promised, set())
            promised[where[guest]] += self.vcpus[guest]
        return where

    def _place(self, guest: int, where: Whole, promised: Floats, closed: set[int]) -> int:
        partner = next((b if a == guest else a for a, b in self.pairs if guest in (a, b)), -1)
        barred = closed | ({int(where[partner])} if partner >= 0 else set())
        return next(int(host) for host in np.argsort(promised, kind="stable") if int(host) not in barred)

    def used(self) -> npt.NDArray[np.float32]:
        """Cores of each guest in each step, (steps, guests): recorded ones, scaled, with a tenth of chance."""
        rng = np.random.default_rng(self.seed)
        quarters = self.recorded.reshape(len(self.recorded), -1)
        found = np.empty((self.steps, self.guests), np.float32)
        for step in range(self.steps):
            at = (step + self.first) // QUARTER % quarters.shape[1]
            share = quarters[self.machine, at] * self.scale * rng.uniform(0.9, 1.1, self.guests)
            found[step] = np.minimum(share, 1.0) * self.vcpus
        return found

    def fleet(self, where: Whole, high: Floats, closed: set[int]) -> Fleet:
        """As placement sees it."""
        capacity = {"vcpus": CORES, "memory_mib": MEMORY_MIB, CPU: CORES}
        hosts = [
            Host(
                name=f"h{host}",
                capacity=capacity,
                overcommit={"vcpus": 4.0},
                state="maintenance" if host in closed else "up",
            )
            for host in range(self.hosts)
        ]
        domains = [
            Domain(
                name=f"g{guest}",
                host=f"h{where[guest]}",
                demand={"vcpus": float(self.vcpus[guest]), "memory_mib": float(self.memory[guest])},
                load={CPU: float(high[guest])},
            )
            for guest in range(self.guests)
        ]
        rules = [Rule(name=f"p{a}", kind="apart", domains=[f"g{a}", f"g{b}"]) for a, b in self.pairs]
        return Fleet(hosts=hosts, domains=domains, rules=rules)

    def run(
        self,
        settings: WatchSettings | None,
        *,
        by_promises: bool = False,
        day_ends: Callable[[int, Outcome], None] | None = None,
    ) -> Outcome:
        """Live through the days.

        Args:
            settings: of the service; None without it.
            by_promises: a rebalance every six hours that knows promises alone.
            day_ends: told how many days are over, and what came of them so far.
        """
        found, where, used = Outcome(), self.start.copy(), self.used()
        threshold = (settings or WatchSettings()).threshold
        since: dict[str, float] = {}
        moved_at: dict[int, float] = {}
        closed: dict[int, int] = {}
        for step in range(self.steps):
            now = step * STEP_S
            closed = self._close(step, closed, where)
            level = np.bincount(where, used[step], self.hosts) / CORES
            found.hot_s += float((level > threshold).sum()) * STEP_S
            found.tops.append(float(level.max()))
            high = np.quantile(used[max(0, step - HOUR + 1) : step + 1], HIGH, axis=0)
            steps: list[tuple[int, int]] = []
            if settings is not None:
                use = np.bincount(where, high, self.hosts) / CORES
                names = {f"h{host}": float(use[host]) for host in range(self.hosts) if host not in closed}
                since = hot_since(since, names, settings, now)
                due = due_hosts(since, settings, now) if step % LOOKS_EACH == 0 else []
                resting = {f"g{one}" for one, at in moved_at.items() if now - at < settings.cool_down_s}
                if due:
                    plan = plan_relief(self.fleet(where, high, set(closed)), due, resting, settings, (CPU,))
                    steps = [(int(one.domain[1:]), int(one.destination[1:])) for one in plan.steps]
            elif by_promises and step % (6 * HOUR) == 0:
                plan = plan_rebalance(self.fleet(where, np.zeros(self.guests), set(closed)))
                steps = [(int(one.domain[1:]), int(one.destination[1:])) for one in plan.steps]
            for guest, host in steps:
                found.early += settings is not None and now - moved_at.get(guest, -1e9) < settings.cool_down_s
                moved_at[guest], where[guest] = now, host
            found.moves += len(steps)
            if steps:
                found.broken += sum(where[a] == where[b] for a, b in self.pairs)
            found.first_day += len(steps) if step < STEPS_A_DAY else 0
            if day_ends is not None and (step + 1) % STEPS_A_DAY == 0:
                day_ends((step + 1) // STEPS_A_DAY, found)
        found.worst = max(found.tops)
        found.worst_p99 = float(np.quantile(found.tops, 0.99))
        assert (
            violations(
                self.fleet(where, used[-1].astype(np.float64), set()), {f"g{g}": f"h{h}" for g, h in enumerate(where)}
            )
            == []
        )
        return found

    def _close(self, step: int, closed: dict[int, int], where: Whole) -> dict[int, int]:
        """Hosts that are closed in a step, and until which one; whoever is on one that closes is moved."""
        closed = {host: until for host, until in closed.items() if until > step}
        for events, length in ((self.failures, 6 * HOUR), (self.drains, MAINTENANCE_STEPS)):
            if step in events:
                closed[events[step]] = step + length
                self._empty(events[step], where, set(closed))
        return closed

    def _empty(self, host: int, where: Whole, closed: set[int]) -> None:
        promised = np.bincount(where, self.vcpus, self.hosts).astype(np.float64)
        for guest in np.flatnonzero(where == host):
            target = self._place(int(guest), where, promised, closed)
            promised[host] -= self.vcpus[guest]
            promised[target] += self.vcpus[guest]
            where[guest] = target
