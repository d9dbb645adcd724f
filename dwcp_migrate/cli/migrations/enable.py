"""`dwcp-migrate enable`: ends `dwcp-migrate disable`."""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option


@click.command()
@json_option
@agent_options
def command(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Let migrations from and to this host be accelerated again, after `disable`."""
    done = ApiClient(control_socket(config_path, socket_path)).post("enable")
    click.echo(output.as_json(done) if as_json else done.message or done.state)
