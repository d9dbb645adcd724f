"""The time that may be written into the log: a bound drawn from several hosts' clocks. No IO, no clock of its own.

The fleet's time never goes back by itself, so that one command with a clock far ahead would freeze it. The host that
appends to the log (Raft's leader; with etcd the host itself) lets no command bring a time later than this bound.

    samples    the clocks in each host's latest commands, as a distance to this host's monotonic clock
    bound      the lower median of the samples, and a few seconds: one wrong clock of three moves it by nothing
    too few    the fleet's time when this host began to append, plus the time that has passed here since
"""

from typing import Final

SKEW_S: Final = 5.0
"""Seconds that a clock may be ahead of the others' before it is held back."""

SAMPLE_S_MAX: Final = 35.0
"""A host's clock counts for so long: it speaks every ten seconds."""

SAMPLES_MAX: Final = 1024
"""Hosts whose clocks are kept; one for each host of the largest fleet."""


class FleetClock:
    """The clocks of a fleet as one host receives them; times are in seconds, `monotonic` is this host's clock."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[float, float]] = {}
        self._anchor: tuple[float, float] | None = None

    def anchor(self, fleet_now: float, monotonic: float) -> None:
        """Note the fleet's time when this host begins to append; earlier samples no longer count.

        Args:
            fleet_now: seconds since the epoch.
            monotonic: of the same moment, on this host's clock.
        """
        self._samples.clear()
        self._anchor = (fleet_now, monotonic)

    def hear(self, host: str, at: float, monotonic: float) -> None:
        """Take a sample of a host's clock.

        Args:
            host: whose clock it is; its last sample is replaced.
            at: by that clock, seconds since the epoch.
            monotonic: of the same moment, on this host's clock.
        """
        self._samples.pop(host, None)
        self._samples[host] = (at - monotonic, monotonic)
        oldest = next(iter(self._samples))
        if len(self._samples) > SAMPLES_MAX or monotonic - self._samples[oldest][1] > SAMPLE_S_MAX:
            del self._samples[oldest]

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
