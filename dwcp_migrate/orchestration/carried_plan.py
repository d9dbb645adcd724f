"""Execution of a kept plan, by an agent's helper process that may end at any time and be followed by another's.

The rule here: the record holds the plan's goal, the journal what this carrier has done. A carrier that comes back
resumes from its journal; another carrier plans for the same goal again, and reads in the record which migrations were
refused. A carrier that loses the lease begins nothing more and writes nothing more.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.api.plans import PlanRecord
from dwcp_migrate.api.warm_plan import wanted_hosts
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import CoordinationError, DwcpError, HypervisorError, PlacementError
from dwcp_migrate.orchestration import plan_progress
from dwcp_migrate.orchestration.executor import PlanExecutor
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from dwcp_migrate.orchestration.plan_store import PlanStore, change_plan, find_plan
from dwcp_migrate.orchestration.watch_round import relieving
from dwcp_migrate.orchestration.watched_migration import guest_of
from dwcp_migrate.orchestration.workspace import Workspace, executor_of
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.plan import Plan, Step, Unfinished

NOTE_S: Final = 0.5
"""Pause between two looks at the operators' wish; events since the last look are written to the record then."""

JOURNALS_KEPT: Final = 8


def journal_of(directory: Path, number: int) -> Path:
    """Return the path of a kept plan's journal on this host.

    Args:
        directory: the agent's state directory.
        number: of the plan.
    """
    return directory / f"plan-{number}.journal"


@dataclass(slots=True)
class CarriedPlan:
    """One kept plan, and who carries it out here.

    Attributes:
        ours: the fleet.
        store: of plans.
        number: of the plan.
        own: this host's name.
        clock: seconds since the epoch.
    """

    ours: Workspace
    store: PlanStore
    number: int
    own: str
    clock: Callable[[], float] = wall_clock
    leave: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def end_now(self) -> None:
        """Begin nothing more, and leave what runs to libvirt and to the next carrier."""
        self.stop.set()
        self.leave.set()

    def carry_out(self) -> None:
        """Carry it out, to its end or until it is paused, aborted or left.

        Raises:
            CoordinationError: another host carries a plan out, the fleet cannot be asked, or the lease was lost.
            UnfinishedError: it was told to leave what runs.
        """
        record = find_plan(self.store, self.number).record
        if not record.is_open:
            return
        with contextlib.ExitStack() as held:
            if self.ours.shared is not None:
                held.enter_context(self.ours.shared.lease(self.stop.set))
            record = self.change(lambda one: plan_progress.taken(one, self.own, self.clock()) if one.is_open else one)
            if not record.is_open:  # it was aborted meanwhile
                return
            if record.wish in plan_progress.STOPPED:
                self.stop.set()
            try:
                prepared = self._prepare(record)
            except (PlacementError, HypervisorError) as error:  # nothing has begun: the asker's own host may do it
                words, code = _words(error), error.exit_code
                self.change(lambda one: plan_progress.broken(one, words, code, self.clock(), is_refused=True))
                return
            self._run(*prepared)
        _tidy_journals(self.ours.config.state_directory)

    def change(self, change: Callable[[PlanRecord], PlanRecord]) -> PlanRecord:
        """Change the record, see `change_plan`."""
        return change_plan(self.store, self.number, change).record

    def _prepare(self, record: PlanRecord) -> "tuple[PlanExecutor, PlanJournal, PlanProgressNotes]":
        """The executor, the journal with a plan, and what notes its progress.

        Raises:
            PlacementError: the goal cannot be reached, or hosts that answered the asker do not answer here.
            HypervisorError: the host to be emptied does not answer.
        """
        notes = PlanProgressNotes(self, record)
        executor = replace(
            executor_of(self.ours, notes, record.request.options),
            leave=self.leave,
            stop=self.stop,
            clock=self.clock,
            known_failures=plan_progress.failures_of(record),
            again=self._again(record),
        )
        path = journal_of(self.ours.config.state_directory, self.number)
        journal = PlanJournal.resume(path)
        if journal is not None:
            plan, states = journal.progress.plan, journal.progress.states
            notes.adopted([plan.steps[number] for number, state in states.items() if state == "begun"])
            return executor, journal, notes
        whole = self.ours.source.snapshot()
        if words := unreached(whole, record.request.reached):
            raise PlacementError(words)
        plan = plan_for(self.ours, whole, record)
        notes.planned(plan)
        return executor, PlanJournal.begin(path, plan), notes

    def _again(self, record: PlanRecord) -> "Callable[[Plan, Fleet], Plan] | None":
        """Plan for the goal anew where the record says more than the goal; None where it does not."""
        if record.request.relieve or record.request.warm_first is not None:
            return lambda _, fleet: plan_for(self.ours, fleet, record)
        return None

    def _run(self, executor: PlanExecutor, journal: PlanJournal, notes: "PlanProgressNotes") -> None:
        """Carry out what was prepared, and note how it ended."""
        with journal, notes.followed():
            try:
                left: list[Unfinished] = executor.run(journal)
            except (PlacementError, HypervisorError) as error:
                words, code = _words(error), error.exit_code
                notes.end(lambda one: plan_progress.broken(one, words, code, self.clock()))
                return
            stopped = self.stop.is_set()
            if stopped and find_plan(self.store, self.number).record.wish == "run":
                raise CoordinationError("stopped here; the next agent that holds the lease goes on with the plan")
            notes.end(lambda one: plan_progress.ended(one, left, self.clock(), is_stopped=stopped))


