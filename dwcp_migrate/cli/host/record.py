"""`dwcp-migrate record`: arm the agent to record the next migration's raw streams, for `dwcp-migrate replay`.

The rule: a recording holds the guest's memory. It is off unless an operator asks for it, ends with the one migration
that it was asked for, and its files have mode 0600 in a directory that the operator names.
"""

from pathlib import Path

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option


@click.command()
@click.argument("domain", required=False, default="")
@click.option("--next", "any_domain", is_flag=True, help="Record the next migration, whichever domain it is of.")
@click.option("--cancel", is_flag=True, help="Disarm: record nothing after all.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the files go; it must exist.")
@json_option
@agent_options
def command(  # noqa: PLR0913 - one parameter an option, as click calls it
    *,
    domain: str,
    any_domain: bool,
    cancel: bool,
    directory: Path | None,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """Record the next migration of DOMAIN (or, with --next, of any) from this host.

    The files hold the guest's memory: they are readable to root alone, and yours to delete.
    """
    query = {} if cancel else request(domain, directory, any_domain=any_domain)
    done = ApiClient(control_socket(config_path, socket_path)).post("record", **query)
    click.echo(output.as_json(done) if as_json else done.message)


def request(domain: str, directory: Path | None, *, any_domain: bool) -> dict[str, str]:
    """Build the query of `POST /v1/record`.

    Args:
        domain: whose next migration is recorded; empty with `any_domain`.
        directory: where; None where the option is missing.
        any_domain: the next migration of any domain is recorded.

    Raises:
        click.UsageError: neither or both of DOMAIN and --next, or no directory.
    """
    if bool(domain) == any_domain:
        raise click.UsageError("name a DOMAIN or give --next")
    if directory is None:
        raise click.UsageError("--directory is missing: recordings hold guest memory, say where they go")
    return {"domain": domain, "directory": str(directory.absolute())}
