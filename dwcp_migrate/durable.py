"""Atomic, durable replacement of files.

The rule: the new content is written to a file beside the old one, synced, and renamed over it; then the directory is
synced, because the directory holds the name.
"""

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Put a file in place of the old one, whole or not at all, on the disk when this returns.

    Args:
        path: of the file, in a directory that is there.
        data: all of it.
        mode: permissions, set before the file gets its name.
        sync: wait for the disk; off only where a power failure may lose the file without harm.

    Raises:
        OSError: it cannot be written; the old file is as it was, and nothing lies beside it.
    """
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            if sync:
                os.fsync(descriptor)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


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
