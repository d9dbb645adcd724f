"""`dwcp-migrate cert`: a small fleet CA for those who have none."""

from pathlib import Path

import click

from dwcp_migrate.cli.support import answers, output
from dwcp_migrate.cli.support.agent_group import (
    describe_permissions,
    find_group,
    group_option,
    warn_of_closed_directory,
)
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


@command.command()
@click.argument("name")
@DIRECTORY
@click.option("--days", type=click.IntRange(min=1), default=397, show_default=True, help="Lifetime of the certificate.")
@click.option("--force", is_flag=True, help="Renew also one that is not due.")
@json_option
def renew(*, name: str, directory: Path, days: int, force: bool, as_json: bool) -> None:
    """Issue NAME's certificate anew, with a new key, if less than a third of its life is left."""
    from dwcp_migrate import pki

    paths = pki.renew(directory, name, days=days, force=force)
    if paths is None:
        click.echo(output.as_json(answers.CertificateFiles(renewed=False)) if as_json else f"{name}: not due")
        return
    _tell(paths, as_json=as_json)


@command.command()
@click.argument("name")
@click.option("--address", "addresses", multiple=True, help="IP address to ask for beside NAME; may be repeated.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("/etc/dwcp-migrate/tls"),
    show_default=True,
    help="Where key and request lie on this host.",
)
@click.option("--force", is_flag=True, help="Make a new key where one exists.")
@group_option
@json_option
def csr(
    *, name: str, addresses: tuple[str, ...], directory: Path, force: bool, group: str | None, as_json: bool
) -> None:
    """Make this host's key and a request for its certificate: NAME.key and NAME.csr.

    The key never leaves the host; `cert sign` where the authority lives turns the request into a certificate.
    """
    from dwcp_migrate import pki

    readers = find_group(group)
    request, key = pki.request(directory, name, addresses=addresses, force=force, group=readers)
    warn_of_closed_directory(directory, readers)
    if as_json:
        click.echo(output.as_json(answers.SigningRequest(request=str(request), key=str(key))))
    else:
        click.echo(f"{request}\n{key}  ({describe_permissions(key)})")


@command.command()
@click.argument("name")
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False, readable=False))
@DIRECTORY
@click.option("--days", type=click.IntRange(min=1), default=397, show_default=True, help="Lifetime of the certificate.")
@FORCE
@json_option
def sign(*, name: str, request: Path, directory: Path, days: int, force: bool, as_json: bool) -> None:
    """Sign the REQUEST of the host NAME: NAME.pem. A request for another name is refused."""
    from dwcp_migrate import pki

    path = pki.sign(directory, request, name=name, days=days, force=force)
    click.echo(output.as_json(answers.CertificateFiles(certificate=str(path))) if as_json else str(path))


@command.command()
@click.argument(
    "file",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    default=Path("/etc/dwcp-migrate/tls/host.pem"),
)
@json_option
def show(*, file: Path, as_json: bool) -> None:
    """Show the certificate FILE: names, life, and whether it is due for renewal."""
    import datetime as dt

    from dwcp_migrate import pki

    facts = pki.read_certificate(file)
    if as_json:
        click.echo(output.as_json(facts))
        return
    end = dt.datetime.fromtimestamp(facts.not_after, dt.UTC)
    days = (end - dt.datetime.now(dt.UTC)).days
    click.echo(
        output.format_block(
            [
                ("Subject", facts.subject),
                ("Names", ", ".join(facts.names)),
                ("Valid until", f"{end:%Y-%m-%d %H:%M} UTC, {days} days"),
                ("Renewal", "due: less than a third of its life is left" if facts.is_due else "not due"),
            ]
        )
    )


def _tell(paths: tuple[Path, Path], *, as_json: bool) -> None:
    if as_json:
        click.echo(output.as_json(answers.CertificateFiles(certificate=str(paths[0]), key=str(paths[1]))))
    else:
        click.echo(f"{paths[0]}\n{paths[1]}  (private, mode 0600)")
