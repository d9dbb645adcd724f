"""The etcd engine: one history, whoever compacts, and heartbeats that cost no entries."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from dwcp_migrate.state.engine import Engine
from dwcp_migrate.state.etcd.engine import EtcdEngine, EtcdSettings
from dwcp_migrate.state.fleet import model
from dwcp_migrate.state.fleet.commands import Acquire, Propose, PutHost
from tests.state.engines import EtcdServer, etcd_engine, index_of

TIMEOUT_S = 20.0
LEASE_S = 3600.0
SHORT_ENTRIES = 600
LONG_ENTRIES = 100_000


async def test_a_lease_taken_right_after_a_compaction_goes_to_one_host(server: EtcdServer) -> None:
    async with etcd_engine(server, "a", compact_entries=8) as one, etcd_engine(server, "b") as other:
        for round_ in range(3):
            while (await index_of(one) + 1) % 8:
                await one.submit(Acquire(name="filler", lifetime_s=LEASE_S), TIMEOUT_S)
            await other.barrier(TIMEOUT_S)
            body = Acquire(name=f"lock-{round_}", lifetime_s=LEASE_S)
            first = await one.submit(body, TIMEOUT_S)  # the entry that `one` compacts behind
            await _compacted(one)
            second = await other.submit(body, TIMEOUT_S)
            assert (first.code, second.code) == ("", "held")
            assert second.token == first.token
        await _assert_same(one, other)


async def test_a_barrier_right_after_a_compaction_misses_nothing(server: EtcdServer) -> None:
    async with etcd_engine(server, "a", compact_entries=4) as one, etcd_engine(server, "b") as other:
        await other.barrier(TIMEOUT_S)
        for number in range(4):
            await one.submit(Acquire(name=f"lock-{number}", lifetime_s=LEASE_S), TIMEOUT_S)
        await _compacted(one)
        await other.barrier(TIMEOUT_S)
        assert await other.look(lambda fleet: sorted(fleet.leases)) == [f"lock-{number}" for number in range(4)]


async def test_two_writers_during_compactions_write_one_history(server: EtcdServer) -> None:
    await _race(server, SHORT_ENTRIES, compact_entries=7)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_writers_during_compactions_write_one_history_of_100000_entries(server: EtcdServer) -> None:
    await _race(server, LONG_ENTRIES, compact_entries=64)


async def _race(server: EtcdServer, entries: int, compact_entries: int) -> None:
    """Let two hosts take the same leases at once, each command an entry of its own, until there are that many."""
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(etcd_engine(server, name, compact_entries=compact_entries))
            for name in ("a", "b")
        ]
        tokens: set[int] = set()
        for number in range(entries // 2):
            body = Acquire(name=f"lock-{number % 200}-{number // 200 % 2}", lifetime_s=LEASE_S)
            first, second = await asyncio.gather(one.submit(body, TIMEOUT_S), other.submit(body, TIMEOUT_S))
            assert first.token == second.token, f"round {number}: {first} and {second}"
            if number < 400:
                assert sorted((first.code, second.code)) == ["", "held"], f"round {number}"
                tokens.add(first.token)
        assert len(tokens) == min(400, entries // 2)
        assert one._applied >= entries // 2
        await _assert_same(one, other)
        late = await stack.enter_async_context(etcd_engine(server, "c"))
        await _assert_same(one, other, late)


async def test_a_heartbeat_that_says_nothing_new_writes_no_entry(server: EtcdServer) -> None:
    async with etcd_engine(server, "a", time.time) as one, etcd_engine(server, "b", time.time) as other:
        for engine, name in ((one, "a"), (other, "b")):
            assert (await engine.beat(PutHost(name=name), TIMEOUT_S)).code == ""
        await one.barrier(TIMEOUT_S)
        applied = one._applied
        before = await one.look(lambda fleet: fleet.hosts["b"].heard_at)
        for _ in range(3):
            assert (await one.beat(PutHost(name="a"), TIMEOUT_S)).code == ""
        await one.barrier(TIMEOUT_S)
        assert one._applied == applied
        assert await one.look(lambda fleet: fleet.hosts["b"].heard_at) >= before
        assert (await one.beat(PutHost(name="a", trust_domain="new"), TIMEOUT_S)).code == ""
        assert one._applied == applied + 1


async def test_two_fleets_with_different_prefixes_share_an_etcd(server: EtcdServer) -> None:
    async with AsyncExitStack() as stack:
        engines: list[EtcdEngine] = []
        for prefix in ("/one", "/two"):
            engine = EtcdEngine("a", EtcdSettings([server.url], prefix=prefix), time.time)
            await engine.start()
            stack.push_async_callback(engine.close)
            engines.append(engine)
        for engine in engines:
            assert (await engine.submit(Acquire(name="lock", lifetime_s=LEASE_S), TIMEOUT_S)).token == 1


async def test_a_clock_70_years_ahead_does_not_move_the_fleets_time(server: EtcdServer) -> None:
    ahead = 70 * 365 * 86400.0
    async with etcd_engine(server, "a", lambda: time.time() + ahead) as wrong, etcd_engine(server, "b", time.time) as b:
        await wrong.submit(PutHost(name="a"), TIMEOUT_S)
        await b.submit(PutHost(name="b"), TIMEOUT_S)
        ticket = await wrong.submit(Propose(uuid="u", source="a", destination="b", lifetime_s=1), TIMEOUT_S)
        now = await b.look(lambda fleet: fleet.now)
        assert now <= time.time() + 10
        assert ticket.code == ""


async def _compacted(engine: EtcdEngine) -> None:
    """Wait until the engine has cut the log behind what it applied: it looks for news only then."""
    await engine.barrier(TIMEOUT_S)
    assert engine._snapshots.number == engine._applied


async def _assert_same(*engines: Engine) -> None:
    states = []
    for engine in engines:
        await engine.barrier(TIMEOUT_S)
        states.append(await engine.look(model.encode))
    assert all(state == states[0] for state in states)
