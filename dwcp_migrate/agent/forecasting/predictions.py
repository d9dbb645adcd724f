"""Predictions of migrations from the agent's measurements, corrected by the errors of earlier predictions.

The rule: an unknown figure is given as a wide range, never as a single guess. A prediction is fixed in the record when
the migration's domain is known, and scored when the record ends.

    Forecasts (link, guest) ── describe ──> predict ── corrected by scores of this peer ──> ExpectedMigration, ETA
    record ended ──> its passes ──> Lesson ──> Forecasts
                └──> what would have been said, had guest and link been known ──> corrections
"""

import dataclasses
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from dwcp_migrate.agent.forecasting.series import Forecasts
from dwcp_migrate.api.migration import NO_CONVERGENCE, ExpectedMigration, Migration, with_eta, without_eta
from dwcp_migrate.bandwidth.prediction.advice import Advice, choose_way
from dwcp_migrate.bandwidth.prediction.calibration import SCORES_KEPT, Scored, correct_prediction, estimate_bias
from dwcp_migrate.bandwidth.prediction.guest_model import (
    SAMPLES_KEPT,
    KnownGuest,
    Lesson,
    Pass,
    describe_guest,
    read_lesson,
)
from dwcp_migrate.bandwidth.prediction.predictor import GuestFacts, Path, Prediction, predict_migration
from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.bandwidth.storage.series import Key
from dwcp_migrate.bandwidth.targets import MEDIAN

UNKNOWN_LINK: Final = Range(1e6, 12e6, 120e6)
"""Range for a link over which no migration ever went: 8 Mbit/s to 1 Gbit/s."""

TRANSFER_STEPS: Final = 60.0
"""Horizon of a link's forecast before the length of the transfer is known."""

LOSSES_OF: Final = 5
"""Migrations to a peer whose link losses count as `lately`."""

DOWNTIME_S_MAX: Final = 0.3
"""QEMU's own limit on the pause, where the domain's is not known."""

