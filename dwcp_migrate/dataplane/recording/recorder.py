"""Recordings of raw streams for `dwcp-migrate replay`: one file a connection, off unless asked for.

A recording is the guest's memory: files are made new, mode 0600, never through a link. A failed write ends the
recording and never the migration.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from dwcp_migrate.protocol.worker import Happened


class Recorder:
    """Writes the bytes that each connection of one migration sends.

    Args:
        directory: made if it is missing, mode 0700.
        prefix: first part of the files' names; the connection's number follows, main channel first.
        bytes_max: of all files together.
        report: told when the limit or an error ended the recording.
    """

    def __init__(self, directory: Path, prefix: str, bytes_max: int, report: Callable[[Happened], None]) -> None:
        self._directory = directory
        self._prefix = prefix
        self._report = report
        self._left_bytes = bytes_max
        self._stopped = False
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()

    def connection(self, number: int) -> Callable[[memoryview], None]:
        """Make the sink of one connection's bytes."""
        return lambda data: self._write(number, data)

    def _write(self, number: int, data: memoryview) -> None:
        with self._lock:
            if self._stopped:
                return
            if len(data) > self._left_bytes:
                self._stop("its limit is reached")
                return
            try:
                self._append(self._file(number), data)
            except OSError as error:
                self._stop(str(error))
                return
            self._left_bytes -= len(data)

    def _file(self, number: int) -> int:
        if number not in self._files:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"{self._prefix}-{number:03d}.stream"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._files[number] = os.open(path, flags, 0o600)
        return self._files[number]

    @staticmethod
    def _append(file: int, data: memoryview) -> None:
        rest = data
        while rest:
            rest = rest[os.write(file, rest) :]

    def _stop(self, why: str) -> None:
        self._stopped = True
        self._report(Happened(event="record-full", detail=why))
        self._close_files()

    def _close_files(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def close(self) -> None:
        """End the recording."""
        with self._lock:
            self._stopped = True
            self._close_files()
