"""`dwcp-migrate plans`: the plans that agents carry out, and those that ended lately."""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.plans import PlanRecord
from dwcp_migrate.cli.plans.attached import age, goal_of
from dwcp_migrate.cli.plans.warm_first import awaiting_words
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.orchestration.plan_store import AgentPlans

HEADER = ("Plan", "Goal", "State", "Carrier", "Moved", "To go", "Left", "Asked", "Note")


@click.command()
@json_option
@agent_options
def command(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """List the plans that have not ended, and the last that have."""
    plans = AgentPlans(ApiClient(control_socket(config_path, socket_path))).all()
    if as_json:
        click.echo(output.as_json([one.record for one in plans]))
    elif plans:
        click.echo(output.format_table(HEADER, [_row(one.record) for one in plans]))
    else:
        click.echo("no plan was handed to the agents yet")


def _row(record: PlanRecord) -> tuple[str, ...]:
    return (
        str(record.id),
        goal_of(record),
        record.state,
        record.carrier or output.UNKNOWN,
        str(len(record.moved)),
        str(record.to_go),
        str(len(record.left)),
        f"{age(record.asked_at)} ago",
        awaiting_words(record, wall_clock()) or record.note or output.UNKNOWN,
    )
