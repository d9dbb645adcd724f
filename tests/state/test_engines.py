"""One contract, three engines: Raft of one voter in this process, a real etcd, and the fake that stands for them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dwcp_migrate.errors import CoordinationError, LimitExceededError, NoQuorumError
from dwcp_migrate.state.engine import SUBMITS_MAX, Engine, RequestNumbers
from dwcp_migrate.state.fake import FakeEngine
from dwcp_migrate.state.fleet.commands import COMMAND_BYTES_MAX, Acquire, Barrier, Propose, PutHost, Resume
from dwcp_migrate.state.fleet.model import REQUEST_WINDOW
from dwcp_migrate.state.fleet.replicated import FleetMachine
from tests.state.engines import EtcdServer, etcd_engine, index_of, lone_raft

TIMEOUT_S = 20.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    made = EtcdServer(tmp_path)
    made.spawn()
    await made.ready()
    yield made
    made.stop()


@pytest.fixture(params=["raft", "etcd", "fake"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path, server: EtcdServer) -> AsyncIterator[Engine]:
    if request.param == "raft":
        async with lone_raft(tmp_path, lambda: 100.0) as raft:
            yield raft
        return
    if request.param == "fake":
        yield FakeEngine("a", FleetMachine(), lambda: 100.0)
        return
    async with etcd_engine(server, clock=lambda: 100.0) as etcd:
        yield etcd


async def test_a_change_is_applied_when_it_is_confirmed(engine: Engine) -> None:
    assert (await engine.submit(PutHost(name="a"), TIMEOUT_S)).code == ""
    assert await engine.look(lambda fleet: fleet.hosts["a"].heard_at) == 100.0
    outcome = await engine.submit(Acquire(name="lock", lifetime_s=5), TIMEOUT_S)
    assert outcome.token == await index_of(engine)
    assert (await engine.submit(PutHost(name="b"), TIMEOUT_S)).code == "stranger"


async def test_changes_side_by_side_are_all_applied_once(engine: Engine) -> None:
    count = 2 * SUBMITS_MAX
    bodies = [Acquire(name=f"lock-{number}", lifetime_s=5) for number in range(count)]
    outcomes = await asyncio.gather(*(engine.submit(body, TIMEOUT_S) for body in bodies))
    assert sorted(outcome.token for outcome in outcomes) == list(range(1, count + 1))


async def test_a_barrier_returns_and_the_status_says_so(engine: Engine) -> None:
    await engine.barrier(TIMEOUT_S)
    await engine.submit(Barrier(), TIMEOUT_S)
    await engine.submit(Barrier(), TIMEOUT_S)
    status = await engine.status()
    assert status.error == ""
    assert status.requests >= 2
    assert 0 < status.commit_ms_p50 <= status.commit_ms_p99
    assert status.leader
    assert [member.role for member in status.members] == ["leader"]


async def test_a_command_that_is_too_large_is_refused(engine: Engine) -> None:
    await engine.submit(Barrier(padding=bytes(COMMAND_BYTES_MAX - 100)), TIMEOUT_S)
    with pytest.raises(LimitExceededError):
        await engine.submit(Barrier(padding=bytes(COMMAND_BYTES_MAX)), TIMEOUT_S)
    assert (await engine.submit(PutHost(name="a"), TIMEOUT_S)).code == ""


async def test_raft_holds_its_state_over_a_restart_and_a_compaction(tmp_path: Path) -> None:
    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        first = await engine.submit(Acquire(name="one", lifetime_s=9), TIMEOUT_S)
        await engine.read(lambda replica: replica.compact())
        await engine.submit(Acquire(name="two", lifetime_s=9), TIMEOUT_S)
    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        await engine.barrier(TIMEOUT_S)
        assert await engine.look(lambda fleet: list(fleet.leases)) == ["one", "two"]
        assert await engine.submit(Acquire(name="one", lifetime_s=9), TIMEOUT_S) == first


async def test_a_damaged_snapshot_stops_the_engine_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "snapshot").write_bytes(b"damaged")
    with pytest.raises(CoordinationError, match="damaged"):
        async with lone_raft(tmp_path, lambda: 1.0):
            pass


async def test_what_etcd_has_every_host_sees(server: EtcdServer) -> None:
    async with etcd_engine(server, "a") as one, etcd_engine(server, "b") as other:
        await one.submit(PutHost(name="a"), TIMEOUT_S)
        await other.submit(PutHost(name="b"), TIMEOUT_S)
        ticket = await one.submit(Propose(uuid="u", source="a", destination="b", lifetime_s=60), TIMEOUT_S)
        assert (await other.submit(Resume(token=ticket.token), TIMEOUT_S)).code == ""
        await one.barrier(TIMEOUT_S)
        assert await one.look(lambda fleet: fleet.domains["u"].owner) == "b"


async def test_of_two_hosts_that_race_in_etcd_one_gets_the_lease(server: EtcdServer) -> None:
    async with etcd_engine(server, "a") as one, etcd_engine(server, "b") as other:
        for number in range(10):
            body = Acquire(name=f"race-{number}", lifetime_s=60)
            outcomes = await asyncio.gather(one.submit(body, TIMEOUT_S), other.submit(body, TIMEOUT_S))
            assert sorted(outcome.code for outcome in outcomes) == ["", "held"]
            assert outcomes[0].token == outcomes[1].token


async def test_a_host_that_comes_late_to_a_compacted_log_sees_everything(server: EtcdServer) -> None:
    async with etcd_engine(server, "a", compact_entries=5) as one, etcd_engine(server, "b") as other:
        await other.barrier(TIMEOUT_S)
        for number in range(12):
            await one.submit(Acquire(name=f"late-{number}", lifetime_s=60), TIMEOUT_S)
        async with etcd_engine(server, "c") as late:
            for engine in (late, other):
                await engine.barrier(TIMEOUT_S)
                assert await engine.look(lambda fleet: {f"late-{number}" for number in range(12)} <= set(fleet.leases))
            assert await index_of(late) == await index_of(other) == await index_of(one)


async def test_an_endpoint_that_is_dead_is_passed_over(server: EtcdServer) -> None:
    async with etcd_engine(server, "a", lambda: 0.0, "http://127.0.0.1:9") as engine:
        assert (await engine.submit(Acquire(name="dead-endpoint", lifetime_s=60), TIMEOUT_S)).code == ""


async def test_without_etcd_nothing_is_confirmed(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    async with etcd_engine(server) as engine:
        with pytest.raises(NoQuorumError):
            await engine.submit(PutHost(name="a"), 0.3)
        with pytest.raises(NoQuorumError):
            await engine.barrier(0.3)
        assert (await engine.status()).state == "stopped"


async def test_membership_of_etcd_is_left_to_etcd(server: EtcdServer) -> None:
    async with etcd_engine(server) as engine:
        for act in (engine.add_member, engine.remove_member, engine.transfer_leader):
            with pytest.raises(CoordinationError, match="etcd's own business"):
                await act("b", 1.0)


def test_a_request_is_never_so_late_that_its_outcome_is_forgotten() -> None:
    requests = RequestNumbers("run")
    oldest, _ = requests.begin()
    while requests.may_begin:
        number, _ = requests.begin()
        requests.end(number)
    assert requests._next - oldest == SUBMITS_MAX < REQUEST_WINDOW
    requests.end(oldest)
    assert requests.may_begin


def test_no_more_requests_are_open_than_may() -> None:
    requests = RequestNumbers("run")
    names = {requests.begin()[1] for _ in range(SUBMITS_MAX)}
    assert len(names) == SUBMITS_MAX
    assert not requests.may_begin
