"""`dwcp-migrate history`: the migrations that ended, newest first, by time, domain, peer or result."""

import csv
import datetime as dt
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.completion import complete_migrations, complete_peers
from dwcp_migrate.cli.support.options import agent_options, json_option

HEADER = ("Id", "Domain", "Peer", "Ended", "Result", "Time", "Downtime", "Raw", "Wire", "Ratio", "Note")
SPARE = ("Raw", "Wire", "Peer", "Downtime")
"""Columns that a narrow terminal goes without; `show` has them."""

CSV_HEADER: Final = (
    *("id", "role", "kind", "domain", "uuid", "peer", "started_at", "ended_at", "duration_s", "downtime_ms"),
    *("result", "reason", "passthrough_reason", "raw_bytes", "wire_bytes"),
)
SPAN_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Moment(click.ParamType[float]):
    """A point of time: so long ago (`90m`, `2h`, `7d`) or a date (`2026-11-30`, with a time if wanted)."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Turn the text into seconds since the epoch.

        Args:
            value: a span back from now, as `90m`, `2h` or `7d`, or a date and time in ISO 8601.
            param: for the error.
            ctx: for the error.
        """
        text = str(value)
        if text[:-1].isdecimal() and text[-1] in SPAN_S:
            return time.time() - int(text[:-1]) * SPAN_S[text[-1]]
        try:
            return dt.datetime.fromisoformat(text).timestamp()
        except ValueError:
            self.fail(f"{text!r} is no time: so long ago as in 90m, 2h or 7d, or a date as in 2026-11-30", param, ctx)


@click.command()
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, schema.HISTORY_LIMIT_MAX),
    default=schema.HISTORY_LIMIT_DEFAULT,
    show_default=True,
    help="Number of migrations, newest first.",
)
@click.option("--since", type=Moment(), help="Only those that ended since then: 2h, 7d, or 2026-11-30.")
@click.option(
    "--domain", default="", shell_complete=complete_migrations, help="Only those of this domain: name or UUID."
)
@click.option("--peer", default="", shell_complete=complete_peers, help="Only those from or to this host.")
@click.option("--failed", is_flag=True, help="Only those that failed.")
@click.option("--unaccelerated", is_flag=True, help="Only those that ran unaccelerated.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@json_option
@agent_options
def command(  # noqa: PLR0913 - one parameter an option
    *,
    limit: int,
    since: float | None,
    domain: str,
    peer: str,
    failed: bool,
    unaccelerated: bool,
    as_csv: bool,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """List the migrations that ended."""
    client = ApiClient(control_socket(config_path, socket_path))
    is_filtered = bool(since is not None or domain or peer or failed or unaccelerated)
    answer = client.history(schema.HISTORY_LIMIT_MAX if is_filtered else limit)
    found = [
        one
        for one in answer.migrations
        if (since is None or one.ended_at >= since)
        and domain in {"", one.domain, one.uuid}
        and peer.lower() in {"", one.peer.lower()}
        and (not failed or one.result == "failed")
        and (not unaccelerated or one.passthrough_reason)
    ][:limit]
    if as_json:
        click.echo(output.as_json(found))
    elif as_csv:
        click.echo(as_comma_separated(found), nl=False)
    elif found:
        click.echo(output.fitted(HEADER, map(row, found), SPARE))
    else:
        click.echo(" No migration that ended is like that." if is_filtered else " No migration has ended yet.")


def as_comma_separated(migrations: Iterable[schema.Migration]) -> str:
    """Write migrations as CSV with a header, times in seconds since the epoch."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_HEADER)
    for one in migrations:
        rows.writerow(
            (
                one.id,
                one.role,
                one.kind,
                one.domain,
                one.uuid,
                one.peer,
                one.started_at,
                one.ended_at,
                round(one.duration_s(one.ended_at), 3),
                one.downtime_ms,
                one.result,
                one.reason,
                one.passthrough_reason,
                one.counters.raw_bytes,
                one.counters.wire_bytes,
            )
        )
    return text.getvalue()


def row(migration: schema.Migration) -> tuple[str, ...]:
    """Lay out one ended migration."""
    counters = migration.counters
    return (
        migration.id[:8],
        output.domain(migration),
        output.peer(migration),
        output.moment(migration.ended_at),
        migration.result,
        output.duration(migration.duration_s(migration.ended_at)),
        output.milliseconds(migration.downtime_ms),
        output.size(counters.raw_bytes),
        output.size(counters.wire_bytes),
        output.ratio(migration),
        note(migration),
    )


def note(migration: schema.Migration) -> str:
    """Say what was not as it should be."""
    if migration.passthrough_reason == "observe":
        return f"observed{output.would_have_taken(migration)}"
    if migration.passthrough_reason:
        return f"unaccelerated: {migration.passthrough_reason}"
    return migration.reason
