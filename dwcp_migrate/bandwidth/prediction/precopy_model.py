"""A guest under precopy as a fluid: bytes left of a pass, bytes written since, and the time of the switchover.

The rule: bytes on the wire and seconds. It is the model that the allocator's simulations and tests run on; `predictor`
solves the same model pass by pass.

    pass: send what is left at the granted rate; meanwhile the guest writes W (1 - exp(-D t / W))
          nothing left -> next pass of what was written, or, if that fits into the downtime allowed, switchover
"""

import math
from dataclasses import dataclass, field
from typing import Final

DOWNTIME_S: Final = 0.3
"""QEMU's default `downtime-limit`."""

PASSES_MAX: Final = 100
"""A guest that has not converged by then is switched over by force, as an operator would."""


@dataclass(slots=True)
class Fluid:
    """One migration.

    Attributes:
        first_bytes: of the first pass, on the wire.
        dirty_bytes_per_s: new bytes that the guest's writing makes, on the wire, while few are dirty.
        working_set_bytes: what it writes to again and again, on the wire: more is never dirty at once.
        left_bytes: of the pass under way.
        passes: begun so far.
        is_switching: its guest is paused.
        is_over: it runs at the destination.
        sent_bytes: so far.
    """

    first_bytes: float
    dirty_bytes_per_s: float
    working_set_bytes: float
    left_bytes: float = field(init=False)
    passes: int = 1
    is_switching: bool = False
    is_over: bool = False
    sent_bytes: float = 0.0
    _written_bytes: float = 0.0

    def __post_init__(self) -> None:
        self.left_bytes = self.first_bytes

    def next_event_s(self, rate_bytes_per_s: float) -> float:
        """Return the seconds until the pass or the switchover ends at this rate; infinite at none."""
        return self.left_bytes / rate_bytes_per_s if rate_bytes_per_s > 0 and not self.is_over else math.inf

    def advance(self, seconds: float, rate_bytes_per_s: float) -> None:
        """Let time pass.

        Args:
            seconds: at most `next_event_s`.
            rate_bytes_per_s: granted meanwhile, on the wire.
        """
        if self.is_over:
            return
        sent = min(self.left_bytes, rate_bytes_per_s * seconds)
        self.sent_bytes += sent
        self.left_bytes -= sent
        if not self.is_switching and self.working_set_bytes > 0 and self.sent_bytes > 0:
            room = self.working_set_bytes - self._written_bytes
            self._written_bytes += room * -math.expm1(-self.dirty_bytes_per_s * seconds / self.working_set_bytes)
        if self.left_bytes <= self.first_bytes * 1e-12:
            self._end_pass(rate_bytes_per_s)

    def _end_pass(self, rate_bytes_per_s: float) -> None:
        if self.is_switching:
            self.left_bytes = 0.0
            self.is_over = True
            return
        self.left_bytes, self._written_bytes = self._written_bytes, 0.0
        if self.left_bytes <= rate_bytes_per_s * DOWNTIME_S or self.passes >= PASSES_MAX:
            self.is_switching = True
            self.is_over = self.left_bytes == 0
        else:
            self.passes += 1
