"""Whether the host that claims a domain runs it: by the fleet's record, and by what the owner says."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dwcp_migrate.agent.authorization.ownership import OwnershipCheck
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.hypervisor.base import JobStatistics
from dwcp_migrate.state.fleet.commands import PutDomain
from tests.agent.authorization.world import NAMES, UUID, World, world_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES)) as world:
        yield world


async def held(world: World, claimant: str) -> bool:
    """Whether b takes the domain of a claimant for another host's."""
    here = world.hosts["b"]
    check = OwnershipCheck(here.runtime, here.coordination)
    return await check.held_by_others(here.peer(claimant), [UUID]) == {UUID}


async def owned(world: World, owner: str) -> None:
    """The fleet's record names an owner, which runs the domain."""
    await world.hosts[owner].coordination.submit(PutDomain(uuid=UUID, name="web1", memory_bytes=1 << 30))
    world.hosts[owner].runs()


async def test_a_domain_that_nobody_owns_is_anybodys(world: World) -> None:
    assert not await held(world, "a")


async def test_a_domain_of_the_claimants_is_its_own(world: World) -> None:
    await owned(world, "a")
    assert not await held(world, "a")


@pytest.mark.parametrize("job", [None, JobStatistics(outgoing=True)], ids=["runs", "leaves"])
async def test_a_domain_that_runs_elsewhere_is_not_the_claimants(world: World, job: JobStatistics | None) -> None:
    await owned(world, "c")
    world.hosts["c"].runs(job=job)
    assert await held(world, "a")
    assert not await held(world, "c")


async def test_a_record_that_is_late_costs_nothing(world: World) -> None:
    await owned(world, "c")
    world.hosts["c"].watcher.running.clear()
    assert not await held(world, "a")


async def test_an_owner_that_cannot_be_asked_costs_nothing(world: World) -> None:
    await owned(world, "c")
    world.hosts["c"].is_reachable = False
    assert not await held(world, "a")


async def test_a_domain_that_comes_home_is_its_bringers(world: World) -> None:
    await owned(world, "b")
    assert not await held(world, "a")


async def test_without_a_fleet_nobody_is_asked(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig()) as world:
        assert not await held(world, "a")
