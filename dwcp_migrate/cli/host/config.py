"""`dwcp-migrate config`: check the configuration file, show what is in force, and what a reload would change."""

import sys
import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from dwcp_migrate.cli.host.check import EXIT_FAILED, Check, render_check, worst
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import ChangedRow, FileChecked, FileDifferences, KeyFaultRow
from dwcp_migrate.cli.support.options import PATH, agent_options, json_option
from dwcp_migrate.config import DEFAULT_PATH, Config, load, parse
from dwcp_migrate.config.compare import as_builtins, find_differences, keeping_listeners
from dwcp_migrate.errors import AgentUnreachableError, ConfigError, ConfigFault

FILE = click.argument("file", type=PATH, default=DEFAULT_PATH, required=False)

STANDARD_INPUT: Final = "-"


@click.group()
def command() -> None:
    """Check or show the configuration."""


@command.command()
@click.argument("files", metavar="[FILE]...", type=PATH, nargs=-1)
@click.option("--deep", is_flag=True, help="Try the files, names, ports and peers that it leads to as well.")
@json_option
def check(*, files: tuple[Path, ...], deep: bool, as_json: bool) -> int:
    """Read each FILE (`-` is standard input) as the agent would; exit 2 and say all that is wrong with it.

    Each fault has its line, its key and what to do. Without --deep it opens no other file and no connection; with it
    exit 1 says that something of those is wrong.
    """
    code = 0
    for file in files or (DEFAULT_PATH,):
        try:
            config = _read(file)
        except ConfigError as error:
            code = error.exit_code
            _tell_refusal(file, error, as_json=as_json)
            continue
        checks = _deep(config) if deep else []
        failed = worst(checks) == "fail"
        code = code or (EXIT_FAILED if failed else 0)
        if as_json:
            click.echo(
                output.as_json(FileChecked(file=str(file), ok=not failed, peers=len(config.peers), checks=checks))
            )
            continue
        peers = output.counted(len(config.peers), "peer", "peers")
        click.echo("\n".join([*map(render_check, checks), f"{file}: ok, {peers}"]))
    return code


def _deep(config: Config) -> list[Check]:
    from dwcp_migrate.api.client import ApiClient
    from dwcp_migrate.cli.host.deep.files import judge_files
    from dwcp_migrate.cli.host.deep.network import judge_network

    try:
        runs = bool(ApiClient(config.control_socket).status().pid)
    except AgentUnreachableError:
        runs = False
    return [*judge_files(config, time.time()), *judge_network(config, agent_runs=runs)]


def _read(file: Path) -> Config:
    return parse(sys.stdin.read(), "standard input") if str(file) == STANDARD_INPUT else load(file)


def _tell_refusal(file: Path, error: ConfigError, *, as_json: bool) -> None:
    if not as_json:
        click.echo(f"error: {error}", err=True)
        click.echo(f"hint: {error.hint}", err=True)
        return
    faults = [_fault(fault) for fault in error.faults]
    click.echo(output.as_json(FileChecked(file=str(file), ok=False, error=str(error), hint=error.hint, faults=faults)))


def _fault(fault: ConfigFault) -> KeyFaultRow:
    value = "" if fault.value is None else str(fault.value)
    return KeyFaultRow(key=fault.key, value=value, why=fault.why, hint=fault.hint, line=fault.line)


@command.command()
@FILE
@click.option("--defaults", is_flag=True, help="Show the defaults, reading no file.")
@json_option
def show(*, file: Path, defaults: bool, as_json: bool) -> None:
    """Show every key with the value in force, defaults included, as TOML that `config check` takes."""
    config = Config() if defaults else load(file)
    click.echo(output.as_json(as_builtins(config)) if as_json else as_toml(as_builtins(config)), nl=as_json)


@command.command()
@json_option
@agent_options
def diff(*, as_json: bool, config_path: Path | None, socket_path: Path | None) -> int:
    """Compare what the agent runs with the file; exit 1 where they differ.

    Each key that differs is shown with both values and whether a reload is enough or a restart is needed.
    """
    from dwcp_migrate.api.client import ApiClient, control_socket

    file = load(config_path or DEFAULT_PATH)
    view = ApiClient(control_socket(config_path, socket_path)).running_config()
    running = in_force(view.values)
    after_reload = {changed.key for changed in find_differences(running, keeping_listeners(file, running))}
    rows = [
        ChangedRow(changed.key, changed.before, changed.after, "reload" if changed.key in after_reload else "restart")
        for changed in find_differences(running, file)
    ]
    if as_json:
        click.echo(output.as_json(FileDifferences(file=view.status.path, read_at=view.status.read_at, changes=rows)))
    elif rows:
        cells = [(row.key, *map(output.as_cell, (row.running, row.file)), row.takes) for row in rows]
        click.echo(output.format_table(("Key", "Running", "File", "Takes a"), cells))
    else:
        click.echo("the agent runs what the file says")
    return 1 if rows else 0


def in_force(values: dict[str, Any]) -> Config:
    """Read the configuration that an agent says it runs.

    Raises:
        ConfigError: it is one of another release.
    """
    try:
        return msgspec.convert(values, Config, dec_hook=lambda kind, raw: kind(raw))
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the agent runs another release, whose configuration is not this one's: {error}",
            hint="after an upgrade: systemctl restart dwcp-migrate",
        ) from error


def as_toml(values: dict[str, Any]) -> str:
    """Write a configuration as TOML that `config.parse` reads back to the same values."""
    import tomli_w

    return tomli_w.dumps(values)
