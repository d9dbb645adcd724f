"""A plan's journal: the steps that began and how they ended, from which another process can go on after a crash.

The rule here: an entry is on disk (fsync) before the action that it announces. The first line is the plan; the file
appears with it, whole or not at all. A last line that was cut off by a crash is no entry. One process at a time holds
the journal.

    {"plan": {...}}
    {"step": 0, "state": "begun", "at": 1790000000.0}
    {"step": 0, "state": "done", "at": 1790000042.0}
    {"plan": {...}}                      the fleet was not what the plan took it for: a new one, with steps from 0
    {"ended": "completed"}
"""

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from dwcp_migrate.durable import sync_directory
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.orchestration.failures import MigrationFailure
from dwcp_migrate.placement.plan import PLAN_BYTES_MAX, Goal, Plan, decode_plan, encode_plan

JOURNAL_NAME: Final = "plan.journal"
JOURNAL_BYTES_MAX: Final = 2 * PLAN_BYTES_MAX

StepState = Literal["begun", "done", "failed"]
Ending = Literal["completed", "stopped", "abandoned"]


class PlanEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line: a plan, or what happened to one of its steps, or the end of all."""

    plan: msgspec.Raw = msgspec.Raw()
    step: int = -1
    state: StepState | None = None
    at: float = 0.0
    error: str = ""
    ended: Ending | None = None


@dataclass(slots=True)
class PlanProgress:
    """Progress of a plan, by its journal.

    Attributes:
        plan: the newest one.
        states: of its steps; a step without one was not begun.
        failures: of each domain's migrations, over all plans of the journal, the oldest first.
        moved_at: when each domain last arrived somewhere, likewise; seconds since the epoch.
        ended: how it ended, None while it has not.
    """

    plan: Plan
    states: dict[int, StepState] = field(default_factory=dict)
    failures: dict[str, list[MigrationFailure]] = field(default_factory=dict)
    moved_at: dict[str, float] = field(default_factory=dict)
    ended: Ending | None = None
    plans: int = 1


class PlanJournal:
    """An open journal; use `begin` or `resume`.

    Args:
        path: of the file.
        descriptor: of it, locked.
        progress: what it says by now.
    """

    def __init__(self, path: Path, descriptor: int, progress: PlanProgress) -> None:
        self.path = path
        self.progress = progress
        self._descriptor = descriptor

    @classmethod
    def begin(cls, path: Path, plan: Plan) -> Self:
        """Begin a journal; one that has ended is replaced.

        Args:
            path: of the file; its directory is made if it is not there.
            plan: first line of the journal.

        Raises:
            PlacementError: one that has not ended is there, another process holds it, or it cannot be written.
        """
        unended = read(path)
        if unended is not None and unended.ended is None:
            raise PlacementError(
                f"{path}: a plan ({goal_words(unended.plan.goal)}) has not ended",
                hint="give that command again to go on, or `dwcp-migrate rebalance --abandon`",
            )
        line = msgspec.json.encode(PlanEntry(plan=msgspec.Raw(encode_plan(plan)))) + b"\n"
        fresh = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _lock(descriptor, path)
            os.write(descriptor, line)
            os.fsync(descriptor)
            fresh.rename(path)
            sync_directory(path.parent)
        except OSError as error:
            raise PlacementError(f"cannot write {path}: {error.strerror}", hint="it needs root") from error
        return cls(path, descriptor, PlanProgress(plan))

    @classmethod
    def resume(cls, path: Path) -> Self | None:
        """Open a journal that has not ended; None if there is none.

        Raises:
            PlacementError: another process holds it, or it cannot be read.
        """
        progress = read(path)
        if progress is None or progress.ended is not None:
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        _lock(descriptor, path)
        _cut_torn_line(descriptor)
        return cls(path, descriptor, read(path) or progress)

    def step(self, number: int, state: StepState, at: float, error: str = "") -> None:
        """Note what happens to a step; on disk when this returns.

        Args:
            number: of the step, from 0.
            state: that it is in from now on.
            at: seconds since the epoch.
            error: libvirt's words, of a step that failed.

        Raises:
            PlacementError: the journal cannot be written, or its plan has no such step.
        """
        self._write(PlanEntry(step=number, state=state, at=at, error=error))
        _apply(self.progress, PlanEntry(step=number, state=state, at=at, error=error))

    def plan_again(self, plan: Plan) -> None:
        """Note that a new plan replaces the one so far."""
        entry = PlanEntry(plan=msgspec.Raw(encode_plan(plan)))
        self._write(entry)
        _apply(self.progress, entry)

    def end(self, ending: Ending) -> None:
        """Note the end."""
        self._write(PlanEntry(ended=ending))
        self.progress.ended = ending

    def close(self) -> None:
        """Close the file; the journal itself stays."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, entry: PlanEntry) -> None:
        data = msgspec.json.encode(entry) + b"\n"
        try:
            os.write(self._descriptor, data)
            os.fsync(self._descriptor)
        except OSError as error:
            raise PlacementError(f"cannot write {self.path}: {error.strerror}") from error


def read(path: Path) -> PlanProgress | None:
    """Read what a journal says; None if there is none.

    Raises:
        PlacementError: it is no journal.
    """
    try:
        if path.stat().st_size > JOURNAL_BYTES_MAX:
            raise PlacementError(f"{path} is more than {JOURNAL_BYTES_MAX} bytes")
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PlacementError(f"cannot read {path}: {error.strerror}") from error
    progress: PlanProgress | None = None
    for number, line in enumerate(lines[:-1]):  # behind the last newline: nothing, or a line that was cut off
        try:
            entry = msgspec.json.decode(line, type=PlanEntry)
        except msgspec.MsgspecError as error:
            raise PlacementError(f"{path}, line {number + 1}: {error}", hint="remove it to give the plan up") from error
        if progress is None:
            if not bytes(entry.plan):
                raise PlacementError(f"{path} does not begin with a plan", hint="remove it to give the plan up")
            progress = PlanProgress(decode_plan(bytes(entry.plan)))
        else:
            _apply(progress, entry)
    return progress


def _apply(progress: PlanProgress, entry: PlanEntry) -> None:
    if bytes(entry.plan):
        progress.plan, progress.states = decode_plan(bytes(entry.plan)), {}
        progress.plans += 1
    elif entry.state is not None:
        if not 0 <= entry.step < len(progress.plan.steps):
            raise PlacementError(f"the journal speaks of step {entry.step}, which its plan does not have")
        progress.states[entry.step] = entry.state
        step = progress.plan.steps[entry.step]
        domain = step.domain
        if entry.state == "done":
            progress.moved_at[domain] = entry.at
        elif entry.state == "failed":
            progress.failures.setdefault(domain, []).append(MigrationFailure(step.destination, entry.error))
    elif entry.ended is not None:
        progress.ended = entry.ended


def goal_words(goal: Goal) -> str:
    """The command that has a goal, as `drain hv1`."""
    return " ".join(word for word in (goal.purpose, goal.domain, goal.host) if word)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise PlacementError(f"another process carries out {path}", hint="wait for it, or end it") from None


def _cut_torn_line(descriptor: int) -> None:
    """Take off a last line that a crash cut: what is written next begins a line of its own."""
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0)
    os.ftruncate(descriptor, data.rfind(b"\n") + 1)
