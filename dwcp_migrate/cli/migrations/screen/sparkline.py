"""Sparklines: the last values of a quantity as a row of small columns, in Unicode blocks or in ASCII."""

from collections.abc import Sequence
from typing import Final

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
ASCII: Final = " .:-=+*#@"
"""For a terminal or a locale that has no blocks; both from nothing to full."""


def levels_for(*encodings: str) -> str:
    """Choose the levels that can be written in all of these encodings."""
    for encoding in encodings:
        try:
            BLOCKS.encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return ASCII
    return BLOCKS


def sparkline(values: Sequence[float], peak: float, levels: str) -> str:
    """Draw values as one character each; only 0 is drawn as nothing.

    Args:
        values: the oldest first, none negative.
        peak: value of a full column; larger ones are full too.
        levels: characters from nothing to full.
    """
    full = len(levels) - 1
    return "".join(levels[_level(value / peak if peak else 0.0, full)] for value in values)


def _level(share: float, full: int) -> int:
    return min(full, max(1, round(share * full))) if share > 0 else 0
