"""Ended migrations on disk: JSON lines, newest last, two files of bounded size.

The rule: the history never stops a migration. A line that cannot be written is counted and reported in `error`; a line
that cannot be read (a crash cut it) is left out.

    history.jsonl     written to
    history.1.jsonl   the one before it; replaced when the current one is full
"""

import os
from collections import deque
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.units import MIB

FILE_BYTES_MAX: Final = 16 * MIB
"""A record with its events and its course takes about 8 KiB, so two files keep some 4000 migrations."""

RECENT_MAX: Final = 1000
"""Records held in memory for the control API."""


class MigrationHistory:
    """The history in a directory.

    Args:
        directory: made if it is missing.
        file_bytes_max: where a file is full.
        disk: writes it; None: `append` does.
    """

    def __init__(self, directory: Path, file_bytes_max: int = FILE_BYTES_MAX, disk: DiskThread | None = None) -> None:
        self._disk = disk
        self._current = directory / "history.jsonl"
        self._previous = directory / "history.1.jsonl"
        self._file_bytes_max = file_bytes_max
        self._recent: deque[Migration] = deque(maxlen=RECENT_MAX)
        self.error = ""
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            self.error = f"{directory}: {error.strerror}"
        for path in (self._previous, self._current):
            self._recent.extend(self._read(path))

    def recent(self) -> list[Migration]:
        """Ended migrations, newest first."""
        return list(reversed(self._recent))

    def append(self, record: Migration) -> None:
        """Add an ended migration."""
        self._recent.append(record)
        line = msgspec.json.encode(record) + b"\n"
        if self._disk is None:
            self._write(line)
        else:
            self._disk.begin(partial(self._write, line))

    def _write(self, line: bytes) -> None:
        try:
            if self._current.exists() and self._current.stat().st_size + len(line) > self._file_bytes_max:
                self._current.replace(self._previous)
            with self._current.open("ab+") as file:
                file.write(line if _begins_a_line(file) else b"\n" + line)
        except OSError as error:
            self.error = f"{self._current}: {error.strerror}"
        else:
            self.error = ""

    def _read(self, path: Path) -> list[Migration]:
        decoder = msgspec.json.Decoder(Migration)
        found: deque[Migration] = deque(maxlen=RECENT_MAX)
        try:
            with path.open("rb") as file:
                for line in file:
                    try:
                        found.append(decoder.decode(line))
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        continue
        except FileNotFoundError:
            pass
        except OSError as error:
            self.error = f"{path}: {error.strerror}"
        return list(found)


def _begins_a_line(file: BinaryIO) -> bool:
    """Whether what is appended begins a line of its own: a full disk or a crash may have cut the last one."""
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
