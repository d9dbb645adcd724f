"""`dwcp-migrate top`: the migrations, live. Without a terminal it prints plain status blocks, one an interval."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.host import status
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option


@click.command()
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two pictures.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many.")
@json_option
@agent_options
def command(
    *, interval: float, count: int | None, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Watch the migrations live, with the last rates and the peers. The key q ends it, as Ctrl-C does.

    The key p hides the peers and shows them again. Where standard output is no terminal it prints the status once an
    interval.
    """
    client = ApiClient(control_socket(config_path, socket_path))
    client.status()  # an agent that is not there at the start is an error, not a picture
    if as_json or not output.on_terminal():
        for _ in _ticks(interval, count):
            answer = client.status()
            click.echo(output.as_line(answer) if as_json else status.render(answer, []) + "\n")
        return
    from dwcp_migrate.cli.migrations.screen.watching import show_screen

    show_screen(client, interval, count)


def _ticks(interval: float, count: int | None) -> Iterator[int]:
    """Count up, sleeping between, `count` times or for ever."""
    for tick in itertools.count() if count is None else range(count):
        if tick:
            time.sleep(interval)
        yield tick
