"""Suite `soak`: one guest migrates back and forth while channels are killed and the link is cut, and nothing is lost.

Rule: what is done to migration N follows from the seed and N alone, is printed before it is done, and can be done again
with `--migrations 1 --first N`. What must hold is asked after every migration: the guest runs on exactly one host, has
checked all its memory there, and the lab holds what it held before the first one, and nothing else.

    plan(seed, number) -> begin -> [wait for so many bytes, kill channels or cut the link]... -> check
"""

import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bench.frame import Options, Row
from bench.slices import Slices
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.disturb import kill_channels
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.observation import census, evidence
from dwcp_migrate.lab.shuttle import Move, Shuttle, Watch, newest_record
from dwcp_migrate.lab.wan import WanLink
from dwcp_migrate.units import MIB

LINK: Final = WanLink(rate_bytes_per_s=20e6, delay_s=0.005, loss=0.0001)
"""160 Mbit/s, 10 ms, one packet in 10000 lost: a first pass takes two to three seconds."""

GUEST: Final = GuestOptions(memory_mib=128, fill_mib=32, dirty_pages_per_s=300, check_pages_per_s=8000)

STREAM_BYTES: Final = 90 * MIB
"""What QEMU sends for this guest, kernel and programs included."""

CUT_S: Final = (0.2, 4.0)
"""Shorter than libvirt's keepalive of its own connection (about 30 s) lets it be."""

