"""Libvirt's word on a migration, as `DomainTracker` takes it from a watcher."""

import asyncio
import time
from pathlib import Path
from typing import Final

import pytest

from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.hypervisor.base import DomainCondition, DomainEvent, DomainInfo, JobStatistics
from dwcp_migrate.hypervisor.fake import FakeWatcher
from dwcp_migrate.protocol.control import DomainName

UUID: Final = "e42bc6e0-0000-0000-0000-000000000001"
OTHER: Final = "e42bc6e0-0000-0000-0000-000000000002"
MEMORY_BYTES: Final = 128 << 20


def domain(elapsed_ms: int | None) -> DomainInfo:
    job = None if elapsed_ms is None else JobStatistics(outgoing=True, elapsed_ms=elapsed_ms)
    return DomainInfo(UUID, "guest", MEMORY_BYTES, job)


async def following(directory: Path, watcher: FakeWatcher) -> DomainTracker:
    """Follow a migration that began 30 s ago and is tied to the domain that moves."""
    ledger = MigrationRegistry(MigrationHistory(directory), time.time)
    ledger.put(
        Migration(id="one", role="source", peer="hv2", address="10.77.0.2", port=49152, started_at=time.time() - 30)
    )
    domains = DomainTracker(watcher, ledger)
    await domains.start()
    domains.follow("one", "source", ())
    while not (record := ledger.get("one")) or not record.uuid:  # noqa: ASYNC110 - the tie has no event to wait for
        await asyncio.sleep(0)
    return domains


@pytest.mark.parametrize("elapsed_ms", [None, 3000])
async def test_a_domain_that_is_here_without_the_job_did_not_leave(tmp_path: Path, elapsed_ms: int | None) -> None:
    """With a job of 3 s the operator has begun the next migration; its success is not this one's."""
    watcher = FakeWatcher([domain(31_000)])
    domains = await following(tmp_path, watcher)
    watcher.running[UUID] = domain(elapsed_ms)
    verdict = await domains.verdict("one")
    watcher.say(DomainEvent("left", UUID, "guest"))
    assert verdict.result == "failed"
    await domains.close()


async def test_a_domain_whose_job_goes_on_is_waited_for(tmp_path: Path) -> None:
    watcher = FakeWatcher([domain(31_000)])
    domains = await following(tmp_path, watcher)
    asyncio.get_running_loop().call_later(1.5, watcher.say, DomainEvent("left", UUID, "guest"))
    assert (await domains.verdict("one")).result == "completed"
    await domains.close()


async def test_the_job_s_statistics_are_waited_for_whatever_else_libvirt_says_first(tmp_path: Path) -> None:
    watcher = FakeWatcher([domain(31_000)])
    domains = await following(tmp_path, watcher)
    watcher.say(DomainEvent("left", UUID, "guest"))
    loop, job = asyncio.get_running_loop(), JobStatistics(outgoing=True, downtime_ms=41, success=True)
    loop.call_later(0.2, watcher.say, DomainEvent("gone", UUID, "guest"))
    loop.call_later(0.4, watcher.say, DomainEvent("job-completed", UUID, "guest", job=job))
    assert (await domains.verdict("one")).result == "completed"
    record = domains._ledger.get("one")
    assert record is not None
    assert record.downtime_ms == 41
    await domains.close()


async def test_the_first_that_libvirt_speaks_of_is_not_the_first_whose_connection_came(tmp_path: Path) -> None:
    """Guest's connection is on its way while the one that came is another guest's, of which libvirt is silent yet."""
    ledger = MigrationRegistry(MigrationHistory(tmp_path), time.time)
    watcher = FakeWatcher([])
    domains = DomainTracker(watcher, ledger)
    await domains.start()
    for identity in ("one", "two"):
        ledger.put(
            Migration(id=identity, role="source", peer="hv2", address="10.77.0.2", port=49152, started_at=time.time())
        )
    named = [DomainName(UUID, "guest"), DomainName(OTHER, "other")]
    domains.follow("one", "source", named)
    watcher.say(DomainEvent("iteration", UUID, "guest", number=1))
    watcher.say(DomainEvent("left", UUID, "guest"))  # the one that is opening may be it
    assert ledger.get("one").uuid == ""  # type: ignore[union-attr]
    domains.follow("two", "source", named)
    domains.tell("two", UUID, "guest")
    watcher.say(DomainEvent("left", OTHER, "other"))
    assert ledger.get("one").uuid == OTHER  # type: ignore[union-attr]
    assert (await domains.verdict("one")).result == "completed"
    await domains.close()


