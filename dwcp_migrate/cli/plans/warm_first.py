"""Options of the commands that warm guests up before they move, and words about plans that wait for that."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from dwcp_migrate.api.limits import LIMIT_BYTES_PER_S_MIN
from dwcp_migrate.api.plans import PlanRecord, WarmFirst, WarmMove
from dwcp_migrate.api.warm import WARM_S_MAX
from dwcp_migrate.api.warm_plan import has_to_wait, pending_moves, warm_moves
from dwcp_migrate.cli.migrations.limit import Period, Rate
from dwcp_migrate.clocks import wall_clock
from dwcp_migrate.placement.plan import Plan

WARM_FOR_S: Final = 1800.0
"""For which moves wait for warm-ups, unless `--warm-for` says otherwise."""

AT_S_MAX: Final = 7 * 86400.0
"""Until the time of a plan; what is agreed to a week ahead is about another fleet."""

Decorated = Callable[..., Any]


class BeginTime(click.ParamType[float]):
    """A time to come: `22:00`, today or else tomorrow, or in ISO 8601; local unless it says otherwise."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`: seconds since the epoch."""
        if isinstance(value, float):
            return value
        now = wall_clock()
        try:
            found = time_to_come(str(value), now)
        except ValueError:
            self.fail(f"{value!r} is no time: as in 22:00, or 2026-11-30T22:00", param, ctx)
        if not now < found <= now + AT_S_MAX:
            self.fail(f"{value} is {'over' if found <= now else 'more than a week ahead'}", param, ctx)
        return found


def time_to_come(text: str, now: float) -> float:
    """Read a time, in seconds since the epoch.

    Args:
        text: `22:00`, the next one, or a date and time in ISO 8601, local unless it has an offset.
        now: seconds since the epoch.

    Raises:
        ValueError: it is none.
    """
    if text[:1].isdecimal() and text.count(":") == 1 and "-" not in text:
        at = dt.time.fromisoformat(text.zfill(len("00:00")))
        today = dt.datetime.fromtimestamp(now).date()  # noqa: DTZ006 - the operator's own day
        days = (dt.datetime.combine(today + dt.timedelta(days), at).timestamp() for days in (0, 1))
        return next(one for one in days if one > now)
    return dt.datetime.fromisoformat(text).timestamp()


@dataclass(frozen=True, slots=True)
class WarmWords:
    """Options about warm-ups, as they were given.

    Attributes:
        warm: guests are warmed up first.
        for_s: for which moves wait for it at most.
        bytes_per_s: most on the wire; 0 is no limit of its own.
    """

    warm: bool
    for_s: float
    bytes_per_s: float


def warm_options(command: Decorated) -> Decorated:
    """Add `--warm`, `--warm-for` and `--warm-rate`; the command takes them as `**words` for `take_warm_words`."""
    for option in (
        click.option("--warm-rate", type=Rate(), default=0.0, help="Most on the wire for that: 200Mbit/s, 25MB/s."),
        click.option(
            "--warm-for", type=Period(), default=None, help="Wait no longer than that for it  [default: 30min]."
        ),
        click.option("--warm", is_flag=True, help="First bring the guest's pages to its destination's page store."),
    ):
        command = option(command)
    return command


def take_warm_words(words: dict[str, Any], *, at: float | None = None) -> WarmWords:
    """Take the options of `warm_options` out of a command's others.

    Args:
        words: keyword arguments of the command.
        at: when the moves are to begin; guests are warmed up before that.

    Raises:
        UsageError: one without the other that it needs, or out of its limits.
    """
    warm, for_s, rate = words.pop("warm"), words.pop("warm_for"), words.pop("warm_rate")
    if for_s is not None and at is not None:
        raise click.UsageError("--warm-for and --at exclude each other: the moves begin at that time")
    if not warm and at is None and (for_s is not None or rate):
        raise click.UsageError("--warm-for and --warm-rate need --warm")
    if for_s is not None and not 0 < for_s <= WARM_S_MAX:
        raise click.UsageError(f"--warm-for: at most {WARM_S_MAX / 3600:.0f}h")
    if 0 < rate < LIMIT_BYTES_PER_S_MIN:
        raise click.UsageError(f"--warm-rate: at least {LIMIT_BYTES_PER_S_MIN:.0f} bytes a second")
    return WarmWords(warm or at is not None, WARM_FOR_S if for_s is None else for_s, rate)


def order_of(words: WarmWords, plan: Plan, at: float | None, now: float) -> WarmFirst | None:
    """Build the order of warm-ups that goes with a plan; None without them.

    Args:
        words: of the command.
        plan: as it was shown.
        at: when the moves are to begin; None: once the guests are warm.
        now: seconds since the epoch.
    """
    if not words.warm:
        return None
    begins_at = now + words.for_s if at is None else at
    return WarmFirst(begins_at=begins_at, waits=at is not None, bytes_per_s=words.bytes_per_s, moves=moves_of(plan))


def moves_of(plan: Plan) -> list[WarmMove]:
    """The guests of a plan that are warmed up, in its order, and the hosts that get their pages."""
    return warm_moves(WarmMove(step.domain, step.source, step.destination) for step in plan.steps)


def awaiting_words(record: PlanRecord, now: float) -> str:
    """Say what a plan's moves wait for, as `warming 2 of 4, waits until 22:00`; empty where they do not.

    Args:
        record: of the plan.
        now: seconds since the epoch.
    """
    order = record.request.warm_first
    if order is None or not has_to_wait(record, now):
        return ""
    total, left = len(order.moves), len(pending_moves(record))
    cold = sum(not one.is_warm for one in record.warmed.values())
    parts = [
        f"warming {total - left + 1} of {total}" if left else "",
        f"waits until {clock_words(order.begins_at, now)}" if order.waits else "",
        f"{cold} not warmed up" if cold else "",
    ]
    return ", ".join(filter(None, parts))


def clock_words(at: float, now: float) -> str:
    """A local time, with its date where that is another day than now.

    Args:
        at: seconds since the epoch.
        now: likewise.
    """
    there, here = (dt.datetime.fromtimestamp(one, dt.UTC).astimezone() for one in (at, now))
    return there.strftime("%H:%M" if there.date() == here.date() else "%Y-%m-%d %H:%M")


def cold_lines(record: PlanRecord) -> list[str]:
    """The guests that are not warmed up and why, a line each."""
    return [
        f"{domain} is not warmed up: {one.words}; it migrates without"
        for domain, one in record.warmed.items()
        if not one.is_warm
    ]
