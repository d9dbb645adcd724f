"""Carries plans out: libvirt's own migrations, as many at once as the policy lets, each step noted in the journal.

The rule here: reality first. Before a step begins its domain must run where the plan says, and its destination must
answer. Where that is not so, or a migration failed, nothing new begins; when what runs has ended the fleet is read
anew, and the same goal planned again. A domain that failed FAILURES_MAX times stays where it is.

    begun, process killed ──> resume: a job still runs?  wait for its end
                                       runs at the destination?  done
                                       runs at the source?       failed, planned again
"""

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Final, Protocol

import msgspec

from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import DwcpError, HypervisorError, PlacementError
from dwcp_migrate.hypervisor.inventory import Hypervisors
from dwcp_migrate.orchestration.fleet_source import FleetSource
from dwcp_migrate.orchestration.plan_journal import Ending, PlanJournal
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import Fleet
from dwcp_migrate.placement.plan import Plan, Step, Unfinished
from dwcp_migrate.placement.planner import plan_again

FAILURES_MAX: Final = 2
"""A domain whose migration failed so often is left alone: the next attempt would most likely fail too."""

PLANS_MAX: Final = 20
"""New plans for one goal; a fleet that changes faster than plans are carried out is for its operator."""

POLL_S: Final = 0.5
"""Between two looks at a migration that another process began."""


class Watcher(Protocol):
    """Hears what happens."""

    def begun(self, step: Step) -> None:
        """A step begins."""

    def ended(self, step: Step, error: str) -> None:
        """A step is done, or failed."""

    def planned_again(self, plan: Plan, why: str) -> None:
        """The fleet was not as the plan took it for."""


@dataclass(slots=True)
class Hosts:
    """The ways to the hosts.

    Attributes:
        hypervisors: asks libvirtds.
        uris: of each host, as this one reaches it, and as the others do.
    """

    hypervisors: Hypervisors
    uris: Mapping[str, tuple[str, str]]

    def runs(self, domain: str, host: str) -> bool:
        """Whether a domain runs on a host and is not about to arrive there.

        Raises:
            HypervisorError: the host does not answer.
        """
        found = self.hypervisors.domains(self.uris[host][0])
        return any(one.name == domain and not one.arriving for one in found)

    def migrate(self, step: Step) -> None:
        """Carry a step out.

        Raises:
            HypervisorError: it failed.
        """
        self.hypervisors.migrate(self.uris[step.source][0], step.domain, self.uris[step.destination][1])

    def wait_for_job(self, step: Step, stop: Event) -> None:
        """Wait for the end of a migration that another process began.

        Raises:
            HypervisorError: the source does not answer.
        """
        while self.hypervisors.job_runs(self.uris[step.source][0], step.domain) and not stop.wait(POLL_S):
            pass


