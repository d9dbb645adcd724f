"""Atomic, durable replacement of files.

The rule: the new content is written to a file beside the old one, synced, and renamed over it; then the directory is
synced, because the directory holds the name.
"""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int = 0o600, group: int | None = None, sync: bool = True) -> None:
    """Put a file in place of the old one, whole or not at all, on the disk when this returns.

    Args:
        path: of the file, in a directory that is there.
        data: all of it.
        mode: permissions, set before the file gets its name.
        group: id of the group that it gets, likewise; None leaves it the writer's.
        sync: wait for the disk; off only where a power failure may lose the file without harm.

    Raises:
        OSError: it cannot be written; the old file is as it was, and nothing lies beside it.
    """
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if group is not None:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, mode)
            if sync:
                os.fsync(descriptor)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def make_directory(path: Path, *, mode: int, group: int | None = None) -> None:
    """Make a directory and what is missing above it, all of them with this mode whatever the umask says.

    Args:
        path: of the directory; one that is there is left as it is.
        mode: permissions.
        group: id of the group that they get; None leaves it the maker's.

    Raises:
        OSError: it cannot be made.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        if group is not None:
            os.chown(one, -1, group)
        one.chmod(mode)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: files that were made, renamed or removed there.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
