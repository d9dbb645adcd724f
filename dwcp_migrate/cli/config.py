"""`dwcp-migrate config`: check the configuration file, show what is in force."""

from pathlib import Path
from typing import Any

import click
import msgspec

from dwcp_migrate.cli import output
from dwcp_migrate.cli.options import json_option
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
    scalars = [f"{key} = {_scalar(value)}" for key, value in values.items() if not _nested(value)]
    tables = [
        f"[{key}]\n" + "".join(f"{inner} = {_scalar(one)}\n" for inner, one in value.items())
        for key, value in values.items()
        if isinstance(value, dict)
    ]
    arrays = [
        f"[[{key}]]\n" + "".join(f"{inner} = {_scalar(one)}\n" for inner, one in entry.items())
        for key, value in values.items()
        if isinstance(value, list)
        for entry in value
    ]
    return "\n".join(["\n".join(scalars) + "\n", *tables, *arrays])


def _nested(value: object) -> bool:
    """Tell whether the value is a table or an array of tables (the only lists at the top are of peers)."""
    return isinstance(value, dict | list)


def _scalar(value: object) -> str:
    """Write one value; JSON's strings, numbers and booleans are TOML's too."""
    return msgspec.json.encode(value).decode()
