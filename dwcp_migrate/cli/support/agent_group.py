"""The group that the agent runs in: keys that root makes for it are readable by that group."""

import grp
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

AGENT_GROUP: Final = "dwcp-migrate"
"""As the packages and the role make it."""

Decorated = Callable[..., Any]


def group_option(command: Decorated) -> Decorated:
    """Add `--group NAME`."""
    return click.option(
        "--group",
        help=f"Group that may read the key: the agent's  [default: {AGENT_GROUP}, if it exists and you are root].",
    )(command)


def find_group(name: str | None) -> int | None:
    """Look the id of the group up that keys are for.

    Args:
        name: as the operator gave it; None for the agent's, where there is one that this user may give files to.

    Raises:
        click.BadParameter: there is no group of the given name.
    """
    try:
        if name is None:
            return grp.getgrnam(AGENT_GROUP).gr_gid if os.geteuid() == 0 else None
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        if name is None:
            return None
        raise click.BadParameter(f"there is no group {name}", param_hint="--group") from error


def describe_permissions(path: Path) -> str:
    """Say who may read a file, as `private, mode 0640, group dwcp-migrate`."""
    found = path.stat()
    mode = found.st_mode & 0o777
    words = f"private, mode {mode:04o}"
    if not mode & 0o070:
        return words
    try:
        return f"{words}, group {grp.getgrgid(found.st_gid).gr_name}"
    except KeyError:
        return f"{words}, group {found.st_gid}"


def warn_of_closed_directory(directory: Path, group: int | None) -> None:
    """Say on standard error what to do where a group cannot enter the directory of its key.

    Args:
        directory: of the key.
        group: id of the group; None for none.
    """
    found = directory.stat()
    if group is None or found.st_mode & 0o001 or (found.st_gid == group and found.st_mode & 0o010):
        return
    name = grp.getgrgid(group).gr_name
    click.echo(
        f"the agent cannot enter {directory}: chgrp {name} {directory} && chmod 0750 {directory}",
        err=True,
    )
