"""What a WAN does to a migration: channels die, the link is cut and comes back, or does not."""

import time

import pytest

from dwcp_migrate.lab.disturb import kill_channels
from tests.e2e.world import DOWNTIME_MS_NEVER, World, journey, migrate

pytestmark = pytest.mark.lab


def test_killed_channels_lose_nothing(world: World) -> None:
    with journey(world) as going:
        going.reach()
        killed = kill_channels(world.lab, going.source.name, 0.3, seed=1)
        going.watch.until(lambda record: record.counters.channels_lost >= killed)
        killed += kill_channels(world.lab, going.destination.name, 0.3, seed=2)
    out, into = going.completed()
    assert out.counters.channels_lost >= killed >= 2
    assert out.counters.raw_bytes == into.counters.raw_bytes


def test_all_channels_killed_at_once_lose_nothing(world: World) -> None:
    with journey(world) as going:
        going.reach()
        kill_channels(world.lab, going.source.name, 1.0, seed=1)
        going.watch.until(lambda record: record.counters.link_losses >= 1)
    out, _ = going.completed()
    assert "waiting" in [phase.state for phase in out.phases]


def test_killed_channels_lose_nothing_in_postcopy(world: World) -> None:
    with journey(world, "--postcopy", "--postcopy-after-precopy") as going:
        going.reach(raw_bytes=0)
        world.limit_downtime(DOWNTIME_MS_NEVER)  # or else it converges first
        going.watch.until(lambda record: record.state == "postcopy")
        kill_channels(world.lab, going.source.name, 1.0, seed=1)
    going.completed()


def test_a_link_that_is_cut_for_ten_seconds_delays_the_migration_and_no_more(world: World) -> None:
    with journey(world) as going:
        going.reach()
        world.lab.wan.cut()
        time.sleep(10.0)  # the length of the cut is what the test is about
        assert going.move.runs
        world.lab.wan.heal()
    out, into = going.completed()
    assert out.counters.raw_bytes == into.counters.raw_bytes


def test_a_link_that_stays_cut_fails_the_migration_as_broken_tcp_does(world: World) -> None:
    world.configure({"link": {"loss_s_max": 4.0}})
    with journey(world) as going:
        going.reach()
        world.lab.wan.cut()
        going.watch.until(lambda record: record.state == "ended" or bool(record.reason), timeout_s=60)
        world.lab.wan.heal()
    assert not going.move.wait().succeeded
    assert world.shuttle.source == going.source
    world.shuttle.check()
    out, _ = going.records()
    assert out.result == "failed"
    assert out.reason.startswith("the link to the peer was lost")
    migrate(world)
