"""The pipeline's measurements of itself, and the decisions that follow (pure; the clock is an argument).

ahead_s   time that a byte taken from QEMU now would wait before a channel takes it: too long, and the gate closes.
          Bytes in flight are TCP's business; those that wait before it are ours, and add to downtime.
choose    the coding of the next segment: stronger while the link keeps the compressors waiting, cheaper when the
          pipeline keeps the link and QEMU waiting.
held_up_s time by the stage that all others waited for: see `Stage`.
"""

import threading
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dwcp_migrate.delta import LINK_IDLE, CodecChoice, Coding, Observation, pinned

MEASURE_S: Final = 0.1
"""Span of one measurement: a few round trips, and short against a change of the link."""
SATURATED: Final = 0.8
"""Share of the time from which on all wait for a thread of ours."""
COMPRESSORS_BOUND: Final = 0.9
"""Share of their time from which on a full window waits for the compressors."""
SHORT: Final = 0.5
"""Share of the time from which on all wait for the link, the destination or QEMU."""
CAPACITY_S: Final = 2.0
"""The link's capacity is the best rate of this span: a link that QEMU does not fill must not look slow."""
BUSY_RATES_S: Final = 10.0
"""For so long a rate at which the link was busy tells what it can carry: after a stall it idles while we catch up."""
OUTRUN_LOOKS: Final = 5
"""More measurements than not, by which the link idled while segments went as they are, before it is left. That is for
good, and a host that was only busy for a moment would lose what compression saves."""
SETTLE_ROUND_TRIPS: Final = 10
"""From the first byte: so long slow start makes a long path look idle, and nothing is decided by that."""
NEAR_S: Final = 0.005
"""Round trip up to which the path holds little beside the window: a full window then points to the destination.
On longer paths a lost packet keeps the same bytes waiting there for their order."""
NEAR_SEEN_S: Final = 1.0
"""From the first byte: so long a short round trip tells of a near path; the first ones are drawn out on a busy host."""


class Stage(StrEnum):
    """The part that holds a migration up at one moment."""

    QEMU = "qemu"
    READER = "reader"
    CLASSIFIER = "classifier"
    COMPRESSORS = "compressors"
    ENCRYPTION = "encryption"
    LINK = "link"
    DESTINATION = "destination"
    CORES = "cores"


@dataclass(frozen=True, slots=True)
class PipelineSample:
    """One sample of the pipeline; times are totals since the start.

    Attributes:
        sent_bytes: that the channels took.
        queued_bytes: encoded, and no channel has taken them.
        busy_s: of all compressors together.
        held_s: nothing was taken from QEMU because the window was full.
        ahead_closed_s: nothing was taken because of what waited before the channels.
        classifier_s: some reader classified or waited for another one that did, at most one counted.
        qemu_idle_s: all readers waited for QEMU.
        encryption_s: there was something to send and a channel to take it: the link's thread was behind.
        blocked_s: there was something to send, and no channel took more.
        receiver_limited: share of the sending time in which the peer's kernel had no room.
        under_way_bytes: in the kernel's hands.
        retained_bytes: encoded and not acknowledged, in whoever's hands.
        rtt_s: of the link, 0 while unknown.
    """

    sent_bytes: int = 0
    queued_bytes: int = 0
    busy_s: float = 0.0
    held_s: float = 0.0
    ahead_closed_s: float = 0.0
    classifier_s: float = 0.0
    qemu_idle_s: float = 0.0
    encryption_s: float = 0.0
    blocked_s: float = 0.0
    receiver_limited: float = 0.0
    under_way_bytes: int = 0
    retained_bytes: int = 0
    rtt_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Shares:
    """One measurement: shares of its time, 0 to 1."""

    link: float
    destination: float
    qemu: float
    reader: float
    classifier: float
    compressors: float
    encryption: float

    def held_up_by(self) -> Stage:
        """The stage that all others waited for: the last one in order, since a stage is also held by the next one."""
        for stage, share, least in (
            (Stage.LINK, self.link, SHORT),
            (Stage.DESTINATION, self.destination, SHORT),
            (Stage.QEMU, self.qemu, SHORT),
            (Stage.ENCRYPTION, self.encryption, SATURATED),
            (Stage.COMPRESSORS, self.compressors, SATURATED),
            (Stage.CLASSIFIER, self.classifier, SATURATED),
            (Stage.READER, self.reader, SATURATED),
        ):
            if share >= least:
                return stage
        return Stage.CORES


