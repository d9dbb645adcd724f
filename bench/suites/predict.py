"""Suite `predict`: migrations in the lab over varied links and guests, each predicted before its start.

Rule: links and guests follow from the seed and a group's number alone; the link is the bound, as it is between sites,
and a migration takes 3 to 30 s. Every group begins with one migration each way that is not counted, from which the
agents learn the link and the guest (with one where the guest will not converge); then each migration is asked for first
(`/v1/predict`) and done afterwards. A guest that has not arrived after `HOPELESS_S` is one that did not converge: it is
cancelled, and counts for the prediction of convergence only.
"""

import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Final

import msgspec

from bench.frame import Options, Row
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import Predicted
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.shuttle import Shuttle, newest_record
from dwcp_migrate.lab.wan import WanLink

GROUP: Final = 5
"""Migrations counted for one link and guest."""

HOPELESS_S: Final = 45.0
"""One and a half times the largest guest's duration on the slowest link that converges."""

PAUSE_S: Final = 2.0
"""Between two migrations of a guest: QEMU's dirty-rate measurement needs a second of the guest's life."""


@dataclass(frozen=True, slots=True)
class Group:
    """What one group's migrations have in common.

    Attributes:
        link: the WAN.
        guest: what migrates.
        taught: migrations that are not counted.
    """

    link: WanLink
    guest: GuestOptions
    taught: int


def group(seed: int, number: int) -> Group:
    """Draw a group; every fourth guest writes more than its link carries."""
    draw = random.Random(f"{seed}/{number}")  # noqa: S311 - to be repeated, not guessed
    hopeless = number % 4 == 3  # noqa: PLR2004 - every fourth
    link = WanLink(
        rate_bytes_per_s=2e6 if hopeless else draw.choice((4e6, 8e6, 16e6, 25e6)),
        delay_s=draw.choice((0.002, 0.01, 0.02, 0.04)),
        loss=draw.choice((0.0, 0.0001, 0.001)),
    )
    fill_mib = draw.choice((128, 192, 256))
    guest = GuestOptions(
        memory_mib=fill_mib + draw.choice((128, 192, 256)),
        fill_mib=fill_mib,
        dirty_pages_per_s=30_000 if hopeless else draw.choice((0, 100, 500, 2000)),
        hot_percent=100 if hopeless else draw.choice((10, 30)),
        check_pages_per_s=2000,
        seed=number + 1,
    )
    return Group(link, guest, taught=1 if hopeless else 2)


@dataclass(slots=True)
class Tally:
    """What came of it."""

    errors: list[float] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)
    converged: list[bool] = field(default_factory=list)
    downtime_errors_ms: list[float] = field(default_factory=list)
    bytes_errors: list[float] = field(default_factory=list)


def rows(options: Options) -> list[Row]:
    """Run it.

    Raises:
        LabError: not root, or the lab does not come up.
    """
    wanted = min(options.migrations, 2) if options.quick else options.migrations
    tally = Tally()
    name = f"predict-{options.seed}"
    with Lab.up(LabOptions(name=name, seed=options.seed, owned=True)) as lab:
        lab.start_agents()
        number = options.first
        while wanted > 0:
            _run_group(lab, options.seed, number, min(GROUP, wanted), tally)
            wanted -= GROUP
            number += 1
    return _rows(f"seed={options.seed} first={options.first}", tally)


def _run_group(lab: Lab, seed: int, number: int, count: int, tally: Tally) -> None:
    planned = group(seed, number)
    _say(f"predict: group {number}, seed {seed}: {planned.link}, {planned.guest}")
    lab.wan.set(planned.link)
    shuttle = Shuttle(lab, LabGuest(planned.guest))
    shuttle.guest.start(lab.hypervisors[0])
    try:
        for _ in range(planned.taught):
            _migrate(lab, shuttle, None)
        for _ in range(count):
            _migrate(lab, shuttle, tally)
    finally:
        shuttle.guest.destroy(*lab.hypervisors)


def _migrate(lab: Lab, shuttle: Shuttle, tally: Tally | None) -> None:
    """Do one migration, predicted and counted unless it only teaches."""
    time.sleep(PAUSE_S)
    source = shuttle.source
    agent = lab.agents[source.name]
    answer = agent.get(f"/v1/predict?domain={shuttle.guest.name}&peer={shuttle.other(source).name}")
    said = msgspec.convert(answer, Predicted)
    begin = time.time()
    move = shuttle.begin()
    try:
        outcome = move.wait(HOPELESS_S)
        arrived = outcome.succeeded
    except LabError:
        source.virsh("domjobabort", shuttle.guest.name, check=False)
        arrived = False
    record = newest_record(agent, "source", after=begin)
    taught = "" if tally is not None else " (not counted)"
    _say(f"predict:   said {_told(said)}, took {record.duration_s(record.ended_at):.1f} s, {record.result}{taught}")
    if tally is not None:
        _count(tally, said, record, arrived=arrived)


def _told(said: Predicted) -> str:
    low, median, high = said.expected.time_s
    return f"{median:.1f} s ({low:.1f} to {high:.1f}), converges {said.expected.convergence:.0%}"


def _count(tally: Tally, said: Predicted, record: Migration, *, arrived: bool) -> None:
    expected = said.expected
    tally.converged.append((expected.convergence >= 0.5) == arrived)  # noqa: PLR2004 - more likely than not
    if not arrived:
        return
    low, median, high = expected.time_s
    actual = record.duration_s(record.ended_at)
    tally.errors.append(abs(median / actual - 1))
    tally.inside.append(low <= actual <= high)
    tally.bytes_errors.append(abs(expected.wire_bytes[1] / max(1, record.counters.wire_bytes) - 1))
    if record.downtime_ms >= 0:
        tally.downtime_errors_ms.append(abs(expected.downtime_s[1] * 1000 - record.downtime_ms))


def _rows(case: str, tally: Tally) -> list[Row]:
    method = "predicted by the agent before `virsh migrate`; before each group one or two teach"

    def row(metric: str, value: float, n: int, unit: str = "percent") -> Row:
        return Row(case=case, metric=metric, value=round(value, 2), unit=unit, n=n, method=method)

    n = len(tally.errors)
    ordered = sorted(tally.errors) or [0.0]
    return [
        row("median_error_percent", 100 * statistics.median(ordered), n),
        row("p90_error_percent", 100 * ordered[min(len(ordered) - 1, round(0.9 * (len(ordered) - 1)))], n),
        row("interval_coverage_percent", 100 * statistics.mean(tally.inside or [False]), n),
        row("convergence_right_percent", 100 * statistics.mean(tally.converged or [False]), len(tally.converged)),
        row("median_wire_bytes_error_percent", 100 * statistics.median(tally.bytes_errors or [0]), n),
        row("median_downtime_error", statistics.median(tally.downtime_errors_ms or [0]), n, "ms"),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
