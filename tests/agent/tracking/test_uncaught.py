"""Migrations that leave past the agent: what libvirt says of them becomes a record that says where they went."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from dwcp_migrate.agent.peers.directory import PeerDirectory
from dwcp_migrate.agent.tracking import uncaught
from dwcp_migrate.agent.tracking.domain_tracker import DomainTracker
from dwcp_migrate.agent.tracking.history import MigrationHistory
from dwcp_migrate.agent.tracking.observed import without_forecast
from dwcp_migrate.agent.tracking.outgoing_jobs import JOBS_MAX, OutgoingJobs
from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.agent.tracking.uncaught import UncaughtMigrations, Way, way_of
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import NOT_CAUGHT_CAUSES
from dwcp_migrate.config import Config, MigrationPolicy, PeerConfig
from dwcp_migrate.hypervisor.base import DomainEvent, DomainInfo, JobStatistics
from dwcp_migrate.hypervisor.fake import FakeWatcher
from dwcp_migrate.hypervisor.tcp_connections import TcpConnection
from dwcp_migrate.protocol.control import DomainName

UUID: Final = "e42bc6e0-0000-0000-0000-000000000001"
OTHER: Final = "e42bc6e0-0000-0000-0000-000000000002"
PEER, STRANGE = "10.77.0.2", "10.78.0.2"
QEMU, OWN = 107, 990
DIRECTORY: Final = PeerDirectory([PeerConfig(name="hv2", addresses=[PEER])], "hv1", lambda _: False)


def to(address: str, port: int, *, near: int = 40000, uid: int = QEMU) -> TcpConnection:
    return TcpConnection("10.77.0.1", near, address, port, uid)


@pytest.mark.parametrize(
    ("connections", "cause", "says"),
    [
        ([to(STRANGE, 49152)], "other-address", f"{STRANGE} port 49152"),
        ([to(STRANGE, 49152), to(STRANGE, 49152, near=40001)], "other-address", STRANGE),
        ([to(PEER, 49152, uid=1001)], "not-redirected", "not for user 1001"),
        ([to(PEER, 60000)], "other-port", f"{PEER} port 60000"),
        ([to(STRANGE, 49152), to(PEER, 49153)], "unseen", f"{PEER} port 49153, {STRANGE} port 49152"),
        ([], "unseen", "a tunnel"),
        ([to(PEER, 16514), to(PEER, 22), to(PEER, 7802)], "unseen", "a tunnel"),
        ([to(STRANGE, 443)], "unseen", "a tunnel"),
        ([to(STRANGE, 50000, near=49152)], "unseen", "a tunnel"),  # somebody's connection to a port of ours
        ([to(PEER, 49152, uid=OWN)], "unseen", "a tunnel"),  # the agent's own
        ([to(PEER, 49160)], "unseen", "a tunnel"),  # has a record
    ],
)
def test_where_it_went_is_told_from_the_host_s_connections(
    connections: list[TcpConnection], cause: str, says: str
) -> None:
    way = way_of(connections, {(PEER, 49160)}, Config(), DIRECTORY, OWN)
    assert way.cause == cause
    assert way.cause in NOT_CAUGHT_CAUSES
    assert says in way.why


class Host:
    """A tracker, its libvirt, and what keeps records of what was not caught."""

    def __init__(self, directory: Path, connections: list[TcpConnection]) -> None:
        self.ledger = MigrationRegistry(MigrationHistory(directory), time.time)
        self.watcher = FakeWatcher([DomainInfo(UUID, "db1", 1 << 30), DomainInfo(OTHER, "web1", 1 << 30)])
        self.domains = DomainTracker(self.watcher, self.ledger)
        self.config = Config()
        self.left_alone: dict[str, str] = {}
        self.uncaught = UncaughtMigrations(
            lambda: self.config,
            lambda: DIRECTORY,
            lambda: self.left_alone,
            self.ledger,
            self.domains,
            lambda: connections,
        )

    def passes(self, uuid: str, name: str) -> None:
        self.watcher.running[uuid] = DomainInfo(uuid, name, 1 << 30, JobStatistics(outgoing=True))
        self.watcher.say(DomainEvent("iteration", uuid, name, number=1))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[TcpConnection]], Host]:
    monkeypatch.setattr(uncaught, "TIE_S_MAX", 0.0)
    monkeypatch.setattr(uncaught, "OBSERVED_S", 0.0)
    return lambda connections: Host(tmp_path, connections)


async def test_one_that_ends_while_the_agent_looks_where_it_goes_has_a_record_that_ended(
    host: Callable[[list[TcpConnection]], Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = host([])
    steps: list[Callable[[], None]] = [
        lambda: found.passes(OTHER, "web1"),
        lambda: found.watcher.say(DomainEvent("left", OTHER, "web1")),
    ]

    async def slowly() -> Way:
        steps.pop(0)()
        return Way("unseen", "a tunnel")

    monkeypatch.setattr(found.uncaught, "_way", slowly)
    await found.domains.start()
    found.passes(UUID, "db1")
    await found.uncaught.look()
    assert [record.domain for record in found.ledger.running()] == ["db1"]
    assert [(record.domain, record.result) for record in found.ledger.recent()] == [("web1", "completed")]


async def test_a_migration_past_the_agent_has_a_record_from_its_first_pass_to_libvirt_s_word(
    host: Callable[[list[TcpConnection]], Host],
) -> None:
    found = host([to(STRANGE, 49152)])
    await found.domains.start()
    found.passes(UUID, "db1")
    await found.uncaught.look()
    (record,) = found.ledger.running()
    assert (record.domain, record.passthrough_reason, record.address, record.port) == (
        "db1",
        "not-caught",
        STRANGE,
        49152,
    )
    assert any(event.event == "not-caught" and STRANGE in event.detail for event in record.events)
    assert found.ledger.totals().not_caught == {"other-address": 1}
    assert found.ledger.totals().passthrough == {"not-caught": 1}
    await found.uncaught.look()  # one record each
    assert len(found.ledger.running()) == 1
    found.watcher.say(DomainEvent("left", UUID, "db1"))
    del found.watcher.running[UUID]
    async with asyncio.timeout(10):
        while found.ledger.running():  # noqa: ASYNC110 - a record that ends
            await asyncio.sleep(0.01)
    await found.uncaught.look()
    (ended,) = found.ledger.recent()
    assert (ended.result, ended.domain) == ("completed", "db1")
    await found.uncaught.close()
    await found.domains.close()


async def test_one_that_is_over_before_it_is_old_enough_is_recorded_with_its_end(
    tmp_path: Path,
) -> None:
    found = Host(tmp_path, [to(STRANGE, 49152)])
    await found.domains.start()
    found.passes(UUID, "db1")
    await found.uncaught.look()
    assert found.ledger.running() == []
    failed = JobStatistics(outgoing=True, success=False, error="operation aborted: cancelled by client")
    found.watcher.say(DomainEvent("job-completed", UUID, "db1", job=failed))
    await found.uncaught.look()
    (ended,) = found.ledger.recent()
    assert (ended.result, ended.reason, ended.address) == ("failed", failed.error, STRANGE)
    await found.uncaught.look()
    assert len(found.ledger.recent()) == 1
    await found.domains.close()


async def test_one_that_is_caught_has_no_second_record(host: Callable[[list[TcpConnection]], Host]) -> None:
    found = host([])
    await found.domains.start()
    for identity, uuid, name in (("one", UUID, "db1"), ("two", OTHER, "web1")):
        found.ledger.put(
            Migration(id=identity, role="source", peer="hv2", address=PEER, port=49152, started_at=time.time())
        )
        found.passes(uuid, name)
        await found.uncaught.look()  # its record is opening
        found.domains.follow(identity, "source", [DomainName(uuid, name)])
        await found.uncaught.look()  # its domain is not known yet
        found.domains.tell(identity, uuid, name)
        await found.uncaught.look()
    found.watcher.say(DomainEvent("left", UUID, "db1"))
    found.domains.forget("one")
    found.ledger._running.pop("one")
    await found.uncaught.look()
    assert {record.passthrough_reason for record in [*found.ledger.running(), *found.ledger.recent()]} == {""}
    await found.domains.close()


async def test_of_a_record_that_ended_without_its_domain_nobody_says_that_it_was_another(
    host: Callable[[list[TcpConnection]], Host],
) -> None:
    found = host([])
    await found.domains.start()
    found.domains.follow("one", "source", [DomainName(UUID, "db1"), DomainName(OTHER, "web1")])
    found.passes(UUID, "db1")
    found.domains.forget("one")
    await found.uncaught.look()
    assert found.ledger.running() == []
    await found.domains.close()


async def test_an_agent_that_drains_says_that_it_is_why(host: Callable[[list[TcpConnection]], Host]) -> None:
    found = host([to(PEER, 49152)])
    await found.domains.start()
    found.ledger.set_state("draining")
    found.passes(UUID, "db1")
    await found.uncaught.look()
    assert found.ledger.totals().not_caught == {"draining": 1}
    await found.uncaught.close()
    await found.domains.close()


def test_jobs_are_remembered_up_to_their_limit_and_the_oldest_goes() -> None:
    jobs = OutgoingJobs()
    for number in range(JOBS_MAX + 1):
        jobs.heard(DomainEvent("iteration", str(number), "guest", number=1), 0.0)
    assert len(jobs.moving()) == JOBS_MAX
    assert "0" not in jobs.moving()


def test_a_way_is_one_of_the_causes_that_metrics_know() -> None:
    assert Way("unseen", "").cause in NOT_CAUGHT_CAUSES


async def test_an_agent_that_observes_keeps_a_record_and_raises_no_alarm(
    host: Callable[[list[TcpConnection]], Host],
) -> None:
    made = host([to(PEER, 49152)])
    made.config = Config(policy=MigrationPolicy(observe=True))
    await made.domains.start()
    made.passes(UUID, "db1")
    await made.uncaught.look()
    (record,) = made.ledger.running()
    assert (record.domain, record.peer, record.passthrough_reason) == ("db1", "hv2", "observe")
    assert made.ledger.totals().not_caught == {}
    assert made.ledger.totals().passthrough == {"observe": 1}
    await made.uncaught.close()
    await made.domains.close()


def test_what_cannot_be_said_of_an_observed_migration_is_said_once() -> None:
    record = Migration(id="0" * 32, role="source", peer="hv2", address=PEER, port=49152, started_at=1.0)
    said = without_forecast(without_forecast(record))
    assert [event.event for event in said.events] == ["no-forecast"]
    assert "dwcp-migrate check hv2" in said.events[0].detail


async def test_a_migration_to_a_peer_that_is_left_alone_is_no_alarm_and_has_libvirt_s_bytes_and_time(
    host: Callable[[list[TcpConnection]], Host],
) -> None:
    made = host([to(PEER, 49152)])
    made.left_alone = {"hv2": "its link outran this host"}
    await made.domains.start()
    made.passes(UUID, "db1")
    made.watcher.say(DomainEvent("left", UUID, "db1"))
    job = JobStatistics(outgoing=True, memory_processed_bytes=3 << 30, downtime_ms=120, success=True)
    made.watcher.say(DomainEvent("job-completed", UUID, "db1", job=job))
    await made.uncaught.look()
    (record,) = made.ledger.recent()
    assert (record.peer, record.result, record.passthrough_reason) == ("hv2", "completed", "step-aside")
    assert (record.processed_bytes, record.downtime_ms) == (3 << 30, 120)
    assert "its link outran this host" in record.events[0].detail
    assert record.ended_at - record.started_at < 0.1  # the job's own time, not that of the look at it
    assert made.ledger.totals().not_caught == {}
    assert made.ledger.totals().passthrough == {"step-aside": 1}
    await made.uncaught.close()
    await made.domains.close()


async def test_a_peer_that_is_not_left_alone_is_an_alarm_as_ever(host: Callable[[list[TcpConnection]], Host]) -> None:
    made = host([to(PEER, 49152)])
    made.left_alone = {"hv3": "its link outran this host"}
    await made.domains.start()
    made.passes(UUID, "db1")
    await made.uncaught.look()
    assert [record.passthrough_reason for record in made.ledger.running()] == ["not-caught"]
    assert made.ledger.totals().not_caught == {"not-redirected": 1}
    await made.uncaught.close()
    await made.domains.close()


def test_statistics_of_a_job_are_kept_whichever_of_both_words_comes_first() -> None:
    job = JobStatistics(outgoing=True, memory_processed_bytes=7)
    left, told = DomainEvent("left", UUID, "db1"), DomainEvent("job-completed", UUID, "db1", job=job)
    for events in ((left, told), (told, left)):
        jobs = OutgoingJobs()
        jobs.heard(DomainEvent("iteration", UUID, "db1", number=1), 1.0)
        for event in events:
            jobs.heard(event, 5.0)
        (ended,) = jobs.unfollowed((), 9.0, 0.0)
        assert (ended.result, ended.ended, ended.statistics) == ("completed", 5.0, job)
