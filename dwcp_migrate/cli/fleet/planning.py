"""Shared parts of `place`, `migrate`, `drain HOST`, `rebalance`, `explain` and `rules`: the fleet and its plans.

The rule here: a plan is shown before it is carried out, and can be had as JSON. A fleet from a file is planned for,
never touched.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import MoveEvent
from dwcp_migrate.cli.support.options import PATH, config_option
from dwcp_migrate.errors import NotFoundError, PlacementError, UnfinishedError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.placement import plan as plans
from dwcp_migrate.placement.plan import Figures, Plan, Proof, Step, Unfinished

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.executor import PlanExecutor
    from dwcp_migrate.orchestration.plan_journal import Ending
    from dwcp_migrate.orchestration.workspace import Workspace

Decorated = Callable[..., Any]

DEFAULT_OPTIONS: Final = MigrationOptions()

MEASURE_S_MAX: Final = 600.0
"""Of `--measure`."""

HEADER: Final = ("Step", "Domain", "From", "To", "After", "Begins", "Takes", "Downtime")


def fleet_options(command: Decorated) -> Decorated:
    """Add `--fleet FILE` and `--config FILE`: which fleet."""
    command = click.option("--fleet", "fleet_path", type=PATH, help="A fleet as JSON, instead of asking libvirt.")(
        command
    )
    return config_option(command)


def at_once_option(command: Decorated) -> Decorated:
    """Add `--at-once N`."""
    return click.option(
        "--at-once",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Migrations at once  [default: the policy's, see docs/placement.md].",
    )(command)


def here_option(command: Decorated) -> Decorated:
    """Add `--here`."""
    text = "Carry the plan out in this terminal, and not by the agents: it stops when the terminal goes."
    return click.option("--here", is_flag=True, help=text)(command)


def measure_option(command: Decorated) -> Decorated:
    """Add `--measure SECONDS`."""
    return click.option(
        "--measure",
        "measure_s",
        type=click.FloatRange(min=0, max=MEASURE_S_MAX),
        default=0.0,
        metavar="SECONDS",
        help="Measure now, for so long, which CPU the domains use  [default: what the agents know of the last hour].",
    )(command)


def read_plan(path: Path) -> Plan:
    """Read a plan's JSON; `-` is standard input.

    Raises:
        NotFoundError: it is not there.
        PlacementError: it cannot be read or is no plan.
    """
    try:
        data = sys.stdin.buffer.read(plans.PLAN_BYTES_MAX + 1) if str(path) == "-" else path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise PlacementError(f"cannot read {path}: {error.strerror}") from error
    return plans.decode_plan(output.without_version(data))


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
        parts.append(output.format_table(HEADER, rows))
        count = output.counted(len(plan.steps), "migration", "migrations")
        parts.append(f"{count}, about {output.duration(plan.seconds)}; {_change(plan.before, plan.after)}")
    else:
        parts.append(f"nothing to do: {_standing(plan.before)}")
    if plan.proof is not None:
        parts.append(_proof(plan.proof))
    parts += left_lines(plan.left)
    return "\n".join(parts)


def left_lines(left: list[Unfinished]) -> list[str]:
    """Steps that could not be carried out, a line each."""
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
        """See `executor.Watcher.begun`."""
        self._say("begun", step, f"{step.domain}: {step.source} -> {step.destination}")

    def ended(self, step: Step, error: str, to_go: int) -> None:
        """See `executor.Watcher.ended`."""
        words = f"failed, {error}" if error else f"runs on {step.destination}"
        self._say("failed" if error else "done", step, f"{step.domain}: {words}; {to_go} to go", error)

    def planned_again(self, plan: Plan, why: str) -> None:
        """See `executor.Watcher.planned_again`."""
        if self._as_json:
            click.echo(output.as_line(MoveEvent(event="planned-again", why=why, steps=len(plan.steps))))
        else:
            click.echo(f"planned again: {why}; {output.counted(len(plan.steps), 'migration', 'migrations')} to go")

    def waiting(self, left: list[Unfinished]) -> None:
        """See `executor.Watcher.waiting`."""
        names = ", ".join(one.domain for one in left)
        if self._as_json:
            click.echo(output.as_line(MoveEvent(event="waiting", domains=[one.domain for one in left])))
        else:
            click.echo(f"waiting for migrations that others began: {names}")

    def _say(self, event: str, step: Step, text: str, error: str = "") -> None:
        if self._as_json:
            entry = MoveEvent(
                event=event,
                step=step.number,
                domain=step.domain,
                error=error,
                source=step.source,
                destination=step.destination,
            )
            click.echo(output.as_line(entry))
        else:
            click.echo(text)


def carry_out(
    ours: "Workspace", plan: Plan | None, options: MigrationOptions = DEFAULT_OPTIONS, *, as_json: bool
) -> int:
    """Carry a plan out, or go on with the one that has not ended, and say how it goes.

    Args:
        ours: the fleet.
        plan: a new one; None goes on with the journal's.
        options: of its migrations.
        as_json: how it is said.

    Returns:
        The exit code: 0; that of `UnfinishedError` where some of it was done, of `PlacementError` where nothing was.

    Raises:
        PlacementError: the fleet is from a file, or another process holds the journal.
    """
    from dwcp_migrate.orchestration import workspace

    executor = workspace.executor_of(ours, Printer(as_json=as_json), options)
    if plan is not None and plan.steps and not as_json:
        count = output.counted(len(plan.steps), "migration", "migrations")
        click.echo(f"{count}, about {output.duration(plan.seconds)} by forecast")
    with _stopped_by_signals(executor):
        done = workspace.carry_out(ours, plan, executor, _say_lease_lost)
    for line in left_lines(done.left):
        click.echo(line, err=True)
    if not done.left and done.ended == "completed":
        return 0
    moved = output.counted(done.moved, "domain", "domains")
    click.echo(f"{moved} moved, {len(done.left)} left; {_how_to_go_on(done.ended)}", err=True)
    return UnfinishedError.exit_code if done.moved or done.ended != "completed" else PlacementError.exit_code


def _how_to_go_on(ended: "Ending | None") -> str:
    if ended == "stopped":
        return "it was stopped: give the command again to go on"
    return "mend what is said above, then give the command again"


def _say_lease_lost() -> None:
    """Report that the lease is lost, or about to be: another host may begin a plan, so this one begins nothing more."""
    click.echo(
        "stopping: the lease `placement` could not be prolonged; migrations that run go on to their end", err=True
    )


@contextmanager
def _stopped_by_signals(executor: "PlanExecutor") -> Iterator[None]:
    """Let the first Ctrl-C begin nothing new and wait for what runs, and the second wait for nothing."""

    def on_signal(_number: int, _frame: object) -> None:
        if executor.stop.is_set():
            executor.leave.set()
            return
        click.echo("stopping: migrations that run go on to their end; once more leaves them to libvirt", err=True)
        executor.stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
