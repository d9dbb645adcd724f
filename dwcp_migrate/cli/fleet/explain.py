"""`dwcp-migrate explain`: why a plan sends each domain where it does, and why not elsewhere."""

from pathlib import Path

import click

from dwcp_migrate.cli.fleet import planning
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import Explained
from dwcp_migrate.cli.support.options import PATH, json_option


@click.command()
@click.argument("plan_path", metavar="PLAN", type=PATH)
@json_option
@planning.fleet_options
def command(*, plan_path: Path, as_json: bool, config_path: Path | None, fleet_path: Path | None) -> None:
    """Explain PLAN (a file that `rebalance --json` or `drain HOST --dry-run --json` wrote; `-` reads standard input).

    The fleet must still be as it was planned for.
    """
    plan = planning.read_plan(plan_path)
    from dwcp_migrate.orchestration.workspace import open_workspace
    from dwcp_migrate.placement.explain import explain_plan
    from dwcp_migrate.placement.model import build_problem
    from dwcp_migrate.placement.planner import in_maintenance

    with open_workspace(config_path, fleet_path) as ours:
        whole = ours.source.snapshot()
        if plan.goal.purpose == "drain":
            whole = in_maintenance(whole, plan.goal.host)
        lines = explain_plan(build_problem(whole, ours.policy()), plan)
        words = "\n".join(lines) if lines else "the plan has no steps"
        click.echo(output.as_json(Explained(lines=list(lines))) if as_json else words)