FLAGS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    (),
    ("--parallel", "--parallel-connections", "4"),
    ("--postcopy", "--postcopy-after-precopy"),
)
WARM: Final = 4
"""Migrations after which an agent's memory counts as its normal one: both were source and destination twice."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One thing that goes wrong.

    Attributes:
        kind: `kill`: channels die; `cut`: the link passes nothing for a while.
        at_bytes: when QEMU's stream got this far.
        host: in whose kernel the channels are killed, 0 or 1.
        share: of the channels that are up.
        seconds: length of the cut.
    """

    kind: Literal["kill", "cut"]
    at_bytes: int
    host: int
    share: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done in one migration.

    Attributes:
        seed: of the choice among the channels.
        flags: of `virsh migrate`.
        disturbances: in the order in which they come.
    """

    seed: int
    flags: tuple[str, ...]
    disturbances: tuple[Disturbance, ...]


def plan(seed: int, number: int) -> Plan:
    """Draw the events of migration `number` of a run."""
    draw = random.Random(f"{seed}/{number}")  # noqa: S311 - to be repeated, not guessed
    flags = draw.choice(FLAGS)
    disturbances = [
        Disturbance(
            kind=draw.choice(("kill", "kill", "cut")),
            at_bytes=draw.randrange(STREAM_BYTES),
            host=draw.randrange(2),
            share=draw.choice((0.1, 0.5, 1.0)),
            seconds=round(draw.uniform(*CUT_S), 1),
        )
        for _ in range(draw.choice((0, 1, 1, 2, 3)))
    ]
    return Plan(draw.randrange(2**31), flags, tuple(sorted(disturbances, key=lambda each: each.at_bytes)))


@dataclass(slots=True)
class SoakTally:
    """What came of it."""

    counts: Counter[str] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    downtimes_ms: list[float] = field(default_factory=list)
    leaks: dict[str, tuple[int, int]] = field(default_factory=dict)
    warm_bytes: int = 0
    resident_bytes: int = 0


class Soak:
    """The run.

    Args:
        lab: with agents, for this alone.
        seed: of everything that is drawn.
        tally: what was counted before.
    """

    def __init__(self, lab: Lab, seed: int, tally: SoakTally) -> None:
        self.tally = tally
        self._lab = lab
        self._seed = seed
        self._shuttle = Shuttle(lab, LabGuest(GUEST))
        self._shuttle.guest.start(lab.hypervisors[0])
        self._before = census.at_rest(lab)

    def migrate(self, number: int) -> None:
        """Do one migration with everything that is planned for it, and check the state that it left."""
        planned = plan(self._seed, number)
        _say(f"soak: migration {number}, seed {self._seed}: {' '.join(planned.flags) or 'plain'}")
        source, begin = self._shuttle.source, time.time()
        agent = self._lab.agents[source.name]
        with Watch(agent) as watch:
            move = self._shuttle.begin(*planned.flags)
            for disturbance in planned.disturbances:
                self._disturb(disturbance, planned.seed, watch, move)
        try:
            outcome = move.wait()
        except LabError:
            _say(evidence.gather(self._lab))
            raise
        self._lab.wan.heal()
        self.tally.counts["migrations"] += 1
        if outcome.succeeded:
            self.tally.times_s.append(outcome.time_s)
        else:
            self.tally.counts["failed"] += 1
            _say(f"soak: migration {number} failed: {outcome.said}")
        self._take_record(newest_record(agent, "source", after=begin))
        self._look(number)

    def _disturb(self, disturbance: Disturbance, seed: int, watch: Watch, move: Move) -> None:
        """Wait until it is due and do it; a migration that is over by then is spared."""

        def due(record: Migration) -> bool:
            return record.state == "ended" or record.counters.raw_bytes >= disturbance.at_bytes

        if watch.until(due).state == "ended" or not move.runs:
            return
        if disturbance.kind == "cut":
            _say(f"soak:   link cut for {disturbance.seconds} s")
            self._lab.wan.cut()
            time.sleep(disturbance.seconds)
            self._lab.wan.heal()
            self.tally.counts["cuts"] += 1
            return
        host = self._lab.hypervisors[disturbance.host].name
        killed = kill_channels(self._lab, host, disturbance.share, seed=seed)
        _say(f"soak:   {killed} channels killed on {host}")
        self.tally.counts["channels killed"] += killed

    def _take_record(self, record: Migration) -> None:
        self.tally.counts["accelerated"] += not record.passthrough_reason
        self.tally.counts["channels lost"] += record.counters.channels_lost
        self.tally.counts["link losses"] += record.counters.link_losses
        self.tally.counts["segments sent again"] += record.counters.resent_segments
        self.tally.counts["segments repaired"] += record.counters.repaired_segments
        if record.downtime_ms >= 0:
            self.tally.downtimes_ms.append(record.downtime_ms)

    def _look(self, number: int) -> None:
        try:
            self._shuttle.check()
        except LabError as error:
            _say(f"soak: after migration {number}: {error}")
            self.tally.counts["corrupt guests"] += 1
            self._shuttle.guest.destroy(*self._lab.hypervisors)
            self._shuttle.guest.start(self._lab.hypervisors[0])
        left = census.settled(self._lab, self._before)
        self.tally.leaks |= left
        if left:
            _say(f"soak: after migration {number} left behind: {left}")
        agents = self._lab.agents.values()
        self.tally.resident_bytes = max(
            census.resident_bytes(agent.process.pid) for agent in agents
        )  # new in each slice
        if self.tally.counts["migrations"] <= WARM:
            self.tally.warm_bytes = self.tally.resident_bytes


def rows(options: Options) -> list[Row]:
    """Run it.

    Raises:
        LabError: not root, or the lab does not come up.
    """
    count = min(options.migrations, 5) if options.quick else options.migrations
    name = f"soak-{options.seed}-{options.first}"
    slices = Slices(options, count)
    tally = slices.resume(SoakTally())
    with Lab.up(LabOptions(name=name, link=LINK, seed=options.seed, owned=True)) as lab:
        lab.start_agents()
        soak = Soak(lab, options.seed, tally)
        for number in slices.numbers(tally):
            soak.migrate(number)
    return _rows(f"seed={options.seed} first={options.first}", tally)


def rows_of(case: str, counted: dict[str, Any]) -> list[Row]:
    """Return the rows of a run, or of slices of it counted together, from the fields of their tally."""
    return _rows(case, SoakTally(**counted))


def _rows(case: str, tally: SoakTally) -> list[Row]:
    n = tally.counts["migrations"]
    method = (
        "virsh migrate back and forth in the lab, disturbed as planned from the seed; the guest checks all its memory"
    )

    def row(metric: str, value: float, unit: str = "1") -> Row:
        return Row(case=case, metric=metric, value=value, unit=unit, n=n, method=method)

    counted = [
        *("migrations", "failed", "accelerated", "corrupt guests", "cuts", "channels killed"),
        *("channels lost", "link losses", "segments sent again", "segments repaired"),
    ]
    leaked = [row(f"leaked: {what}", after - before) for what, (before, after) in tally.leaks.items()]
    return [
        *(row(metric, tally.counts[metric]) for metric in counted),
        row("leaks (descriptors, threads, processes, nft rules, mounts)", len(tally.leaks)),
        *leaked,
        row("time", round(statistics.median(tally.times_s or [0]), 2), "s"),
        row("longest time", round(max(tally.times_s, default=0), 2), "s"),
        row("downtime", statistics.median(tally.downtimes_ms or [0]), "ms"),
        row("agent's memory after warming up", tally.warm_bytes, "bytes"),
        row("agent's memory at the end", tally.resident_bytes, "bytes"),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
