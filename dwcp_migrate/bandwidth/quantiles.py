"""A number known as quantiles: the type of forecasts and predictions."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_migrate.bandwidth.targets import HIGH, LOW, MEDIAN, Floats

NORMAL_HIGH: Final = 1.2815515655446004
"""The 0.9 quantile of the normal distribution."""


@dataclass(frozen=True, slots=True)
class Range:
    """A positive number that is known as quantiles 0.1, 0.5 and 0.9."""

    low: float
    median: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Range":
        """Make the range of a number that is known."""
        return cls(value, value, value)

    @classmethod
    def around(cls, value: float, factor: float) -> "Range":
        """Make the range of a number that is known within a factor.

        Args:
            value: the median.
            factor: above 1, to either side.
        """
        return cls(value / factor, value, value * factor)

    @classmethod
    def of(cls, quantiles: Floats) -> "Range":
        """Make a range from a forecast (3,)."""
        return cls(float(quantiles[LOW]), float(quantiles[MEDIAN]), float(quantiles[HIGH]))


def normal_quantile(shares: Floats) -> Floats:
    """Compute quantiles of the normal distribution by Bowling et al. 2009; off by 0.03 at most."""
    logit = np.log(shares / (1 - shares))
    # Invert Phi(z) = 1 / (1 + exp(-(1.5976 z + 0.07056 z^3))) with three steps of Newton's method.
    z = logit / 1.702
    for _ in range(3):
        z = z - (1.5976 * z + 0.07056 * z**3 - logit) / (1.5976 + 0.21168 * z**2)
    return np.asarray(z)
