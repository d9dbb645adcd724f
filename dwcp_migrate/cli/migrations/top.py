"""`dwcp-migrate top`: the migrations, live. Without a terminal it prints plain status blocks, one an interval.

The rule: drawing is a pure function of the last answer; an agent that goes away is shown as such and asked again, so
that `top` can stay open across an upgrade.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.host import status
from dwcp_migrate.cli.migrations import history
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import AgentUnreachableError
from dwcp_migrate.units import format_rate

RECENT: Final = 5
"""Ended migrations shown below the running ones."""

BAR_COLUMNS: Final = 12

FITTED_COLUMNS_MIN: Final = 8
"""Of a name that is cut to fit."""


@click.command()
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two pictures.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many.")
@json_option
@agent_options
def command(
    *, interval: float, count: int | None, as_json: bool, config_path: Path | None, socket_path: Path | None
) -> None:
    """Watch the migrations live. Ctrl-C ends it."""
    client = ApiClient(control_socket(config_path, socket_path))
    client.status()  # an agent that is not there at the start is an error, not a picture
    if as_json or not output.on_terminal():
        for _ in _ticks(interval, count):
            answer = client.status()
            click.echo(output.as_line(answer) if as_json else status.render(answer, []) + "\n")
        return
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for _ in _ticks(interval, count):
            live.update(picture(client, console.width), refresh=True)


def _ticks(interval: float, count: int | None) -> Iterator[int]:
    """Count up, sleeping between, `count` times or for ever."""
    for tick in itertools.count() if count is None else range(count):
        if tick:
            time.sleep(interval)
        yield tick


def picture(client: ApiClient, width: int) -> RenderableType:
    """Ask the agent and draw its answer, or its absence.

    Args:
        client: the local agent.
        width: of the terminal, characters.
    """
    try:
        return draw(client.status(), client.history(RECENT).migrations, width)
    except AgentUnreachableError as error:
        return Text(f"{error}\n{error.hint}", style="red")


def draw(answer: schema.AgentStatus, recent: list[schema.Migration], width: int) -> RenderableType:
    """Draw the agent, the running and the last ended migrations.

    Args:
        answer: of the agent.
        recent: migrations that ended, the newest first.
        width: at most, characters.
    """
    parts: list[RenderableType] = [_head(answer), Text()]
    if answer.migrations:
        parts.append(_table(_running(answer.now), answer.migrations, width))
    else:
        parts.append(Text("No migration under way.", style="dim"))
    if recent:
        parts += [Text(), Text("Ended", style="bold"), _table(_ENDED, recent, width)]
    return Group(*parts)


def _head(answer: schema.AgentStatus) -> RenderableType:
    moving = sum(one.raw_bytes_per_s for one in answer.migrations)
    wire = sum(one.wire_bytes_per_s for one in answer.migrations)
    healthy = answer.intercept.armed or not answer.intercept.wanted
    said = Text(f"{answer.name}  {answer.state}", style="bold")
    redirect = (
        f"armed, {status.caught(answer.intercept)}" if answer.intercept.armed else status.redirect(answer.intercept)
    )
    said.append(f"   redirect {redirect}\n", style="not bold" if healthy else "red")
    said.append(f"guest memory {format_rate(moving)}, on the wire {format_rate(wire)}", style="not bold")
    return said


@dataclass(frozen=True, slots=True)
class _Column:
    """A column, shown from a terminal of `from_width` characters on; `fits` may be cut, the others never are."""

    heading: str
    from_width: int
    cell: Callable[[schema.Migration], RenderableType]
    number: bool = False
    fits: bool = False


def _table(columns: tuple[_Column, ...], migrations: list[schema.Migration], width: int) -> RenderableType:
    shown = [column for column in columns if width >= column.from_width]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in shown:
        cells = [column.cell(one) for one in migrations]
        widest = max([len(cell) for cell in cells if isinstance(cell, str | Text)] + [len(column.heading)])
        table.add_column(
            column.heading,
            justify="right" if column.number else "left",
            no_wrap=True,
            min_width=min(widest, FITTED_COLUMNS_MIN) if column.fits else widest,
        )
    for one in migrations:
        table.add_row(*[column.cell(one) for column in shown])
    return table


def _running(now: float) -> tuple[_Column, ...]:
    return (
        _Column("Id", 100, lambda one: one.id[:8]),
        _Column("Domain", 0, output.domain, fits=True),
        _Column("Peer", 70, output.peer, fits=True),
        _Column("State", 0, lambda one: Text(status.state(one), style=_style(one))),
        _Column("Progress", 110, _bar),
        _Column("", 0, lambda one: output.percent(output.progress(one)), number=True),
        _Column("Rate", 60, output.rate, number=True),
        _Column("Wire", 120, lambda one: format_rate(one.wire_bytes_per_s), number=True),
        _Column("Ratio", 80, output.ratio, number=True),
        _Column("Ch", 120, lambda one: str(one.counters.channels), number=True),
        _Column("Time", 110, lambda one: output.duration(one.duration_s(now)), number=True),
        _Column("Waits for", 130, _waits_for),
        _Column("ETA", 0, lambda one: output.duration(one.eta_s), number=True),
    )


_ENDED: Final = (
    _Column("Id", 100, lambda one: one.id[:8]),
    _Column("Domain", 0, output.domain, fits=True),
    _Column("Peer", 70, output.peer, fits=True),
    _Column("Ended", 110, lambda one: output.moment(one.ended_at)),
    _Column("Result", 0, lambda one: Text(one.result, style="" if one.result == "completed" else "red")),
    _Column("Time", 0, lambda one: output.duration(one.duration_s(one.ended_at)), number=True),
    _Column("Downtime", 80, lambda one: output.milliseconds(one.downtime_ms), number=True),
    _Column("Ratio", 60, output.ratio, number=True),
    _Column("Note", 110, history.note, fits=True),
)


def _waits_for(migration: schema.Migration) -> str:
    """The stage that took most of its time; a destination does not know it."""
    held_up_s = migration.counters.held_up_s
    return max(held_up_s, key=lambda stage: held_up_s[stage]) if held_up_s else ""


def _bar(migration: schema.Migration) -> RenderableType:
    return ProgressBar(total=1.0, completed=output.progress(migration) or 0.0, width=BAR_COLUMNS)


def _style(migration: schema.Migration) -> str:
    if migration.state == "waiting":
        return "bold red"
    return "yellow" if migration.passthrough_reason else "green"
