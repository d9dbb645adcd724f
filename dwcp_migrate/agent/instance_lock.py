"""Locks on an agent's directories, so that only one agent uses them.

A second agent would replace the first one's sockets and write into its journals, so it is refused before it touches
anything. The kernel drops the locks when the process ends, however it ends. Where no lock file can be made, as on a
disk that is full or read-only, the agent runs without it.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.logs import get_logger

NAME: Final = "agent.lock"
_PID_BYTES_MAX: Final = 32

log = get_logger(component="agent")


class InstanceLock:
    """Holds directories for this process until it is closed.

    Args:
        directories: to hold; made where they are missing.

    Raises:
        HypervisorError: another agent has one of them.
    """

    def __init__(self, directories: Iterable[Path]) -> None:
        self._held: list[int] = []
        try:
            for directory in directories:
                self._hold(directory)
        except BaseException:
            self.close()
            raise

    def _hold(self, directory: Path) -> None:
        path = directory / NAME
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("a second agent would not be noticed", path=str(path), error=error.strerror)
            return
        self._held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                log.warning("a second agent would not be noticed", path=str(path), error=error.strerror)
                return
            who = os.read(descriptor, _PID_BYTES_MAX).decode(errors="replace").strip()
            raise HypervisorError(
                f"another agent has {directory}: process {who or 'unknown'}",
                hint="stop that one, or give this one a runtime_directory and a state_directory of its own",
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let them go."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()