def measure(elapsed_s: float, before: PipelineSample, seen: PipelineSample, workers: int) -> Shares:
    """Work out the shares of the time between two samples.

    Args:
        elapsed_s: time between them, above 0.
        before: the earlier sample.
        seen: the later one.
        workers: number of compressors.
    """

    def share(total_s: float, before_s: float) -> float:
        return min(1.0, max(0.0, total_s - before_s) / elapsed_s)

    compressors = share(seen.busy_s / workers, before.busy_s / workers)
    held, blocked = share(seen.held_s, before.held_s), share(seen.blocked_s, before.blocked_s)
    qemu = share(seen.qemu_idle_s, before.qemu_idle_s)
    there = seen.retained_bytes - seen.queued_bytes - seen.under_way_bytes
    is_near = 0 < seen.rtt_s <= NEAR_S
    receiver = seen.receiver_limited if is_near else 0.0
    delivering = held if compressors < COMPRESSORS_BOUND else 0.0
    arrived = delivering if is_near and there > seen.under_way_bytes else 0.0
    return Shares(
        link=min(1.0, blocked * (1 - receiver) + delivering - arrived),
        destination=min(1.0, blocked * receiver + arrived),
        qemu=qemu,
        reader=max(0.0, 1 - qemu - held - share(seen.ahead_closed_s, before.ahead_closed_s)),
        classifier=share(seen.classifier_s, before.classifier_s),
        compressors=compressors,
        encryption=share(seen.encryption_s, before.encryption_s),
    )


