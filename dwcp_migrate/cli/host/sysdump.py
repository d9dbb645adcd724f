"""`dwcp-migrate sysdump`: one archive with everything that a fault report needs, and no secrets."""

import io
import os
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from dwcp_migrate import __version__
from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.answers import Archived
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import DwcpError

PROGRAM_S_MAX: Final = 20.0
PART_BYTES_MAX: Final = 32 * 1024 * 1024
"""A part that is longer is cut at its end, and says so."""

JOURNAL_LINES: Final = 20_000

PROGRAMS: Final = {
    "journal.txt": ("journalctl", "-u", "dwcp-migrate", "--no-pager", "-n", str(JOURNAL_LINES)),
    "unit.txt": ("systemctl", "show", "dwcp-migrate"),
    "ruleset.txt": ("nft", "list", "table", "ip", "dwcp_migrate"),
    "sockets.txt": ("ss", "--tcp", "--numeric", "--info", "--processes"),
    "libvirt.txt": ("virsh", "--version=long"),
}
"""Part of the archive, and the program whose output it is."""


@click.command()
@click.option(
    "-o", "--output", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the archive there."
)
@json_option
@agent_options
def command(*, path: Path | None, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Gather what a report of a fault wants: status, checks, history, configuration, journal, rules, sockets.

    Keys, certificates and guest memory are never part of it; names and addresses of hosts and domains are.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    target = path or Path(f"dwcp-migrate-{platform.node()}-{moment}.tar.gz")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in parts(config_path, socket_path):
            info = tarfile.TarInfo(f"dwcp-migrate-sysdump/{name}")
            info.size, info.mtime, info.mode = len(content), int(time.time()), 0o600
            tar.addfile(info, io.BytesIO(content))
    click.echo(output.as_json(Archived(archive=str(target))) if as_json else str(target))


def parts(config_path: Path | None, socket_path: Path | None) -> Iterator[tuple[str, bytes]]:
    """Gather the parts of a dump; one that cannot be had holds the reason.

    Args:
        config_path: of the configuration; None is the default one.
        socket_path: of the agent; None takes the configuration's.

    Yields:
        File name in the archive, and content.
    """
    yield (
        "version.txt",
        f"dwcp-migrate {__version__}\n{platform.platform()}\nPython {platform.python_version()}\n".encode(),
    )
    client = ApiClient(control_socket(config_path, socket_path))
    asked: dict[str, Callable[[], object]] = {
        "status.json": client.status,
        "doctor.json": client.facts,
        "migrations.json": client.migrations,
        "history.json": lambda: client.history(schema.HISTORY_LIMIT_MAX),
    }
    for name, ask in asked.items():
        yield name, _cut(_asked(ask))
    yield "agent.toml", _cut(_configuration(config_path))
    for name, program in PROGRAMS.items():
        yield name, _cut(_printed(program))


def _asked(ask: Callable[[], object]) -> bytes:
    try:
        return msgspec.json.format(msgspec.json.encode(ask()), indent=2)
    except DwcpError as error:
        return f"not to be had: {error}\n".encode()


def _configuration(config_path: Path | None) -> bytes:
    """The configuration as the agent reads it: it names files of secrets and holds none itself."""
    from dwcp_migrate.config import DEFAULT_PATH

    try:
        return (config_path or DEFAULT_PATH).read_bytes()
    except OSError as error:
        return f"not to be had: {error}\n".encode()


def _printed(program: tuple[str, ...]) -> bytes:
    try:
        done = subprocess.run(program, capture_output=True, check=False, timeout=PROGRAM_S_MAX)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not to be had: {error}\n".encode()
    return done.stdout + done.stderr


def _cut(content: bytes) -> bytes:
    return content if len(content) <= PART_BYTES_MAX else content[:PART_BYTES_MAX] + b"\n[cut]\n"
