"""Settings of the watch over a fleet: thresholds, patience, and the windows in which moves may begin.

The rule: this module plans nothing, so that agents and commands which only read the settings load no kernels.
"""

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

WINDOWS_MAX: Final = 32
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60

WatchMode = Literal["off", "observe", "on"]
Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=31 * 86400)]


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the relief of a fleet that happens by itself.

    Attributes:
        mode: `observe` notes the moves that `on` would make.
        threshold: level above which a host is hot.
        margin: by which a move must lower it, and by which its destination stays below the threshold.
        hold_s: for which a host must have been hot in every sample.
        every_s: between two samples.
        cool_down_s: for which a domain that moved stays.
        windows: when moves may begin, as `mon-fri 22:00-06:00` in UTC; none is always.
        moves_max: of one round.
        at_once: moves that run at the same time.
    """

    mode: WatchMode = "off"
    threshold: Share = 0.8
    margin: Share = 0.05
    hold_s: Seconds = 900.0
    every_s: Annotated[float, Meta(ge=10, le=86400)] = 300.0
    cool_down_s: Seconds = 6 * 3600.0
    windows: Annotated[list[str], Meta(max_length=WINDOWS_MAX)] = []
    moves_max: Annotated[int, Meta(ge=1, le=64)] = 4
    at_once: Annotated[int, Meta(ge=1, le=64)] = 1


def in_window(windows: Iterable[str], weekday: int, minute: int) -> bool:
    """Tell whether moves may begin now.

    Args:
        windows: as in `WatchSettings`; none is always.
        weekday: 0 is Monday.
        minute: of the day.

    Raises:
        ValueError: a window cannot be read.
    """
    chosen = [parse_window(one) for one in windows]
    return not chosen or any(_holds(one, weekday, minute) for one in chosen)


def parse_window(text: str) -> tuple[frozenset[int], int, int]:
    """Read a window: its days, and its first and last minute of the day.

    Raises:
        ValueError: it is none.
    """
    days, _, hours = text.strip().lower().partition(" ")
    first, _, last = days.partition("-")
    if first not in DAYS or (last and last not in DAYS):
        raise ValueError(f"{text!r} is no window: write `mon-fri 22:00-06:00`")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    count = (end - begin) % len(DAYS) + 1
    return frozenset((begin + one) % len(DAYS) for one in range(count)), *_minutes(text, hours)


def _minutes(text: str, hours: str) -> tuple[int, int]:
    found = []
    for part in hours.split("-"):
        hour, _, minute = part.partition(":")
        if not (hour.isdecimal() and minute.isdecimal() and int(minute) < 60 and int(hour) * 60 <= DAY_MINUTES):  # noqa: PLR2004
            raise ValueError(f"{text!r} is no window: write `mon-fri 22:00-06:00`")
        found.append(min(DAY_MINUTES, int(hour) * 60 + int(minute)))
    if len(found) != 2:  # noqa: PLR2004
        raise ValueError(f"{text!r} is no window: write `mon-fri 22:00-06:00`")
    return found[0], found[1]


def _holds(window: tuple[frozenset[int], int, int], weekday: int, minute: int) -> bool:
    """Whether a moment is within a window; one past midnight belongs to the day on which it began."""
    days, begin, end = window
    if begin <= end:
        return weekday in days and begin <= minute < end
    return (weekday in days and minute >= begin) or ((weekday - 1) % len(DAYS) in days and minute < end)
