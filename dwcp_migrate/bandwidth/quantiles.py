"""A number known as quantiles: what forecasts say and predictions work with."""

from dataclasses import dataclass

from dwcp_migrate.bandwidth.targets import HIGH, LOW, MEDIAN, Floats


@dataclass(frozen=True, slots=True)
class Range:
    """A positive number that is known as quantiles 0.1, 0.5 and 0.9."""

    low: float
    median: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Range":
        """A number that is known."""
        return cls(value, value, value)

    @classmethod
    def around(cls, value: float, factor: float) -> "Range":
        """A number within a factor either way."""
        return cls(value / factor, value, value * factor)

    @classmethod
    def of(cls, quantiles: Floats) -> "Range":
        """From a forecast (3,)."""
        return cls(float(quantiles[LOW]), float(quantiles[MEDIAN]), float(quantiles[HIGH]))
