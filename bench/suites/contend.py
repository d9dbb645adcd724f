"""Suite `contend`: four migrations at once over one 200 Mbit/s link in the lab, a deadline on one of them.

Rule: the best that could be is found by trying: each guest migrates alone first, and of the 24 orders in which the four
could follow each other, the one that keeps the deadline with the least sum of completion times is the measure. The
deadline is one that shortest-first would miss.
"""

import itertools
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bench.frame import Options, Row
from dwcp_migrate.lab.guest import GuestMix, GuestOptions, LabGuest
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.shuttle import Shuttle, ShuttleOutcome, newest_record
from dwcp_migrate.lab.wan import WanLink
from dwcp_migrate.units import MIB

LINK: Final = WanLink(rate_bytes_per_s=25e6, delay_s=0.010, loss=0.0001)

DENSE: Final = GuestMix(zero=5, random=85, text=4, duplicate=2, records=4)
"""Little to compress, so that the link is the bottleneck and not the cores that the guests run on."""

GUESTS: Final = tuple(
    GuestOptions(
        name=f"guest-{name}",
        memory_mib=fill + 192,
        fill_mib=fill,
        mix=DENSE,
        dirty_pages_per_s=dirty,
        check_pages_per_s=3000,
        seed=number + 1,
    )
    for number, (name, fill, dirty) in enumerate((("a", 150, 50), ("b", 250, 100), ("c", 350, 50), ("d", 550, 100)))
)

DATED: Final = GUESTS[-1].name
"""The largest: shortest-first would serve it last."""

SLACK: Final = 1.35
"""The deadline is that many times the duration of the dated guest and the smallest one, one after the other."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One of the four.

    Attributes:
        end_s: from the start of all.
        rate_min: least that it was granted, bytes a second; infinite where it was never held.
        outcome: what `virsh` said.
    """

    end_s: float
    rate_min: float
    outcome: ShuttleOutcome


def rows(options: Options) -> list[Row]:
    """Run it: all at once towards the second host, where the link is shared, and back, where it is left to TCP.

    Raises:
        LabError: not root, or the lab does not come up.
    """
    with Lab.up(LabOptions(name=f"contend-{options.seed}", link=LINK, seed=options.seed, owned=True)) as lab:
        sharing, leaving_it = lab.hypervisors
        lab.start_agent(sharing.name, {"bandwidth": {"share": True}})
        lab.start_agent(leaving_it.name, {"bandwidth": {"share": False}})
        guests = (GUESTS[0], GUESTS[-1]) if options.quick else GUESTS
        shuttles = [Shuttle(lab, LabGuest(guest)) for guest in guests]
        for shuttle in shuttles:
            shuttle.guest.start(sharing)
        alone = {shuttle.guest.name: _alone(lab, shuttle) for shuttle in shuttles}
        deadline_s = SLACK * (alone[DATED] + min(alone.values()))
        _say(f"contend: alone {alone}, deadline of {DATED} {deadline_s:.1f} s")
        lab.agents[sharing.name].post(f"/v1/share?domain={DATED}&deadline_s={deadline_s}")
        arms = {"shared": _together(lab, shuttles, sharing), "left to TCP": _together(lab, shuttles, leaving_it)}
        with ThreadPoolExecutor(len(shuttles)) as threads:  # each takes two passes over its guest's memory
            list(threads.map(Shuttle.check, shuttles))
    return [row for name, ended in arms.items() for row in _rows(name, alone, deadline_s, ended)]


def _alone(lab: Lab, shuttle: Shuttle) -> float:
    """Migrate there and back, and say how long a way took in the mean."""
    times = []
    for hypervisor in lab.hypervisors:
        begin = time.time()
        times.append(shuttle.move().time_s)
        newest_record(lab.agents[hypervisor.name], "source", after=begin)
    return statistics.mean(times)


def _together(lab: Lab, shuttles: list[Shuttle], source: Hypervisor) -> dict[str, Ended]:
    """Start all at once; watch the grants until the last is over."""
    agent = lab.agents[source.name]
    begin = time.monotonic()
    moves = {shuttle.guest.name: shuttle.begin() for shuttle in shuttles}
    least: dict[str, float] = {}
    ends: dict[str, float] = {}
    while len(ends) < len(moves):
        for record in agent.get("/v1/migrations")["migrations"]:
            if record["granted_bytes_per_s"] >= 0:
                known = least.get(record["domain"], float("inf"))
                least[record["domain"]] = min(known, record["granted_bytes_per_s"])
        for name, move in moves.items():
            if name not in ends and not move.runs:
                ends[name] = time.monotonic() - begin
                _say(f"contend: {name} over after {ends[name]:.1f} s")
        time.sleep(0.25)
    return {name: Ended(ends[name], least.get(name, float("inf")), move.wait()) for name, move in moves.items()}


def best(alone: dict[str, float], deadline_s: float) -> float:
    """The least sum of completion times of all orders, one after the other, that keep the deadline.

    Args:
        alone: guest to the seconds that its migration takes alone.
        deadline_s: of `DATED`, no less than what that takes alone.
    """
    return min(
        sum(itertools.accumulate(alone[name] for name in order))
        for order in itertools.permutations(alone)
        if sum(alone[name] for name in order[: order.index(DATED) + 1]) <= deadline_s
    )


def _rows(arm: str, alone: dict[str, float], deadline_s: float, ended: dict[str, Ended]) -> list[Row]:
    last = max(one.end_s for one in ended.values())
    total = sum(one.end_s for one in ended.values())
    method = "virsh migrate of all guests at once; best of the orders of the times that each took alone"

    def row(metric: str, value: float, unit: str = "1") -> Row:
        return Row(
            case=f"contend/{len(ended)}/{arm}", metric=metric, value=round(value, 2), unit=unit, n=1, method=method
        )

    return [
        row("completed", sum(one.outcome.succeeded for one in ended.values())),
        row("deadline_kept", float(ended[DATED].end_s <= deadline_s)),
        row("total_over_best_percent", 100 * (total / best(alone, deadline_s) - 1), "percent"),
        row("last_over_sequential_percent", 100 * (last / sum(alone.values()) - 1), "percent"),
        row("least_grant", min(one.rate_min for one in ended.values()) / MIB, "MiB/s"),
        row("mean_end", statistics.mean(one.end_s for one in ended.values()), "s"),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
