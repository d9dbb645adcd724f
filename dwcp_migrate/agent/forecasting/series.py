"""Measured series of this host and their forecasts for the next minute: one panel over all, kept on disk.

The rule: a series has a slot of the panel while it is measured; a new series takes the slot of the one that has been
silent longest, which is read from disk when it is measured again. Only `flush` waits for the disk, on a thread.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.forecasting.regime import SAMPLES, Run, after_silence
from dwcp_migrate.bandwidth.forecasting.resampling import Samples
from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.bandwidth.storage import model_files
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.bandwidth.storage.series_store import Store
from dwcp_migrate.bandwidth.targets import Floats, over_transfer

SLOTS: Final = 128
"""Series that are forecast at once: 32 links and 64 domains, and some to spare; 70 KiB each."""

REPLAY: Final = 60
"""Samples that a series which comes back is caught up with: the panel's longest horizon, about 0.1 s of CPU."""

SEEN_KEPT: Final = 60
"""Seconds in which migrations did not fill a link, whose rate counts as what it carries at least."""

SEEN_QUANTILE: Final = 0.9
"""Quantile of those rates that counts: a single second may be a burst out of a buffer."""

UNFILLED: Final = 8.0
"""A link that migrations never filled may carry so many times what they sent."""

FLUSH_S: Final = 60.0
"""Interval of writes; a crash loses that much history."""


class Forecasts:
    """All series of this host.

    Args:
        state: the agent's state directory.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._store = Store(state / model_files.SERIES_DIRECTORY)
        self._samples = Samples(SLOTS)
        self._slots: dict[Key, int] = {}
        self._free = list(range(SLOTS - 1, -1, -1))
        self._heard: dict[Key, float] = {}
        self._runs: dict[int, Run] = {}
        self._unfilled: dict[str, deque[float]] = {}
        self._flushed_at = 0.0
        self._panel = model_files.in_use(state).panel(SLOTS)

    @property
    def error(self) -> str:
        """Reason for which the series cannot be written; empty when they can."""
        return self._store.error

    def reload(self) -> None:
        """Take the models in use now; every series is caught up when it is measured next."""
        self._panel = model_files.in_use(self._state).panel(SLOTS)
        self._slots.clear()
        self._runs.clear()
        self._free = list(range(SLOTS - 1, -1, -1))

    def sample(self, key: Key, value: float, now: float) -> None:
        """Add a sample of a series that is forecast; samples within one second are one step.

        Args:
            key: of the series.
            value: in the series' unit.
            now: seconds since the epoch.
        """
        slot = self._slots.get(key)
        if slot is None:
            slot = self._settle(key)
        self._heard[key] = now
        self._samples.add(np.array([slot]), np.array([value]))

    def note(self, key: Key, value: float, now: float) -> None:
        """Keep a value of a series that is not forecast step by step.

        Args:
            key: of the series.
            value: in the series' unit.
            now: seconds since the epoch.
        """
        self._store.add(key, value, now)

    def seen(self, peer: str, value: float, now: float, *, fills: bool) -> None:
        """Keep the rate at which migrations sent to a peer in a second.

        Args:
            peer: its name.
            value: bytes a second on the wire.
            now: seconds since the epoch.
            fills: whether they filled the link, so that the rate is what the link carries.
        """
        self.note(Key("link", "seen", peer), value, now)
        unfilled = self._unfilled.setdefault(peer, deque(maxlen=SEEN_KEPT))
        if fills:
            unfilled.clear()  # what the link carries is known again: it may have become slower
        else:
            unfilled.append(value)

    def known(self, key: Key, count: int) -> list[float]:
        """Return the newest values of a series, those that wait to be written included.

        Args:
            key: of the series.
            count: of values, at most.
        """
        return self._store.newest(key, count)

    def _settle(self, key: Key) -> int:
        """Give a series a slot, and let the panel catch up with what the disk knows of it."""
        if not self._free:
            oldest = min(self._slots, key=lambda known: self._heard.get(known, 0.0))
            self._free.append(self._slots.pop(oldest))
        slot = self._slots[key] = self._free.pop()
        self._runs.pop(slot, None)
        self._panel.forget(slot)
        self._catch_up(slot, self._store.newest(key, REPLAY))
        return slot

    def step(self, now: float) -> None:
        """End a step: update the forecasts of the series that were measured in it. `now` is seconds since the epoch."""
        slots, means = self._samples.take()
        if not len(slots):
            return
        keys = {slot: key for key, slot in self._slots.items()}
        links = {slot for slot in slots.tolist() if keys[slot].kind == "link"}
        for slot in links:
            if slot not in self._runs or self._runs[slot].is_over(now):
                self._runs[slot] = Run(self._expected(slot))
        self._panel.step(slots, means)
        for slot, mean in zip(slots.tolist(), means.tolist(), strict=True):
            self._store.add(keys[slot], mean, now)
            if slot in links and self._runs[slot].take(mean, now):
                self._panel.forget(slot)
                self._catch_up(slot, self._runs[slot].samples)

    def _expected(self, slot: int) -> Range | None:
        """Of the mean of the first samples after a silence."""
        return Range.of(over_transfer(self._panel.while_alive[slot], SAMPLES)) if self._panel.taken(slot) else None

    def _catch_up(self, slot: int, values: Iterable[float]) -> None:
        for value in values:
            self._panel.step(np.array([slot]), np.array([value]))

    def quantiles(self, key: Key, *, alive: bool = False) -> Floats | None:
        """Return the forecast of a series.

        Args:
            key: of the series.
            alive: forecast only the seconds in which the link is not dead.

        Returns:
            Quantiles by target, shape (targets, 3); None where the series was never measured.
        """
        slot = self._slots.get(key)
        if slot is None:
            if not self._store.newest(key, 1):
                return None
            slot = self._settle(key)
        if not self._panel.taken(slot):
            return None
        found: Floats = (self._panel.while_alive if alive else self._panel.forecasts)[slot]
        return found

    def carries(self, peer: str, steps: float, *, silent: bool = False, alive: bool = False) -> Range | None:
        """Forecast of the link to a peer over so many steps; at least what was seen since.

        Args:
            peer: its name.
            steps: how many.
            silent: they do not begin now, where the last sample was taken, but with a migration to come.
            alive: only of seconds in which the link is not dead: what can be shared out of it.

        Returns:
            None where nothing ever crossed it.
        """
        forecast = self.quantiles(Key("link", "rate", peer), alive=alive)
        seen = list(self._unfilled.get(peer, ()))
        if forecast is None and not seen:
            seen = self.known(Key("link", "seen", peer), SEEN_KEPT)
        least = float(np.quantile(seen, SEEN_QUANTILE)) if seen else 0.0
        if forecast is None:
            return Range(least, least * 2, least * UNFILLED) if least > 1 else None
        found = Range.of(over_transfer(forecast, steps))
        if silent and (run := self._runs.get(self._slots[Key("link", "rate", peer)])) is not None:
            found = after_silence(found, run.samples)
        found = Range(max(found.low, 0.5 * least), max(found.median, least), max(found.high, least))
        return found if found.median > 1 else None

    async def flush(self, now: float, thread: Executor, *, at_once: bool = False) -> None:
        """Write pending values, if the last time was `FLUSH_S` ago.

        Args:
            now: seconds since the epoch.
            thread: on which the files are written.
            at_once: write without waiting for `FLUSH_S`.
        """
        if at_once or now - self._flushed_at >= FLUSH_S:
            self._flushed_at = now
            await asyncio.get_running_loop().run_in_executor(thread, self._store.flush)
