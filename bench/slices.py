"""Long runs in slices: the results so far are kept in a file, and the next slice goes on from there.

A tally is a dataclass of counters, lists and numbers; its `counts["migrations"]` says how many there have been.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from bench.frame import Options
from dwcp_migrate.errors import ConfigError


class Tally(Protocol):
    """What came of the migrations so far."""

    counts: Counter[str]


Kept = TypeVar("Kept", bound=Tally)


class Slices:
    """The slices of one run.

    Args:
        options: how many migrations from which on, for how long at a time, and where the tally is kept.
        count: migrations of the whole run.
    """

    def __init__(self, options: Options, count: int) -> None:
        self._path = Path(options.tally) if options.tally else None
        self._run = f"seed={options.seed} first={options.first}"
        self._first = options.first
        self._end = options.first + count
        self._until = time.monotonic() + options.minutes * 60 if options.minutes else None

    def resume(self, tally: Kept) -> Kept:
        """Take over the counts of the slices before this one.

        Raises:
            ConfigError: the file is another run's.
        """
        if self._path is None or not self._path.exists():
            return tally
        kept: dict[str, Any] = msgspec.json.decode(self._path.read_bytes())
        if kept.pop("run") != self._run:
            raise ConfigError(f"{self._path} is of another run", hint="remove it, or name another file with --tally")
        for name, value in kept.items():
            setattr(tally, name, Counter(value) if name == "counts" else value)
        return tally

    def numbers(self, tally: Tally) -> Iterator[int]:
        """Yield the numbers of the migrations that are still to be done, until this slice's time is over.

        What `tally` holds when the next one is asked for is kept.
        """
        for number in range(self._first + tally.counts["migrations"], self._end):
            if self._until is not None and time.monotonic() >= self._until:
                return
            yield number
            self._keep(tally)

    def _keep(self, tally: Any) -> None:
        if self._path is None:
            return
        values = {field.name: getattr(tally, field.name) for field in dataclasses.fields(tally)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode({"run": self._run, **values}))
        temporary.rename(self._path)
