"""`dwcp-migrate drain`: let no new migration in, and wait for those under way. The step before an upgrade."""

import time
from pathlib import Path
from typing import Final

import click

from dwcp_migrate.cli import output
from dwcp_migrate.cli.client import Client, control_socket
from dwcp_migrate.cli.options import agent_options, json_option
from dwcp_migrate.errors import DwcpError

POLL_S: Final = 0.5


@click.command()
@click.option("--off", is_flag=True, help="Let migrations in again.")
@click.option("--wait", is_flag=True, help="Wait until no accelerated migration runs.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), default=3600, show_default=True, help="Seconds.")
@json_option
@agent_options
def command(
    *, off: bool, wait: bool, timeout_s: float, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Let new migrations run unaccelerated, until --off or a restart; those under way go on."""
    client = Client(control_socket(config_path, socket_path))
    done = client.post("undrain" if off else "drain")
    if wait and not off:
        drained(client, timeout_s)
    click.echo(output.as_json(done) if as_json else done.message or done.state)


def drained(client: Client, timeout_s: float) -> None:
    """Wait until no migration runs.

    Raises:
        DwcpError: some still run after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while running := client.migrations().migrations:
        if time.monotonic() >= deadline:
            names = ", ".join(output.domain(one) for one in running)
            raise DwcpError(f"still under way after {timeout_s:.0f} s: {names}", hint="wait longer: --timeout SECONDS")
        time.sleep(POLL_S)
