"""Quantities with units in the configuration: `1GiB`, `200Mbit/s`, `90s` where a key's suffix names a unit.

unit_of("link_bytes_per_s_max") == "rate";  number_of("200Mbit/s", "rate") == 25e6
"""

import re
from typing import Final, Literal

from dwcp_migrate.units import GIB, KIB, MIB, TIB

Unit = Literal["size", "rate", "seconds", "milliseconds"]

_SIZES: Final[dict[str, float]] = {
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
    "TiB": TIB,
}
_BITS: Final = {"bit/s": 1, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_TIMES: Final = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}

UNITS: Final[dict[Unit, dict[str, float]]] = {
    "size": _SIZES,
    "rate": {**{name: bits / 8 for name, bits in _BITS.items()}, **{f"{name}/s": n for name, n in _SIZES.items()}},
    "seconds": {name: float(seconds) for name, seconds in _TIMES.items()},
    "milliseconds": {name: seconds * 1000 for name, seconds in _TIMES.items()},
}
"""Each unit that may be written, by what is counted; its value in that of the key."""

EXAMPLES: Final[dict[Unit, str]] = {
    "size": 'bytes, or as "1GiB"',
    "rate": 'bytes a second, or as "200Mbit/s"',
    "seconds": 'seconds, or as "90s" or "2min"',
    "milliseconds": 'milliseconds, or as "50ms"',
}

_SUFFIXES: Final[tuple[tuple[str, Unit], ...]] = (
    ("bytes_per_s", "rate"),
    ("bytes", "size"),
    ("_ms", "milliseconds"),
    ("_s", "seconds"),
)
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z/]+)")


def unit_of(key: str) -> Unit | None:
    """Say what a key counts by its suffix; None where that names no unit."""
    name = key.rpartition(".")[2].removesuffix("_max")
    return next((unit for suffix, unit in _SUFFIXES if name.endswith(suffix)), None)


def number_of(text: str, unit: Unit) -> float | int | None:
    """Read a quantity in the unit of its key.

    Args:
        text: as `1GiB` or `90 s`; a unit is needed.
        unit: kind of quantity that the key holds; units of other kinds are refused.

    Returns:
        Bytes, bytes a second, seconds or milliseconds, an int where it is whole; None where the text is no such
        quantity.
    """
    found = _QUANTITY.fullmatch(text.strip())
    factor = UNITS[unit].get(found[2]) if found else None
    if found is None or factor is None:
        return None
    number = float(found[1]) * factor
    return round(number) if abs(number - round(number)) < _ROUNDING * max(1.0, number) else number


_ROUNDING: Final = 1e-12
"""Relative distance from a whole number that counts as rounding: 0.3 s is 300 ms, though 0.3 is no binary fraction."""