async def test_what_libvirt_does_not_say_is_not_taken_for_a_domain_that_is_not_here(tmp_path: Path) -> None:
    watcher = FakeWatcher([domain(None), DomainInfo(OTHER, "other", MEMORY_BYTES)])
    domains = DomainTracker(watcher, MigrationRegistry(MigrationHistory(tmp_path), time.time))
    await domains.start()
    assert [await domains.runs(uuid) for uuid in (UUID, OTHER, "nobody")] == [True, True, False]
    watcher.hung.add(UUID)
    assert [await domains.runs(uuid) for uuid in (UUID, OTHER, "nobody")] == [None, True, False]
    assert {found.uuid for found in await domains.here() or []} == {UUID, OTHER}
    watcher.connected = False
    assert [await domains.runs(uuid) for uuid in (UUID, OTHER, "nobody")] == [None, None, None]
    assert await domains.here() is None
    await domains.close()


@pytest.mark.parametrize("condition", ["migrating", "postcopy", "postcopy-failed"])
async def test_a_domain_in_the_middle_of_a_migration_does_not_run_here_for_good(
    tmp_path: Path, condition: DomainCondition
) -> None:
    watcher = FakeWatcher([DomainInfo(UUID, "guest", MEMORY_BYTES, condition=condition)])
    domains = DomainTracker(watcher, MigrationRegistry(MigrationHistory(tmp_path), time.time))
    await domains.start()
    assert await domains.runs(UUID) is None
    await domains.close()


async def test_a_domain_that_hangs_does_not_hide_which_others_leave(tmp_path: Path) -> None:
    watcher = FakeWatcher([domain(1000), DomainInfo(OTHER, "other", MEMORY_BYTES)])
    watcher.hung.add(OTHER)
    domains = DomainTracker(watcher, MigrationRegistry(MigrationHistory(tmp_path), time.time))
    await domains.start()
    assert await domains.leaving() == (DomainName(UUID, "guest"),)
    await domains.close()


async def test_a_postcopy_that_breaks_off_ends_the_record_as_such_and_is_counted(tmp_path: Path) -> None:
    watcher = FakeWatcher([domain(31_000)])
    domains = await following(tmp_path, watcher)
    watcher.say(DomainEvent("postcopy", UUID, "guest"))
    watcher.say(DomainEvent("postcopy-failed", UUID, "guest"))
    assert (await domains.verdict("one")).result == "failed"
    record = domains._ledger.get("one")
    assert record is not None
    assert record.is_split
    assert domains._ledger.totals().postcopy_failed == 1
    await domains.close()


@pytest.mark.parametrize(
    ("guest", "other", "resumes"),
    [
        (JobStatistics(outgoing=True), None, True),
        (None, None, True),
        (JobStatistics(outgoing=False), None, False),  # it broke off on its way here
        (JobStatistics(outgoing=True), JobStatistics(outgoing=True), False),  # whose connection it is nobody knows
        (JobStatistics(outgoing=True), JobStatistics(outgoing=False), True),
    ],
)
async def test_a_resumption_is_told_by_libvirt_s_state_of_all_that_leaves(
    tmp_path: Path, *, guest: JobStatistics | None, other: JobStatistics | None, resumes: bool
) -> None:
    broken = DomainInfo(UUID, "guest", MEMORY_BYTES, guest, condition="postcopy-failed")
    watcher = FakeWatcher([broken, DomainInfo(OTHER, "other", MEMORY_BYTES, other)])
    domains = DomainTracker(watcher, MigrationRegistry(MigrationHistory(tmp_path), time.time))
    await domains.start()
    assert await domains.resumes_postcopy() is resumes
    watcher.running[UUID] = domain(1000)
    assert await domains.resumes_postcopy() is False
    await domains.close()


async def test_domains_that_wait_for_their_memory_are_told_from_those_that_leave(tmp_path: Path) -> None:
    leaving = DomainInfo(OTHER, "leaving", MEMORY_BYTES, JobStatistics(outgoing=True), "migrating")
    waiting = DomainInfo(UUID, "guest", MEMORY_BYTES, None, "migrating")
    paused = DomainInfo("other", "paused", MEMORY_BYTES, None, "paused")
    watcher = FakeWatcher([leaving, waiting, paused])
    domains = DomainTracker(watcher, MigrationRegistry(MigrationHistory(tmp_path), time.time))
    assert await domains.arriving() == ()  # libvirt is not connected yet
    await domains.start()
    assert await domains.arriving() == (DomainName(UUID, "guest"),)
    await domains.close()
