"""Carries plans out: libvirt's own migrations, as many at once as the policy lets, each step noted in the journal.

The rule here: what the hosts say counts, not the plan. Before a step begins its domain must run where the plan says,
and its destination must answer; a step that fails holds up only the steps that depend on it. When nothing more can
begin, the fleet is read anew and the same goal planned again, without the moves that were refused. A drained host
counts as empty only when its libvirtd says so at the end.

    begun, process killed ──> resume: a job still runs?  wait for its end
                                       runs at the destination?  done
                                       runs at the source?       failed, planned again
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event
from typing import Final, Protocol

from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.errors import DwcpError, HypervisorError, PlacementError, UnfinishedError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.orchestration.failures import MigrationFailure, merged_failures, remembering
from dwcp_migrate.orchestration.fleet_source import FleetSource
from dwcp_migrate.orchestration.plan_journal import PlanJournal
from dwcp_migrate.orchestration.watched_migration import POLL_S, Hosts, WatchedMigration
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.plan import Plan, Step, Unfinished

FRUITLESS_MAX: Final = 20
"""Plans in a row of which no step was begun; after that the operator has to look at a fleet that changes so fast."""

OTHERS_POLL_S: Final = 2.0
"""Between two looks at the whole fleet while migrations that others began are waited for."""


class Watcher(Protocol):
    """Receives the events of a plan that is carried out."""

    def begun(self, step: Step) -> None:
        """A step begins."""

    def ended(self, step: Step, error: str, to_go: int) -> None:
        """A step is done, or failed.

        Args:
            step: that ended.
            error: libvirt's words; empty where the domain arrived.
            to_go: steps of its plan that have not ended.
        """

    def planned_again(self, plan: Plan, why: str) -> None:
        """A new plan replaces the one before, because the fleet was not as that had taken it for.

        Args:
            plan: the new one.
            why: for people.
        """

    def waiting(self, left: list[Unfinished]) -> None:
        """All is done, but migrations that others began are still under way."""


@dataclass(frozen=True, slots=True)
class PlanExecutor:
    """Carries one journal's plan out.

    Attributes:
        hosts: calls their libvirtds.
        source: reads the fleet anew.
        watcher: receives the events.
        policy: limits of migrations at once, and of their time.
        cost: forecasts.
        options: of the migrations.
        stop: set it to begin nothing more.
        leave: set it to wait no longer for what runs either.
        clock: seconds since the epoch, for the journal.
        again: plans for the same goal in the fleet as it is now.
        known_failures: failed migrations of another carrier of the same goal, by domain.
    """

    hosts: Hosts
    source: FleetSource
    watcher: Watcher
    policy: PlacementPolicy = field(default_factory=PlacementPolicy)
    cost: MoveCost = default_cost
    options: MigrationOptions = field(default_factory=MigrationOptions)
    stop: Event = field(default_factory=Event)
    leave: Event = field(default_factory=Event)
    clock: Callable[[], float] = wall_clock
    again: Callable[[Plan, Fleet], Plan] | None = None
    known_failures: Mapping[str, Sequence[MigrationFailure]] = field(default_factory=dict)

    def run(self, journal: PlanJournal) -> list[Unfinished]:
        """Carry the plan out, to its end or until it is stopped.

        Returns:
            What could not be done.

        Raises:
            PlacementError: the fleet changes faster than plans are carried out, or its goal is gone.
            HypervisorError: the host to be emptied does not answer; the journal can be taken up again.
            UnfinishedError: it was told to leave what runs; the journal can be taken up again.
        """
        fruitless = 0
        while True:
            run = PlanRun(self, journal)
            run.carry_out()
            if run.is_complete and journal.progress.plan.goal.purpose != "drain":
                left = journal.progress.plan.left
                break
            if self.stop.is_set() and not run.is_complete:
                return self._stopped(journal, journal.progress.plan)
            fruitless = 0 if run.has_begun else fruitless + 1
            if fruitless >= FRUITLESS_MAX:
                journal.end("stopped")
                raise PlacementError(
                    f"{fruitless} plans in a row were overtaken by events", hint="look at the fleet, then try again"
                )
            plan = self._plan_again(journal)
            if not plan.steps:
                left = plan.left
                break
            if self.stop.is_set():
                return self._stopped(journal, plan)
            journal.plan_again(plan)
            self.watcher.planned_again(plan, run.why or "more is to be done than was planned")
        journal.end("completed")
        return left

    def _stopped(self, journal: PlanJournal, plan: Plan) -> list[Unfinished]:
        """End the journal before the plan is done; what is left of it."""
        states = journal.progress.states if plan is journal.progress.plan else {}
        journal.end("stopped")
        waiting = [step for step in plan.steps if states.get(step.number) != "done"]
        why = "the plan was stopped before it was moved"
        return [*plan.left, *(Unfinished(domain=one.domain, host=one.source, why=why) for one in waiting)]

    def _plan_again(self, journal: PlanJournal) -> Plan:
        """Plan for the same goal in the fleet as it is now; where only others' migrations are left, after their end."""
        from dwcp_migrate.placement.planner import plan_again  # its kernels are loaded where there is a plan to make

        until = steady_clock() + self.policy.migration_s_max
        is_said = False
        while True:
            failures = merged_failures(self.known_failures, journal.progress.failures)
            fleet = remembering(self.source.snapshot(), failures)
            try:
                last = journal.progress.plan
                again = self.again or (lambda plan, now: plan_again(plan, now, self.policy, self.cost))
                plan = again(last, fleet)
            except PlacementError:
                journal.end("stopped")
                raise
            others = [one for one in plan.left if one.in_flight]
            if plan.steps or not others or steady_clock() >= until or self.stop.is_set():
                return plan
            if not is_said:
                self.watcher.waiting(others)
                is_said = True
            self.stop.wait(OTHERS_POLL_S)


