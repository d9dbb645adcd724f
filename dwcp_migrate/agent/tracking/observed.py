"""Migrations that this agent only observes: libvirt's reports, and a forecast of their time accelerated."""

from typing import Final

from dwcp_migrate.api.migration import Migration, MigrationEvent, append_event
from dwcp_migrate.clocks import wall_clock

OBSERVES: Final = "observe"
"""The reason in the record of why it ran unaccelerated."""

NO_FORECAST: Final = "no-forecast"
"""Event of a record that says nothing of what it would have taken, and why."""


def without_forecast(record: Migration) -> Migration:
    """Say once that the link was never measured: what it would have taken would be a guess."""
    if any(event.event == NO_FORECAST for event in record.events):
        return record
    to = record.peer or "its destination"
    why = f"the link to {to} was never measured, so that nothing is said of what this would have taken"
    remedy = f"; `dwcp-migrate check {record.peer}` measures it" if record.peer else ""
    return append_event(record, MigrationEvent(at=wall_clock(), event=NO_FORECAST, detail=f"{why}{remedy}"))
