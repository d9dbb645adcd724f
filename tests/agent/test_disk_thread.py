"""A slow disk holds up who must wait for it, and never the event loop; what depends on a write comes after it."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dwcp_migrate.agent.authorization.retry_queue import RetryQueue
from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.agent.pbft.membership_store import FILE, MembershipStore
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.agent.tracking.running_store import RunningStore
from dwcp_migrate.api.migration import close_record
from dwcp_migrate.consensus.tickets.operations import Forget, Operation, Ownership, Result
from tests.agent.pbft.test_membership_store import FIRST, SECOND, configured
from tests.agent.records import make_migration
from tests.consensus.epoch_links import link

UUID = "00000000-0000-4000-8000-000000000001"
SLOW_S = 1.0
STALL_S_MAX = 0.5
"""Of the loop. One write takes two syncs, so four times this."""


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a second for each sync."""
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(SLOW_S)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@contextlib.asynccontextmanager
async def unstalled() -> AsyncIterator[None]:
    """Hold the loop against `STALL_S_MAX` meanwhile."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time(), time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before[1])
            await asyncio.sleep(0.01)

    task = asyncio.create_task(watch())
    yield
    await asyncio.sleep(0.02)
    task.cancel()
    assert longest < STALL_S_MAX


@pytest.mark.usefixtures("slow")
async def test_what_is_owed_is_on_the_disk_before_the_group_hears_of_it_and_the_loop_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "pbft" / "owed"
    on_disk: list[bool] = []

    async def ask(operation: Operation) -> Result:
        del operation
        on_disk.append(UUID.encode() in path.read_bytes())
        return Ownership(UUID, "b", 1)

    owed = RetryQueue(ask, path, DiskThread())
    async with unstalled():
        owed.add(Forget(UUID))
        await owed.send_pending()
    assert on_disk == [True]


@pytest.mark.usefixtures("slow")
async def test_members_that_follow_are_believed_at_once_and_written_beside_the_loop(tmp_path: Path) -> None:
    disk = DiskThread()
    store = MembershipStore(configured(FIRST), tmp_path, disk)
    async with unstalled():
        assert store.follow(link(FIRST, SECOND, 10))
        assert store.newest.membership == SECOND
        await disk.settled()
    assert (tmp_path / FILE).exists()
    assert MembershipStore(configured(FIRST), tmp_path).newest.membership == SECOND


async def test_a_migration_that_ended_is_kept_for_the_next_agent_until_its_line_is_written(tmp_path: Path) -> None:
    disk, freed = DiskThread(), threading.Event()
    registry = MigrationRegistry(MigrationHistory(tmp_path, disk=disk), time.time, RunningStore(tmp_path / "run"), disk)
    record = make_migration()
    registry.put(record)
    kept = tmp_path / "run" / "sessions" / f"{record.id}.json"
    disk.begin(lambda: _wait(freed.wait))
    registry.put(close_record(record, 1.0, libvirt="completed"))
    assert [one.id for one in registry.recent()] == [record.id]
    assert (kept.exists(), (tmp_path / "history.jsonl").exists()) == (True, False)
    freed.set()
    await disk.settled()
    assert (kept.exists(), (tmp_path / "history.jsonl").exists()) == (False, True)


def _wait(event: Callable[[float], bool]) -> None:
    assert event(20)


async def test_work_is_done_in_the_order_in_which_it_was_begun_and_a_close_waits_for_all_of_it() -> None:
    disk, done = DiskThread(), []
    for number in range(5):
        disk.begin(lambda number=number: done.append(number))  # type: ignore[misc]

    def fail() -> None:
        raise OSError("a disk")

    failed = disk.begin(fail)
    await disk.close()
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="a disk"):
        await failed
