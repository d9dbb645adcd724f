"""`dwcp-migrate cluster export` and `import`: the fleet's record into a file, and a new cluster out of it."""

import os
from pathlib import Path

import click
import msgspec

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.fleet.repairs import yes_option
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, config_option, json_option
from dwcp_migrate.config import DEFAULT_PATH, Config, load
from dwcp_migrate.durable import sync_directory
from dwcp_migrate.errors import ConfigError, JournalError
from dwcp_migrate.state.fleet.backup import BACKUP_BYTES_MAX, FleetBackup, decode_backup, encode_backup, state_of


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a backup, for `--json`."""

    file: str
    host: str
    at: float
    entry: int
    is_confirmed: bool
    hosts: int
    domains: int
    open_tickets: int
    leases: int
    rules: int


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """Begin of a restored directory, for `--json`."""

    directory: str
    old_directory: str
    voters: list[str]
    backup: Exported


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@agent_options
def export(*, file: Path, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Write the fleet's record to FILE; also without a majority, as this host knows it."""
    backup = ApiClient(control_socket(config_path, socket_path)).ask("export", FleetBackup)
    _write(file, encode_backup(backup))
    found = _summary(file, backup)
    click.echo(output.as_json(found) if as_json else f"{file}: {_words(found)}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@yes_option
@json_option
@config_option
def import_(*, file: Path, yes: bool, as_json: bool, config_path: Path | None) -> None:
    """Let this voter begin a new cluster with FILE, on each voter before the first agent starts.

    For a fleet that lost a majority of its voters for good. The voters are those of `coordination.voters`, and this
    host's agent must be stopped. What was here is kept beside it.
    """
    from dwcp_migrate.agent.instance_lock import InstanceLock
    from dwcp_migrate.state.raft.restore import FLEET_DIRECTORY, restore_replica

    config = load(config_path or DEFAULT_PATH)
    voters = _voters(config)
    backup = decode_backup(_read(file))
    found = _summary(file, backup)
    if not yes:
        click.echo(f"{file}: {_words(found)}", err=True)
        click.echo(f"Voters of the new cluster: {', '.join(voters)}", err=True)
        click.confirm(
            "Are the agents of all voters stopped, and is the old majority gone for good?", abort=True, err=True
        )
    lock = InstanceLock([Path(config.state_directory)])
    try:
        directory = Path(config.state_directory) / FLEET_DIRECTORY
        old = restore_replica(directory, backup, voters)
    finally:
        lock.close()
    done = Imported(directory=str(directory), old_directory=str(old or ""), voters=voters, backup=found)
    click.echo(output.as_json(done) if as_json else _said(done))


def _said(done: Imported) -> str:
    kept = f" What was there is in {done.old_directory}." if done.old_directory else ""
    rest = f"Do the same on each of {', '.join(done.voters)}, then start the agents."
    return f"{done.directory} begins with the backup.{kept} {rest}"


def _voters(config: Config) -> list[str]:
    coordination = config.coordination
    if coordination.engine == "etcd":
        raise ConfigError("etcd keeps this fleet's record", hint="restore etcd: etcdutl snapshot restore")
    voters = sorted(coordination.voters)
    if not voters:
        raise ConfigError(
            "coordination.voters is empty", hint="name the voters of the new cluster, on every host alike"
        )
    if config.name and config.name not in voters:
        raise ConfigError(
            f"{config.name} has no vote in the new cluster: {', '.join(voters)}",
            hint="import on the voters; where the list of voters changed, empty `fleet` of this host's state directory",
        )
    return voters


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(BACKUP_BYTES_MAX + 1)
    except OSError as error:
        raise JournalError(f"cannot read {file}: {error.strerror}") from error
    if len(data) > BACKUP_BYTES_MAX:
        raise JournalError(f"{file} is larger than any backup")
    return data


def _write(file: Path, data: bytes) -> None:
    """Write a file that is not there yet, for its owner only, on the disk on return."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(descriptor)
        sync_directory(file.parent)
    except FileExistsError as error:
        raise ConfigError(f"{file} exists", hint="name another file; backups are not replaced") from error
    except OSError as error:
        raise JournalError(f"cannot write {file}: {error.strerror}") from error


def _summary(file: Path, backup: FleetBackup) -> Exported:
    fleet = state_of(backup)
    return Exported(
        file=str(file),
        host=backup.host,
        at=backup.at,
        entry=backup.entry,
        is_confirmed=backup.is_confirmed,
        hosts=len(fleet.hosts),
        domains=len(fleet.domains),
        open_tickets=len(fleet.open_tickets),
        leases=len(fleet.leases),
        rules=len(fleet.rules),
    )


def _words(found: Exported) -> str:
    doubt = "" if found.is_confirmed else ", NOT CONFIRMED by a majority"
    when = output.moment(found.at)
    return (
        f"the record up to entry {found.entry} as {found.host} had it at {when}{doubt}: {found.hosts} hosts, "
        f"{found.domains} domains, {found.open_tickets} open tickets, {found.leases} leases, {found.rules} rules"
    )
