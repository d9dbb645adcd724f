"""A status with a value in every field that the metrics read."""

from collections.abc import Callable
from typing import Any

import pytest

from dwcp_migrate.api import schema
from dwcp_migrate.protocol.worker import MigrationCounters
from tests.agent import records
from tests.agent.records import STARTED


def make_migration(**changes: Any) -> schema.Migration:
    fields: dict[str, Any] = {
        "domain": 'web "1"\\',
        "memory_bytes": 4096,
        "remaining_bytes": 1024,
        "dirty_bytes_per_s": 10.0,
        "raw_bytes_per_s": 100.0,
        "eta_s": 11.0,
        "counters": MigrationCounters(raw_bytes=5000, wire_bytes=1000, channels=16, rtt_s=0.04),
    }
    return records.make_migration(**(fields | changes))


def make_status(**changes: Any) -> schema.AgentStatus:
    fields: dict[str, Any] = {
        "totals": schema.Totals(
            migrations={"source completed": 3, "destination failed": 1},
            accelerated={"source": 2},
            passthrough={"unreachable": 2},
            refused={"sessions": 1},
            rejected={"link preamble": 4, "redirect not-redirected": 1},
            raw_bytes={"source": 10_000},
            wire_bytes={"source": 2000},
            reverse_bytes={"source": 5},
            opaque_bytes={"source": 6},
            pages={"source zero": 7, "source delta": 9},
            duration_s={"source": 30.0, "destination": 2.5},
            downtime_ms={"source": 360},
            downtime_count={"source": 3},
            repaired_segments=1,
        ),
        "intercept": schema.RedirectStatus(
            wanted=True,
            armed=True,
            port_min=49152,
            port_max=49215,
            rules=[
                schema.RedirectRule(peer="hv2", address="10.0.0.2", packets=12, bytes=720),
                schema.RedirectRule(peer="hv2", address="fd00::2", packets=3, bytes=240),
            ],
        ),
        "certificates": [
            schema.CertificateExpiry(use="ca", path="/ca", not_after=STARTED + 2),
            schema.CertificateExpiry(use="host", path="/host", not_after=STARTED + 1),
        ],
        "migrations": [make_migration()],
    }
    return records.make_status(**(fields | changes))


@pytest.fixture
def status() -> Callable[..., schema.AgentStatus]:
    return make_status


@pytest.fixture
def migration() -> Callable[..., schema.Migration]:
    return make_migration
