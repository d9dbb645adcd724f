"""`dwcp-migrate disable`: lets all migrations of this host run as without the agent, also after a reboot."""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option


@click.command()
@click.option("--reason", default="", help="Reason, shown to others who find it disabled.")
@json_option
@agent_options
def command(*, reason: str, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Let new migrations from and to this host run unaccelerated, until `enable`, also over reboots.

    Those under way go on. The agent stays up and says in `status` that it is disabled, and why. For an upgrade
    `cordon` is what is meant: it ends with the agent's restart.
    """
    done = ApiClient(control_socket(config_path, socket_path)).post("disable", reason=reason)
    click.echo(output.as_json(done) if as_json else done.message or done.state)
