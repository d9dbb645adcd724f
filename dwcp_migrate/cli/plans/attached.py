"""A terminal and a kept plan: handed over to the agents, followed, stopped, and left.

The rule here: the agents own the plan. A terminal that goes away changes nothing; Ctrl-C pauses the plan and waits for
running migrations, a second one ends the command at once and says which migrations run on and how to resume the plan.
While a plan waits for the time that was agreed to, the first one ends the command and leaves the plan alone.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Final

import click

from dwcp_migrate.api.plans import PlanEvent, PlanRecord, PlanRequest, PlanWish, StoredPlan, WarmFirst
from dwcp_migrate.api.warm_plan import has_to_wait
from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.plans.warm_first import awaiting_words, cold_lines
from dwcp_migrate.cli.support import output
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.errors import AgentUnreachableError, CoordinationError, DwcpError, NotFoundError, UnfinishedError
from dwcp_migrate.hypervisor.inventory.migration_options import MigrationOptions
from dwcp_migrate.orchestration import plan_progress
from dwcp_migrate.orchestration.plan_journal import goal_words
from dwcp_migrate.orchestration.plan_store import AgentPlans, PlanStore, change_plan, find_plan
from dwcp_migrate.placement.plan import Goal, Plan

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.workspace import Workspace

POLL_S: Final = 0.5


def open_plan(ours: "Workspace", goal: Goal) -> StoredPlan | None:
    """Find a kept plan for a goal that has not ended.

    Args:
        ours: the fleet's workspace.
        goal: of the plan.

    Returns:
        None without one, or without an agent that keeps plans.
    """
    if ours.client is None:
        return None
    try:
        plans = AgentPlans(ours.client).all()
    except DwcpError:
        return None
    return next((one for one in plans if one.record.is_open and one.record.request.goal == goal), None)


def carry(
    ours: "Workspace",
    plan: Plan,
    options: MigrationOptions,
    *,
    here: bool,
    as_json: bool,
    warm_first: WarmFirst | None = None,
) -> int:
    """Have a plan carried out by the agents, or in this terminal where no agent keeps plans.

    Args:
        ours: the fleet's workspace.
        plan: to be carried out; the agents get its goal.
        options: of each migration.
        here: in this terminal in any case.
        as_json: print JSON lines.
        warm_first: warm-ups ahead of the moves, which the agents do.

    Returns:
        The exit code, as of `planning.carry_out`.

    Raises:
        DwcpError: no agent keeps the plan, and its time is still to come.
    """
    if here or ours.client is None or not plan.steps:
        return planning.carry_out(ours, plan, options, as_json=as_json)
    reached = sorted(ours.known)
    request = PlanRequest(goal=plan.goal, options=options, at_once=ours.at_once, reached=reached, warm_first=warm_first)
    store = AgentPlans(ours.client)
    try:
        stored = store.put(PlanRecord(request=request, asked_at=wall_clock()), 0)
    except (AgentUnreachableError, NotFoundError, CoordinationError) as error:  # or older agents that keep no plans
        if warm_first is not None and warm_first.waits:
            raise
        if warm_first is not None:
            click.echo(f"no guest is warmed up: {error}", err=True)
        return planning.carry_out(ours, plan, options, as_json=as_json)
    if not as_json:
        count = output.counted(len(plan.steps), "migration", "migrations")
        click.echo(f"{count}, about {output.duration(plan.seconds)} by forecast; plan {stored.record.id}")
    record = follow(store, stored.record.id, as_json=as_json)
    if record.state != "refused":
        return last_word(record)
    click.echo(f"{record.note}: it is carried out in this terminal", err=True)
    return planning.carry_out(ours, plan, options, as_json=as_json)


def go_on(ours: "Workspace", stored: StoredPlan, *, as_json: bool) -> int:
    """Follow a plan that has not ended, and resume it where it is paused.

    Args:
        ours: the fleet's workspace, with an agent.
        stored: the plan.
        as_json: print JSON lines.

    Returns:
        Exit code of the command.
    """
    assert ours.client is not None
    store, number = AgentPlans(ours.client), stored.record.id
    if not as_json:
        click.echo(f"plan {number} has not ended: going on with it")
    _wish(store, number, "run")
    return last_word(follow(store, number, as_json=as_json))


def _wish(store: PlanStore, number: int, wish: PlanWish) -> None:
    """Wish something of a plan; one that has ended meanwhile stays as it is."""
    change_plan(store, number, lambda one: plan_progress.wished(one, wish, wall_clock()) if one.is_open else one)


def follow(store: PlanStore, number: int, *, as_json: bool, pauses: bool = True) -> PlanRecord:
    """Say what happens until the plan ends, or is paused.

    Args:
        store: of it.
        number: of it.
        as_json: a JSON object a line.
        pauses: Ctrl-C pauses the plan; else it only ends the command.

    Raises:
        UnfinishedError: the command was told to end before the plan did.
    """
    seen, told, is_silent, pressed = 0, set[str](), False, Event()
    with _on_interrupt(pressed.set) as times:
        record = find_plan(store, number).record
        while True:
            seen = _say_new(record, seen, as_json=as_json)
            if not as_json:
                _say_awaited(record, told)
            if not record.is_open or (record.state == "paused" and record.wish == "pause"):
                return record
            if times() > (1 if pauses and not has_its_time(record, wall_clock()) else 0):
                raise _left(record)
            if pressed.is_set():
                pressed.clear()
                _pause(store, record)
            pressed.wait(POLL_S)
            try:
                record, is_silent = find_plan(store, number).record, False
            except DwcpError as error:
                if not is_silent:
                    click.echo(f"{error}; the plan goes on with whichever agent carries it out", err=True)
                is_silent = True


def _say_new(record: PlanRecord, seen: int, *, as_json: bool) -> int:
    for event in record.events:
        if event.serial > seen:
            click.echo(output.as_line(event) if as_json else event_words(event, record.to_go))
    return record.events[-1].serial if record.events else seen


def _say_awaited(record: PlanRecord, told: set[str]) -> None:
    """Say what the moves wait for, and which guests are not warmed up, each line once."""
    for line in (awaiting_words(record, wall_clock()), *cold_lines(record)):
        if line and line not in told:
            told.add(line)
            click.echo(line)


def has_its_time(record: PlanRecord, now: float) -> bool:
    """Whether a plan waits for a time that was agreed to: Ctrl-C leaves it alone.

    Args:
        record: of the plan.
        now: seconds since the epoch.
    """
    order = record.request.warm_first
    return order is not None and order.waits and has_to_wait(record, now)


def event_words(event: PlanEvent, to_go: int) -> str:
    """Write an event of a plan as a line.

    Args:
        event: of its record.
        to_go: migrations of the plan that have not ended.
    """
    way = f"{event.domain}: {event.source} -> {event.destination}"
    words = {
        "begun": way,
        "done": f"{event.domain}: runs on {event.destination}; {to_go} to go",
        "failed": f"{event.domain}: failed, {event.words}; {to_go} to go",
        "planned-again": f"planned again: {event.words}",
        "waiting": f"waiting for migrations that others began: {event.words}",
        "carried": "an agent carries it out" + (f": {event.words}" if event.words else ""),
    }
    return words[event.event]


def _pause(store: PlanStore, record: PlanRecord) -> None:
    click.echo(
        "stopping: migrations that run go on to their end, nothing more begins; once more ends this command", err=True
    )
    try:
        _wish(store, record.id, "pause")
    except DwcpError as error:
        click.echo(f"it could not be paused: {error}", err=True)


def _left(record: PlanRecord) -> UnfinishedError:
    runs = "; ".join(record.running) or "no migration"
    awaited = awaiting_words(record, wall_clock())
    wish = f"goes on at {record.carrier or record.by}" + (f" ({awaited})" if awaited else "")
    if record.wish == "pause":
        wish = "is paused, and nothing more begins"
    return UnfinishedError(
        f"left plan {record.id}, which {wish}; running on: {runs}",
        hint=f"`dwcp-migrate plan show {record.id}`, `plan resume {record.id}`, `plan abort {record.id}`",
    )


@contextmanager
def _on_interrupt(pressed: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Count Ctrl-C; a terminal that hangs up ends the command, and not the plan."""
    times = 0

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal times
        times += 1
        pressed()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: times
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_word(record: PlanRecord) -> int:
    """Say how a plan ended; the exit code."""
    for line in planning.left_lines(record.left):
        click.echo(line, err=True)
    if record.state == "completed":
        return 0
    how = f"`dwcp-migrate plan resume {record.id}` goes on" if record.state == "paused" else ""
    if record.state == "partly":
        how = "mend what is said above, then give the command again"
    moved = output.counted(len(record.moved), "domain", "domains")
    note = record.note if record.state in {"failed", "refused"} else f"{moved} moved, {len(record.left)} left"
    click.echo("; ".join(filter(None, (f"plan {record.id} {record.state}: {note}", how))), err=True)
    return record.exit_code or UnfinishedError.exit_code


def goal_of(record: PlanRecord) -> str:
    """A plan's goal as the command that has it."""
    return goal_words(record.request.goal)


def age(at: float) -> str:
    """Time since then, in words."""
    return output.duration(max(0.0, time.time() - at)) if at else output.UNKNOWN
