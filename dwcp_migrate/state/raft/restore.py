"""Restoring: begins a replica's directory with a backup, while no agent runs on it.

Every voter of the new cluster begins with the same snapshot: entry, term and voters follow from the backup and from the
list alone. Its entry and its term are far higher than any that the old cluster can have had, so that a host that still
has the old log, and was forgotten, takes the new record over instead of bringing the old one back.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from dwcp_migrate.durable import sync_directory, write_whole
from dwcp_migrate.errors import JournalError
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.backup import LEAP, FleetBackup, carry_on
from dwcp_migrate.state.raft import origin, snapshots
from dwcp_migrate.state.raft.messages import NO_OP, LogEntry

FLEET_DIRECTORY: Final = "fleet"
"""Of a fleet's replica, below the agent's state directory."""

TERM_LEAP: Final = 2**24
"""More elections than the old cluster can have held after the backup."""


def image_of(backup: FleetBackup, voters: Iterable[str]) -> snapshots.Image:
    """Make the snapshot that a new cluster begins with.

    Args:
        backup: of the old cluster.
        voters: names of the hosts with a vote in the new one.

    Raises:
        JournalError: the backup's state cannot be used.
    """
    fleet = carry_on(backup)
    entry, term = backup.entry + LEAP, backup.term + TERM_LEAP
    before, last = (LogEntry(index, term, NO_OP, b"") for index in (entry - 1, entry))
    return snapshots.Image(before, last, tuple(sorted(voters)), model.encode(fleet))


def restore_replica(directory: Path, backup: FleetBackup, voters: Iterable[str]) -> Path | None:
    """Replace a replica's directory by one that begins with a backup; whole or not at all.

    Args:
        directory: of the replica; what was there is kept beside it.
        backup: see there.
        voters: of the new cluster, the same on every host.

    Returns:
        Where the old directory is now; None if there was none.

    Raises:
        JournalError: the backup or the disk cannot be used.
    """
    voters = tuple(sorted(voters))
    data = snapshots.encode(image_of(backup, voters))
    fresh = directory.with_name(f"{directory.name}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        write_whole(fresh / "snapshot", data)
        write_whole(fresh / origin.FILE, msgspec.json.encode(voters))
        _give_to_owner(fresh)
        old = _put_aside(directory)
        fresh.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise JournalError(f"cannot restore {directory}: {error.strerror}") from error
    return old


def _give_to_owner(fresh: Path) -> None:
    """The agent may run as a user of its own, whoever restores."""
    owner = fresh.parent.stat()
    for path in (fresh, *fresh.iterdir()):
        if (path.stat().st_uid, path.stat().st_gid) != (owner.st_uid, owner.st_gid):
            os.chown(path, owner.st_uid, owner.st_gid)


def _put_aside(directory: Path) -> Path | None:
    if not directory.exists():
        return None
    number = 1
    while (old := directory.with_name(f"{directory.name}.before-import-{number}")).exists():
        number += 1
    directory.rename(old)
    return old
