"""An operator who changes their mind."""

import pytest

from tests.e2e.world import World, journey, migrate

pytestmark = pytest.mark.lab


def test_a_cancelled_migration_leaves_the_guest_at_the_source_and_the_next_one_works(world: World) -> None:
    with journey(world) as going:
        going.reach()
        going.source.virsh("domjobabort", world.shuttle.guest.name)
    assert not going.move.wait().succeeded
    assert world.shuttle.source == going.source
    world.shuttle.check()
    out, into = going.records()
    assert (out.result, into.result) == ("failed", "failed")
    assert out.domain == world.shuttle.guest.name
    assert out.reason
    assert into.reason
    migrate(world)
