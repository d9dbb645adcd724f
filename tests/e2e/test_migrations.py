"""Every way to migrate that stock libvirt and QEMU offer, carried by the agents, there and back."""

import pytest

from tests.e2e.world import DOWNTIME_MS_NEVER, World, journey, migrate

pytestmark = pytest.mark.lab


def test_a_plain_migration_is_accelerated_there_and_back(world: World) -> None:
    for uri in ("qemu+ssh", "qemu+tcp"):
        out, into = migrate(world, uri=uri)
        assert out.connections == {"main": 1}
        assert out.iteration >= 1
        assert out.downtime_ms >= 0
        assert out.memory_bytes >= 128 << 20
        assert [phase.state for phase in out.phases] == ["precopy", "switchover", "ended"]
        assert 0 < out.counters.wire_bytes < out.counters.raw_bytes == into.counters.raw_bytes


def test_a_migration_over_four_multifd_channels_is_accelerated_there_and_back(world: World) -> None:
    for _ in range(2):
        out, into = migrate(world, "--parallel", "--parallel-connections", "4")
        assert out.connections == {"main": 1, "multifd": 4}
        assert out.counters.raw_bytes == into.counters.raw_bytes


def test_a_migration_switched_to_postcopy_is_accelerated_there_and_back(world: World) -> None:
    for _ in range(2):
        with journey(world, "--postcopy") as going:
            going.reach()
            going.source.virsh("migrate-postcopy", world.shuttle.guest.name)
        out, _ = going.completed()
        assert [phase.state for phase in out.phases] == ["precopy", "postcopy", "ended"]
        assert sum(out.connections.values()) == 2  # the second one is the preempt channel
        assert out.counters.reverse_bytes > 0  # pages were asked for


def test_postcopy_after_the_first_pass_is_accelerated(world: World) -> None:
    with journey(world, "--postcopy", "--postcopy-after-precopy") as going:
        going.reach(raw_bytes=0)
        world.limit_downtime(DOWNTIME_MS_NEVER)  # or else it converges first
    out, _ = going.completed()
    assert "postcopy" in [phase.state for phase in out.phases]
