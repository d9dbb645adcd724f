"""What a WAN does to a migration: channels die, the link is cut and comes back, or does not."""

import time

import pytest

from dwcp_migrate.lab.disturb import kill_channels
from dwcp_migrate.lab.shuttle import Watch
from dwcp_migrate.session.record import Migration
from tests.e2e.world import DOWNTIME_MS_NEVER, SLOW, World, completed, migrate

pytestmark = pytest.mark.lab


def under_way(record: Migration) -> bool:
    return record.counters.raw_bytes > 8 << 20


def test_killed_channels_lose_nothing(world: World) -> None:
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        move = world.shuttle.begin()
        watch.until(under_way)
        killed = kill_channels(world.lab, source.name, 0.3, seed=1)
        watch.until(lambda record: record.counters.channels_lost >= killed)
        killed += kill_channels(world.lab, destination.name, 0.3, seed=2)
    out, into = completed(world, move.wait(), (source, destination), begin)
    assert out.counters.channels_lost >= killed >= 2
    assert out.counters.raw_bytes == into.counters.raw_bytes


def test_all_channels_killed_at_once_lose_nothing(world: World) -> None:
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        move = world.shuttle.begin()
        watch.until(under_way)
        kill_channels(world.lab, source.name, 1.0, seed=1)
        watch.until(lambda record: record.counters.link_losses >= 1)
    out, _ = completed(world, move.wait(), (source, destination), begin)
    assert "waiting" in [phase.state for phase in out.phases]


def test_killed_channels_lose_nothing_in_postcopy(world: World) -> None:
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        move = world.shuttle.begin("--postcopy", "--postcopy-after-precopy")
        watch.until(lambda record: record.counters.raw_bytes > 0)
        world.limit_downtime(DOWNTIME_MS_NEVER)  # or else it converges first
        watch.until(lambda record: record.state == "postcopy")
        kill_channels(world.lab, source.name, 1.0, seed=1)
    completed(world, move.wait(), (source, destination), begin)


def test_a_link_that_is_cut_for_ten_seconds_delays_the_migration_and_no_more(world: World) -> None:
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        move = world.shuttle.begin()
        watch.until(under_way)
        world.lab.wan.cut()
        time.sleep(10.0)  # the length of the cut is what the test is about
        assert move.runs
        world.lab.wan.heal()
    out, into = completed(world, move.wait(), (source, destination), begin)
    assert out.counters.raw_bytes == into.counters.raw_bytes


def test_a_link_that_stays_cut_fails_the_migration_as_broken_tcp_does(world: World) -> None:
    world.configure({"link": {"loss_s_max": 4.0}})
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    with Watch(world.agent(source)) as watch:
        move = world.shuttle.begin()
        watch.until(under_way)
        world.lab.wan.cut()
        watch.until(lambda record: record.state == "ended" or bool(record.reason), timeout_s=60)
        world.lab.wan.heal()
    assert not move.wait().succeeded
    assert world.shuttle.source == source
    world.shuttle.check()
    out, _ = world.records(source, destination, begin)
    assert out.result == "failed"
    assert out.reason.startswith("the link to the peer was lost")
    migrate(world)
