"""An operator who changes their mind."""

import time

import pytest

from dwcp_migrate.lab.shuttle import Watch
from tests.e2e.world import SLOW, World, migrate

pytestmark = pytest.mark.lab


def test_a_cancelled_migration_leaves_the_guest_at_the_source_and_the_next_one_works(world: World) -> None:
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        move = world.shuttle.begin()
        watch.until(lambda record: record.counters.raw_bytes > 8 << 20)
        source.virsh("domjobabort", world.shuttle.guest.name)
    assert not move.wait().succeeded
    assert world.shuttle.source == source
    world.shuttle.check()
    out, into = world.records(source, destination, begin)
    assert (out.result, into.result) == ("failed", "failed")
    assert out.domain == world.shuttle.guest.name
    assert out.reason
    assert into.reason
    migrate(world)