class PipelineMonitor:
    """Watches one migration's pipeline; safe from any thread.

    Args:
        codec: `auto` or the one to pin.
        level: for a pinned codec.
        level_max: for `auto`.
        workers: compressors.
        may_leave: going past the link altogether is allowed.
        reason_to_leave: why that is right from the start; empty lets what is measured decide.

    Attributes:
        stands_aside: QEMU's bytes should go past the link: it outruns even segments as they are.
        reason_to_leave: for people; empty before.
        window_holds_up: all wait for the window of bytes in flight, and the link would take more.
        link_waiting_s: time in which something waited for the link, as far as it was sampled.
        path_waiting_s: time in which all waited for the path: the same, and the time in which the window was full of
            bytes under way. A slow or lossy path keeps those in TCP, and nothing waits before the channels.
        held_up_s: time by the stage that all others waited for.
        decision: the last change of the coding and its reason, for people; empty before the first.
    """

    def __init__(
        self,
        codec: str,
        level: int,
        level_max: int,
        workers: int,
        *,
        may_leave: bool = False,
        reason_to_leave: str = "",
    ) -> None:
        self.link_waiting_s = self.path_waiting_s = 0.0
        self.held_up_s: dict[Stage, float] = {}
        self.decision = ""
        self.reason_to_leave = reason_to_leave if may_leave else ""
        self.window_holds_up = False
        self.stands_aside = bool(self.reason_to_leave)
        self._may_leave = may_leave
        self._outrun = 0
        self._has_tried = False
        self._first_at = 0.0
        self._pinned = pinned(codec, level)
        self._choice = CodecChoice(level_max)
        self._workers = workers
        self._lock = threading.Lock()
        self._began: tuple[float, PipelineSample] | None = None
        self._rates: deque[tuple[float, float]] = deque()
        self._busy_rates: deque[tuple[float, float]] = deque()

    def ahead_s(self, now: float, seen: PipelineSample) -> float:
        """Return the time that the link needs for the bytes that are encoded already; 0 while its rate is unknown.

        Args:
            now: the clock, monotonic seconds.
            seen: a sample of this moment.
        """
        with self._lock:
            self._look(now, seen)
            capacity = _best(self._rates)
            return seen.queued_bytes / capacity if capacity else 0.0

    def choose(self, now: float, seen: PipelineSample) -> Coding:
        """Choose the coding for the next segment.

        Args:
            now: the clock, monotonic seconds.
            seen: a sample of this moment.
        """
        with self._lock:
            self._look(now, seen)
            return self._pinned or self._choice.coding

    def _look(self, now: float, seen: PipelineSample) -> None:
        """Evaluate the measurement under way when its time is over, and begin the next."""
        if self._began is None:
            self._first_at = now
        if not self._has_tried and 0 < seen.rtt_s <= NEAR_S and now - self._first_at <= NEAR_SEEN_S:
            self._has_tried = True
            self._choice.begin_raw()
        if self._began is None:
            self._began = now, seen
            return
        then, before = self._began
        elapsed = now - then
        if elapsed < MEASURE_S:
            return
        self._began = now, seen
        shares = measure(elapsed, before, seen, self._workers)
        rate = (seen.sent_bytes - before.sent_bytes) / elapsed
        _add(self._rates, now, rate, CAPACITY_S)
        _add(self._busy_rates, now, rate if shares.link >= SHORT else 0.0, BUSY_RATES_S)
        self.link_waiting_s += min(elapsed * shares.link, max(0.0, seen.blocked_s - before.blocked_s))
        self.path_waiting_s += elapsed * shares.link
        held, blocked = seen.held_s - before.held_s, seen.blocked_s - before.blocked_s
        self.window_holds_up = held >= SHORT * elapsed and blocked <= LINK_IDLE * elapsed
        stage = shares.held_up_by()
        self.held_up_s[stage] = self.held_up_s.get(stage, 0.0) + elapsed
        if seen.rtt_s <= NEAR_S or now - self._first_at >= SETTLE_ROUND_TRIPS * seen.rtt_s:
            self._decide(shares, stage)

    def _decide(self, shares: Shares, stage: Stage) -> None:
        before = self._choice.coding
        self._look_aside(shares, stage)
        self._choice.observe(
            Observation(
                link_bytes_per_s=_best(self._busy_rates),
                link_busy=shares.link,
                compressors_busy=shares.compressors,
                qemu_idle=shares.qemu,
            )
        )
        if self._pinned is None and self._choice.coding != before:
            self.decision = (
                f"{self._choice.coding} after {before}: held up by {stage} (link {shares.link:.0%}, "
                f"compressors {shares.compressors:.0%}, classifier {shares.classifier:.0%}, "
                f"encryption {shares.encryption:.0%} busy; QEMU idle {shares.qemu:.0%})"
            )

    def _look_aside(self, shares: Shares, stage: Stage) -> None:
        """Go past the link once it idles beside us for a while though segments go as they are already."""
        is_raw = self._pinned is None and not self._choice.coding.classified
        outrun = is_raw and shares.link <= LINK_IDLE and stage not in (Stage.QEMU, Stage.LINK)
        self._outrun = self._outrun + 1 if outrun else max(0, self._outrun - 1)
        if self._may_leave and not self.stands_aside and self._outrun >= OUTRUN_LOOKS:
            self.stands_aside = True
            self.reason_to_leave = (
                f"held up by {stage} (link {shares.link:.0%}, encryption "
                f"{shares.encryption:.0%} busy; QEMU idle {shares.qemu:.0%})"
            )


def _add(rates: deque[tuple[float, float]], now: float, rate: float, span_s: float) -> None:
    rates.append((now, rate))
    while now - rates[0][0] > span_s:
        rates.popleft()


def _best(rates: deque[tuple[float, float]]) -> float:
    return max((rate for _, rate in rates), default=0.0)
