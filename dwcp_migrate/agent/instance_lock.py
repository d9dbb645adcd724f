"""The locks by which one agent has its directories to itself.

A second agent would take the first one's sockets away and write into its journals. It is refused before it touches
anything. The kernel drops the locks when the process ends, however it ends.
"""

import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dwcp_migrate.errors import HypervisorError

NAME: Final = "agent.lock"
_PID_BYTES_MAX: Final = 32


class InstanceLock:
    """Holds directories for this process until it is closed.

    Args:
        directories: to hold; made where they are missing.

    Raises:
        HypervisorError: another agent has one of them, or it cannot be written to.
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
            raise HypervisorError(
                f"{path}: {error.strerror}", hint="the agent's user has to own runtime_directory and state_directory"
            ) from error
        self._held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise HypervisorError(f"{path}: {error.strerror}") from error
            who = os.read(descriptor, _PID_BYTES_MAX).decode(errors="replace").strip()
            raise HypervisorError(
                f"another agent has {directory}: process {who or 'unknown'}",
                hint="stop that one, or give this one a runtime_directory and a state_directory of its own",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let them go."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()
