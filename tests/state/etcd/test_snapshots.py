"""Snapshots in etcd: larger than a request, replaced while they are read, and readable by release 0.1.0."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from dwcp_migrate.errors import CoordinationError
from dwcp_migrate.state.etcd.gateway import EtcdGateway, decode, encode
from dwcp_migrate.state.etcd.snapshots import PART_BYTES, PARTS_MAX, EtcdSnapshots
from dwcp_migrate.state.fleet.commands import Acquire
from dwcp_migrate.state.fleet.model import TicketOutcome
from tests.state.engines import EtcdServer, etcd_engine

PREFIX = "/dwcp-migrate"


@pytest.fixture
async def gateway(server: EtcdServer) -> AsyncIterator[EtcdGateway]:
    made = EtcdGateway([server.url])
    await made.start()
    yield made
    await made.close()


async def test_a_state_of_200_hosts_is_written_and_cuts_the_log(server: EtcdServer, gateway: EtcdGateway) -> None:
    async with etcd_engine(server, "a", compact_entries=3) as engine:
        engine._machine.fleet.outcomes |= _outcomes_of(200)
        assert len(engine._machine.save()) > PART_BYTES
        for number in range(3):
            await engine.submit(Acquire(name=f"lock-{number}", lifetime_s=60), 20)
        await engine.barrier(20)
        assert engine._snapshots.number == 3
        assert await _count(gateway, "log/", "log/:") == 0
        async with etcd_engine(server, "b") as late:
            await late.barrier(20)
            assert late._machine.save() == engine._machine.save()


def _outcomes_of(hosts: int) -> dict[str, dict[str, TicketOutcome]]:
    return {
        f"hv{host:04d}.example.net": {f"0123456789abcdef-{number + 100_000}": TicketOutcome() for number in range(256)}
        for host in range(hosts)
    }


async def test_parts_of_earlier_snapshots_are_deleted(gateway: EtcdGateway) -> None:
    snapshots = EtcdSnapshots(gateway, PREFIX)
    for number in (1, 2):
        await snapshots.write(number, bytes([number]) * (2 * PART_BYTES + 1))
        assert snapshots.number == number
        assert await _count(gateway, "snapshot/", "snapshot0") == 3
    await snapshots.write(3, b"small")
    assert await _count(gateway, "snapshot/", "snapshot0") == 0
    loaded = await EtcdSnapshots(gateway, PREFIX).load()
    assert loaded is not None
    assert (loaded.number, loaded.state) == (3, b"small")


async def test_who_knows_an_older_snapshot_replaces_nothing(gateway: EtcdGateway) -> None:
    first, second = EtcdSnapshots(gateway, PREFIX), EtcdSnapshots(gateway, PREFIX)
    await first.write(5, b"five")
    await second.write(4, b"four")
    assert second.number == 0
    loaded = await second.load()
    assert loaded is not None
    assert loaded.state == b"five"


async def test_a_small_state_is_what_release_0_1_0_reads(gateway: EtcdGateway) -> None:
    await EtcdSnapshots(gateway, PREFIX).write(7, b"state")
    (pair,) = (await gateway.ask("kv/range", {"key": encode(f"{PREFIX}/snapshot".encode())}))["kvs"]
    assert msgspec.msgpack.decode(decode(pair["value"]))[:2] == [7, b"state"]
    old = encode(msgspec.msgpack.encode((9, b"older")))
    await gateway.ask("kv/put", {"key": encode(f"{PREFIX}/snapshot".encode()), "value": old})
    loaded = await EtcdSnapshots(gateway, PREFIX).load()
    assert loaded is not None
    assert (loaded.number, loaded.state) == (9, b"older")


async def test_a_damaged_part_is_noticed(gateway: EtcdGateway) -> None:
    snapshots = EtcdSnapshots(gateway, PREFIX)
    await snapshots.write(1, bytes(PART_BYTES + 1))
    found = await gateway.ask(
        "kv/range",
        {"key": encode(f"{PREFIX}/snapshot/".encode()), "range_end": encode(f"{PREFIX}/snapshot0".encode())},
    )
    await gateway.ask("kv/put", {"key": found["kvs"][1]["key"], "value": encode(b"x")})
    with pytest.raises(CoordinationError, match="damaged"):
        await EtcdSnapshots(gateway, PREFIX).load()


async def test_a_state_past_the_limit_is_refused(gateway: EtcdGateway) -> None:
    with pytest.raises(CoordinationError, match="at most"):
        await EtcdSnapshots(gateway, PREFIX).write(1, bytes(PARTS_MAX * PART_BYTES + 1))


async def _count(gateway: EtcdGateway, first: str, end: str) -> int:
    found = await gateway.ask(
        "kv/range",
        {
            "key": encode(f"{PREFIX}/{first}".encode()),
            "range_end": encode(f"{PREFIX}/{end}".encode()),
            "count_only": True,
        },
    )
    return int(found.get("count", 0))
