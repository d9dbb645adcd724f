"""Series that a migration's record holds: rates, waits, passes and the parts of the downtime. Nothing is made up.

The rule: a series that the record lacks is empty; the picture of it says that it is missing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from dwcp_migrate.api.course import STAGES, CoursePoint
from dwcp_migrate.api.schema import Migration, MigrationEvent

WAITED_MIN_S: Final = 0.05
"""Waits of a step that are told apart from none."""

SWITCHOVER: Final = "switchover"


class Rates(NamedTuple):
    """Rates in one step of the course, in bytes a second, at its middle."""

    at_s: float
    raw: float
    wire: float


class PauseStep(NamedTuple):
    """One part of the time in which the guest ran nowhere, as far as this host saw it."""

    name: str
    seconds: float


def rates_of(course: Sequence[CoursePoint]) -> list[Rates]:
    """The rates between points."""
    points = [CoursePoint(0.0), *course]
    found = []
    for before, after in pairwise(points):
        seconds = after.at_s - before.at_s
        if seconds > 0:
            raw = max(0, after.raw_bytes - before.raw_bytes) / seconds
            found.append(
                Rates((before.at_s + after.at_s) / 2, raw, max(0, after.wire_bytes - before.wire_bytes) / seconds)
            )
    return found


def waits_of(course: Sequence[CoursePoint]) -> tuple[list[float], dict[str, list[float]]]:
    """Edges of the steps, and by stage the share of each step in which all others waited for it."""
    known = [CoursePoint(0.0, held_up_s=(0.0,) * len(STAGES)), *(point for point in course if point.held_up_s)]
    edges, steps = [0.0], []
    for before, after in pairwise(known):
        waited = [max(0.0, now - then) for then, now in zip(before.held_up_s, after.held_up_s, strict=False)]
        total = sum(waited)
        if after.at_s > edges[-1]:
            edges.append(after.at_s)
            steps.append([one / total if total >= WAITED_MIN_S else 0.0 for one in waited])
    shares = {stage: [step[at] if at < len(step) else 0.0 for step in steps] for at, stage in enumerate(STAGES)}
    return edges, {stage: found for stage, found in shares.items() if any(found)}


def passes_of(migration: Migration) -> list[tuple[float, str]]:
    """The beginning of each pass over memory, in seconds since the start, and its number."""
    found: dict[int, float] = {}
    for event in migration.events:
        if event.event in {"iteration", "libvirt-iteration"} and event.number > 0:
            found.setdefault(event.number, max(0.0, event.at - migration.started_at))
    return [
        (at, str(number) if place else f"pass {number}") for place, (number, at) in enumerate(sorted(found.items()))
    ]


def phases_of(migration: Migration, now: float) -> list[tuple[str, float]]:
    """The states in their order, and how long each lasted, in seconds.

    Args:
        migration: its record.
        now: seconds since the epoch, for one that runs.
    """
    ends = [phase.at for phase in migration.phases[1:]] + [migration.ended_at or now]
    return [
        (phase.state, max(0.0, end - phase.at))
        for phase, end in zip(migration.phases, ends, strict=False)
        if phase.state != "ended"
    ]


def pause_of(migration: Migration) -> list[PauseStep]:
    """The parts of the downtime at the source; empty where libvirt did not say when it paused the guest."""
    suspended = _first(migration, "libvirt-suspended")
    left = _first(migration, "libvirt-left")
    if suspended is None or left is None or migration.role != "source":
        return []
    switched = _first(migration, SWITCHOVER)
    closed = [event for event in migration.events if event.event == "connection-closed"]
    steps = [("last pages of memory", switched)]
    if closed:
        steps.append(("devices, and what was on the way", closed[-1]))
    found, at = [], suspended.at
    for name, event in steps:
        if event is not None and at < event.at <= left.at:
            found.append(PauseStep(name, event.at - at))
            at = event.at
    return [*found, PauseStep("libvirt's word that it has arrived", max(0.0, left.at - at))]


def _first(migration: Migration, name: str) -> MigrationEvent | None:
    return next((event for event in migration.events if event.event == name), None)
