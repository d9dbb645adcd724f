"""`dwcp-migrate cert`: a small fleet CA for those who have none."""

from pathlib import Path

import click

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option

DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("fleet-ca"),
    show_default=True,
    help="Where the authority lives: an administrator's machine, not a hypervisor.",
)
FORCE = click.option("--force", is_flag=True, help="Replace files that exist.")


@click.group()
def command() -> None:
    """Make a small fleet CA and issue host certificates.

    Each hypervisor gets ca.pem, its own NAME.pem (as host.pem) and NAME.key (as host.key) under /etc/dwcp-migrate/tls;
    ca.key stays where it was made.
    """


@command.command()
@DIRECTORY
@click.option("--days", type=click.IntRange(min=1), default=3650, show_default=True, help="Lifetime of the authority.")
@FORCE
@json_option
def init(*, directory: Path, days: int, force: bool, as_json: bool) -> None:
    """Make the authority: ca.pem and ca.key."""
    from dwcp_migrate.pki import create_authority

    _tell(create_authority(directory, days=days, force=force), as_json=as_json)


@command.command()
@click.argument("name")
@click.option("--address", "addresses", multiple=True, help="IP address to name beside NAME; may be repeated.")
@DIRECTORY
@click.option("--days", type=click.IntRange(min=1), default=397, show_default=True, help="Lifetime of the certificate.")
@FORCE
@json_option
def issue(*, name: str, addresses: tuple[str, ...], directory: Path, days: int, force: bool, as_json: bool) -> None:
    """Make a certificate for the host NAME: NAME.pem and NAME.key.

    NAME is the host's DNS name, as the other agents' configuration has it under [[peers]].
    """
    from dwcp_migrate import pki

    _tell(pki.issue(directory, name, addresses=addresses, days=days, force=force), as_json=as_json)


def _tell(paths: tuple[Path, Path], *, as_json: bool) -> None:
    if as_json:
        click.echo(output.as_json({"certificate": str(paths[0]), "key": str(paths[1])}))
    else:
        click.echo(f"{paths[0]}\n{paths[1]}  (private, mode 0600)")
