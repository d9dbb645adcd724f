"""Operators' repairs of the fleet's record: each says what it takes for granted, and asks back."""

from pathlib import Path

import click

from dwcp_migrate.api import cluster as api
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def _change(
    action: str,
    sure: str,
    config_path: Path | None,
    socket_path: Path | None,
    *,
    yes: bool,
    as_json: bool,
    **query: str,
) -> None:
    if not yes:
        click.confirm(sure, abort=True, err=True)
    done = ApiClient(control_socket(config_path, socket_path)).change(action, api.Changed, b"", **query)
    click.echo(output.as_json(done) if as_json else done.message)


@click.command("forget-host")
@click.argument("name")
@yes_option
@json_option
@agent_options
def forget_host(*, name: str, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Forget the host NAME, which is gone for good, with its domains, tickets, leases and reservations."""
    sure = f"Is {name} off for good? Its domains then have no owner, and the host that starts one owns it"
    _change("cluster/forget-host", sure, config_path, socket_path, yes=yes, as_json=as_json, name=name)


@click.command("forget-domain")
@click.argument("uuid")
@yes_option
@json_option
@agent_options
def forget_domain(*, uuid: str, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Forget the domain UUID, which no host has any more."""
    sure = f"Does no host run {uuid}?"
    _change("cluster/forget-domain", sure, config_path, socket_path, yes=yes, as_json=as_json, uuid=uuid)


@click.command()
@click.argument("uuid")
@click.argument("host")
@yes_option
@json_option
@agent_options
def assign(
    *, uuid: str, host: str, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Give the domain UUID to HOST; a ticket for it ends, and its generation grows."""
    sure = f"Does {uuid} run nowhere but on {host}, or is its last host off (fenced)?"
    _change("cluster/assign", sure, config_path, socket_path, yes=yes, as_json=as_json, uuid=uuid, owner=host)


@click.command("set-time")
@yes_option
@json_option
@agent_options
def set_time(*, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Set the fleet's time back to this host's clock; tickets and leases keep the time that they had left."""
    sure = "Is this host's clock right?"
    _change("cluster/set-time", sure, config_path, socket_path, yes=yes, as_json=as_json)


@click.command("raise-version")
@yes_option
@json_option
@agent_options
def raise_version(*, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Let the fleet use what only this release reads: 262,144 domains instead of 65,536."""
    sure = "No host can go back to an earlier release afterwards. Go on?"
    _change("cluster/raise-version", sure, config_path, socket_path, yes=yes, as_json=as_json)


@click.command()
@click.argument("token", type=click.IntRange(1))
@yes_option
@json_option
@agent_options
def fail(*, token: int, yes: bool, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """End the open ticket TOKEN, which nobody else ends; the domain stays its owner's."""
    sure = f"Does the domain of ticket {token} run on its source only?"
    _change("tickets/fail", sure, config_path, socket_path, yes=yes, as_json=as_json, token=str(token))
