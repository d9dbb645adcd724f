"""Suite `restarts`: agents are killed and stopped in the midst of migrations, and no migration, record or byte is lost.

Rule: what is done in migration N follows from the seed and N alone, is printed before it is done, and can be done again
with `--migrations 1 --first N`. What must hold is asked after every migration: it succeeded, the guest runs on exactly
one host and has checked all its memory there, each agent's history has exactly one record of it, and the lab holds what
it held before the first one.

    plan(seed, number) -> begin -> [wait for so many bytes, end an agent, start it again]... -> check
"""

import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from bench.frame import Options, Row
from bench.slices import Slices
from bench.suites.soak import FLAGS, GUEST, LINK, STREAM_BYTES
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import Migrations
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import LabGuest
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.observation import census, evidence
from dwcp_migrate.lab.shuttle import Move, Shuttle, Watch, newest_record

DOWN_S: Final = (0.0, 3.0)
"""Between an agent's end and its next start, which itself takes two seconds."""

Side = Literal["source", "destination"]


@dataclass(frozen=True, slots=True)
class Restart:
    """An agent that ends and comes back.

    Attributes:
        side: whose.
        way: `kill` is SIGKILL, `stop` SIGTERM.
        at_bytes: when QEMU's stream got this far; at least 1, for before that nothing is under way.
        down_s: how long there is no agent.
    """

    side: Side
    way: Literal["kill", "stop"]
    at_bytes: int
    down_s: float


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """What is done in one migration.

    Attributes:
        flags: of `virsh migrate`.
        restart: of one of the two agents.
    """

    flags: tuple[str, ...]
    restart: Restart


def plan(seed: int, number: int) -> RestartPlan:
    """Draw the events of migration `number` of a run."""
    draw = random.Random(f"restarts/{seed}/{number}")  # noqa: S311 - to be repeated, not guessed
    return RestartPlan(
        flags=draw.choice(FLAGS),
        restart=Restart(
            side=draw.choice(("source", "destination")),
            way=draw.choice(("kill", "kill", "stop")),
            at_bytes=draw.randrange(1, STREAM_BYTES),
            down_s=round(draw.uniform(*DOWN_S), 1),
        ),
    )


@dataclass(slots=True)
class RestartTally:
    """What came of it."""

    counts: Counter[str] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    leaks: dict[str, tuple[int, int]] = field(default_factory=dict)


