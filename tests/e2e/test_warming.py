"""A guest's memory read through a real libvirtd and QEMU while the guest runs, and the migration that follows."""

import time
from urllib.parse import urlencode

import msgspec
import pytest

from dwcp_migrate.api.warm import WarmUp, WarmUpList
from dwcp_migrate.units import MIB
from tests.e2e.world import GUEST, World, migrate

pytestmark = pytest.mark.lab

WARM_S_MAX = 120.0


def warm(world: World) -> WarmUp:
    """Warm the destination up; returns the record once it is over."""
    agent = world.agent(world.shuttle.source)
    query = urlencode({"domain": GUEST.name, "peer": world.shuttle.destination.name})
    begun = msgspec.convert(agent.post(f"/v1/warm?{query}"), WarmUp)
    deadline = time.monotonic() + WARM_S_MAX
    while time.monotonic() < deadline:
        (found, *_) = msgspec.convert(agent.get("/v1/warm"), WarmUpList).warm_ups
        assert found.id == begun.id
        if found.is_over:
            return found
        time.sleep(0.2)
    raise AssertionError(found)


def test_a_migration_after_a_warm_up_names_the_guests_pages_and_the_guest_runs_on(world: World) -> None:
    world.configure({"store": {"bytes_max": 512 * MIB}})
    found = warm(world)
    assert (found.state, found.error, found.passes) == ("ended", "", 1)
    assert 0.9 * GUEST.memory_mib * MIB < found.readable_bytes <= GUEST.memory_mib * MIB
    assert found.pages > GUEST.fill_mib * MIB // 4096 * 0.9
    second = warm(world)
    assert second.known_pages > 0.8 * found.pages
    assert second.wire_bytes * 3 < found.wire_bytes
    out, _ = migrate(world)
    # Nobody waits for the statement: what the first pass brings before it came is sent in full.
    assert out.counters.pages["known"] > 0.3 * found.pages
    assert out.counters.wire_bytes < 0.8 * found.wire_bytes
