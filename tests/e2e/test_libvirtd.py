"""libvirtd restarted in mid-migration: libvirt itself gives the migration up, and the agents add nothing to that.

What must hold is what holds without agents: the guest runs on at its source, the destination is rid of it, and the next
migration works; and both records say that it failed.
"""

from typing import Final, Literal

import pytest

from tests.e2e.world import GUEST, World, journey, migrate

pytestmark = pytest.mark.lab

Side = Literal["source", "destination"]

SIDES: Final[tuple[Side, ...]] = ("source", "destination")


@pytest.mark.parametrize("side", SIDES)
def test_a_libvirtd_restarted_in_mid_migration_costs_the_migration_and_no_guest(world: World, side: Side) -> None:
    host = world.shuttle.source if side == "source" else world.shuttle.destination
    with journey(world) as going:
        going.reach()
        host.restart_libvirtd()
    world.restore_wan()
    assert not going.move.wait().succeeded
    going.destination.wait_gone(GUEST.name)
    assert world.shuttle.source == going.source
    world.shuttle.check()
    assert {record.result for record in going.records()} == {"failed"}
    migrate(world)
    world.restart(host)  # a connection to libvirt that was made again holds a descriptor less than the first one