class PlanRun:
    """The newest plan of a journal, carried out as far as it goes.

    Args:
        executor: whose hosts, limits and events count.
        journal: of the plan.

    Attributes:
        has_begun: a step was begun, or one that was begun before ended.
        why: it did not go as it was planned, in words; empty while it does.
    """

    def __init__(self, executor: PlanExecutor, journal: PlanJournal) -> None:
        self._executor, self._journal = executor, journal
        self._plan, self._states = journal.progress.plan, journal.progress.states
        self._running: dict[int, WatchedMigration] = {}
        self._overtaken: set[int] = set()
        self._ended: SimpleQueue[WatchedMigration] = SimpleQueue()
        self.has_begun = False
        self.why = ""

    @property
    def is_complete(self) -> bool:
        """Whether all of its steps are done."""
        return all(self._states.get(step.number) == "done" for step in self._plan.steps)

    def carry_out(self) -> None:
        """Carry out what can be.

        Raises:
            UnfinishedError: it was told to leave what runs.
        """
        for number, state in sorted(self._states.items()):
            if state == "begun":
                self._start(self._plan.steps[number], is_adopted=True)
        while True:
            while not self._executor.stop.is_set() and (step := self._next()) is not None:
                self._begin(step)
            if not self._running:
                return
            self._wait()

    def _next(self) -> Step | None:
        """The first step that may begin now."""
        policy, running = self._executor.policy, [one.step for one in self._running.values()]
        if len(running) >= policy.running_max:
            return None
        for step in self._plan.steps:
            if step.number in self._states or step.number in self._overtaken:
                continue
            if any(self._states.get(number) != "done" for number in step.after):
                continue
            outgoing = sum(one.source == step.source for one in running)
            incoming = sum(one.destination == step.destination for one in running)
            if outgoing < policy.outgoing_max and incoming < policy.incoming_max:
                return step
        return None

    def _begin(self, step: Step) -> None:
        """Begin a step, unless the fleet is not as it was planned for."""
        if why := self._obstacle(step):
            self._overtaken.add(step.number)
            self.why = why
            return
        if self._executor.stop.is_set():  # asking the hosts took time
            return
        self._journal.step(step.number, "begun", self._executor.clock())
        self._executor.watcher.begun(step)
        self._start(step, is_adopted=False)

    def _start(self, step: Step, *, is_adopted: bool) -> None:
        executor = self._executor
        self.has_begun = True
        self._running[step.number] = WatchedMigration(
            executor.hosts,
            step,
            executor.options,
            executor.policy.migration_s_max,
            self._ended,
            is_adopted=is_adopted,
        )

    def _obstacle(self, step: Step) -> str:
        """Reason for which a step cannot begin, in words: its domain is elsewhere by now, or a host does not answer."""
        hosts = self._executor.hosts
        try:
            if not hosts.runs(step, step.source):
                return f"{step.domain} does not run on {step.source} any more"
            hosts.hypervisors.ping(hosts.addresses[step.destination].ours)
        except HypervisorError as error:
            return str(error)
        return ""

    def _wait(self) -> None:
        """Wait until one of the migrations that run ends, or something is due."""
        try:
            one = self._ended.get(timeout=POLL_S)
        except Empty:
            for one in [one for one in self._running.values() if one.look()]:
                self._note(one.step, one.overdue)
        else:
            if one.step.number in self._running:  # else it was given up before
                self._conclude(one)
        if self._executor.leave.is_set() and self._running:
            raise UnfinishedError(_left_running([one.step for one in self._running.values()]), hint=_LEFT_HINT)

    def _conclude(self, one: WatchedMigration) -> None:
        """Note how a migration ended; one that ended with the process that began it says nothing of its destination."""
        error = self._error(one)
        if error and one.is_adopted and not one.overdue:
            del self._running[one.step.number]
            self._begin(one.step)
        else:
            self._note(one.step, error)

    def _error(self, one: WatchedMigration) -> str:
        """Error of a migration; empty when its domain runs at its destination."""
        failure, step = one.failure, one.step
        if failure is not None and not isinstance(failure, DwcpError):
            raise failure
        if failure is None and not one.is_adopted:
            return ""
        try:
            if self._executor.hosts.runs(step, step.destination):
                return ""  # libvirt lost its connection to us, not the guest
        except HypervisorError as error:
            failure = failure or error
        return one.overdue or str(failure or f"{step.domain} did not arrive at {step.destination}")

    def _note(self, step: Step, error: str) -> None:
        del self._running[step.number]
        self._journal.step(step.number, "failed" if error else "done", self._executor.clock(), error)
        to_go = sum(self._states.get(one.number, "begun") == "begun" for one in self._plan.steps)
        self._executor.watcher.ended(step, error, to_go)
        if error:
            self.why = f"{step.domain} could not be moved to {step.destination}"


_LEFT_HINT: Final = "give the same command again to go on; `virsh domjobabort DOMAIN` on the source ends a migration"


def _left_running(steps: list[Step]) -> str:
    """Say which migrations go on without the command."""
    words = ", ".join(f"{step.domain} ({step.source} -> {step.destination})" for step in steps)
    return f"left while libvirt migrates on: {words}"
