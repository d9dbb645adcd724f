"""What an agent says about itself and a migration, for tests of those who show it; each field may be changed."""

from typing import Any

from dwcp_migrate.api import schema
from dwcp_migrate.protocol.worker import MigrationCounters

STARTED = 1_790_000_000.0


def make_migration(**changes: Any) -> schema.Migration:
    """A migration under way: a minute old, in its precopy."""
    fields: dict[str, Any] = {
        "id": "1f2e3d4c" + "0" * 24,
        "role": "source",
        "state": "precopy",
        "peer": "hv2",
        "address": "10.0.0.2",
        "port": 49152,
        "domain": "web1",
        "started_at": STARTED,
        "memory_bytes": 4 << 30,
        "raw_bytes_per_s": 100e6,
        "remaining_bytes": 1 << 30,
        "dirty_bytes_per_s": 5e6,
        "eta_s": 11.3,
        "counters": MigrationCounters(raw_bytes=5 << 30, wire_bytes=1 << 30, channels=16),
    }
    return schema.Migration(**(fields | changes))


def make_expected(low_s: float, middle_s: float, high_s: float, **changes: Any) -> schema.ExpectedMigration:
    """A prediction of a migration's time, by its quantiles, of which the rest matters to nobody."""
    fields: dict[str, Any] = {
        "time_s": (low_s, middle_s, high_s),
        "downtime_s": (0, 0, 0),
        "wire_bytes": (0, 0, 0),
        "convergence": 1.0,
        "way": "precopy",
        "model_time_s": middle_s,
    }
    return schema.ExpectedMigration(**(fields | changes))


def make_status(**changes: Any) -> schema.AgentStatus:
    """An agent in order, with one peer and one migration under way."""
    fields: dict[str, Any] = {
        "name": "hv1",
        "version": "0.1.0",
        "pid": 4711,
        "state": "running",
        "started_at": STARTED,
        "now": STARTED + 60,
        "peers": 1,
        "spare_ready": True,
        "hook_last_at": 0.0,
        "totals": schema.Totals(
            migrations={"source completed": 3, "destination failed": 1},
            passthrough={"unreachable": 2},
            pages={"source zero": 7, "source delta": 9},
            downtime_ms={"source": 360},
            downtime_count={"source": 3},
        ),
        "intercept": schema.RedirectStatus(
            wanted=True,
            armed=True,
            port_min=49152,
            port_max=49215,
            rules=[schema.RedirectRule(peer="hv2", address="10.0.0.2", packets=12, bytes=720)],
        ),
        "libvirt": schema.Libvirt(uri="qemu:///system", connected=True, version="11.3.0"),
        "certificates": [schema.CertificateExpiry(use="host", path="/tls/host.pem", not_after=STARTED + 90 * 86400)],
        "migrations": [make_migration()],
    }
    return schema.AgentStatus(**(fields | changes))
