"""Whose turn it is to look at the fleet, and the helper that does."""

import sys
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate.agent.plans.fleet_watcher import FleetWatcher
from dwcp_migrate.agent.plans.watch_book import WATCH_NAME, WatchBook
from dwcp_migrate.api.watch import WatchRecord
from dwcp_migrate.config import CoordinationConfig
from dwcp_migrate.errors import StalePlanError
from dwcp_migrate.placement.watch_settings import WatchSettings
from dwcp_migrate.state.fleet.commands import PutHost
from dwcp_migrate.state.fleet.model import VERSION
from tests.agent.authorization.world import NAMES, world_of

ON = WatchRecord(settings=WatchSettings(mode="on"))


def own_book(directory: Path) -> WatchBook:
    return WatchBook(None, lambda: False, directory, "a")  # type: ignore[arg-type]  # no fleet is asked


def watcher(book: WatchBook, out: Path, state: str = "running") -> FleetWatcher:
    command = (sys.executable, "-c", f"open({str(out)!r}, 'a').write('x')")
    return FleetWatcher(book, out, lambda: state, command)


async def test_it_looks_when_that_is_due_and_never_while_it_is_off(tmp_path: Path) -> None:
    book, out = own_book(tmp_path), tmp_path / "looked"
    service = watcher(book, out)
    assert not await service.turn()
    await book.put(ON, 0)
    assert await service.turn()
    assert not await service.turn()  # not due yet
    assert out.read_text() == "x"
    assert not await watcher(book, out, "draining").turn()


async def test_a_host_without_a_fleet_keeps_the_record_over_a_restart(tmp_path: Path) -> None:
    stored = await own_book(tmp_path).put(ON, 0)
    assert await own_book(tmp_path).read() == stored
    with pytest.raises(StalePlanError):
        await own_book(tmp_path).put(ON, 0)
    (tmp_path / WATCH_NAME).write_text("[")
    assert (await own_book(tmp_path).read()).revision == 0


async def test_one_agent_of_a_fleet_looks_and_its_record_is_the_fleet_s(tmp_path: Path) -> None:
    async with world_of(tmp_path, CoordinationConfig(voters=NAMES)) as world:
        for name, host in world.hosts.items():
            await host.coordination.submit(PutHost(name=name, reads=VERSION))
        first, other = (WatchBook(world.hosts[name].coordination, lambda: True, tmp_path, name) for name in ("a", "b"))
        stored = await first.put(ON, 0)
        assert (await other.read()).record == ON
        assert await first.takes_turn(900.0)
        assert not await other.takes_turn(900.0)
        changed = msgspec.structs.replace(ON, looks=3)
        await other.put(changed, stored.revision)
        with pytest.raises(StalePlanError):
            await first.put(ON, stored.revision)
