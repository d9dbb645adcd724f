"""The picture of `top`: a pure function of the agent's last answers and of the rates before it."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dwcp_migrate.api import schema
from dwcp_migrate.cli.host import status
from dwcp_migrate.cli.migrations import history
from dwcp_migrate.cli.migrations.screen.sparkline import BLOCKS, sparkline
from dwcp_migrate.cli.support import output
from dwcp_migrate.units import format_rate

BAR_COLUMNS: Final = 12

FITTED_COLUMNS_MIN: Final = 8
"""Of a name that is cut to fit."""

RATES_MAX: Final = 60
"""Rates kept of the host, and drawn where there is room: a minute by default."""

MIGRATION_RATES_MAX: Final = 12
"""Rates kept of each migration."""

HEAD_COLUMNS: Final = 27
"""Of the words before the host's sparklines."""

PEERS_MAX: Final = 8
"""Peers shown; those that do not answer go first."""

KEYS: Final = "q quit   p peers"


class RateTrail:
    """Rates of the host and of its migrations, as the agent told them at each picture."""

    def __init__(self) -> None:
        self.raw: deque[float] = deque(maxlen=RATES_MAX)
        self.wire: deque[float] = deque(maxlen=RATES_MAX)
        self.of: dict[str, deque[float]] = {}
        """By id of a running migration."""

    def take(self, answer: schema.AgentStatus) -> None:
        """Keep the rates of an answer; those of migrations that are over are dropped."""
        self.raw.append(sum(one.raw_bytes_per_s for one in answer.migrations))
        self.wire.append(sum(one.wire_bytes_per_s for one in answer.migrations))
        kept = {one.id: self.of.get(one.id, deque(maxlen=MIGRATION_RATES_MAX)) for one in answer.migrations}
        for one in answer.migrations:
            kept[one.id].append(one.raw_bytes_per_s)
        self.of = kept


@dataclass(frozen=True, slots=True)
class View:
    """Rates so far, the characters of sparklines, and the peers to show."""

    rates: RateTrail = field(default_factory=RateTrail)
    levels: str = BLOCKS
    peers: list[schema.PeerView] = field(default_factory=list)


def draw(
    answer: schema.AgentStatus, recent: list[schema.Migration], width: int, view: View | None = None
) -> RenderableType:
    """Draw the agent, the running and the last ended migrations, and the peers.

    Args:
        answer: of the agent.
        recent: migrations that ended, the newest first.
        width: at most, characters.
        view: what else is shown; None for nothing.
    """
    view = view or View()
    parts: list[RenderableType] = [*_head(answer, width, view), Text()]
    if answer.migrations:
        parts.append(_table(_running(answer.now, view), answer.migrations, width))
    else:
        parts.append(Text("No migration under way.", style="dim"))
    if view.peers:
        parts += [Text(), _peers(view.peers, width)]
    if recent:
        parts += [Text(), Text("Ended", style="bold"), _table(_ENDED, recent, width)]
    return Group(*parts)


def _head(answer: schema.AgentStatus, width: int, view: View) -> list[RenderableType]:
    healthy = answer.intercept.armed or not answer.intercept.wanted
    said = Text(f"{answer.name}  {answer.state}", style="bold")
    redirect = (
        f"armed, {status.caught(answer.intercept)}" if answer.intercept.armed else status.redirect(answer.intercept)
    )
    said.append(f"   redirect {redirect}", style="not bold" if healthy else "red")
    moving = sum(one.raw_bytes_per_s for one in answer.migrations)
    wire = sum(one.wire_bytes_per_s for one in answer.migrations)
    peak = max([*view.rates.raw, *view.rates.wire], default=0.0)
    room = max(0, min(RATES_MAX, width - HEAD_COLUMNS))

    def line(words: str, now: float, before: deque[float]) -> Text:
        drawn = sparkline(list(before)[-room:] if room else [], peak, view.levels)
        return Text(f"{words} {format_rate(now):<14}{drawn}".rstrip(), no_wrap=True)

    return [
        said,
        line("guest memory", moving, view.rates.raw),
        line("on the wire ", wire, view.rates.wire),
        Text(KEYS, style="dim"),
    ]


def _peers(peers: list[schema.PeerView], width: int) -> RenderableType:
    shown = sorted(peers, key=lambda peer: peer.reachable)[:PEERS_MAX]
    more = f"\n {output.counted(len(peers) - len(shown), 'more peer', 'more peers')}" if len(peers) > len(shown) else ""
    return Text(status.peer_table(shown, width) + more, no_wrap=True)


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


def _running(now: float, view: View) -> tuple[_Column, ...]:
    return (
        _Column("Id", 100, lambda one: one.id[:8]),
        _Column("Domain", 0, output.domain, fits=True),
        _Column("Peer", 70, output.peer, fits=True),
        _Column("State", 0, lambda one: Text(status.state(one), style=_style(one))),
        _Column("Progress", 110, lambda one: _bar(one, view.levels)),
        _Column("", 0, lambda one: output.percent(output.progress(one)), number=True),
        _Column("Rate", 60, output.rate, number=True),
        _Column("Lately", 150, lambda one: _lately(one, view)),
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


def _bar(migration: schema.Migration, levels: str) -> RenderableType:
    done = output.progress(migration) or 0.0
    if levels == BLOCKS:
        return ProgressBar(total=1.0, completed=done, width=BAR_COLUMNS)
    full = round(done * BAR_COLUMNS)
    return Text("#" * full + "." * (BAR_COLUMNS - full))


def _lately(migration: schema.Migration, view: View) -> str:
    """The migration's rates before this one, each against the largest of them."""
    rates = view.rates.of.get(migration.id, ())
    return sparkline(list(rates), max(rates, default=0.0), view.levels)


def _style(migration: schema.Migration) -> str:
    if migration.state == "waiting":
        return "bold red"
    return "yellow" if migration.passthrough_reason else "green"