def _words(error: DwcpError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def plan_for(ours: Workspace, whole: Fleet, record: PlanRecord) -> Plan:
    """Plan for what was asked.

    Args:
        ours: the fleet's workspace: policy, forecasts and what may be asked.
        whole: the fleet as it is now.
        record: of the plan; its `relieve` makes it one that relieves hot hosts, and a drain keeps to the destinations
            whose stores were warmed up.

    Raises:
        PlacementError: it cannot be reached.
        HypervisorError: the host to be emptied does not answer.
    """
    from dwcp_migrate.placement.planner import plan_drain  # its kernels are loaded where there is a plan to make

    goal = record.request.goal
    if record.request.relieve:
        return relieving(ours, whole, record.request)
    if goal.purpose == "drain":
        return plan_drain(whole, goal.host, ours.policy(), ours.cost, wanted_hosts(record))
    if goal.purpose == "rebalance":
        return ours.plan_rebalance(ours.rested(whole))
    raise PlacementError(f"no plan is kept for {goal.purpose}")


def unreached(whole: Fleet, reached: list[str]) -> str:
    """Say which hosts do not answer here although they answered the host where the plan was asked for.

    Args:
        whole: the fleet as this host sees it.
        reached: names of the hosts that answered there.

    Returns:
        Text for people; empty where all of them answer.
    """
    silent = [f"{one.name}: {one.note}" for one in whole.hosts if one.state == "down" and one.name in reached]
    return f"its agent does not reach {'; '.join(silent)}" if silent else ""


def _tidy_journals(directory: Path) -> None:
    found = sorted(directory.glob("plan-*.journal"), key=lambda path: path.stat().st_mtime)
    for path in found[:-JOURNALS_KEPT]:
        path.unlink(missing_ok=True)


class PlanProgressNotes:
    """A `Watcher` that notes the plan's progress in its record, and follows the operators' wish."""

    def __init__(self, carried: CarriedPlan, record: PlanRecord) -> None:
        self._carried = carried
        self._record, self._noted = record, record
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._running: dict[tuple[str, str], Step] = {}
        self._aborted: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Note and look while the plan is carried out."""
        thread = threading.Thread(target=self._follow, name="plan-record", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def end(self, change: Callable[[PlanRecord], PlanRecord]) -> None:
        """Note the end."""
        self._over.set()
        with self._lock:
            self._carried.change(lambda one: change(self._with_progress(one)))

    def adopted(self, steps: list[Step]) -> None:
        """Note migrations that still run and that an earlier carrier began."""
        with self._lock:
            for step in steps:
                self._running[step.domain, step.source] = step
            self._record = msgspec.structs.replace(self._record, running=[plan_progress.way(step) for step in steps])

    def planned(self, plan: Plan) -> None:
        """Note that there is a plan now."""
        now = self._carried.clock()
        with self._lock:
            self._record = msgspec.structs.replace(self._record, to_go=len(plan.steps), ends_at=now + plan.seconds)

    def begun(self, step: Step) -> None:
        """See `executor.Watcher.begun`."""
        with self._lock:
            self._running[step.domain, step.source] = step
            self._record = plan_progress.begun(self._record, step, self._carried.clock())

    def ended(self, step: Step, error: str, to_go: int) -> None:
        """See `executor.Watcher.ended`."""
        with self._lock:
            self._running.pop((step.domain, step.source), None)
            self._record = plan_progress.finished(self._record, step, error, to_go, self._carried.clock())

    def planned_again(self, plan: Plan, why: str) -> None:
        """See `executor.Watcher.planned_again`."""
        self.planned(plan)
        with self._lock:
            words = f"{why}; {len(plan.steps)} to go"
            self._record = plan_progress.noted(self._record, "planned-again", self._carried.clock(), words=words)

    def waiting(self, left: list[Unfinished]) -> None:
        """See `executor.Watcher.waiting`."""
        names = ", ".join(one.domain for one in left)
        with self._lock:
            self._record = plan_progress.noted(self._record, "waiting", self._carried.clock(), words=names)

    def _with_progress(self, one: PlanRecord) -> PlanRecord:
        """The record as it is kept, with what happened here and the wish that is kept."""
        return msgspec.structs.replace(self._record, wish=one.wish)

    def _follow(self) -> None:
        while not self._over.wait(NOTE_S):
            with contextlib.suppress(DwcpError), self._lock:  # the fleet does not answer: the next look asks again
                self._look()

    def _look(self) -> None:
        known = find_plan(self._carried.store, self._carried.number)
        if known.record.carrier != self._carried.own or not known.record.is_open:
            self._carried.stop.set()  # another one carries it out by now
            return
        if self._record != self._noted:
            wanted = self._with_progress(known.record)
            self._carried.store.put(wanted, known.revision)
            self._noted = self._record
        if known.record.wish in plan_progress.STOPPED:
            self._carried.stop.set()
        if known.record.wish == "abort":
            self._abort()

    def _abort(self) -> None:
        """End what runs, each migration once; one that cannot be ended yet, as its job is about to begin, next time."""
        hosts = self._carried.ours.hosts
        assert hosts is not None, "nothing runs of a fleet from a file"
        for key, step in list(self._running.items()):
            if key not in self._aborted:
                with contextlib.suppress(HypervisorError):  # its end is awaited anyway, within its time limit
                    hosts.hypervisors.abort(hosts.addresses[step.source].ours, guest_of(step))
                    self._aborted.add(key)
