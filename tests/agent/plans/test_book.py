"""The book of plans: in this host's file, and in the fleet's state by agents' real parts."""

from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.agent.plans import book as books
from dwcp_migrate.agent.plans.book import PLANS_NAME, PlanBook
from dwcp_migrate.api.plans import PlanRecord, PlanRequest
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.errors import PlacementError, StalePlanError
from dwcp_migrate.placement.plan import Goal
from dwcp_migrate.state.fleet.commands import Acquire, PutHost
from dwcp_migrate.state.fleet.model import VERSION
from tests.agent.authorization.world import NAMES, world_of

RECORD = PlanRecord(request=PlanRequest(goal=Goal(purpose="drain", host="b")))


def own_book(directory: Path) -> PlanBook:
    return PlanBook(None, lambda: False, directory, "a")  # type: ignore[arg-type]  # no fleet is asked


async def test_a_host_without_a_fleet_keeps_its_plans_over_a_restart(tmp_path: Path) -> None:
    first = await own_book(tmp_path).put(RECORD, 0)
    assert (first.record.id, first.record.by, first.revision) == (1, "a", 1)
    again = own_book(tmp_path)
    assert await again.all() == [first]
    paused = msgspec.structs.replace(first.record, wish="pause")
    assert (await again.put(paused, 1)).revision == 2
    with pytest.raises(StalePlanError):
        await again.put(first.record, 1)
    standing = await again.standing()
    assert (standing.holder, standing.hosts, standing.plans[0].record.wish) == ("", ["a"], "pause")


async def test_a_file_that_is_none_costs_the_plans_in_it_and_no_more(tmp_path: Path) -> None:
    (tmp_path / PLANS_NAME).write_text("[{")
    assert await own_book(tmp_path).all() == []
    assert (await own_book(tmp_path).put(RECORD, 0)).record.id == 1


async def test_as_many_plans_are_open_as_may_be_and_ended_ones_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "OPEN_MAX", 2)
    monkeypatch.setattr(books, "ENDED_KEPT", 2)
    book = own_book(tmp_path)
    first = await book.put(RECORD, 0)
    await book.put(RECORD, 0)
    with pytest.raises(PlacementError, match="2 plans have not ended"):
        await book.put(RECORD, 0)
    await book.put(msgspec.structs.replace(first.record, state="completed"), first.revision)
    for _ in range(3):
        made = await book.put(RECORD, 0)
        await book.put(msgspec.structs.replace(made.record, state="aborted"), made.revision)
    assert [one.record.id for one in await book.all()] == [2, 4, 5]


async def test_a_fleet_s_plans_are_seen_and_changed_from_every_host(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES)) as world:
        for name, host in world.hosts.items():
            await host.coordination.submit(PutHost(name=name, reads=VERSION))
        book, other = (PlanBook(world.hosts[name].coordination, lambda: True, tmp_path, name) for name in ("a", "b"))
        made = await book.put(RECORD, 0)
        assert [one.record.by for one in await other.all()] == ["a"]
        wished = await other.put(msgspec.structs.replace(made.record, wish="abort"), made.revision)
        with pytest.raises(StalePlanError):
            await book.put(made.record, made.revision)
        assert (await book.all()) == [wished]
        second = await other.put(RECORD, 0)
        assert second.record.id == 2
        await world.hosts["b"].coordination.submit(Acquire(name="placement", lifetime_s=60.0))
        standing = await book.standing()
        assert (standing.holder, standing.hosts) == ("b", sorted(NAMES))
