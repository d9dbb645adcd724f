"""A migration as the agents record it, with everything that a report can show; the same each time."""

import random
from typing import Any

from dwcp_migrate.api.course import CoursePoint
from dwcp_migrate.api.migration import ExpectedMigration, Migration, MigrationEvent, MigrationPhase
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import GIB, MIB
from tests.agent import records

STARTED = records.STARTED
SECONDS = 41.6
LINK = 52e6


def _course() -> tuple[CoursePoint, ...]:
    """Four passes: the first sends new pages, later ones what was written meanwhile, compressed ever better."""
    chance = random.Random(7)
    raw, wire, remaining, held = 0.0, 0.0, 8.0 * GIB, [0.0] * 8
    points = []
    for number in range(82):
        at = 0.5 * (number + 1)
        ratio = 1.6 if at < 22 else 5.5 if at < 33 else 11.0
        carried = 0.5 * LINK * (0.35 if 12 < at < 14.5 else chance.uniform(0.9, 1.05))
        wire += carried
        raw += carried * ratio
        remaining = max(30 * MIB, remaining - carried * ratio * 3.2 + 0.5 * 38e6)
        if at in {22.0, 33.0}:
            remaining = 0.7 * GIB if at < 30 else 0.2 * GIB
        shares = (0.02, 0.02, 0.05, 0.11, 0.0, 0.8, 0.0, 0.0)
        if at > 30:
            shares = (0.05, 0.04, 0.2, 0.45, 0.01, 0.2, 0.05, 0.0)
        held = [before + 0.45 * share * chance.uniform(0.6, 1.3) for before, share in zip(held, shares, strict=True)]
        dirty = int(38e6 * chance.uniform(0.8, 1.25))
        waited = tuple(round(one, 2) for one in held)
        points.append(CoursePoint(at, int(raw), int(wire), int(remaining), dirty, min(12, 2 + number), 10.4, waited))
    return tuple(points)


def _event(at: float, name: str, detail: str = "", number: int = 0, connection: int = -1) -> MigrationEvent:
    return MigrationEvent(at=STARTED + at, event=name, detail=detail, number=number, connection=connection)


def example_migration(**changes: Any) -> Migration:
    """A completed migration of 8 GiB over a link of some 400 Mbit/s; each field may be changed."""
    course = _course()
    last = course[-1]
    fields: dict[str, Any] = {
        "id": "5b1d" + "7" * 28,
        "domain": "web<1> & co",
        "uuid": "8f3c1d6e-0000-4000-8000-000000000001",
        "state": "ended",
        "result": "completed",
        "peer": "hv2.example.net",
        "started_at": STARTED,
        "ended_at": STARTED + SECONDS,
        "memory_bytes": 8 * GIB,
        "iteration": 4,
        "downtime_ms": 142,
        "remaining_bytes": 0,
        "dirty_bytes_per_s": 38e6,
        "connections": {"main": 1, "multifd": 4},
        "version": "0.2.0",
        "expected": ExpectedMigration(
            time_s=(33.0, 38.5, 47.0),
            downtime_s=(0.08, 0.12, 0.31),
            wire_bytes=(1.6e9, 1.9e9, 2.5e9),
            convergence=0.98,
            way="precopy",
            model_time_s=37.0,
        ),
        "counters": MigrationCounters(
            raw_bytes=last.raw_bytes,
            wire_bytes=last.wire_bytes,
            reverse_bytes=41_000,
            opaque_bytes=3 * MIB,
            pages={"zero": 910_000, "new": 980_000, "delta": 402_000, "same": 88_000, "duplicate": 61_000},
            channels=0,
            rtt_s=0.0104,
            retransmits=212,
            cpu_s=23.4,
            channels_lost=1,
            resent_segments=14,
            held_up_s=dict(
                zip(("qemu", "reader", "classifier", "compressors", "link"), (1.4, 1.1, 5.2, 11.0, 19.5), strict=True)
            ),
            channel_bytes=[int(last.wire_bytes * share / 100) for share in (14, 13, 11, 10, 9, 9, 8, 8, 7, 6, 4, 1)],
        ),
        "phases": tuple(
            MigrationPhase(state=state, at=STARTED + at)  # type: ignore[arg-type]
            for state, at in (
                ("opening", 0.0),
                ("precopy", 0.4),
                ("waiting", 12.1),
                ("precopy", 13.9),
                ("switchover", 41.2),
                ("ended", SECONDS),
            )
        ),
        "events": (
            _event(0.1, "agreed", "point-to-point"),
            _event(0.1, "memory", "granted 600 MiB: cache 512 MiB, window 32 MiB"),
            _event(0.4, "connection-opened", "main", connection=0),
            _event(0.5, "iteration", number=1),
            _event(2.0, "coding", "zstd level 1: the link held it up for 82 % of the last second"),
            _event(12.0, "channel-lost", "ConnectionResetError"),
            _event(12.1, "link-lost"),
            _event(13.9, "link-restored", number=1800),
            _event(22.1, "iteration", number=2),
            _event(30.4, "coding", "lz4: compressors held it up for 61 % of the last second"),
            _event(33.0, "iteration", number=3),
            _event(38.5, "iteration", number=4),
            _event(41.16, "libvirt-suspended"),
            _event(41.2, "switchover"),
            _event(41.27, "connection-closed", "main", connection=0),
            _event(41.31, "libvirt-left"),
            _event(41.4, "libvirt-job-completed"),
        ),
        "course": course,
    }
    return records.make_migration(**(fields | changes))
