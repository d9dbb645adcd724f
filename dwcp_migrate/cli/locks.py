"""`dwcp-migrate locks`: leases and shares of links that are held now."""

from pathlib import Path

import click

from dwcp_migrate.agent import cluster_views as api
from dwcp_migrate.cli import output
from dwcp_migrate.cli.client import Client, control_socket
from dwcp_migrate.cli.options import agent_options, json_option
from dwcp_migrate.cli.tickets import STALE
from dwcp_migrate.units import format_rate

LEASE_HEADER = ("Lease", "Holder", "Token", "Ends in")
LINK_HEADER = ("Reservation", "From", "To", "Holder", "Rate", "Token", "Ends in")


@click.command()
@json_option
@agent_options
def command(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """List leases and reserved shares of links."""
    found = Client(control_socket(config_path, socket_path)).ask("locks", api.Locks)
    click.echo(output.as_json(found) if as_json else render(found))


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
    parts = [output.table(LEASE_HEADER, leases)] if leases else []
    parts += [output.table(LINK_HEADER, links)] if links else []
    parts = parts or [" Nothing is held."]
    return "\n\n".join(parts if found.is_fresh else [*parts, STALE])
