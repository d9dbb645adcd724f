"""`dwcp-migrate reload`: the agent reads its configuration again. The unit's ExecReload."""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option


@click.command()
@json_option
@agent_options
def command(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Read the configuration again: peers, policy, TLS and log level change, running migrations do not.

    A configuration that is wrong is refused (exit 2), and the agent goes on with the one that it has.
    """
    done = ApiClient(control_socket(config_path, socket_path)).post("reload")
    click.echo(output.as_json(done) if as_json else done.message or "configuration read again")
