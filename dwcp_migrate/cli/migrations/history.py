"""`dwcp-migrate history`: the migrations that ended, newest first."""

from pathlib import Path

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.options import agent_options, json_option

HEADER = ("Id", "Domain", "Peer", "Ended", "Result", "Time", "Downtime", "Raw", "Wire", "Ratio", "Note")
SPARE = ("Raw", "Wire", "Peer", "Downtime")
"""What a narrow terminal goes without; `show` has it."""


@click.command()
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, schema.HISTORY_LIMIT_MAX),
    default=schema.HISTORY_LIMIT_DEFAULT,
    show_default=True,
    help="How many, newest first.",
)
@json_option
@agent_options
def command(*, limit: int, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """List the migrations that ended."""
    answer = ApiClient(control_socket(config_path, socket_path)).history(limit)
    if as_json:
        click.echo(output.as_json(answer.migrations))
    elif answer.migrations:
        click.echo(output.fitted(HEADER, map(row, answer.migrations), SPARE))
    else:
        click.echo(" No migration has ended yet.")


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
    if migration.passthrough_reason:
        return f"unaccelerated: {migration.passthrough_reason}"
    return migration.reason
