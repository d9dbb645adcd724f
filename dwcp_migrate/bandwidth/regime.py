"""Whether a series that was silent goes on as it was, or has become another one (pure).

The rule: the panel takes samples as consecutive seconds and expects a series to return to where it mostly was. Between
two migrations lie hours, in which a link may have been shaped anew or routed elsewhere; then what it was before is no
place to return to. The first samples after a silence decide, all of them together against the range that was forecast.
"""

import statistics
from typing import Final

from dwcp_migrate.bandwidth.predictor import Range

SILENCE_S: Final = 10.0
"""Seconds without a sample from which on a series has to show anew that it is the same."""

SAMPLES: Final = 3
"""After a silence; one alone may be the slow start of a transfer."""

MARGIN: Final = 1.15
"""Factor beyond the range forecast (quantiles 0.1 and 0.9) that a change has to reach."""


class Resumption:
    """The first samples of a series after a silence.

    Args:
        forecast: of their mean, made before the silence.
    """

    def __init__(self, forecast: Range) -> None:
        self._forecast = forecast
        self._samples: list[float] = []

    @property
    def is_over(self) -> bool:
        """Whether enough came to judge."""
        return len(self._samples) >= SAMPLES

    def take(self, sample: float) -> list[float]:
        """Take one sample.

        Returns:
            Once it is over and the series is another one: the samples that it now begins with; empty otherwise.
        """
        self._samples.append(sample)
        if not self.is_over:
            return []
        level = statistics.median(self._samples)
        is_same = self._forecast.low / MARGIN <= level <= self._forecast.high * MARGIN
        return [] if is_same else self._samples
