"""The time that may be written into the log: a bound drawn from several hosts' clocks. No IO, no clock of its own.

The fleet's time never goes back by itself, so that one command with a clock far ahead would freeze it. Whoever appends
to the log (Raft's leader; with etcd the host itself) lets no command bring a time later than this bound.

    samples    what each host's commands said lately, as a distance to this host's monotonic clock
    bound      the lower median of the samples, and a few seconds: one wrong clock of three moves it by nothing
    too few    the fleet's time when this host began to append, plus what has passed here since
"""

from typing import Final

SKEW_S: Final = 5.0
"""Seconds that a clock may be ahead of the others' before it is held back."""

SAMPLE_S_MAX: Final = 35.0
"""A host's clock counts for so long: it speaks every ten seconds."""

SAMPLES_MAX: Final = 1024
"""Hosts whose clocks are kept; one for each host of the largest fleet."""


class FleetClock:
    """The clocks of a fleet as one host hears them; all times are seconds, `monotonic` those of this host's clock."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[float, float]] = {}
        self._anchor: tuple[float, float] | None = None

    def anchor(self, fleet_now: float, monotonic: float) -> None:
        """Say what the fleet's time is when this host begins to append; samples of before count no more."""
        self._samples.clear()
        self._anchor = (fleet_now, monotonic)

    def hear(self, host: str, at: float, monotonic: float) -> None:
        """Take a sample of a host's clock."""
        self._samples.pop(host, None)
        self._samples[host] = (at - monotonic, monotonic)
        if len(self._samples) > SAMPLES_MAX:
            del self._samples[next(iter(self._samples))]

    def latest(self, monotonic: float, quorum: int) -> float:
        """Return the latest time that a command may bring now.

        Args:
            monotonic: now.
            quorum: samples that are enough to be believed.
        """
        fresh = sorted(offset for offset, heard_at in self._samples.values() if monotonic - heard_at <= SAMPLE_S_MAX)
        fleet_now, began_at = self._anchor or (0.0, monotonic)
        if len(fresh) >= quorum:
            return fresh[(len(fresh) - 1) // 2] + monotonic + SKEW_S
        return fleet_now + (monotonic - began_at)
