"""`dwcp-migrate cordon`: let the local agent take no new migration, as before an upgrade of it."""

import time
from pathlib import Path
from typing import Final

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import DwcpError

POLL_S: Final = 0.5
WAIT_S: Final = 3600.0


@click.command()
@click.option("--wait", is_flag=True, help="Wait until no accelerated migration runs.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=WAIT_S,
    show_default=True,
    help="Longest wait in seconds, with --wait.",
)
@json_option
@agent_options
def command(*, wait: bool, timeout_s: float, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Let new migrations run unaccelerated, until `uncordon` or a restart; those under way go on.

    Guests stay where they are: `drain HOST` is what empties a host.
    """
    cordon(ApiClient(control_socket(config_path, socket_path)), wait_s=timeout_s if wait else None, as_json=as_json)


def cordon(client: ApiClient, *, wait_s: float | None, as_json: bool) -> None:
    """Let the agent take no new migrations.

    Args:
        client: the local agent.
        wait_s: longest wait for those under way, in seconds; None does not wait.
        as_json: print the answer as JSON.

    Raises:
        DwcpError: some still run after that time.
    """
    done = client.post("drain")
    if wait_s is not None:
        wait_for_migrations(client, wait_s)
    click.echo(output.as_json(done) if as_json else done.message or done.state)


def wait_for_migrations(client: ApiClient, timeout_s: float) -> None:
    """Wait until no migration runs.

    Args:
        client: the local agent.
        timeout_s: longest wait in seconds.

    Raises:
        DwcpError: some still run after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while running := client.migrations().migrations:
        if time.monotonic() >= deadline:
            names = ", ".join(output.domain(one) for one in running)
            raise DwcpError(f"still under way after {timeout_s:.0f} s: {names}", hint="wait longer: --timeout SECONDS")
        time.sleep(POLL_S)
