"""Simulated annealing for machine reassignment whose capacities have prices.

Machines are five sixths full and a tenth of the processes is as large as half a machine: with every capacity held at
each step, who carries the large ones freezes long before the temperature at which the small ones find their places.
So a capacity may be broken, at a price a unit that is its own, as a Lagrange multiplier: it grows while the
capacity is broken and falls slowly while it is not.

    each slice   T *= cooling
                 price of a broken capacity *= exp(RISE * part of the time), of another *= exp(-FALL * part)
                 price of a missed dependency = T * (5 to 15)
                 proposals at T, at these prices

In balance a capacity that matters is broken for FALL / RISE of the time, whatever the temperature, so an assignment
that breaks none is met again and again; the best such one is the result. `roadef` sums and checks it anew.

Each core anneals with a seed of its own; then both go on from the better result, reheated a little.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bench.roadef import kernel
from bench.roadef.arrays import AWAY, HOME, Arrays, arrays, counters
from bench.roadef.instance import Instance

RISE: Final = 500.0
"""Logarithm that a price rises by if its capacity is broken all the time."""

FALL: Final = 10.0
"""Logarithm that it falls by if it never is."""

LEAST_PRICE: Final = 3.0
"""Of a unit of capacity; a unit beyond the safety capacity costs 10 in all instances."""

MISSING: Final = 15.0
"""Price of a missed dependency, in temperatures, from the middle of a phase on: chance pays it once in 3 million."""

SWAPS: Final = 0.4
"""Share of the proposals that are swaps; shifts are the rest."""

HOMEWARD: Final = 0.3
"""Share of the proposals that bring a process back to where it was at the start, where resources are transient.

There whoever is elsewhere takes room twice, and the many small ones that are elsewhere for nothing keep large ones from
moving; by chance one proposal in 40 to 100 would bring somebody home. Without transient resources it only costs."""

COLD: Final = 0.3
"""Least temperature: a move costs 1 at least."""

SLICE: Final = 20_000
"""Proposals between two looks at the clock: two milliseconds."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One cooling of both cores: its share of the time, temperatures at first and at last, prices at first."""

    share: float
    hot: float
    cold: float
    price: float
    missing: float


PHASES: Final = (Phase(0.8, 4e-3, 1e-6, LEAST_PRICE, 5.0), Phase(0.2, 1e-4, 0.0, 1000.0, MISSING))
"""Temperatures in objectives of the start, prices of a unit of capacity and of a missed dependency (in temperatures).
Above the first temperature nothing is gained; the second phase reheats a little, so its prices begin where those of the
first end."""


def anneal(a: Arrays, begin: Any, phase: Phase, clock: Callable[[], float], seed: int) -> tuple[float, Any]:
    """Anneal from an assignment that breaks nothing, cooling with the clock.

    Args:
        a: the instance.
        begin: (P,) assignment.
        phase: temperatures and prices.
        clock: the part of the phase that is over.
        seed: of chance.

    Returns:
        What it gained (negative), and the best assignment (P,).
    """
    c, best, sums = counters(a, begin, phase.price), begin.copy(), np.zeros(kernel.SLOTS)
    sums[kernel.MOST] = c.moved.max(initial=0)
    scale = max(objective_of(a), 1.0)
    hot, cold = max(phase.hot * scale, COLD), max(phase.cold * scale, COLD)
    chance = np.random.default_rng(seed).integers(1, 2**63, 1, np.uint64)
    homeward = HOMEWARD if (a.room[:, AWAY] > a.room[:, HOME]).any() else 0.0
    before = 0.0
    while (passed := clock()) < 1:
        part, before = passed - before, passed
        up, down = np.exp(RISE * part), np.exp(-FALL * part)
        sums[kernel.BROKEN] = kernel.reprice(c, up, down, LEAST_PRICE)
        heat = hot * (cold / hot) ** passed
        missing = phase.missing + (MISSING - phase.missing) * min(1.0, 2 * passed)
        kernel.block(a, c, best, sums, chance, (heat, heat * missing, SWAPS, homeward, SLICE))
    return float(sums[kernel.BEST]), best


def objective_of(a: Arrays) -> float:
    """Objective of the start, where no move costs anything."""
    return float(counters(a, a.start, 0.0).cost.sum())


def solve(instance: Instance, seconds: float, seed: int, cores: int = 2) -> list[int]:
    """Anneal for a time on some cores; the best assignment."""
    a = arrays(instance)
    best = a.start.copy()
    if len(a.mobile):
        anneal(a, best, PHASES[0], iter((0.0, 1.0)).__next__, seed)  # compiled by now
        begin = time.monotonic()
        with ThreadPoolExecutor(cores) as threads:
            for number, phase in enumerate(PHASES):
                clock = _clock(begin, phase.share * seconds)
                runs = [
                    threads.submit(anneal, a, best, phase, clock, seed + 1000 * number + core) for core in range(cores)
                ]
                _, best = min((run.result() for run in runs), key=lambda found: found[0])
                begin += phase.share * seconds
    return [int(machine) for machine in best]


def _clock(begin: float, seconds: float) -> Callable[[], float]:
    return lambda: max(0.0, (time.monotonic() - begin) / seconds)
