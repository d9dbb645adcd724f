"""`dwcp-migrate events`: changes of migrations and of the agent as they happen, one line each."""

from pathlib import Path

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options


@click.command()
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@agent_options
def command(*, count: int | None, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Follow what happens: migrations that begin, change and end, until Ctrl-C."""
    client = ApiClient(control_socket(config_path, socket_path))
    seen = ""
    shown = 0
    for update in client.events():
        line = output.as_line(update) if as_json else text(update)
        if not as_json and line.partition("  ")[2] == seen:
            continue  # a record also changes in what the line does not show
        seen = line.partition("  ")[2]
        click.echo(line)
        shown += 1
        if count is not None and shown >= count:
            return


def text(update: schema.Update) -> str:
    """Lay one update out as a line."""
    at, one = output.moment(update.at), update.migration
    if one is None:
        return f"{at}  agent {update.state}"
    how = one.result or one.state
    why = one.reason or (f"unaccelerated: {one.passthrough_reason}" if one.passthrough_reason else "")
    return f"{at}  {one.id[:8]} {output.domain(one)} {output.peer(one)} {how}{': ' if why else ''}{why}"
