"""`dwcp-migrate undrain`: let a drained host take domains again."""

from pathlib import Path

import click

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import CommandDone
from dwcp_migrate.cli.support.options import config_option, json_option
from dwcp_migrate.errors import PlacementError


@click.command()
@click.argument("host")
@json_option
@config_option
def command(*, host: str, as_json: bool, config_path: Path | None) -> None:
    """Take HOST out of maintenance. Domains come back by `rebalance --apply`, or as they are placed."""
    if not host.strip():
        raise click.UsageError("HOST is empty: is a variable not set?")
    from dwcp_migrate.orchestration.fleet_source import with_state, write_settings
    from dwcp_migrate.orchestration.workspace import open_workspace

    with open_workspace(config_path, None) as ours:
        if ours.hosts is None or host not in ours.hosts.addresses:
            raise PlacementError(f"no host {host}", hint="the hosts are this one and the configuration's peers")
        if ours.shared is not None:
            ours.shared.set_draining(host, draining=False)
        write_settings(ours.settings_path, with_state(ours.settings(), host, "up"))
        words = f"{host} takes domains again"
        click.echo(output.as_json(CommandDone(message=words)) if as_json else words)
