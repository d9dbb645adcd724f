"""`dwcp-migrate rebalance`: even the fleet out, by as few migrations as that takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.plans import attached, watching
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.migration_options import migration_options, options_of
from dwcp_migrate.cli.support.options import exact_option, json_option
from dwcp_migrate.errors import PlacementError
from dwcp_migrate.placement.plan import Goal
from dwcp_migrate.placement.watch_settings import WatchMode

if TYPE_CHECKING:
    from dwcp_migrate.orchestration.workspace import Workspace


@click.command()
@click.option("--apply/--dry-run", "apply", default=False, help="Carry the plan out, or only show it (default).")
@planning.at_once_option
@planning.here_option
@planning.measure_option
@click.option(
    "--watch",
    "watch_mode",
    type=click.Choice(["off", "observe", "on"]),
    help="Set the service that relieves hot hosts by itself; with --set NAME=VALUE, see docs/placement.md.",
)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="With --watch: a setting of the service.")
@click.option("--report", is_flag=True, help="Report what that service saw, did or would have done, and the results.")
@click.option("--abandon", is_flag=True, help="Give up a plan that has not ended; migrations that run go on.")
@exact_option
@migration_options
@json_option
@planning.fleet_options
@click.pass_context
def command(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    /,
    *,
    apply: bool,
    at_once: int,
    here: bool,
    measure_s: float,
    watch_mode: WatchMode | None,
    changes: tuple[str, ...],
    report: bool,
    abandon: bool,
    exact_s: float | None,
    as_json: bool,
    config_path: Path | None,
    fleet_path: Path | None,
    **words: Any,
) -> None:
    """Show, or with --apply carry out, the migrations that even out the fleet. An even fleet is left alone."""
    if watch_mode is not None or report or changes:
        _watch(config_path, watch_mode, changes, as_json=as_json)
        return
    from dwcp_migrate.orchestration.workspace import open_workspace

    if abandon and fleet_path is not None:
        raise click.UsageError("--abandon is about the plan of this host: leave --fleet out")
    goal, options = Goal(purpose="rebalance"), options_of(words)
    with open_workspace(
        config_path, fleet_path, at_once, copies_storage=options.copies_storage, measure_s=measure_s
    ) as ours:
        if abandon:
            click.echo("given up" if _abandon(ours) else "no plan is under way")
            return
        if apply and ours.unended(goal):
            context.exit(planning.carry_out(ours, None, options, as_json=as_json))
        if apply and (kept := attached.open_plan(ours, goal)) is not None:
            context.exit(attached.go_on(ours, kept, as_json=as_json))
        whole = ours.rested(ours.source.snapshot())
        plan = ours.plan_rebalance(whole) if exact_s is None else ours.plan_exactly(whole, goal, exact_s)
        if not apply or not plan.steps:
            click.echo(output.as_json(plan) if as_json else planning.plan_text(plan))
            context.exit(PlacementError.exit_code if plan.left else 0)
        here = here or exact_s is not None or measure_s > 0  # what agents plan for the same goal would be another plan
        context.exit(attached.carry(ours, plan, options, here=here, as_json=as_json))


def _watch(config_path: Path | None, mode: WatchMode | None, changes: tuple[str, ...], *, as_json: bool) -> None:
    """Set the service, or report on it."""
    if changes and mode is None:
        raise click.UsageError("--set needs --watch off|observe|on")
    from dwcp_migrate.orchestration.watch_round import AgentWatch

    store = AgentWatch(ApiClient(control_socket(config_path, None)))
    record = store.read().record if mode is None else watching.set_watch(store, mode, changes)
    watching.say_watch(record, as_json=as_json)


def _abandon(ours: "Workspace") -> bool:
    from dwcp_migrate.orchestration.plan_journal import PlanJournal

    journal = PlanJournal.resume(ours.journal_path)
    if journal is None:
        return False
    with journal:
        journal.end("abandoned")
    return True