Quantity = Literal["dirty", "rewritten", "working_set", "first_share", "later_share", "encode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The subject of a prediction.

    Attributes:
        uuid: of the domain.
        memory_bytes: of it.
        peer: name of the destination.
        rtt_s: round trip to it; 0 while unknown.
        deadline_s: until when it should be over; 0 without one.
        downtime_s_max: for how long the domain's migration may pause it (`virsh migrate-setmaxdowntime`).
    """

    uuid: str
    memory_bytes: int
    peer: str
    rtt_s: float = 0.0
    deadline_s: float = 0.0
    downtime_s_max: float = DOWNTIME_S_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A prediction with everything that it rests on."""

    expected: ExpectedMigration
    advice: Advice
    guest: GuestFacts
    path: Path
    link_known: bool


@dataclass(slots=True)
class _Watched:
    """A migration's passes as they end."""

    passes: list[Pass] = field(default_factory=list)
    iteration: int = 0
    began_s: float = 0.0
    raw_bytes: int = 0
    wire_bytes: int = 0
    waiting_s: float = 0.0
    dirty: float = -1.0
    carried: list[float] = field(default_factory=list)


class Predictions:
    """All predictions of this host.

    Args:
        forecasts: what was measured.
        recent: migrations that ended, newest first, to learn corrections from.
    """

    def __init__(self, forecasts: Forecasts, recent: list[Migration]) -> None:
        self._forecasts = forecasts
        self._times: dict[str, deque[Scored]] = {}
        self._downtimes: dict[str, deque[Scored]] = {}
        self._losses: dict[str, deque[int]] = {}
        self._watched: dict[str, _Watched] = {}
        for record in reversed(recent):
            self._score(record, None)

    def tell(self, subject: Subject) -> Told:
        """Predict a migration that has not begun, as if it had the link for itself."""
        guest = self._guest(subject.uuid, float(subject.memory_bytes))
        link = self._link(subject.peer, guest, subject.rtt_s)
        path = Path(bytes_per_s=link or UNKNOWN_LINK, rtt_s=subject.rtt_s, downtime_s_max=subject.downtime_s_max)
        said = predict_migration(guest, path)
        known = self._is_known(subject.uuid)
        time_s = _corrected(said.time_s, self._times.get(subject.peer, ()), subject.uuid, is_known=known)
        downtime_s = _corrected(said.downtime_s, self._downtimes.get(subject.peer, ()), subject.uuid, is_known=known)
        losses = sum(self._losses.get(subject.peer, ()))
        told = dataclasses.replace(said, time_s=time_s, downtime_s=downtime_s)
        advice = choose_way(guest, path, told, link_losses=losses, deadline_s=subject.deadline_s)
        expected = ExpectedMigration(
            time_s=_three(time_s),
            downtime_s=_three(downtime_s),
            wire_bytes=_three(said.wire_bytes),
            convergence=said.convergence,
            way=advice.way,
            model_time_s=said.time_s.median,
            model_downtime_s=said.downtime_s.median,
            is_guest_known=known,
        )
        return Told(expected=expected, advice=advice, guest=guest, path=path, link_known=link is not None)

    def _link(self, peer: str, guest: GuestFacts, rtt_s: float) -> Range | None:
        """Forecast of the link over the guest's transfer time; None where nothing ever crossed it."""
        link = self._forecasts.carries(peer, TRANSFER_STEPS, silent=True)
        if link is None:
            return None
        steps = predict_migration(guest, Path(bytes_per_s=link, rtt_s=rtt_s)).time_s.median
        return self._forecasts.carries(peer, steps, silent=True)

    def estimate(self, record: Migration, downtime_s_max: float = DOWNTIME_S_MAX) -> Migration:
        """Estimate the time to the end of a migration that runs; an earlier estimate that no longer holds is removed.

        Args:
            record: of the migration.
            downtime_s_max: longest pause that QEMU may take for the switchover, in seconds.

        Returns:
            The record; as it was, where too little is known.
        """
        if record.remaining_bytes < 0 or record.state not in {"precopy", "switchover"}:
            return record
        link = self._share_of_link(record)
        if link is None:
            return record
        guest = self._guest(record.uuid, float(record.remaining_bytes))
        watched = self._watched.get(record.id)
        if record.dirty_bytes_per_s > 0:
            guest = dataclasses.replace(guest, dirty_bytes_per_s=Range.around(record.dirty_bytes_per_s, 1.3))
        if record.guest_paused:
            guest = dataclasses.replace(guest, dirty_bytes_per_s=Range.exactly(0.0))
        later = watched is not None and len(watched.passes) > 0
        # Something has passed already (done_s), so that setting up does not count once more.
        path = Path(bytes_per_s=link, rtt_s=record.counters.rtt_s, downtime_s_max=downtime_s_max)
        said = predict_migration(guest, path, done_s=1e-9, later=later)
        if not said.converges:
            return without_eta(record, NO_CONVERGENCE)
        scored = self._times.get(record.peer, ())
        eta = _corrected(said.time_s, scored, record.uuid, is_known=self._is_known(record.uuid))
        return with_eta(record, eta.median, eta.low, eta.high)

    def _share_of_link(self, record: Migration) -> Range | None:
        """The share of its link that a running migration will get; None while nothing is known."""
        if record.granted_bytes_per_s > 0:
            return Range.around(record.granted_bytes_per_s, 1.2)
        # The last estimate says for how long; a prediction only to find that would double the tick's work.
        return self._forecasts.carries(record.peer, record.eta_s if record.eta_s > 0 else TRANSFER_STEPS)

    def carried(self, record: Migration, bytes_per_s: float) -> None:
        """Note the rate of a second in which the path held a migration up.

        Args:
            record: of the migration.
            bytes_per_s: that it put on the wire.
        """
        self._watch(record).carried.append(bytes_per_s)

    def watch(self, record: Migration, now: float) -> None:
        """Follow the passes of a migration that runs; one ends when the iteration grows.

        Args:
            record: of the migration.
            now: seconds since the epoch.
        """
        watched = self._watch(record)
        watched.dirty = max(watched.dirty, record.dirty_bytes_per_s)
        if record.iteration > watched.iteration and watched.iteration:
            self._end_pass(watched, record, now)
        watched.iteration = max(watched.iteration, record.iteration, 1)

    def _watch(self, record: Migration) -> _Watched:
        return self._watched.setdefault(record.id, _Watched(began_s=record.started_at))

    @staticmethod
    def _end_pass(watched: _Watched, record: Migration, now: float, *, left_bytes: float = 0.0) -> None:
        counters, seconds = record.counters, max(0.0, now - watched.began_s)
        watched.passes.append(
            Pass(
                seconds=seconds,
                raw_bytes=counters.raw_bytes - watched.raw_bytes,
                wire_bytes=counters.wire_bytes - watched.wire_bytes,
                path_busy=(counters.path_waiting_s - watched.waiting_s) / seconds if seconds else 0.0,
                left_bytes=left_bytes,
            )
        )
        watched.began_s, watched.raw_bytes, watched.wire_bytes = now, counters.raw_bytes, counters.wire_bytes
        watched.waiting_s = counters.path_waiting_s

    def ended(self, record: Migration) -> None:
        """Learn from a migration that ended."""
        watched = self._watched.pop(record.id, None)
        if watched is None or not record.uuid or record.passthrough_reason:
            self._score(record, None)
            return
        if record.result == "completed":
            self._end_pass(watched, record, record.ended_at)
        elif watched.passes and record.remaining_bytes >= 0:  # a first pass that was cut short says too little
            self._end_pass(watched, record, record.ended_at, left_bytes=float(record.remaining_bytes))
        dirty = max(watched.dirty, _middle(self._known(record.uuid).dirty))
        shown = read_lesson(float(record.memory_bytes), watched.passes, dirty)
        self._score(record, self._hindsight(record, shown, watched.carried))
        values: dict[Quantity, float | None] = {
            "first_share": shown.first_share,
            "later_share": shown.later_share,
            "encode": shown.encode_bytes_per_s,
            "working_set": shown.working_set_bytes,
            "rewritten": watched.dirty if watched.dirty > 0 else shown.rewritten_bytes_per_s,
        }
        for quantity, value in values.items():
            if value is not None and value > 0:
                self._forecasts.note(Key("domain", quantity, record.uuid), value, record.ended_at)

    def _hindsight(self, record: Migration, shown: Lesson, carried: list[float]) -> Prediction | None:
        """The prediction for the guest and the link as they turned out to be.

        How far off that is, is the model's own error: one that the next migration meets again, however wrong the link
        was forecast this time.
        """
        link = self._forecasts.carries(record.peer, TRANSFER_STEPS)
        rate = statistics.fmean(carried) if carried else link.median if link is not None else 0.0
        if rate <= 0:
            return None
        before = self._known(record.uuid)
        known = KnownGuest(
            dirty=_one(shown.dirty_bytes_per_s) or before.dirty,
            working_set=_one(shown.working_set_bytes) or before.working_set,
            first_share=_one(shown.first_share) or before.first_share,
            later_share=_one(shown.later_share) or before.later_share,
            encode=_one(shown.encode_bytes_per_s) or before.encode,
        )
        path = Path(bytes_per_s=Range.exactly(rate), rtt_s=record.counters.rtt_s)
        return predict_migration(describe_guest(float(record.memory_bytes), known), path)

    def _score(self, record: Migration, hindsight: Prediction | None) -> None:
        """Hold a record against what was said, and against what would have been (unknown of records of the past)."""
        if record.role != "source" or not record.peer:
            return
        self._losses.setdefault(record.peer, deque(maxlen=LOSSES_OF)).append(record.counters.link_losses)
        expected = record.expected
        if expected is None or record.result != "completed" or record.passthrough_reason:
            return  # what is predicted is an accelerated migration
        forecast_s, forecast_downtime_s = expected.model_time_s, expected.model_downtime_s
        time_s, downtime_s = record.duration_s(record.ended_at), record.downtime_ms / 1000
        model_s = hindsight.time_s.median if hindsight else forecast_s
        model_downtime_s = hindsight.downtime_s.median if hindsight else forecast_downtime_s
        for kept, actual, said, forecast, model in (
            (self._times, time_s, expected.time_s, forecast_s, model_s),
            (self._downtimes, downtime_s, expected.downtime_s, forecast_downtime_s, model_downtime_s),
        ):
            if min(actual, said[MEDIAN], forecast, model) > 0:
                score = Scored(
                    uuid=record.uuid,
                    is_known=expected.is_guest_known,
                    model_error=math.log(actual / model),
                    foresight_error=math.log(model / forecast),
                    said_error=math.log(actual / said[MEDIAN]),
                )
                kept.setdefault(record.peer, deque(maxlen=SCORES_KEPT)).append(score)

    def _is_known(self, uuid: str) -> bool:
        """Whether a migration of this guest has taught something."""
        return bool(uuid and self._forecasts.known(Key("domain", "first_share", uuid), 1))

    def _known(self, uuid: str) -> KnownGuest:
        def values(quantity: Quantity) -> list[float]:
            return self._forecasts.known(Key("domain", quantity, uuid), SAMPLES_KEPT) if uuid else []

        return KnownGuest(
            # A pass shows a lower bound; QEMU's own measure samples pages and misses a guest that writes to few.
            dirty=max(values("dirty"), values("rewritten"), key=_middle),
            working_set=values("working_set"),
            first_share=values("first_share"),
            later_share=values("later_share"),
            encode=values("encode"),
        )

    def _guest(self, uuid: str, memory_bytes: float) -> GuestFacts:
        return describe_guest(memory_bytes, self._known(uuid))

    def link_median(self, peer: str) -> float:
        """Median forecast of the link for the next step; 0 while unknown."""
        forecast = self._forecasts.quantiles(Key("link", "rate", peer))
        return float(forecast[0, MEDIAN]) if forecast is not None else 0.0


def _corrected(said: Range, scored: Sequence[Scored], uuid: str, *, is_known: bool) -> Range:
    alike = [score for score in scored if score.is_known == is_known]
    own = [score.model_error for score in scored if score.uuid == uuid]
    shift = estimate_bias(own, [score.model_error for score in scored])
    if is_known:
        shift += estimate_bias((), [score.foresight_error for score in alike])
    return correct_prediction(said, shift, [score.said_error for score in alike])


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _one(value: float | None) -> tuple[float, ...]:
    return (value,) if value is not None and value > 0 else ()


def _three(value: Range) -> tuple[float, float, float]:
    return (value.low, value.median, value.high)
