"""Agents and data processes killed with SIGKILL, at each phase, on each side.

What must hold: the guest runs on exactly one host with its memory whole; the redirect is gone with its agent, but not a
migration that a data process carries, which has one record; the next migration works without the dead agent, and is
accelerated again once it was restarted.
"""

import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import pytest

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import Migrations
from dwcp_migrate.config import InterceptConfig
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import Move, Watch, newest_record
from tests.e2e.world import DOWNTIME_MS_NEVER, GUEST, SLOW, World, completed, migrate, migrate_stock

pytestmark = pytest.mark.lab

Side = Literal["source", "destination"]
Phase = Literal["set-up", "first pass", "later passes", "switchover"]

SIDES: Final[tuple[Side, ...]] = ("source", "destination")
REACHED: Final[dict[Phase, Callable[[Migration], bool]]] = {
    "set-up": lambda record: record.state in {"opening", "precopy"},
    "first pass": lambda record: record.counters.raw_bytes > 8 << 20,
    "later passes": lambda record: record.iteration >= 3,
    "switchover": lambda record: record.state == "switchover",
}
PASSES: Final[tuple[Phase, ...]] = ("first pass", "later passes")
CARRIED: Final[tuple[Phase, ...]] = (*PASSES, "switchover")
DOWNTIME_MS_USUAL: Final = 300


def begin_and_reach(world: World, phase: Phase) -> Move:
    """Start a migration and return when it is in the phase."""
    world.lab.wan.set(SLOW)
    with Watch(world.agent(world.shuttle.source)) as watch:
        move = world.shuttle.begin()
        if phase == "later passes":
            watch.until(REACHED["first pass"])
            world.limit_downtime(DOWNTIME_MS_NEVER)
        watch.until(REACHED[phase])
    return move


def victim(world: World, side: Side) -> Hypervisor:
    return world.shuttle.source if side == "source" else world.shuttle.destination


def redirected(host: Hypervisor) -> bool:
    """Whether new connections are; tables of data processes that are ending redirect nothing."""
    return f"redirect to :{InterceptConfig().port}" in host.run(["nft", "list", "ruleset"]).stdout


def check_guest(world: World, move: Move, source: Hypervisor, phase: Phase) -> None:
    """The operator is told the truth: exactly one host has the guest.

    In the passes that is the source. In the set-up an agent that is gone before it answered costs only the
    acceleration, and a data process that is not at work yet is replaced. At the switchover it depends on who heard
    what.
    """
    succeeded = move.wait().succeeded
    host = world.shuttle.source
    assert succeeded == (host != source)
    if phase in PASSES:
        assert host == source
    world.lab.wan.heal()
    world.shuttle.check()


@pytest.mark.parametrize("side", SIDES)
def test_an_agent_killed_at_rest_leaves_plain_migrations_behind(world: World, side: Side) -> None:
    host = victim(world, side)
    assert redirected(host)
    world.agent(host).kill()
    assert not redirected(host)
    begin = time.time()
    source = world.shuttle.source
    migrate_stock(world)
    if side == "destination":  # the source's agent asked in vain and said so
        assert newest_record(world.agent(source), "source", after=begin).passthrough_reason == "unreachable"
    world.restart(host)
    migrate(world)


@pytest.mark.parametrize("side", SIDES)
def test_an_agent_killed_in_the_set_up_costs_no_guest(world: World, side: Side) -> None:
    source, host = world.shuttle.source, victim(world, side)
    move = begin_and_reach(world, "set-up")
    world.agent(host).kill()
    assert not redirected(host)
    check_guest(world, move, source, "set-up")
    world.restore_wan()
    world.restart(host)
    migrate(world)


@pytest.mark.parametrize("phase", CARRIED)
@pytest.mark.parametrize("side", SIDES)
def test_an_agent_killed_during_a_migration_costs_neither_migration_nor_record(
    world: World, side: Side, phase: Phase
) -> None:
    source, destination, host, begin = world.shuttle.source, world.shuttle.destination, victim(world, side), time.time()
    move = begin_and_reach(world, phase)
    world.agent(host).kill()
    assert not redirected(host)
    if phase == "later passes":  # refused where it is at its switchover already
        source.virsh("migrate-setmaxdowntime", GUEST.name, str(DOWNTIME_MS_USUAL), check=False)
    world.restore_wan()
    world.restart(host)
    outcome = move.wait()
    completed(world, outcome, (source, destination), begin, with_agents=phase != "switchover")
    ended = msgspec.convert(world.agent(host).get("/v1/history?limit=20"), Migrations).migrations
    assert sum(record.started_at >= begin for record in ended) == 1


@pytest.mark.parametrize("phase", REACHED)
@pytest.mark.parametrize("side", SIDES)
def test_a_data_process_killed_during_a_migration_costs_no_guest(world: World, side: Side, phase: Phase) -> None:
    source, destination, host = world.shuttle.source, world.shuttle.destination, victim(world, side)
    process, begin = world.data_process(host), time.time()
    move = begin_and_reach(world, phase)
    process.end(grace_s=0)
    check_guest(world, move, source, phase)
    world.restore_wan()
    records = world.records(source, destination, begin)
    if phase in PASSES:
        assert {record.result for record in records} == {"failed"}
    assert all(record.reason for record in records if record.result == "failed")
    world.at_rest()
    migrate(world)


@pytest.mark.parametrize("side", SIDES)
def test_a_spare_data_process_that_was_killed_is_replaced(world: World, side: Side) -> None:
    world.data_process(victim(world, side)).end(grace_s=0)
    world.at_rest()
    migrate(world)
