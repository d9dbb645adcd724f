"""State of a series after a silence: whether it goes on as before, and at which level (pure).

The rule: the panel takes samples as consecutive seconds and expects a series to return to where it mostly was. Between
two migrations lie hours, in which a link may have been shaped anew or routed elsewhere; then it will not return to its
old level. The first samples after a silence decide, all of them together against the range that was forecast.

After a silence the last seconds before it say no more than any others of that migration: a forecast leans on them, and
a migration's last seconds are its slowest. So its mean counts as well.
"""

import statistics
from collections import deque
from collections.abc import Collection
from typing import Final

from dwcp_migrate.bandwidth.quantiles import Range
from dwcp_migrate.bandwidth.targets import STEPS_MAX

SILENCE_S: Final = 10.0
"""Seconds without a sample from which on a series has to show anew that it is the same."""

SAMPLES: Final = 3
"""After a silence; one alone may be the slow start of a transfer."""

MARGIN: Final = 1.15
"""Factor beyond the range forecast (quantiles 0.1 and 0.9) that a change has to reach."""

LEVEL_SAMPLES: Final = 5
"""So many samples of the last migration weigh as much as the forecast. Replayed over 17 migrations of the lab, a mean
of 25 was off by 4 % where the forecast was off by 7 to 50; one of 5 was no better than the forecast."""


def after_silence(forecast: Range, samples: Collection[float]) -> Range:
    """Shift a forecast towards the level of the last migration.

    Args:
        forecast: what the panel says.
        samples: of the last migration; none negative.
    """
    if not any(samples) or forecast.median <= 0:
        return forecast
    weight = len(samples) / (len(samples) + LEVEL_SAMPLES)
    factor = float((statistics.fmean(samples) / forecast.median) ** weight)
    return Range(forecast.low * factor, forecast.median * factor, forecast.high * factor)


class Run:
    """The samples of a series since its last silence.

    Args:
        expected: forecast of the mean of the first `SAMPLES`, made before the silence; None where there was none.

    Attributes:
        samples: the newest of them, oldest first.
    """

    def __init__(self, expected: Range | None) -> None:
        self.samples: deque[float] = deque(maxlen=STEPS_MAX)
        self._expected = expected
        self._at = 0.0

    def is_over(self, now: float) -> bool:
        """Tell whether the series has fallen silent; `now` is seconds since the epoch."""
        return now - self._at > SILENCE_S

    def take(self, sample: float, now: float) -> bool:
        """Take one sample.

        Args:
            sample: not negative.
            now: seconds since the epoch.

        Returns:
            Whether the series has shown with it that it is another one, which begins with `samples`.
        """
        self.samples.append(sample)
        self._at = now
        if self._expected is None or len(self.samples) != SAMPLES:
            return False
        level = statistics.median(self.samples)
        return not self._expected.low / MARGIN <= level <= self._expected.high * MARGIN
