"""The watcher against libvirt's own test driver, and against a stub of libvirtd that speaks its remote protocol."""

import asyncio
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import libvirt
import pytest
import pytest_asyncio

from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.errors import NoAnswerError
from dwcp_migrate.hypervisor.base import DomainEvent, JobStatistics
from dwcp_migrate.hypervisor.libvirt_events import ALONE_MAX, THREADS, LibvirtWatcher
from dwcp_migrate.hypervisor.libvirt_facts import job_statistics
from dwcp_migrate.protocol.control import DomainName
from tests.hypervisor.stub_libvirtd import JOB_STATS, UNLIMITED_MIB, StubDomain, StubLibvirtd

WAIT_S = 20
MANY: Final = 1000
SWEEP_S: Final = 4.0
"""The stub is Python: it answers some thousand jobs a second."""
NOWHERE: Final = "00000000-0000-0000-0000-000000000000"
OUTGOING: Final = {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, "memory_remaining": 77}
ARRIVING: Final = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)

pytestmark = pytest.mark.asyncio(loop_scope="module")  # libvirt knows one event loop a process


async def connected(found: LibvirtWatcher, listener: Callable[[DomainEvent], None]) -> LibvirtWatcher:
    await found.start(listener)
    async with asyncio.timeout(WAIT_S):
        while not found.state().connected:  # noqa: ASYNC110 - a state that is asked for
            await asyncio.sleep(0.01)
    return found


@pytest_asyncio.fixture(loop_scope="module")
async def watcher() -> AsyncIterator[tuple[LibvirtWatcher, "asyncio.Queue[DomainEvent]"]]:
    events: asyncio.Queue[DomainEvent] = asyncio.Queue()
    found = await connected(LibvirtWatcher("test:///default"), events.put_nowait)
    yield found, events
    await found.close()


async def test_domains_and_events_of_a_live_libvirt_are_seen(
    watcher: tuple[LibvirtWatcher, "asyncio.Queue[DomainEvent]"],
) -> None:
    found, events = watcher
    assert found.state().version.count(".") == 2
    (domain,) = await found.domains()
    assert (domain.name, domain.job, domain.condition) == ("test", None, "running")
    assert domain.memory_bytes == 8 << 30
    assert await found.jobs([domain.uuid], 1.0) == {domain.uuid: None}
    assert await found.lookup(domain.uuid) == domain
    await found._calls["commands"].ask("test", lambda connection: connection.lookupByName("test").suspend(), WAIT_S)
    async with asyncio.timeout(WAIT_S):
        assert (await events.get()).kind == "paused"
    assert (await found.domains())[0].condition == "paused"
    await found._calls["commands"].ask("test", lambda connection: connection.lookupByName("test").destroy(), WAIT_S)
    async with asyncio.timeout(WAIT_S):
        event = await events.get()
    assert (event.kind, event.name, event.uuid) == ("gone", "test", domain.uuid)
    assert await found.domains() == []
    assert await found.lookup(domain.uuid) is None


async def test_questions_about_domains_that_are_not_there_are_answered_with_nothing(
    watcher: tuple[LibvirtWatcher, "asyncio.Queue[DomainEvent]"],
) -> None:
    found, _ = watcher
    assert await found.lookup(NOWHERE) is None
    assert await found.jobs([NOWHERE], 1.0) == {}
    assert await found.completed(NOWHERE) is None


async def test_without_libvirtd_no_question_is_answered_with_nothing() -> None:
    found = LibvirtWatcher("qemu+unix:///system?socket=/nonexistent/libvirt.sock")
    await found.start(lambda _: None)
    async with asyncio.timeout(WAIT_S):
        while "not connected yet" in found.state().error:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert not found.state().connected
    with pytest.raises(NoAnswerError):
        await found.domains()
    with pytest.raises(NoAnswerError):
        await found.lookup(NOWHERE)
    assert await found.jobs([NOWHERE], 1.0) == {}
    await found.close()


@pytest_asyncio.fixture(loop_scope="module")
async def crowd(tmp_path: Path) -> AsyncIterator[tuple[StubLibvirtd, list[StubDomain]]]:
    """A thousand domains; the job lock of the first hangs, as behind a storage job that does not come back."""
    domains = [StubDomain(f"vm{number}") for number in range(MANY)]
    domains[0].is_hung = True
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", domains)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # stub and watcher share an interpreter: each message changes threads twice
    yield daemon, domains
    sys.setswitchinterval(before)
    daemon.close()


