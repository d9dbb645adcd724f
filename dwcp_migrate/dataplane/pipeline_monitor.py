"""Monitor of link and compressors, and the choice of codec that follows (pure; the clock is an argument).

ahead_s   time that a byte taken from QEMU now would wait before a channel takes it: too long, and the gate closes.
          What TCP has in flight is TCP's business; what waits before it is ours, and adds to downtime.
choose    the coding of the next segment: stronger while the link keeps the compressors waiting, cheaper when they
          keep the link waiting.
"""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.delta import CodecChoice, Coding, Observation, pinned

MEASURE_S: Final = 0.1
"""Span of one measurement: a few round trips, and short against a change of the link."""
COMPRESSORS_BOUND: Final = 0.9
"""Share of their time from which on compressors are what a full window waits for."""
CAPACITY_S: Final = 2.0
"""The link's capacity is the best rate of this span: a link that QEMU does not fill must not look slow."""


@dataclass(frozen=True, slots=True)
class PipelineSample:
    """One look at the pipeline.

    Attributes:
        sent_bytes: total that the channels took.
        queued_bytes: encoded, and no channel has taken them.
        busy_s: total time of all compressors together.
        held_s: total time in which nothing was taken from QEMU because the window was full.
    """

    sent_bytes: int
    queued_bytes: int
    busy_s: float
    held_s: float = 0.0


class PipelineMonitor:
    """Watches one migration's pipeline; safe from any thread.

    Args:
        codec: `auto` or what to pin.
        level: for a pinned codec.
        level_max: for `auto`.
        workers: compressors.

    Attributes:
        link_waiting_s: time in which something waited for the link, as far as anybody looked.
        path_waiting_s: time in which the path was what all waited for: the same, and the time in which the window was
            full of what is under way. A slow or lossy path keeps that in TCP, and nothing waits before the channels.
    """

    def __init__(self, codec: str, level: int, level_max: int, workers: int) -> None:
        self._pinned = pinned(codec, level)
        self._choice = CodecChoice(level_max)
        self._workers = workers
        self._lock = threading.Lock()
        self._began: tuple[float, PipelineSample] | None = None
        self._looks = self._waiting_looks = 0
        self.link_waiting_s = self.path_waiting_s = 0.0
        self._rates: deque[tuple[float, float]] = deque()

    def ahead_s(self, now: float, seen: PipelineSample) -> float:
        """Time that the link needs for what is encoded already; 0 while its rate is unknown."""
        with self._lock:
            self._look(now, seen)
            capacity = self._capacity_bytes_per_s()
            return seen.queued_bytes / capacity if capacity else 0.0

    def choose(self, now: float, seen: PipelineSample) -> Coding:
        """The coding for the next segment."""
        with self._lock:
            self._look(now, seen)
            return self._pinned or self._choice.coding

    def _capacity_bytes_per_s(self) -> float:
        return max((rate for _, rate in self._rates), default=0.0)

    def _look(self, now: float, seen: PipelineSample) -> None:
        """Add a look to the measurement under way, and evaluate that when its time is over."""
        self._looks += 1
        self._waiting_looks += seen.queued_bytes > 0
        if self._began is None:
            self._began = now, seen
            return
        then, before = self._began
        elapsed = now - then
        if elapsed < MEASURE_S:
            return
        self._rates.append((now, (seen.sent_bytes - before.sent_bytes) / elapsed))
        while now - self._rates[0][0] > CAPACITY_S:
            self._rates.popleft()
        link_busy = self._waiting_looks / self._looks
        compressors_busy = min(1.0, (seen.busy_s - before.busy_s) / (elapsed * self._workers))
        held = min(1.0, max(0.0, seen.held_s - before.held_s) / elapsed)
        self.link_waiting_s += elapsed * link_busy
        # Looks are taken while the window has room.
        under_way = held if compressors_busy < COMPRESSORS_BOUND else 0.0
        path_busy = under_way + (1 - held) * link_busy
        self.path_waiting_s += elapsed * path_busy
        self._choice.observe(
            Observation(
                link_bytes_per_s=self._capacity_bytes_per_s(),
                link_busy=path_busy,
                compressors_busy=compressors_busy,
            )
        )
        self._began = now, seen
        self._looks = self._waiting_looks = 0
