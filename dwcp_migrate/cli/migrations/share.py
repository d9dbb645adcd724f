"""`dwcp-migrate share`: what the operator wants of a link for one domain."""

from pathlib import Path

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, deadline_option, json_option


@click.command()
@click.argument("domain")
@click.option(
    "--weight",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, schema.WEIGHT_MAX, min_open=True),
    help="Weight against the 1 of the others: a larger one goes first and gets more.",
)
@deadline_option
@json_option
@agent_options
def command(
    *, domain: str, weight: float, deadline_s: float, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Set how DOMAIN's next or running migration shares its link with others.

    A deadline is kept if the link allows; the others then wait longer. The agent forgets it when it is restarted.
    """
    done = ApiClient(control_socket(config_path, socket_path)).share(domain, weight, deadline_s)
    click.echo(output.as_json(done) if as_json else done.message)