class Restarts:
    """The run.

    Args:
        lab: with agents, for this alone.
        seed: of everything that is drawn.
        tally: what was counted before.
    """

    def __init__(self, lab: Lab, seed: int, tally: RestartTally) -> None:
        self.tally = tally
        self._lab = lab
        self._seed = seed
        self._shuttle = Shuttle(lab, LabGuest(GUEST))
        self._shuttle.guest.start(lab.hypervisors[0])
        self._warm_up()
        self._before = census.at_rest(lab)

    def _warm_up(self) -> None:
        """Migrate there and back: descriptors of an agent's first migration stay open, and are no leak."""
        for _ in range(2):
            outcome = self._shuttle.move()
            if not outcome.succeeded:
                raise LabError(f"the first migration failed, undisturbed: {outcome.said}")
            self._shuttle.check()

    def migrate(self, number: int) -> None:
        """Do one migration with the restart that is planned for it, and check the state that it left."""
        planned = plan(self._seed, number)
        _say(
            f"restarts: migration {number}, seed {self._seed}: {' '.join(planned.flags) or 'plain'}, {planned.restart}"
        )
        source, begin = self._shuttle.source, time.time()
        ends = {"source": source.name, "destination": self._shuttle.other(source).name}
        move = self._disturb(planned, ends[planned.restart.side])
        try:
            outcome = move.wait()
        except LabError:
            _say(evidence.gather(self._lab))
            raise
        self.tally.counts["migrations"] += 1
        if outcome.succeeded:
            self.tally.times_s.append(outcome.time_s)
        else:
            self.tally.counts["lost"] += 1
            _say(f"restarts: migration {number} failed: {outcome.said}\n{evidence.gather(self._lab)}")
        for role, host in ends.items():
            self._count_records(host, role, begin)
        self._look(number)

    def _disturb(self, planned: RestartPlan, host: str) -> Move:
        """Begin the migration and end and start an agent once the stream got that far, or is over."""
        restart = planned.restart

        def due(record: Migration) -> bool:
            return record.state == "ended" or record.counters.raw_bytes >= restart.at_bytes

        with Watch(self._lab.agents[self._shuttle.source.name]) as watch:
            move = self._shuttle.begin(*planned.flags)
            state = watch.until(due).state
        _say(f"restarts:   {restart.way} on {host} in {state}")
        self.tally.counts[f"agents ended by {restart.way}"] += 1
        self.tally.counts["ended in the midst"] += move.runs
        agent = self._lab.agents[host]
        if restart.way == "kill":
            agent.kill()
        else:
            agent.stop()
        time.sleep(restart.down_s)
        self._lab.start_agent(host)
        return move

    def _count_records(self, host: str, role: str, begin: float) -> None:
        """Count the record of a migration as wrong unless it is the only one, and of a completed one."""
        agent = self._lab.agents[host]
        record = newest_record(agent, "source" if role == "source" else "destination", after=begin)
        ended = msgspec.convert(agent.get("/v1/history?limit=100"), Migrations).migrations
        same = [found for found in ended if found.started_at >= begin and found.role == role]
        if len(same) != 1 or record.result != "completed":
            self.tally.counts["records missing, doubled or wrong"] += 1
            _say(f"restarts:   {host} recorded {[(one.id, one.result, one.reason) for one in same]}")
        self.tally.counts["accelerated records"] += not record.passthrough_reason
        self.tally.counts["adoptions"] += sum(event.event == "adopted" for event in record.events)

    def _look(self, number: int) -> None:
        try:
            self._shuttle.check()
        except LabError as error:
            _say(f"restarts: after migration {number}: {error}")
            self.tally.counts["corrupt guests"] += 1
            self._shuttle.guest.destroy(*self._lab.hypervisors)
            self._shuttle.guest.start(self._lab.hypervisors[0])
        left = census.settled(self._lab, self._before)
        self.tally.leaks |= left
        if left:
            _say(f"restarts: after migration {number} left behind: {left}")


def rows(options: Options) -> list[Row]:
    """Run it.

    Raises:
        LabError: not root, or the lab does not come up.
    """
    count = min(options.migrations, 4) if options.quick else options.migrations
    slices = Slices(options, count)
    tally = slices.resume(RestartTally())
    with Lab.up(
        LabOptions(name=f"restarts-{options.seed}-{options.first}", link=LINK, seed=options.seed, owned=True)
    ) as lab:
        lab.start_agents()
        restarts = Restarts(lab, options.seed, tally)
        for number in slices.numbers(tally):
            restarts.migrate(number)
    return _rows(f"seed={options.seed} first={options.first}", tally)


def rows_of(case: str, counted: dict[str, Any]) -> list[Row]:
    """Return the rows of a run, or of slices of it counted together, from the fields of their tally."""
    return _rows(case, RestartTally(**counted))


def _rows(case: str, tally: RestartTally) -> list[Row]:
    n = tally.counts["migrations"]
    method = "virsh migrate back and forth in the lab, one agent ended and started again in each as drawn from the seed"

    def row(metric: str, value: float, unit: str = "1") -> Row:
        return Row(case=case, metric=metric, value=value, unit=unit, n=n, method=method)

    counted = [
        *("migrations", "lost", "corrupt guests", "records missing, doubled or wrong", "accelerated records"),
        *("agents ended by kill", "agents ended by stop", "ended in the midst", "adoptions"),
    ]
    leaked = [row(f"leaked: {what}", after - before) for what, (before, after) in tally.leaks.items()]
    return [
        *(row(metric, tally.counts[metric]) for metric in counted),
        row("leaks (descriptors, threads, processes, nft rules, mounts)", len(tally.leaks)),
        *leaked,
        row("time", round(statistics.median(tally.times_s or [0]), 2), "s"),
        row("longest time", round(max(tally.times_s, default=0), 2), "s"),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
