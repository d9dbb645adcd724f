"""`dwcp-migrate locks`: leases and shares of links that are held now; taking them and giving them back."""

from pathlib import Path
from typing import Any

import click

from dwcp_migrate.api import cluster as api
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet.tickets import STALE
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.units import format_rate

LEASE_HEADER = ("Lease", "Holder", "Token", "Ends in")
LINK_HEADER = ("Reservation", "From", "To", "Holder", "Rate", "Token", "Ends in")


_lifetime = click.option(
    "--lifetime",
    "lifetime_s",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds until it ends by itself; taking it again prolongs it.",
)


@click.group(invoke_without_command=True)
@json_option
@agent_options
@click.pass_context
def command(context: click.Context, *, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """List leases and reserved shares of links, or take one or give it back."""
    if context.invoked_subcommand is not None:
        return
    found = ApiClient(control_socket(config_path, socket_path)).ask("locks", api.Locks)
    click.echo(output.as_json(found) if as_json else render(found))


@command.command()
@click.argument("name")
@_lifetime
@json_option
@agent_options
def acquire(*, as_json: bool, config_path: Path | None, socket_path: Path | None, **lease: Any) -> None:
    """Take the lease NAME for this host; shows the fencing token, which gives it back.

    The holder is the host, not the process: another one here that asks prolongs the lease and gets the same token.
    """
    held = ApiClient(control_socket(config_path, socket_path)).change(
        "locks/acquire", api.HeldLease, b"", **_words(lease)
    )
    click.echo(output.as_json(held) if as_json else str(held.token))


@command.command()
@click.argument("name")
@click.argument("token", type=click.IntRange(1))
@json_option
@agent_options
def release(*, as_json: bool, config_path: Path | None, socket_path: Path | None, **lease: Any) -> None:
    """Give the lease NAME with its TOKEN back."""
    done = ApiClient(control_socket(config_path, socket_path)).change(
        "locks/release", api.Changed, b"", **_words(lease)
    )
    click.echo(output.as_json(done) if as_json else done.message)


@command.command()
@click.argument("name")
@click.argument("source")
@click.argument("destination")
@click.argument("mbit_per_s", metavar="MBIT", type=click.FloatRange(0, min_open=True))
@_lifetime
@json_option
@agent_options
def reserve(
    *, mbit_per_s: float, as_json: bool, config_path: Path | None, socket_path: Path | None, **share: Any
) -> None:
    """Reserve MBIT megabits a second of the link from SOURCE to DESTINATION, as NAME; shows its token."""
    words = _words({**share, "bytes_per_s": max(1, round(mbit_per_s * 1e6 / 8))})
    held = ApiClient(control_socket(config_path, socket_path)).change("locks/reserve", api.HeldLease, b"", **words)
    click.echo(output.as_json(held) if as_json else str(held.token))


@command.command()
@click.argument("name")
@click.argument("token", type=click.IntRange(1))
@json_option
@agent_options
def unreserve(*, as_json: bool, config_path: Path | None, socket_path: Path | None, **share: Any) -> None:
    """Give the reservation NAME with its TOKEN back."""
    done = ApiClient(control_socket(config_path, socket_path)).change(
        "locks/unreserve", api.Changed, b"", **_words(share)
    )
    click.echo(output.as_json(done) if as_json else done.message)


def _words(query: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items()}


def render(found: api.Locks) -> str:
    """Lay them out as text."""
    leases = [
        (lease.name, lease.holder, str(lease.token), output.duration(lease.expires_at - found.now))
        for lease in found.leases
    ]
    links = [
        (
            held.name,
            held.source,
            held.destination,
            held.holder,
            format_rate(held.bytes_per_s),
            str(held.token),
            output.duration(held.expires_at - found.now),
        )
        for held in found.reservations
    ]
    parts = [output.format_table(LEASE_HEADER, leases)] if leases else []
    parts += [output.format_table(LINK_HEADER, links)] if links else []
    parts = parts or [" Nothing is held."]
    return "\n\n".join(parts if found.is_fresh else [*parts, STALE])
