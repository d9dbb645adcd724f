"""`dwcp-migrate migrate`: move a domain to a host, or to the best one."""

from pathlib import Path
from typing import Any

import click

from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.migrations.warm_ahead import warm_ahead
from dwcp_migrate.cli.plans.warm_first import take_warm_words, warm_options
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.migration_options import migration_options, options_of
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.placement.plan import Goal


@click.command()
@click.argument("domain")
@click.argument("host", required=False)
@click.option("--migrateuri", default="", metavar="URI", help="Where QEMU listens, as in tcp://ADDRESS.")
@warm_options
@migration_options
@click.option("--dry-run", is_flag=True, help="Show the plan, move nothing.")
@json_option
@planning.fleet_options
@click.pass_context
def command(  # noqa: PLR0913 - one parameter an option
    context: click.Context,
    /,
    *,
    domain: str,
    host: str | None,
    migrateuri: str,
    dry_run: bool,
    as_json: bool,
    config_path: Path | None,
    fleet_path: Path | None,
    **words: Any,
) -> None:
    """Migrate DOMAIN live to HOST; without HOST to where it is best. Domains that a rule keeps with it come along.

    With --warm its pages are brought to the page store there first, for as long as that has any use. Where it is
    refused, as without a store, the migration begins at once.
    """
    if not domain.strip() or (host is not None and not host.strip()):
        raise click.UsageError("DOMAIN or HOST is empty: is a variable not set?")
    from dwcp_migrate.orchestration.workspace import open_workspace

    warm = take_warm_words(words)
    options = options_of(words, migrateuri)
    goal = Goal(purpose="migrate", domain=domain, host=host or "")
    with open_workspace(config_path, fleet_path, copies_storage=options.copies_storage) as ours:
        if not dry_run and ours.unended(goal):
            context.exit(planning.carry_out(ours, None, options, as_json=as_json))
        from dwcp_migrate.placement.planner import plan_migrate

        plan = plan_migrate(ours.source.snapshot(), domain, host or "", ours.policy(), ours.cost)
        if dry_run:
            click.echo(output.as_json(plan) if as_json else planning.plan_text(plan))
            return
        if warm.warm:
            warm_ahead(ours, plan, warm, quiet=as_json)
        context.exit(planning.carry_out(ours, plan, options, as_json=as_json))
