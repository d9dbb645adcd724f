"""Shared parts of `place`, `migrate`, `drain HOST`, `rebalance`, `explain` and `rules`: the fleet and its plans.

The rule here: a plan is shown before it is carried out, and can be had as JSON. A fleet from a file is planned for,
never touched.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.schema import Measured
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import config_option
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.config import DEFAULT_PATH, Config, load
from dwcp_migrate.errors import DwcpError, PlacementError
from dwcp_migrate.hypervisor.inventory import LibvirtHypervisors
from dwcp_migrate.orchestration.executor import Hosts, PlanExecutor
from dwcp_migrate.orchestration.fleet_constraints import for_new, rules_of, within
from dwcp_migrate.orchestration.fleet_source import (
    SETTINGS_NAME,
    FleetFile,
    FleetSettings,
    FleetSource,
    LibvirtFleet,
    addresses,
    read_settings,
)
from dwcp_migrate.orchestration.move_cost import AgentCost, Questions
from dwcp_migrate.orchestration.plan_journal import JOURNAL_NAME, PlanJournal, read
from dwcp_migrate.orchestration.shared_state import SharedFleet, SharedState
from dwcp_migrate.placement import plan as plans
from dwcp_migrate.placement.balance import Workers
from dwcp_migrate.placement.cost import MoveCost, PlacementPolicy, default_cost
from dwcp_migrate.placement.fleet import Fleet, Rule
from dwcp_migrate.placement.plan import Figures, Goal, Plan, Proof, Step, Unfinished
from dwcp_migrate.placement.planner import plan_exactly, plan_rebalance, rested
from dwcp_migrate.placement.solver.exact import SolverEffort

Decorated = Callable[..., Any]

HEADER: Final = ("Step", "Domain", "From", "To", "After", "Begins", "Takes", "Downtime")


def fleet_options(command: Decorated) -> Decorated:
    """Add `--fleet FILE` and `--config FILE`: which fleet."""
    path = click.Path(path_type=Path)
    command = click.option("--fleet", "fleet_path", type=path, help="A fleet as JSON, instead of asking libvirt.")(
        command
    )
    return config_option(command)


@dataclass(frozen=True, slots=True)
class Desk:
    """One command's view of the fleet.

    Attributes:
        config: whose peers are the fleet.
        source: says how the fleet stands.
        hosts: the ways to them; None for a fleet from a file.
        shared: the fleet's state, where one is configured.
        cost: forecasts migrations.
    """

    config: Config
    source: FleetSource
    hosts: Hosts | None
    shared: SharedState | None = None
    cost: MoveCost = default_cost

    @property
    def settings_path(self) -> Path:
        """The operator's rules and host settings."""
        return self.config.state_directory / SETTINGS_NAME

    @property
    def journal_path(self) -> Path:
        """The journal of the plan that is carried out, or was last."""
        return self.config.state_directory / JOURNAL_NAME

    def settings(self) -> FleetSettings:
        """Read the settings."""
        return read_settings(self.settings_path)

    def rules(self) -> list[Rule]:
        """The rules: the fleet's where it has a shared state, else those of the settings."""
        return self.settings().rules if self.shared is None else rules_of(self.shared.standing())

    def for_new(self) -> Fleet:
        """The fleet as new domains find it."""
        fleet = self.source.snapshot()
        return fleet if self.shared is None else for_new(fleet, self.shared.standing())

    def policy(self) -> PlacementPolicy:
        """The policy of the settings, within the fleet's limits."""
        policy = self.settings().policy
        return policy if self.shared is None else within(policy, self.shared.standing())

    def plan_rebalance(self, whole: Fleet) -> Plan:
        """Plan to even the fleet out, on all cores."""
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as threads:
            return plan_rebalance(whole, self.policy(), self.cost, Workers(threads.map, cores))

    def plan_exactly(self, whole: Fleet, goal: Goal, seconds: float) -> Plan:
        """Plan by the exact solver, on all cores."""
        effort = SolverEffort(seconds, workers=os.cpu_count() or 1)
        return plan_exactly(whole, goal, effort, self.policy(), self.cost)

    def rested(self, fleet: Fleet) -> Fleet:
        """The fleet in which domains stay that the last rebalance moved lately; those of a drain may come back."""
        last = read(self.journal_path) if self.hosts is not None else None
        if last is None or last.plan.goal.purpose != "rebalance":
            return fleet
        since = wall_clock() - self.settings().policy.cool_down_s
        return rested(fleet, {domain for domain, at in last.moved_at.items() if at > since})


