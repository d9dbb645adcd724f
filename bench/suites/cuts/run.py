"""Suite `cuts`: the link is cut for a while in the midst of a migration: does that go on, and is the guest whole?

Rule: a cell is a way to migrate, libvirt's keepalive as shipped or off, a phase and a length. Cells are independent,
and most of one is waiting, so several labs play them at once. What must hold in each, completed or not: the guest runs
on exactly one host, and has checked all its memory there.

    begin -> [phase reached, cut, wait, heal] -> virsh's word -> where the guest runs, and its own word
"""

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Literal

import msgspec

from bench.frame import Options, Row
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.errors import LabError
from dwcp_migrate.lab.guest import GuestOptions, LabGuest
from dwcp_migrate.lab.lab import Lab, LabOptions
from dwcp_migrate.lab.shuttle import Move, Shuttle, Watch
from dwcp_migrate.lab.wan import WanLink
from dwcp_migrate.units import MIB

Way = Literal["plain", "p2p"]
Keepalive = Literal["shipped", "off"]
Phase = Literal["first pass", "later passes", "switchover"]

SECONDS: Final = (10, 20, 45, 90, 120)
WAYS: Final[dict[Way, tuple[str, ...]]] = {"plain": (), "p2p": ("--p2p",)}
KEEPALIVES: Final[tuple[Keepalive, ...]] = ("shipped", "off")
PHASES: Final[tuple[Phase, ...]] = ("first pass", "later passes", "switchover")

KEEPALIVE_S: Final = 30
"""Of libvirt as it is shipped. Cells come in the order of their distance to it: a slice that ends early tells most."""

LABS_EACH: Final = 1
"""Labs at once of each kind of keepalive: on two cores more would starve each other, and libvirt would notice that."""

SLOW: Final = WanLink(rate_bytes_per_s=4e6, delay_s=0.005, loss=0.0)
QUICK: Final = WanLink(rate_bytes_per_s=50e6, delay_s=0.005, loss=0.0)
GUEST: Final = GuestOptions(memory_mib=96, fill_mib=16, dirty_pages_per_s=150, check_pages_per_s=1000)

FIRST_PASS_BYTES: Final = 8 * MIB
LATER_PASS: Final = 3
DOWNTIME_MS_NEVER: Final = 1
DOWNTIME_MS_USUAL: Final = 300
PHASE_S_MAX: Final = 180.0
MOVE_S_MAX: Final = 600.0
"""From the heal on; the longest waits of libvirt and the agents are a fraction of it."""


class Cell(msgspec.Struct, frozen=True):
    """What is done."""

    way: Way
    keepalive: Keepalive
    phase: Phase
    seconds: int

    @property
    def case(self) -> str:
        """Its name in the results."""
        return f"{self.way}, keepalive {self.keepalive}, {self.phase}, {self.seconds} s"


