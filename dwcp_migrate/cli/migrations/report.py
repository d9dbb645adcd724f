"""`dwcp-migrate report`: one migration, or all of a fleet, as text, JSON or a page of one file."""

import time
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.recap import FleetRecap, sum_recaps
from dwcp_migrate.cli.migrations.history import Moment
from dwcp_migrate.cli.migrations.show import describe, find
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.completion import complete_migrations
from dwcp_migrate.cli.support.composed import FleetReport
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.units import format_bytes

ANSWER_S_MAX: Final = 60.0
"""Every peer is asked."""


@click.command()
@click.argument("which", metavar="[ID|DOMAIN]", required=False, shell_complete=complete_migrations)
@click.option("--fleet", is_flag=True, help="All migrations of this host and its peers, summed up.")
@click.option("--since", type=Moment(), help="With --fleet, those that ended since: 30d, or 2026-11-01.")
@click.option("--html", "html_path", type=click.Path(path_type=Path, dir_okay=False), help="Write a page, one file.")
@json_option
@agent_options
def command(  # noqa: PLR0913 - one parameter an option
    *,
    which: str | None,
    fleet: bool,
    since: float | None,
    html_path: Path | None,
    as_json: bool,
    config_path: Path | None,
    socket_path: Path | None,
) -> None:
    """Report on one migration, by its ID, the start of it or its DOMAIN, or on all of the fleet.

    A page is one file that loads nothing from anywhere: passes, rates, what held the migration up, pages by kind,
    predicted against actual, downtime, decisions with their reasons; of a fleet what was saved, what failed and why.
    """
    if fleet == bool(which):
        raise click.UsageError("name a migration, or give --fleet")
    if since is not None and not fleet:
        raise click.UsageError("--since goes with --fleet")
    if html_path and as_json:
        raise click.UsageError("--html and --json exclude each other")
    client = ApiClient(control_socket(config_path, socket_path))
    if fleet:
        _report_fleet(client, since or 0.0, html_path, as_json=as_json)
    else:
        _report_migration(client, which or "", html_path, as_json=as_json)


def _report_migration(client: ApiClient, which: str, html_path: Path | None, *, as_json: bool) -> None:
    migration = find(client, which)
    if as_json:
        click.echo(output.as_json(migration))
        return
    status = client.status()
    if html_path is None:
        click.echo(output.format_block(describe(migration, status.now)))
        return
    from dwcp_migrate.cli.pages.migration_page import migration_page

    _write(html_path, migration_page(migration, status, time.time()))


def _report_fleet(client: ApiClient, since: float, html_path: Path | None, *, as_json: bool) -> None:
    from dwcp_migrate.cli.pages import fleet_page as pages

    found = client.ask(f"recap?{urlencode({'since': since})}", FleetRecap, ANSWER_S_MAX)
    if as_json:
        click.echo(output.as_json(_with_total(found)))
    elif html_path is not None:
        status = client.status()
        _write(html_path, pages.fleet_page(found, f"dwcp-migrate {status.version}, asked of {status.name}"))
    else:
        click.echo(_fleet_text(found))


def _with_total(found: FleetRecap) -> FleetReport:
    total = sum_recaps(found.hosts.values())
    return FleetReport(since=found.since, now=found.now, hosts=found.hosts, silent=found.silent, total=total)


def _fleet_text(found: FleetRecap) -> str:
    from dwcp_migrate.cli.pages import fleet_page as pages

    total = sum_recaps(found.hosts.values())
    parts = [pages.period(found, total)]
    if total.completed + total.failed:
        parts.append(output.format_block((what[:1].upper() + what[1:], figure) for figure, what in pages.tiles(total)))
        parts.append(output.fitted(pages.HEADER, pages.host_rows(found), ("Predicted", "Wire", "Memory")))
    for heading, counts in (("Failed", total.failures), ("Unaccelerated", total.unaccelerated)):
        rows = [(str(count), reason) for reason, count in sorted(counts.items(), key=lambda item: -item[1])]
        if rows:
            parts.append(output.format_table((heading, "Reason"), rows))
    parts += [f"{name} did not tell: {why}" for name, why in sorted(found.silent.items())]
    return "\n\n".join(parts)


def _write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8")
    click.echo(f"{path}: {format_bytes(len(page.encode()))}")
