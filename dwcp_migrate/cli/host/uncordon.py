"""`dwcp-migrate uncordon`: let the local agent take migrations again."""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option


@click.command()
@json_option
@agent_options
def command(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Let new migrations be accelerated again."""
    uncordon(ApiClient(control_socket(config_path, socket_path)), as_json=as_json)


def uncordon(client: ApiClient, *, as_json: bool) -> None:
    """Let the agent take migrations again.

    Args:
        client: the local agent.
        as_json: print the answer as JSON.
    """
    done = client.post("undrain")
    click.echo(output.as_json(done) if as_json else done.message or done.state)
