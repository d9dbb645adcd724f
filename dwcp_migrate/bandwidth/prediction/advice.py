"""Advice before a migration, with its reason: precopy, postcopy, or not now (pure).

The rule: the mildest way that works. Precopy risks nothing but time; postcopy risks the guest if the link is lost on
the way; waiting costs nothing but time. The reason names the figures that it rests on. Only ways that a command has are
advised: `virsh migrate` is precopy, `virsh migrate --postcopy` is postcopy.
"""

from dataclasses import dataclass
from typing import Final, Literal

from dwcp_migrate.bandwidth.prediction.predictor import GuestFacts, Path, Prediction
from dwcp_migrate.units import format_rate

Way = Literal["precopy", "postcopy", "not-now"]

CONVERGENCE_SURE: Final = 0.9
"""Share of the scenarios in which precopy must converge to be advised."""

STEADY: Final = 0.3
"""Low quantile of the link over its median, under which a postcopy guest would stand still too often."""

LOSSES_MAX: Final = 0
"""Losses of the whole link lately, above which postcopy is too dangerous."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommendation.

    Attributes:
        way: precopy, postcopy, or waiting.
        reason: one sentence for people.
    """

    way: Way
    reason: str


def choose_way(
    guest: GuestFacts, path: Path, prediction: Prediction, *, link_losses: int = 0, deadline_s: float = 0.0
) -> Advice:
    """Choose a way and give the reason.

    Args:
        guest: as predicted from.
        path: as predicted from.
        prediction: of precopy.
        link_losses: times that the whole link was lost lately.
        deadline_s: until when it should be over; 0 without one.
    """
    link, dirty = path.bytes_per_s, guest.dirty_bytes_per_s
    if link.median <= 1.0:
        return Advice("not-now", "the link carries nothing that could be measured")
    if prediction.convergence >= CONVERGENCE_SURE:
        return _precopy(prediction, deadline_s)
    rates = (
        f"the guest writes {format_rate(dirty.median)}, "
        f"{format_rate(dirty.median * guest.later_wire_share.median)} after encoding, "
        f"on a link of {format_rate(link.median)}"
    )
    odds = f"precopy converges in {prediction.convergence * 100:.0f} % of the cases: {rates}"
    if link_losses > LOSSES_MAX:
        return Advice(
            "not-now", f"{odds}; the link was lost {link_losses} times lately, which postcopy would not survive"
        )
    if link.low < STEADY * link.median:
        return Advice("not-now", f"{odds}; the link falls to {format_rate(link.low)}, too unsteady for postcopy")
    return Advice("postcopy", f"{odds}; the link is steady enough to fetch pages after the switchover")


def _precopy(prediction: Prediction, deadline_s: float) -> Advice:
    time_s, downtime_s = prediction.time_s, prediction.downtime_s
    figures = (
        f"{time_s.median:.0f} s ({time_s.low:.0f} to {time_s.high:.0f}), a pause of {downtime_s.median * 1000:.0f} ms"
    )
    is_late = deadline_s > 0 and time_s.high > deadline_s
    if is_late and time_s.low > deadline_s:
        return Advice("not-now", f"precopy takes {figures}, longer than the {deadline_s:.0f} s there are")
    odds = f"it converges in {prediction.convergence * 100:.0f} % of the cases: {figures}"
    return Advice("precopy", f"{odds}; it may take longer than the {deadline_s:.0f} s there are" if is_late else odds)
