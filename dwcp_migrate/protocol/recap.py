"""Sums over the migrations of one host, as agents tell them to each other. No IO."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

REASONS_MAX: Final = 24
"""Reasons told apart in one message; the rest are summed up as `OTHERS`."""

REASON_CHARACTERS_MAX: Final = 160
OTHERS: Final = "others"

_Count = Annotated[int, Meta(ge=0, le=2**62)]
_Amount = Annotated[float, Meta(ge=0, le=1e15)]
_Reasons = Annotated[
    dict[Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)], _Count], Meta(max_length=REASONS_MAX + 1)
]


class MigrationRecap(msgspec.Struct, frozen=True, kw_only=True):
    """Migrations of guests' memory that left a host and ended, so that each counts at one host.

    Attributes:
        oldest_at: when the oldest that is still remembered ended, seconds since the epoch; 0 without any.
        completed: how many arrived, accelerated or not, as `failed`.
        accelerated: of those that completed.
        raw_bytes: guest memory of these, that took `wire_bytes` on the wire.
        duration_s: of these.
        saved_s: time that their bytes would have taken more at the best rate that each showed; of `saved_known` of
            them, whose records tell that rate.
        downtime_ms: sum over `downtimes` of them.
        failures: by reason.
        unaccelerated: migrations that ran unaccelerated, by reason.
        predicted: migrations that were predicted and completed, `inside` of their interval.
        error: sum of the relative errors of their times, unsigned.
        observed: migrations that completed, were only observed, and of which a prediction was made; they took
            `observed_s`, and would have taken `accelerated_s` by its median.
    """

    oldest_at: float = 0.0
    completed: _Count = 0
    failed: _Count = 0
    accelerated: _Count = 0
    raw_bytes: _Count = 0
    wire_bytes: _Count = 0
    duration_s: _Amount = 0.0
    saved_s: _Amount = 0.0
    saved_known: _Count = 0
    downtime_ms: _Count = 0
    downtimes: _Count = 0
    failures: _Reasons = {}
    unaccelerated: _Reasons = {}
    predicted: _Count = 0
    inside: _Count = 0
    error: _Amount = 0.0
    observed: _Count = 0
    observed_s: _Amount = 0.0
    accelerated_s: _Amount = 0.0
