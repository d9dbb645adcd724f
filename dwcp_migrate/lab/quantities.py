"""Rates, times and shares as they are typed on a command line: `200mbit`, `40ms`, `0.1%`.

The rule here: a number without a unit is refused, because several units are usual.
"""

import re
from typing import Final

from dwcp_migrate.errors import LabError

_NUMBER: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)

RATE_UNITS: Final = {"kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8}
TIME_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
SIZE_UNITS: Final = {"k": 1024.0, "kib": 1024.0, "m": 1024.0**2, "mib": 1024.0**2, "b": 1.0}
SHARE_UNITS: Final = {"%": 0.01}


def rate_bytes_per_s(text: str) -> float:
    """Read a link's rate: kbit, mbit or gbit (a second)."""
    return _quantity(text, RATE_UNITS)


def duration_s(text: str) -> float:
    """Read a duration: us, ms or s."""
    return _quantity(text, TIME_UNITS)


def size_bytes(text: str) -> int:
    """Read a size: b, k or m (binary)."""
    return int(_quantity(text, SIZE_UNITS))


def parse_percent(text: str) -> float:
    """Read a share in percent; returns 0 to 1.

    Raises:
        LabError: more than 100 %.
    """
    value = _quantity(text, SHARE_UNITS)
    if value > 1:
        raise LabError(f"'{text}' is more than 100 %")
    return value


def _quantity(text: str, units: dict[str, float]) -> float:
    match = _NUMBER.fullmatch(text)
    unit = match[2].lower() if match else ""
    if match is None or (unit not in units and float(match[1]) != 0):
        raise LabError(f"'{text}' is no number with one of the units {', '.join(units)}")
    return float(match[1]) * units.get(unit, 0.0)
