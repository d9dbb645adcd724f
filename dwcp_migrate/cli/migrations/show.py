"""`dwcp-migrate show ID`: all that is known of one migration, laid out like `virsh domjobinfo`."""

from pathlib import Path
from typing import Final

import click

from dwcp_migrate.api import schema
from dwcp_migrate.api.client import ApiClient, control_socket
from dwcp_migrate.api.migration import POSTCOPY_REMEDY
from dwcp_migrate.cli.support import output
from dwcp_migrate.cli.support.completion import complete_migrations
from dwcp_migrate.cli.support.options import agent_options, json_option
from dwcp_migrate.errors import NotFoundError
from dwcp_migrate.refusals import UNACCELERATED, Explanation
from dwcp_migrate.units import format_rate


@click.command()
@click.argument("which", metavar="ID|DOMAIN", shell_complete=complete_migrations)
@click.option("--events", is_flag=True, help="List all events too.")
@json_option
@agent_options
def command(*, which: str, events: bool, as_json: bool, config_path: Path | None, socket_path: Path | None) -> None:
    """Show one migration, by its ID or the start of it, or the latest one of a DOMAIN."""
    client = ApiClient(control_socket(config_path, socket_path))
    migration = find(client, which)
    if as_json:
        click.echo(output.as_json(migration))
        return
    click.echo(output.format_block(describe(migration, client.status().now)))
    if events:
        rows = [event_row(one) for one in migration.events]
        click.echo(f"\n{output.format_table(('Time', 'Event', 'Detail'), rows)}")


def find(client: ApiClient, which: str) -> schema.Migration:
    """Find a migration by domain name or UUID, else by id; the running one first, then the newest.

    Args:
        client: the local agent.
        which: domain, UUID, or the start of an id.

    Raises:
        NotFoundError: there is none, or the prefix fits several.
    """
    if not which.strip():
        raise click.UsageError("the migration's name is empty: is a variable not set?")
    candidates = (*reversed(client.migrations().migrations), *client.history(schema.HISTORY_LIMIT_MAX).migrations)
    named = next((one for one in candidates if which in {one.domain, one.uuid}), None)
    if named is not None:
        return named
    try:
        return client.migration(which)
    except NotFoundError as error:
        raise NotFoundError(
            str(error), hint=error.hint or "dwcp-migrate status and dwcp-migrate history list what there is"
        ) from error


def describe(migration: schema.Migration, now: float) -> list[tuple[str, str]]:
    """Describe a migration as keys and values for people.

    Args:
        migration: its record.
        now: the agent's clock, seconds since the epoch.
    """
    return [*_identity(migration), *_times(migration, now), *_data(migration), *_trouble(migration)]


def _identity(migration: schema.Migration) -> list[tuple[str, str]]:
    direction = "Outgoing" if migration.role == "source" else "Incoming"
    state = migration.result if migration.state == "ended" else migration.state
    reason = migration.passthrough_reason
    known = UNACCELERATED.get(reason, Explanation(""))
    return [
        ("Id", migration.id),
        ("Domain", output.domain(migration)),
        ("UUID", migration.uuid if migration.domain else ""),
        ("Operation", f"{direction} migration ({migration.kind})"),
        ("Peer", f"{output.peer(migration)}, QEMU at {migration.address}:{migration.port}"),
        ("State", state),
        ("Reason", migration.reason),
        ("Unaccelerated", ": ".join(filter(None, [reason, known.text]))),
        ("What to do", POSTCOPY_REMEDY if migration.is_split else known.remedy),
        ("Connections", _counted(migration.connections)),
    ]


def _times(migration: schema.Migration, now: float) -> list[tuple[str, str]]:
    return [
        ("Started", output.moment(migration.started_at)),
        ("Ended", output.moment(migration.ended_at) if migration.ended_at else ""),
        ("Time elapsed", output.duration(migration.duration_s(now))),
        ("Phases", _phases(migration, now)),
        ("Progress", output.progress_text(migration)),
        ("ETA", output.eta(migration) if migration.eta_s >= 0 or migration.eta_note else ""),
        ("Predicted", _predicted(migration)),
        ("Downtime", output.milliseconds(migration.downtime_ms) if migration.downtime_ms >= 0 else ""),
    ]


