"""`dwcp-migrate bench`: the old spelling of `python -m bench`; it goes with the next release."""

from importlib import import_module
from importlib.util import find_spec

import click

from dwcp_migrate.errors import NotFoundError


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run `python -m bench ARGUMENTS` in the checkout that this is installed from (deprecated).

    Raises:
        NotFoundError: this is no checkout, or no such suite.
    """
    if find_spec("bench") is None:
        raise NotFoundError("benchmarks are no part of the installed package", hint="run `make bench` in a checkout")
    click.echo("`dwcp-migrate bench` is deprecated: use `python -m bench` in the checkout", err=True)
    suites: click.Command = import_module("bench.__main__").command
    suites.main(list(arguments), prog_name="python -m bench", standalone_mode=False)
