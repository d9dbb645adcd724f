"""The series on disk: one file of fixed size for each, written now and then (shell).

The rule: measuring never waits for the disk and never fails because of it. Samples are kept in memory until `flush`; an
error is noted in `error` and the samples are dropped. At most `SERIES_MAX` files: the one longest unchanged makes room.
"""

from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np

from dwcp_migrate.bandwidth.forecasting.resampling import STEP_S
from dwcp_migrate.bandwidth.storage import series
from dwcp_migrate.bandwidth.storage.series import CAPACITY, FILE_BYTES, HEADER_BYTES, Key, Ring
from dwcp_migrate.bandwidth.targets import Floats

SERIES_MAX: Final = 1024
"""64 MiB in all."""

PENDING_MAX: Final = CAPACITY
"""Samples of one series between two flushes: more would overwrite themselves."""

_SUFFIX: Final = ".series"


class Store:
    """All series of a host.

    Args:
        directory: made if it is missing.
        series_max: files at most.
        step_s: seconds from one sample to the next.
    """

    def __init__(self, directory: Path, series_max: int = SERIES_MAX, step_s: float = STEP_S) -> None:
        self._directory = directory
        self._series_max = series_max
        self._step_s = step_s
        self._taken: dict[Key, int] = {}
        self._pending: dict[Key, list[float]] = {}
        self._last_at: dict[Key, float] = {}
        self.error = ""

    def add(self, key: Key, value: float, now: float) -> None:
        """Take one sample.

        Args:
            key: of the series.
            value: in its unit.
            now: seconds since the epoch.
        """
        pending = self._pending.setdefault(key, [])
        if len(pending) < PENDING_MAX:
            pending.append(value)
            self._last_at[key] = now

    def flush(self) -> None:
        """Write the pending samples."""
        pending, self._pending = self._pending, {}
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            for key, values in pending.items():
                self._write(key, np.array(values))
            self._make_room()
        except OSError as error:
            self.error = f"{self._directory}: {error.strerror}"
        else:
            self.error = ""

    def _write(self, key: Key, values: Floats) -> None:
        path = self._path(key)
        if key not in self._taken:
            known = read_file(path)
            self._taken[key] = known.taken if known is not None else 0
            if known is None:
                with path.open("wb") as file:
                    file.truncate(FILE_BYTES)  # unwritten samples take no room
        taken = self._taken[key]
        with path.open("r+b") as file:
            at = taken % CAPACITY
            head = values[: CAPACITY - at]
            file.seek(HEADER_BYTES + 4 * at)
            file.write(series.body(head))
            if len(head) < len(values):
                file.seek(HEADER_BYTES)
                file.write(series.body(values[len(head) :]))
            taken += len(values)
            file.seek(0)
            file.write(series.header(key, step_s=self._step_s, last_at=self._last_at[key], taken=taken))
        self._taken[key] = taken

    def _path(self, key: Key) -> Path:
        return self._directory / (quote(key.text, safe="") + _SUFFIX)

    def _make_room(self) -> None:
        paths = list(self._directory.glob(f"*{_SUFFIX}"))
        if len(paths) <= self._series_max:
            return
        oldest = sorted(paths, key=lambda path: path.stat().st_mtime)[: len(paths) - self._series_max]
        for path in oldest:
            path.unlink(missing_ok=True)
        self._taken = {key: taken for key, taken in self._taken.items() if self._path(key) not in oldest}

    def tail(self, key: Key, count: int) -> Floats:
        """Read the newest samples of a series on disk.

        Args:
            key: of the series.
            count: samples at most, above 0.

        Returns:
            Oldest first; none where there is no such series.
        """
        ring = read_file(self._path(key))
        return ring.values[-count:] if ring is not None else np.zeros(0)

    def newest(self, key: Key, count: int) -> list[float]:
        """Read the newest samples of a series, the pending ones included.

        Args:
            key: of the series.
            count: samples at most, above 0.

        Returns:
            Oldest first.
        """
        pending = self._pending.get(key, [])[-count:]
        return [*self.tail(key, count - len(pending)).tolist(), *pending] if len(pending) < count else pending


def read_file(path: Path) -> Ring | None:
    """Read one series; None if the file is not there, or broken."""
    try:
        with path.open("rb") as file:
            return series.read(file.read(FILE_BYTES + 1))
    except OSError:
        return None


def read_all(directory: Path) -> list[Ring]:
    """Read every series in a directory, in the order of the keys; broken files are left out."""
    found = [read_file(path) for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((ring for ring in found if ring is not None), key=lambda ring: ring.key)
