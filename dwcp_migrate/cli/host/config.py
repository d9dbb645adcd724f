"""`dwcp-migrate config`: check the configuration file, show what is in force."""

from pathlib import Path
from typing import Any

import click
import msgspec

from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import json_option
from dwcp_migrate.config import DEFAULT_PATH, Config, load

FILE = click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_PATH, required=False)


@click.group()
def command() -> None:
    """Check or show the configuration."""


@command.command()
@FILE
@json_option
def check(*, file: Path, as_json: bool) -> None:
    """Read FILE as the agent would; exit 2 and name the key if something is wrong with it.

    It opens no other file: certificates and addresses are `doctor`'s matter.
    """
    config = load(file)
    if as_json:
        click.echo(output.as_json({"file": str(file), "ok": True, "peers": len(config.peers)}))
    else:
        click.echo(f"{file}: ok, {output.counted(len(config.peers), 'peer', 'peers')}")


@command.command()
@FILE
@click.option("--defaults", is_flag=True, help="Show the defaults, reading no file.")
@json_option
def show(*, file: Path, defaults: bool, as_json: bool) -> None:
    """Show every key with the value in force, defaults included, as TOML."""
    config = Config() if defaults else load(file)
    click.echo(output.as_json(plain(config)) if as_json else as_toml(plain(config)), nl=as_json)


def plain(config: Config) -> dict[str, Any]:
    """Turn a configuration into dicts, lists and scalars."""
    found: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    return found


def as_toml(values: dict[str, Any]) -> str:
    """Write a configuration as TOML that `config.parse` reads back to the same values."""
    import tomli_w

    return tomli_w.dumps(values)
