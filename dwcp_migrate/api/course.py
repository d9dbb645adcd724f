"""The course of a migration: what had crossed, and what it had waited for, at some moments of it. No clock.

The rule: however long it takes, a record keeps at most `POINTS_MAX` points, evenly spread: when they are full every
second one goes, and new ones come half as often.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

STAGES: Final = ("qemu", "reader", "classifier", "compressors", "encryption", "link", "destination", "cores")
"""Stages of the pipeline in the order of `CoursePoint.held_up_s`; new ones come at the end."""

POINTS_MAX: Final = 96
"""6 KiB of JSON at most."""


class CoursePoint(msgspec.Struct, frozen=True, array_like=True):
    """A moment of a migration; an array in JSON. All but the gauges are totals since its start.

    Attributes:
        at_s: since the record began.
        raw_bytes: taken from QEMU.
        wire_bytes: on the channels.
        remaining_bytes: libvirt's measure; -1 while unknown (gauge).
        dirty_bytes_per_s: likewise (gauge).
        channels: up then (gauge).
        rtt_ms: of the link (gauge).
        held_up_s: time by the stage that all others waited for, in the order of `STAGES`.
    """

    at_s: float
    raw_bytes: int = 0
    wire_bytes: int = 0
    remaining_bytes: int = -1
    dirty_bytes_per_s: int = -1
    channels: int = 0
    rtt_ms: float = 0.0
    held_up_s: tuple[float, ...] = ()


def in_order(held_up_s: Mapping[str, float]) -> tuple[float, ...]:
    """The times by stage in the order of `STAGES`, to a hundredth of a second."""
    return tuple(round(held_up_s.get(stage, 0.0), 2) for stage in STAGES) if held_up_s else ()


def with_point(course: tuple[CoursePoint, ...], point: CoursePoint) -> tuple[CoursePoint, ...]:
    """Add a point, unless the last one is too near.

    Args:
        course: so far.
        point: the newest; one that is not later than the last one is left out.
    """
    if course and point.at_s - course[-1].at_s < point.at_s / POINTS_MAX:
        return course
    course = (*course, point)
    return course if len(course) <= POINTS_MAX else course[::2]


def with_last_point(course: tuple[CoursePoint, ...], point: CoursePoint) -> tuple[CoursePoint, ...]:
    """Add the point of the end, in the place of one just before it.

    Args:
        course: so far.
        point: of the end.
    """
    kept = course[:-1] if course and point.at_s - course[-1].at_s < point.at_s / POINTS_MAX else course
    return (*kept, point)