class CutOutcome(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        completed: `virsh migrate` succeeded.
        whole: the guest runs on exactly one host, with clean memory.
        time_s: of `virsh migrate`, the cut included.
        said: by virsh, where it failed.
    """

    completed: bool
    whole: bool
    time_s: float
    said: str = ""


def cells(options: Options) -> list[Cell]:
    """Return the planned runs, those of one lab after each other."""
    seconds = SECONDS[:1] if options.quick else SECONDS
    every = itertools.product(WAYS, KEEPALIVES, PHASES, seconds)
    return [cell for cell in itertools.starmap(Cell, every) if cell.case.startswith(options.only)]


class CutLab:
    """One lab and its guest.

    Args:
        lab: with agents.
        keepalive: of its libvirts.
    """

    def __init__(self, lab: Lab, keepalive: Keepalive) -> None:
        self._lab = lab
        self._virsh = ("-k", "0") if keepalive == "off" else ()
        self._shuttle = Shuttle(lab, LabGuest(GUEST))
        self._shuttle.guest.start(lab.hypervisors[0])

    def play(self, cell: Cell) -> CutOutcome:
        """Migrate once, with the cut, and check the state that it left."""
        self._lab.wan.set(SLOW)
        source = self._shuttle.source
        with Watch(self._lab.agents[source.name]) as watch:
            move = self._shuttle.begin(*WAYS[cell.way], virsh=self._virsh)
            self._reach(cell.phase, watch, move)
        self._lab.wan.cut()
        time.sleep(cell.seconds)  # the length is what is measured
        self._lab.wan.heal()
        self._lab.wan.set(QUICK)
        if cell.phase == "later passes":
            source.virsh("migrate-setmaxdowntime", GUEST.name, str(DOWNTIME_MS_USUAL), check=False)
        outcome = move.wait(MOVE_S_MAX)
        said = "" if outcome.succeeded else outcome.said
        return CutOutcome(outcome.succeeded, self._whole(), round(outcome.time_s, 1), said)

    def _reach(self, phase: Phase, watch: Watch, move: Move) -> None:
        def reached(record: Migration) -> bool:
            if phase == "switchover":
                return record.state == "switchover"
            return record.counters.raw_bytes > FIRST_PASS_BYTES

        watch.until(reached, timeout_s=PHASE_S_MAX)
        if phase == "later passes":
            self._shuttle.source.virsh("migrate-setmaxdowntime", GUEST.name, str(DOWNTIME_MS_NEVER))
            watch.until(lambda record: record.iteration >= LATER_PASS, timeout_s=PHASE_S_MAX)
        if not move.runs:
            raise LabError(f"the migration was over before its {phase} could be cut")

    def _whole(self) -> bool:
        """Whether the guest is; one that is not is made anew."""
        try:
            self._shuttle.check()
        except LabError as error:
            _say(f"cuts: {error}")
            self._shuttle.guest.destroy(*self._lab.hypervisors)
            self._shuttle.guest.start(self._lab.hypervisors[0])
            return False
        return True


class CutRun:
    """Cells that are done and those that are left; `options.tally` keeps the first for the next slice.

    Args:
        options: of the run.
    """

    def __init__(self, options: Options) -> None:
        self._path = Path(options.tally) if options.tally else None
        self._until = time.monotonic() + options.minutes * 60 if options.minutes else None
        self.done: dict[str, CutOutcome] = {}
        if self._path is not None and self._path.exists():
            self.done = msgspec.json.decode(self._path.read_bytes(), type=dict[str, CutOutcome])
        self._left: dict[Keepalive, SimpleQueue[Cell]] = {kind: SimpleQueue() for kind in KEEPALIVES}
        for cell in sorted(cells(options), key=lambda cell: abs(cell.seconds - KEEPALIVE_S)):
            if cell.case not in self.done:
                self._left[cell.keepalive].put(cell)

    def labs(self) -> list[tuple[str, Keepalive]]:
        """Return the names and kinds of the labs that are worth their start."""
        return [
            (f"cuts-{kind}-{n}", kind) for kind in KEEPALIVES for n in range(min(LABS_EACH, self._left[kind].qsize()))
        ]

    def play(self, name: str, keepalive: Keepalive) -> None:
        """Bring a lab up and play cells in it until none is left or the time is over."""
        options = LabOptions(name=name, link=QUICK, keepalive=keepalive == "shipped", owned=True)
        with Lab.up(options) as lab:
            lab.start_agents()
            made = CutLab(lab, keepalive)
            for cell in self._cells(keepalive):
                outcome = made.play(cell)
                _say(f"cuts: {cell.case}: {outcome}")
                self.done[cell.case] = outcome
                self._keep()

    def _cells(self, keepalive: Keepalive) -> Iterator[Cell]:
        while self._until is None or time.monotonic() < self._until:
            try:
                yield self._left[keepalive].get_nowait()
            except Empty:
                return

    def _keep(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(msgspec.json.encode(dict(self.done)))


def rows(options: Options) -> list[Row]:
    """Run it.

    Raises:
        LabError: not root, or a lab does not come up.
    """
    run = CutRun(options)
    labs = run.labs()
    with ThreadPoolExecutor(max(1, len(labs))) as threads:
        for played in [threads.submit(run.play, *lab) for lab in labs]:
            played.result()
    return _rows(cells(options), run.done)


def _rows(order: Sequence[Cell], done: dict[str, CutOutcome]) -> list[Row]:
    method = (
        "virsh migrate of a small guest at 32 Mbit/s, all packets dropped for that long in that phase, then 400 Mbit/s"
    )

    def row(cell: Cell, metric: str, value: float, unit: str = "1") -> Row:
        return Row(case=cell.case, metric=metric, value=value, unit=unit, n=1, method=method)

    return [
        row(cell, *figure)
        for cell in order
        if (outcome := done.get(cell.case)) is not None
        for figure in (
            ("completed", float(outcome.completed), "1"),
            ("guest whole", float(outcome.whole), "1"),
            ("time", outcome.time_s, "s"),
        )
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