@contextmanager
def desk(config_path: Path | None, fleet_path: Path | None) -> Iterator[Desk]:
    """Open the fleet.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    if fleet_path is not None:
        yield Desk(load(config_path) if config_path else Config(), FleetFile(fleet_path), None)
        return
    config = load(config_path or DEFAULT_PATH)
    uris = addresses(config, config.name or socket.gethostname())
    hypervisors = LibvirtHypervisors()
    local = {name: ours for name, (ours, _) in uris.items()}
    found = LibvirtFleet(hypervisors, local, lambda: read_settings(config.state_directory / SETTINGS_NAME), {})
    client = ApiClient(control_socket(config_path, None))
    shared = SharedState(client) if config.coordination.is_shared else None
    source = found if shared is None else SharedFleet(found, shared)
    own = config.name or socket.gethostname()
    asked = Questions(lambda domain, peer: client.predict(domain, peer, 0.0), lambda: client.ask("measured", Measured))
    cost = AgentCost(asked, own, uris.keys() - {own})
    try:
        yield Desk(config, source, Hosts(hypervisors, uris), shared, cost)
    finally:
        hypervisors.close()


def read_plan(path: Path) -> Plan:
    """Read a plan's JSON; `-` is standard input.

    Raises:
        PlacementError: it cannot be read or is no plan.
    """
    try:
        data = sys.stdin.buffer.read(plans.PLAN_BYTES_MAX + 1) if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise PlacementError(f"cannot read {path}: {error.strerror}") from error
    return plans.decode(data)


def plan_text(plan: Plan) -> str:
    """Lay out a plan for people."""
    parts = []
    if plan.steps:
        rows = [
            (
                str(step.number),
                step.domain,
                step.source,
                step.destination,
                ", ".join(map(str, step.after)) or output.UNKNOWN,
                output.duration(step.begins_s),
                output.duration(step.seconds),
                f"{step.downtime_s * 1000:.0f} ms",
            )
            for step in plan.steps
        ]
        parts.append(output.table(HEADER, rows))
        count = output.counted(len(plan.steps), "migration", "migrations")
        parts.append(f"{count}, about {output.duration(plan.seconds)}; {_change(plan.before, plan.after)}")
    else:
        parts.append(f"nothing to do: {_standing(plan.before)}")
    if plan.proof is not None:
        parts.append(_proof(plan.proof))
    parts += left_lines(plan.left)
    return "\n".join(parts)


def left_lines(left: list[Unfinished]) -> list[str]:
    """What could not be done, a line each."""
    return [f"{one.domain} stays on {one.host}: {one.why}" for one in left]


def _standing(figures: Figures) -> str:
    broken = output.counted(figures.broken, "rule broken", "rules broken")
    return f"fullest host {figures.fullest * 100:.0f} %, mean {figures.mean * 100:.0f} %, {broken}"


def _proof(proof: Proof) -> str:
    level, price = proof.fullest_gap * 100, proof.price_gap * 100
    return f"at best the fullest host is {level:.1f} % emptier than the solver found, and moves {price:.1f} % cheaper"


def _change(before: Figures, after: Figures) -> str:
    fullest = f"fullest host {before.fullest * 100:.0f} % -> {after.fullest * 100:.0f} %"
    return f"{fullest}, deviation {before.deviation * 100:.1f} -> {after.deviation * 100:.1f} points"


class Printer:
    """Says on standard output how a plan goes: a line an event, or a JSON object a line.

    Args:
        as_json: which.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def begun(self, step: Step) -> None:
        """See `execute.Watcher.begun`."""
        self._say("begun", step, f"{step.domain}: {step.source} -> {step.destination}")

    def ended(self, step: Step, error: str) -> None:
        """See `execute.Watcher.ended`."""
        words = f"failed, {error}" if error else f"runs on {step.destination}"
        self._say("failed" if error else "done", step, f"{step.domain}: {words}", error)

    def planned_again(self, plan: Plan, why: str) -> None:
        """See `execute.Watcher.planned_again`."""
        if self._as_json:
            click.echo(json.dumps({"event": "planned-again", "why": why, "steps": len(plan.steps)}))
        else:
            click.echo(f"planned again: {why}; {output.counted(len(plan.steps), 'migration', 'migrations')} to go")

    def _say(self, event: str, step: Step, text: str, error: str = "") -> None:
        if self._as_json:
            entry = {"event": event, "step": step.number, "domain": step.domain, "error": error}
            click.echo(json.dumps({**entry, "source": step.source, "destination": step.destination}))
        else:
            click.echo(text)


