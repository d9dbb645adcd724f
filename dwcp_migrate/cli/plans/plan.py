"""`dwcp-migrate plan show|pause|resume|abort ID`: one plan that agents carry out."""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.plans import PlanRecord, PlanWish
from dwcp_migrate.cli.fleet.planning import left_lines
from dwcp_migrate.cli.plans.attached import event_words, follow, goal_of, last_word
from dwcp_migrate.cli.plans.warm_first import awaiting_words, cold_lines
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.orchestration import plan_progress
from dwcp_migrate.orchestration.plan_store import AgentPlans, change_plan, find_plan


@click.group()
def command() -> None:
    """Show, pause, resume or abort a plan that the agents carry out; `plans` lists them."""


@command.command()
@click.argument("number", metavar="ID", type=int)
@click.option("--follow", "is_followed", is_flag=True, help="Stay, and say what happens; Ctrl-C leaves the plan alone.")
@json_option
@agent_options
@click.pass_context
def show(
    context: click.Context,
    /,
    *,
    number: int,
    is_followed: bool,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """Show plan ID: its goal, what runs, what was moved, what failed and why, what is left."""
    store = AgentPlans(ApiClient(control_socket(config_path, socket_path)))
    if is_followed:
        context.exit(last_word(follow(store, number, as_json=as_json, pauses=False)))
    record = find_plan(store, number).record
    click.echo(output.as_json(record) if as_json else plan_words(record, wall_clock()))


@command.command()
@click.argument("number", metavar="ID", type=int)
@json_option
@agent_options
def pause(*, number: int, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Begin no more migrations of plan ID; those that run go on to their end."""
    _wish(number, "pause", config_path, socket_path, as_json=as_json)


@command.command()
@click.argument("number", metavar="ID", type=int)
@json_option
@agent_options
def resume(*, number: int, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Go on with plan ID, planned anew for the fleet as it is now."""
    _wish(number, "run", config_path, socket_path, as_json=as_json)


@command.command()
@click.argument("number", metavar="ID", type=int)
@json_option
@agent_options
def abort(*, number: int, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """End plan ID and the migrations that it runs; their domains run on where they are."""
    _wish(number, "abort", config_path, socket_path, as_json=as_json)


def _wish(number: int, wish: PlanWish, config_path: Path | None, socket_path: Path | None, *, as_json: bool) -> None:
    store = AgentPlans(ApiClient(control_socket(config_path, socket_path)))
    record = change_plan(store, number, lambda one: plan_progress.wished(one, wish, wall_clock())).record
    runs = f"; running: {'; '.join(record.running)}" if record.running else ""
    said = {"run": "goes on", "pause": "pauses", "abort": "is aborted"}[wish]
    click.echo(output.as_json(record) if as_json else f"plan {number} ({goal_of(record)}) {said}{runs}")


def plan_words(record: PlanRecord, now: float) -> str:
    """A plan for people.

    Args:
        record: of it.
        now: seconds since the epoch.
    """
    lines = [
        f"plan {record.id}: {goal_of(record)}, asked for at {record.by}",
        f"{record.state}, carried out by {record.carrier or 'nobody yet'}",
        *filter(None, [awaiting_words(record, now)]),
        f"{len(record.moved)} moved, {record.to_go} to go",
        *cold_lines(record),
        *(f"runs: {one}" for one in record.running),
        *(event_words(one, record.to_go) for one in record.events if one.event in {"failed", "planned-again"}),
        *left_lines(record.left),
    ]
    return "\n".join([*lines, *([record.note] if record.note else [])])
