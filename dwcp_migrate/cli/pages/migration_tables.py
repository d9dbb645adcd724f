"""Tables of a migration's report: decisions with their reasons, environment, and the figures behind the pictures."""

from typing import Final

from dwcp_migrate.api.schema import AgentStatus, Migration, MigrationEvent
from dwcp_migrate.cli.pages.course_facts import rates_of
from dwcp_migrate.cli.support import output
from dwcp_migrate.pages.document import fold_below, section_of
from dwcp_migrate.pages.markup import Markup, pairs_of, table_of
from dwcp_migrate.units import format_bytes, format_rate

DECISIONS: Final = {
    "agreement": "Agreed with the fleet",
    "agreed": "Agreed with the peer",
    "memory": "Memory granted",
    "remark": "The peer noticed",
    "passthrough": "Ran unaccelerated",
    "coding": "Coding changed",
    "aside": "Past the channels from its start",
    "stands-aside": "Bytes went past the channels",
    "opaque": "A connection was no longer parsed",
    "repaired": "A segment was sent again, raw",
    "channel-lost": "A channel was lost",
    "link-lost": "The link was lost",
    "link-restored": "The link came back",
    "postcopy": "Switched to postcopy",
    "store": "The page store",
    "onward": "The onward connection",
    "relayed-by-the-agent": "The agent relayed it",
    "not-taken": "The data process did not take a message",
    "record-full": "The recording was full",
}
"""Events that were decided or met on the way, in words."""

EVENT_ROWS_MAX: Final = 300


def decisions_section(migration: Migration) -> Markup:
    """Tell what was decided, when and why."""
    decided = [event for event in migration.events if event.event in DECISIONS]
    rows = [(_when(migration, event), DECISIONS[event.event], _detail(event)) for event in decided]
    if migration.expected is not None:
        rows.insert(0, ("+0.0 s", "Advised before it began", migration.expected.way))
    said = "" if rows else "Nothing had to be decided."
    return section_of(
        "Decisions", said, table_of(("When", "What", "Why"), rows) if rows else None, identity="decisions"
    )


def _when(migration: Migration, event: MigrationEvent) -> str:
    return f"+{max(0.0, event.at - migration.started_at):.1f} s"


def _detail(event: MigrationEvent) -> str:
    number = str(event.number) if event.number else ""
    if event.event == "link-restored":
        return f"after {output.milliseconds(event.number)}"
    connection = f"connection {event.connection}" if event.connection >= 0 else ""
    return " ".join(part for part in (connection, event.detail, number) if part)


def environment_section(migration: Migration, status: AgentStatus) -> Markup:
    """Tell between whom, over what, and with which software.

    Args:
        migration: its record.
        status: of the agent that has it.
    """
    counters = migration.counters
    connections = ", ".join(f"{count} {kind}" for kind, count in migration.connections.items() if count)
    ends = (status.name, migration.peer or migration.address)
    source, destination = ends if migration.role == "source" else reversed(ends)
    pairs = [
        ("Id", migration.id),
        ("UUID", migration.uuid),
        ("From", source),
        ("To", destination),
        ("QEMU waits at", f"{migration.address} port {migration.port}"),
        ("QEMU's connections", connections),
        ("Agent then", migration.version),
        ("Agent now", status.version),
        ("libvirt now", status.libvirt.version),
        ("Round trip", f"{counters.rtt_s * 1000:.1f} ms" if counters.rtt_s else ""),
        ("Packets sent again by the kernel", str(counters.retransmits) if counters.wire_bytes else ""),
        ("CPU of this side", output.duration(counters.cpu_s) if counters.cpu_s else ""),
        ("Return path", format_bytes(counters.reverse_bytes) if counters.reverse_bytes else ""),
        ("Devices and other data", format_bytes(counters.opaque_bytes) if counters.opaque_bytes else ""),
        ("Went past the channels", format_bytes(counters.aside_bytes) if counters.aside_bytes else ""),
        ("Went unencrypted", format_bytes(counters.plain_bytes) if counters.plain_bytes else ""),
        ("Channels lost", str(counters.channels_lost) if counters.channels_lost else ""),
        ("Segments sent again", str(counters.resent_segments) if counters.resent_segments else ""),
        ("Segments repaired", str(counters.repaired_segments) if counters.repaired_segments else ""),
    ]
    return section_of("Environment", "", pairs_of(pairs), identity="environment")


def figures_section(migration: Migration) -> Markup:
    """All events, and the figures behind the pictures, fold_below away."""
    events = [(_when(migration, event), event.event, _detail(event)) for event in migration.events[:EVENT_ROWS_MAX]]
    points = [
        (f"{rate.at_s:.1f} s", format_rate(rate.raw), format_rate(rate.wire)) for rate in rates_of(migration.course)
    ]
    return section_of(
        "Figures",
        "",
        fold_below(f"{len(events)} events", table_of(("When", "Event", "Detail"), events)) if events else None,
        fold_below(f"{len(points)} steps", table_of(("At", "Memory", "Wire"), points, numbers=(0, 1, 2)))
        if points
        else None,
        identity="figures",
    )