async def test_of_a_thousand_domains_one_that_hangs_keeps_no_other_s_names_and_jobs_waiting(
    crowd: tuple[StubLibvirtd, list[StubDomain]],
) -> None:
    daemon, domains = crowd
    moving = domains[MANY // 2]
    moving.job = OUTGOING
    found = await connected(LibvirtWatcher(daemon.uri), lambda _: None)
    assert len(await found.domains()) == MANY
    before = time.monotonic()
    listed = await found.domains()
    assert time.monotonic() - before < 1.0
    assert {domain.name for domain in listed} == {domain.name for domain in domains}
    for timeout_s in (SWEEP_S, SWEEP_S):  # the second sweep leaves out the one that hangs, and loses no thread to it
        before = time.monotonic()
        jobs = await found.jobs([domain.uuid for domain in domains], timeout_s)
        assert time.monotonic() - before < timeout_s + 0.5
        assert set(jobs) == {domain.uuid for domain in domains[1:]}
        assert [uuid for uuid, job in jobs.items() if job] == [moving.uuid]
    assert daemon.asked.count((JOB_STATS, domains[0].name)) == 1
    before = time.monotonic()
    await found.close()
    assert time.monotonic() - before < 5.0


async def test_with_a_thousand_domains_and_one_that_hangs_an_event_is_in_the_record_within_a_second(
    crowd: tuple[StubLibvirtd, list[StubDomain]], tmp_path: Path
) -> None:
    daemon, domains = crowd
    ledger = MigrationRegistry(MigrationHistory(tmp_path), time.time)
    watched = LibvirtWatcher(daemon.uri)
    tracker = DomainTracker(watched, ledger)
    await tracker.start()
    async with asyncio.timeout(WAIT_S):
        while not watched.state().connected:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    for identity, domain in (("hung", domains[0]), ("other", domains[1])):
        domain.job = OUTGOING
        ledger.put(
            Migration(id=identity, role="source", peer="hv2", address="10.77.0.2", port=49152, started_at=time.time())
        )
        tracker.follow(identity, "source", [DomainName(domain.uuid, domain.name)])
        tracker.tell(identity, domain.uuid, domain.name)
    worst_s = 0.0
    for number in range(1, 6):
        for identity, domain in (("hung", domains[0]), ("other", domains[1])):
            before = time.monotonic()
            daemon.iteration(domain, number)
            async with asyncio.timeout(1.0):
                while ledger.get(identity).iteration < number:  # type: ignore[union-attr]  # noqa: ASYNC110 - a record
                    await asyncio.sleep(0.005)
            worst_s = max(worst_s, time.monotonic() - before)
    print(f"event to record: at most {worst_s * 1000:.0f} ms with {MANY} domains, one hung")  # noqa: T201 - a figure
    async with asyncio.timeout(5.0):
        while ledger.get("other").remaining_bytes != 77:  # type: ignore[union-attr]  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert await tracker.runs(domains[0].uuid) is None
    assert await tracker.runs(domains[2].uuid) is True
    assert await tracker.runs(NOWHERE) is False
    assert len(await tracker.here() or []) == MANY
    await tracker.close()


async def test_a_thread_comes_back_with_libvirt_s_own_time_out_and_the_domain_is_asked_again(tmp_path: Path) -> None:
    hung = StubDomain("db1", is_hung=True, job=OUTGOING)
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", [hung], job_wait_s=0.5)
    found = await connected(LibvirtWatcher(daemon.uri), lambda _: None)
    assert await found.jobs([hung.uuid], 0.1) == {}
    with pytest.raises(NoAnswerError, match="has not answered yet"):
        await found.lookup(hung.uuid)
    assert daemon.asked.count((JOB_STATS, "db1")) == 1
    hung.is_hung = False
    async with asyncio.timeout(5.0):
        while not (jobs := await found.jobs([hung.uuid], 1.0)):  # noqa: ASYNC110 - a state that is asked for
            await asyncio.sleep(0.01)
    assert jobs[hung.uuid] == JobStatistics(outgoing=True, memory_remaining_bytes=77)
    await found.close()
    daemon.close()


@pytest.mark.parametrize("code", [libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED])
async def test_a_domain_that_arrives_is_known_by_what_libvirt_answers_at_the_destination(
    tmp_path: Path, code: int
) -> None:
    arriving = StubDomain("db1", state=ARRIVING, job=code)
    stopped = StubDomain("db2", job=libvirt.VIR_ERR_OPERATION_INVALID)
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", [arriving, stopped])
    found = await connected(LibvirtWatcher(daemon.uri), lambda _: None)
    assert [domain.is_moving for domain in await found.domains()] == [True, False]
    jobs = await found.jobs([arriving.uuid, stopped.uuid], 1.0)
    assert jobs == {arriving.uuid: JobStatistics(outgoing=False), stopped.uuid: None}
    assert (await found.lookup(arriving.uuid)).is_moving  # type: ignore[union-attr]
    await found.close()
    daemon.close()


async def test_a_postcopy_that_failed_and_one_that_was_resumed_are_told(tmp_path: Path) -> None:
    events: asyncio.Queue[DomainEvent] = asyncio.Queue()
    domain = StubDomain("db1", state=(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED))
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", [domain])
    found = await connected(LibvirtWatcher(daemon.uri), events.put_nowait)
    suspended, resumed = libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_RESUMED
    for event, detail, kind in (
        (suspended, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY, "postcopy"),
        (suspended, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED, "postcopy-failed"),
        (resumed, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED, "postcopy-failed"),
        (resumed, libvirt.VIR_DOMAIN_EVENT_RESUMED_POSTCOPY, "postcopy"),
    ):
        daemon.lifecycle(domain, event, detail)
        async with asyncio.timeout(WAIT_S):
            assert (await events.get()).kind == kind
    assert [one.condition for one in await found.domains()] == ["postcopy-failed"]
    await found.close()
    daemon.close()


@pytest.mark.parametrize(("users", "held"), [(UNLIMITED_MIB, 47), (10, 10), (47, 47), (100, 47)])
async def test_a_speed_limit_never_exceeds_the_user_s_and_is_put_back(tmp_path: Path, users: int, held: int) -> None:
    domain = StubDomain("db1", speed_mib=users)
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", [domain])
    found = await connected(LibvirtWatcher(daemon.uri, tmp_path), lambda _: None)
    await found.set_speed(domain.uuid, 50e6)
    assert domain.speed_mib == held
    await found.set_speed(domain.uuid, 0.0)
    assert domain.speed_mib == users
    await found.close()
    daemon.close()


async def test_a_speed_limit_that_a_crash_left_behind_is_put_back_by_the_next_start(tmp_path: Path) -> None:
    """And one that the user, or the end of libvirt's job, has replaced meanwhile is not."""
    left, replaced, gone = StubDomain("db1"), StubDomain("db2"), StubDomain("db3")
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", [left, replaced, gone])
    crashed = await connected(LibvirtWatcher(daemon.uri, tmp_path), lambda _: None)
    for domain in (left, replaced, gone):
        await crashed.set_speed(domain.uuid, 256 * 1024)
        assert domain.speed_mib == 1
    replaced.speed_mib = 200
    del daemon.domains[gone.uuid]
    second = await connected(LibvirtWatcher(daemon.uri, tmp_path), lambda _: None)
    async with asyncio.timeout(WAIT_S):
        while second._speeds.left_behind():  # noqa: ASYNC110 - a state that is asked for
            await asyncio.sleep(0.01)
    assert (left.speed_mib, replaced.speed_mib) == (UNLIMITED_MIB, 200)
    await second.set_speed(replaced.uuid, 50e6)
    await second.set_speed(replaced.uuid, 0.0)
    assert replaced.speed_mib == 200
    await crashed.close()
    await second.close()
    daemon.close()


async def test_threads_are_as_many_as_their_purposes_need_and_end_with_the_watcher(tmp_path: Path) -> None:
    domains = [StubDomain(f"vm{number}") for number in range(ALONE_MAX + 1)]
    daemon = StubLibvirtd(tmp_path / "libvirt.sock", domains)
    others = set(threading.enumerate())
    found = await connected(LibvirtWatcher(daemon.uri), lambda _: None)
    for _ in range(20):
        await asyncio.gather(found.domains(), found.jobs(list(daemon.domains), 1.0), found.lookup(domains[0].uuid))
    mine = [one for one in set(threading.enumerate()) - others if re.fullmatch(r"libvirt-\w+-\d", one.name)]
    assert len(mine) == sum(THREADS.values())
    await found.close()
    for thread in mine:
        await asyncio.to_thread(thread.join, WAIT_S)
        assert not thread.is_alive()
    daemon.close()


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