def carry_out(ours: Desk, plan: Plan | None, goal: Goal, *, as_json: bool) -> int:
    """Carry a plan out, or go on with the one that has not ended.

    Args:
        ours: the fleet.
        plan: a new one; None goes on with the journal's.
        goal: what the caller wants: an unended plan for something else is refused.
        as_json: how it is said.

    Returns:
        The exit code: 0, or that of `PlacementError` if something was left or it was stopped.

    Raises:
        PlacementError: the fleet is from a file, or the journal is held or for another goal.
    """
    if ours.hosts is None:
        raise PlacementError("a fleet from a file is planned for, not changed", hint="leave --fleet out, or --apply")
    journal = PlanJournal.resume(ours.journal_path)
    if journal is not None and journal.progress.plan.goal != goal:
        unended = journal.progress.plan.goal
        journal.close()
        words = " ".join(word for word in (unended.purpose, unended.domain, unended.host) if word)
        raise PlacementError(
            f"a plan has not ended: {words}", hint="give that command again, or `dwcp-migrate rebalance --abandon`"
        )
    if journal is None:
        if plan is None:
            return 0
        journal = PlanJournal.begin(ours.journal_path, plan)
    stop = threading.Event()
    with journal, _leased(ours, journal, stop), _stopped_by_signals(stop):
        executor = PlanExecutor(ours.hosts, ours.source, Printer(as_json=as_json), ours.policy(), ours.cost, stop)
        left = executor.run(journal)
    for line in left_lines(left):
        click.echo(line, err=True)
    return PlacementError.exit_code if left or journal.progress.ended != "completed" else 0


@contextmanager
def _leased(ours: Desk, journal: PlanJournal, stop: threading.Event) -> Iterator[None]:
    """Hold the fleet's lease, where there is one; a new plan that does not get it is given up."""
    if ours.shared is None:
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(ours.shared.lease(lambda: _lost(stop)))
        except DwcpError:
            if not journal.progress.states:
                journal.end("abandoned")
            raise
        yield


def _lost(stop: threading.Event) -> None:
    """The lease is gone, or about to be: another host may begin a plan, so this one begins nothing more."""
    click.echo(
        "stopping: the lease `placement` could not be prolonged; migrations that run go on to their end", err=True
    )
    stop.set()


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C begin nothing new and wait for what runs."""

    def on_signal(_number: int, _frame: object) -> None:
        click.echo("stopping: migrations that run go on to their end", err=True)
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unended(ours: Desk, goal: Goal) -> bool:
    """Whether the journal has a plan for this goal that has not ended."""
    progress = read(ours.journal_path)
    return progress is not None and progress.ended is None and progress.plan.goal == goal