def _data(migration: schema.Migration) -> list[tuple[str, str]]:
    counters = migration.counters
    return [
        ("Memory", output.size(migration.memory_bytes) if migration.memory_bytes else ""),
        ("Data remaining", output.size(migration.remaining_bytes) if migration.remaining_bytes > 0 else ""),
        ("Data processed", output.size(counters.raw_bytes)),
        ("Data on the wire", output.size(counters.wire_bytes)),
        ("Ratio", output.ratio(migration)),
        ("Bandwidth", output.rate(migration) if migration.state != "ended" else _mean_rate(migration)),
        ("Dirty rate", format_rate(migration.dirty_bytes_per_s) if migration.dirty_bytes_per_s > 0 else ""),
        ("Iteration", str(migration.iteration) if migration.iteration else ""),
        ("Pages", _counted(counters.pages)),
        ("Opaque data", output.size(counters.opaque_bytes) if counters.opaque_bytes else ""),
        ("Return path", output.size(counters.reverse_bytes) if counters.reverse_bytes else ""),
        ("Channels", str(counters.channels) if counters.channels and migration.state != "ended" else ""),
        ("Paths", _by_path(counters.path_bytes)),
        ("Round trip", f"{counters.rtt_s * 1000:.1f} ms" if counters.rtt_s else ""),
        ("CPU of this side", output.duration(counters.cpu_s) if counters.cpu_s else ""),
        ("Waited for", held_up(counters.held_up_s)),
        ("Past the channels", output.size(counters.aside_bytes) if counters.aside_bytes else ""),
        ("Unencrypted", output.size(counters.plain_bytes) if counters.plain_bytes else ""),
        ("Sent as it is", output.size(counters.unclassified_bytes) if counters.unclassified_bytes else ""),
    ]


REMARKS: Final = ("remark", "onward", "relayed-by-the-agent")
"""Events that say that something was amiss and the migration went on all the same."""


def _trouble(migration: schema.Migration) -> list[tuple[str, str]]:
    counters = migration.counters
    counted = {
        "channels lost": counters.channels_lost,
        "times without a link": counters.link_losses,
        "segments sent again": counters.resent_segments,
        "segments repaired": counters.repaired_segments,
    }
    remarks = [event.detail for event in migration.events if event.event in REMARKS]
    limits = [event.detail for event in migration.events if event.event == "limit"]
    chosen = [event.detail for event in migration.events if event.event == "codec"]
    return [
        ("Limit", limits[-1] if limits and limits[-1] != "none" else ""),
        ("Codec", chosen[-1] if chosen else ""),
        ("Remarks", "; ".join(remarks)),
        ("Trouble", ", ".join(f"{count} {what}" for what, count in counted.items() if count)),
    ]


def _by_path(path_bytes: dict[str, int]) -> str:
    """Say what went over each of the peer's addresses, where there were several."""
    if len(path_bytes) < 2:  # noqa: PLR2004 - one says nothing
        return ""
    return ", ".join(f"{address} {output.size(count)}" for address, count in path_bytes.items())


def _counted(counts: dict[str, int]) -> str:
    """Say how many of each kind; the destination does not look what a connection carries."""
    return ", ".join(f"{count} {kind}".strip() for kind, count in counts.items() if count)


def held_up(held_up_s: dict[str, float]) -> str:
    """Say what the pipeline waited for, the longest first: `link 12 s, qemu 1.5 s`."""
    longest_first = sorted(held_up_s.items(), key=lambda item: -item[1])
    return ", ".join(f"{stage} {output.duration(seconds)}" for stage, seconds in longest_first if seconds > 0)


def _phases(migration: schema.Migration, now: float) -> str:
    """Say how long each state took: `opening 0.1 s, precopy 12 s, switchover 0.2 s`."""
    ends = [phase.at for phase in migration.phases[1:]] + [migration.ended_at or now]
    return ", ".join(
        f"{phase.state} {output.duration(max(0.0, end - phase.at))}"
        for phase, end in zip(migration.phases, ends, strict=False)
        if phase.state != "ended"
    )


def _predicted(migration: schema.Migration) -> str:
    """Say what was predicted at its start, and how far off: `42 s (38 s to 51 s), 5 % more than it took`."""
    if migration.expected is None:
        return ""
    low, median, high = migration.expected.time_s
    if migration.passthrough_reason == "observe":
        said = (
            f"{output.duration(median)} ({output.duration(low)} to {output.duration(high)}) if it had been accelerated"
        )
        seconds = migration.duration_s(migration.ended_at) if migration.result == "completed" else 0.0
        less, more = seconds - high, seconds - low
        return f"{said}: {output.duration(less)} to {output.duration(more)} saved" if less > 0 else said
    said = f"{output.duration(median)} ({output.duration(low)} to {output.duration(high)})"
    actual = migration.duration_s(migration.ended_at) if migration.result == "completed" else 0.0
    if not actual:
        return said
    off = round(100 * (median / actual - 1))
    return f"{said}, {abs(off)} % {'more' if off >= 0 else 'less'} than it took"


def _mean_rate(migration: schema.Migration) -> str:
    seconds = migration.duration_s(migration.ended_at)
    return f"{format_rate(migration.counters.raw_bytes / seconds)} on average" if seconds else ""


def event_row(event: schema.MigrationEvent) -> tuple[str, str, str]:
    """Lay out one event."""
    number = str(event.number) if event.number else ""
    connection = f"connection {event.connection}" if event.connection >= 0 else ""
    return output.moment(event.at), event.event, " ".join(part for part in (connection, event.detail, number) if part)
