"""The watcher against libvirt's own test driver, and its reading of job statistics."""

import asyncio
from collections.abc import AsyncIterator

import libvirt
import pytest
import pytest_asyncio

from dwcp_migrate.hypervisor.base import DomainEvent, JobStatistics
from dwcp_migrate.hypervisor.libvirt_events import LibvirtWatcher, job_statistics

WAIT_S = 20

pytestmark = pytest.mark.asyncio(loop_scope="module")  # libvirt knows one event loop a process


@pytest_asyncio.fixture(loop_scope="module")
async def watcher() -> AsyncIterator[tuple[LibvirtWatcher, "asyncio.Queue[DomainEvent]"]]:
    events: asyncio.Queue[DomainEvent] = asyncio.Queue()
    found = LibvirtWatcher("test:///default")
    await found.start(events.put_nowait)
    async with asyncio.timeout(WAIT_S):
        while not found.state().connected:  # noqa: ASYNC110 - a state that is asked for
            await asyncio.sleep(0.01)
    yield found, events
    await found.close()


async def test_domains_and_events_of_a_live_libvirt_are_seen(
    watcher: tuple[LibvirtWatcher, "asyncio.Queue[DomainEvent]"],
) -> None:
    found, events = watcher
    assert found.state().version.count(".") == 2
    (domain,) = await found.domains()
    assert (domain.name, domain.job) == ("test", None)
    assert domain.memory_bytes == 8 << 30
    await asyncio.to_thread(lambda: found._connection.lookupByName("test").destroy())
    async with asyncio.timeout(WAIT_S):
        event = await events.get()
    assert (event.kind, event.name, event.uuid) == ("gone", "test", domain.uuid)
    assert await found.domains() == []


async def test_questions_about_domains_that_are_not_there_are_answered_with_nothing(
    watcher: tuple[LibvirtWatcher, "asyncio.Queue[DomainEvent]"],
) -> None:
    found, _ = watcher
    assert await found.job("00000000-0000-0000-0000-000000000000") is None
    assert await found.completed("00000000-0000-0000-0000-000000000000") is None


async def test_it_lives_without_libvirtd() -> None:
    found = LibvirtWatcher("qemu+unix:///system?socket=/nonexistent/libvirt.sock")
    await found.start(lambda _: None)
    async with asyncio.timeout(WAIT_S):
        while "not connected yet" in found.state().error:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert not found.state().connected
    assert await found.domains() == []
    assert await found.job("x") is None
    await found.close()


async def test_statistics_of_an_outgoing_migration_are_read() -> None:
    raw = {
        "operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,
        "memory_total": 1000,
        "memory_remaining": 10,
        "memory_dirty_rate": 3,
        "memory_page_size": 4096,
        "memory_iteration": 2,
        "downtime": 77,
        "time_elapsed": 5000,
        "success": True,
    }
    assert job_statistics(raw) == JobStatistics(
        outgoing=True,
        memory_total_bytes=1000,
        memory_remaining_bytes=10,
        dirty_bytes_per_s=3 * 4096,
        iteration=2,
        downtime_ms=77,
        elapsed_ms=5000,
        success=True,
    )


async def test_jobs_that_are_no_migration_are_left_out() -> None:
    assert job_statistics({}) is None
    assert job_statistics({"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE}) is None
