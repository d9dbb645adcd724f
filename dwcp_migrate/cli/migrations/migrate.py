"""`dwcp-migrate migrate`: move a domain to a host, or to the best one."""

from pathlib import Path

import click

from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.placement.plan import Goal
from dwcp_migrate.placement.planner import plan_migrate


@click.command()
@click.argument("domain")
@click.argument("host", default="")
@click.option("--dry-run", is_flag=True, help="Show the plan, move nothing.")
@json_option
@planning.fleet_options
@click.pass_context
def command(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    *,
    domain: str,
    host: str,
    dry_run: bool,
    as_json: bool,
    config_path: Path | None,
    fleet_path: Path | None,
) -> None:
    """Migrate DOMAIN live to HOST; without HOST to where it is best. Domains that a rule keeps with it come along."""
    goal = Goal(purpose="migrate", domain=domain, host=host)
    with planning.desk(config_path, fleet_path) as ours:
        if not dry_run and planning.unended(ours, goal):
            context.exit(planning.carry_out(ours, None, goal, as_json=as_json))
        plan = plan_migrate(ours.source.snapshot(), domain, host, ours.policy(), ours.cost)
        if dry_run:
            click.echo(output.as_json(plan) if as_json else planning.plan_text(plan))
            return
        context.exit(planning.carry_out(ours, plan, goal, as_json=as_json))