@dataclass(slots=True)
class PlanExecutor:
    """Carries one journal's plan out.

    Attributes:
        hosts: the ways to them.
        source: reads the fleet anew.
        policy: limits of migrations at once.
        cost: forecasts.
        watcher: hears what happens.
        stop: set it to begin nothing more.
    """

    hosts: Hosts
    source: FleetSource
    watcher: Watcher
    policy: PlacementPolicy = field(default_factory=PlacementPolicy)
    cost: MoveCost = default_cost
    stop: Event = field(default_factory=Event)
    clock: Callable[[], float] = wall_clock

    def run(self, journal: PlanJournal) -> list[Unfinished]:
        """Carry the plan out, to its end or until it is stopped.

        Returns:
            What could not be done.

        Raises:
            PlacementError: the fleet changes faster than plans are carried out, or its goal is gone.
        """
        self._settle_begun(journal)
        while not self._run_plan(journal):
            if self.stop.is_set():
                journal.end("stopped")
                return journal.progress.plan.left
            if journal.progress.plans >= PLANS_MAX:
                journal.end("stopped")
                raise PlacementError(
                    f"{PLANS_MAX} plans were overtaken by events", hint="look at the fleet, then try again"
                )
            self._plan_again(journal, "the fleet is not as it was planned for")
        ending: Ending = "completed"
        journal.end(ending)
        return journal.progress.plan.left

    def _settle_begun(self, journal: PlanJournal) -> None:
        """Find out what became of steps that a process that died had begun."""
        for number, state in sorted(journal.progress.states.items()):
            if state != "begun":
                continue
            step = journal.progress.plan.steps[number]
            error = ""
            try:
                self.hosts.wait_for_job(step, self.stop)
                if not self.hosts.runs(step.domain, step.destination):
                    error = f"{step.domain} did not arrive at {step.destination}"
            except HypervisorError as failure:
                error = str(failure)
            self._note(journal, step, error)

    def _run_plan(self, journal: PlanJournal) -> bool:
        """Carry out the newest plan; False if it must be made anew."""
        plan, states = journal.progress.plan, journal.progress.states
        running: dict[Future[None], Step] = {}
        sound = "failed" not in states.values()
        with ThreadPoolExecutor(self.policy.running_max, thread_name_prefix="migrate") as threads:
            while True:
                while sound and not self.stop.is_set():
                    step = self._next(plan, states, list(running.values()))
                    if step is None:
                        break
                    if not self._holds(step):
                        sound = False
                        break
                    if self.stop.is_set():  # asking the hosts took time
                        break
                    journal.step(step.number, "begun", self.clock())
                    self.watcher.begun(step)
                    running[threads.submit(self.hosts.migrate, step)] = step
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    sound &= self._ended(journal, running.pop(future), future)
        return sound and len(states) == len(plan.steps)

    def _next(self, plan: Plan, states: Mapping[int, str], running: list[Step]) -> Step | None:
        """The first step that may begin now."""
        policy = self.policy
        if len(running) >= policy.running_max:
            return None
        for step in plan.steps:
            if step.number in states or any(states.get(number) != "done" for number in step.after):
                continue
            outgoing = sum(one.source == step.source for one in running)
            incoming = sum(one.destination == step.destination for one in running)
            if outgoing < policy.outgoing_max and incoming < policy.incoming_max:
                return step
        return None

    def _holds(self, step: Step) -> bool:
        """Whether the domain is where the plan has it and the destination answers."""
        with contextlib.suppress(HypervisorError):
            if self.hosts.runs(step.domain, step.source):
                self.hosts.hypervisors.host(self.hosts.uris[step.destination][0])
                return True
        return False

    def _ended(self, journal: PlanJournal, step: Step, future: Future[None]) -> bool:
        """Note how a step ended; whether it is done."""
        failure = future.exception()
        if failure is not None and not isinstance(failure, DwcpError):
            raise failure
        error = str(failure) if failure is not None else ""
        if failure is not None:
            with contextlib.suppress(HypervisorError):
                if self.hosts.runs(step.domain, step.destination):
                    error = ""  # libvirt lost its connection to us, not the guest
        self._note(journal, step, error)
        return not error

    def _note(self, journal: PlanJournal, step: Step, error: str) -> None:
        journal.step(step.number, "failed" if error else "done", self.clock(), error)
        self.watcher.ended(step, error)

    def _plan_again(self, journal: PlanJournal, why: str) -> None:
        """Read the fleet and plan for the same goal; who failed too often stays."""
        fleet = without(self.source.snapshot(), journal.progress.failures)
        plan = plan_again(journal.progress.plan, fleet, self.policy, self.cost)
        journal.plan_again(plan)
        self.watcher.planned_again(plan, why)


def without(fleet: Fleet, failures: Mapping[str, int]) -> Fleet:
    """The fleet in which domains that failed to migrate too often stay where they are."""
    domains = [
        msgspec.structs.replace(one, movable=False) if failures.get(one.name, 0) >= FAILURES_MAX else one
        for one in fleet.domains
    ]
    return msgspec.structs.replace(fleet, domains=domains)
