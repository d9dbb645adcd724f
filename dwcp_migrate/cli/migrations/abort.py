"""`dwcp-migrate abort`: ends a migration that leaves this host; its guest runs on here."""

from pathlib import Path

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import CommandDone
from dwcp_migrate.cli.support.completion import complete_migrations
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import NotFoundError


@click.command()
@click.argument("migration", shell_complete=complete_migrations)
@json_option
@agent_options
def command(*, migration: str, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """End MIGRATION (the start of its id, a domain or a UUID), as `virsh domjobabort` does.

    The guest runs on at its source. In postcopy it cannot be ended: part of the guest is at the destination.
    """
    from dwcp_migrate.hypervisor.inventory.hypervisors import GuestId
    from dwcp_migrate.hypervisor.inventory.libvirt_hypervisors import LibvirtHypervisors

    client = ApiClient(control_socket(config_path, socket_path))
    status = client.status()
    found = running(status.migrations, migration)
    LibvirtHypervisors().abort(status.libvirt.uri, GuestId(uuid=found.uuid, name=found.domain))
    words = f"{found.domain}: its migration to {found.peer} is being ended; it runs on here"
    click.echo(output.as_json(CommandDone(message=words)) if as_json else words)


def running(migrations: list[schema.Migration], wanted: str) -> schema.Migration:
    """Find the migration to end.

    Args:
        migrations: that run on this host.
        wanted: domain, UUID or the start of an id.

    Raises:
        NotFoundError: no or several migrations that leave this host fit, the domain is not known yet, or it is in
            postcopy.
    """
    found = [one for one in migrations if wanted in {one.domain, one.uuid} or one.id.startswith(wanted)]
    here = [one for one in found if one.role == "source" and one.kind == "memory"]
    if not here:
        elsewhere = next(iter(found), None)
        hint = f"end it at its source: {elsewhere.peer}" if elsewhere else "`dwcp-migrate status` lists what runs"
        raise NotFoundError(f"no migration {wanted} leaves this host", hint=hint)
    (one, *others) = here
    if others:
        raise NotFoundError(f"{len(here)} migrations are called {wanted}", hint="give more of the id")
    if not one.uuid:
        raise NotFoundError(f"{one.id[:8]}: its domain is not known yet", hint="`virsh domjobabort DOMAIN` ends it")
    if one.state == "postcopy":
        raise NotFoundError(
            f"{one.domain} is in postcopy: part of it is at the destination", hint="let it end, or recover it there"
        )
    return one
