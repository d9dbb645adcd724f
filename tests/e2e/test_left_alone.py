"""A peer over a link that outruns this host: its migrations are not even caught, and still have their record."""

import time
from http import HTTPStatus
from typing import Any, Final

import msgspec
import pytest

from dwcp_migrate.agent.migrations.step_aside import BOTH_ALLOW
from dwcp_migrate.api.migration import Migration, MigrationEvent
from dwcp_migrate.api.unix_http import UnixConnection
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import newest_record
from dwcp_migrate.protocol.worker import MigrationCounters
from dwcp_migrate.units import GIB
from tests.e2e.world import World, migrate, migrate_stock

pytestmark = pytest.mark.lab

WAIT_S: Final = 20.0


def outrun(peer: str) -> Migration:
    """The record of a migration that went mostly as it is, and left the link idle."""
    now = time.time()
    counters = MigrationCounters(raw_bytes=GIB, unclassified_bytes=GIB, held_up_s={"encryption": 10.0})
    return Migration(
        id="5" * 32,
        role="source",
        peer=peer,
        address="192.0.2.2",
        port=49152,
        started_at=now - 20,
        ended_at=now - 10,
        state="ended",
        result="completed",
        counters=counters,
        events=(MigrationEvent(at=now - 20, event=BOTH_ALLOW),),
    )


def remember(world: World, host: Hypervisor, record: Migration) -> None:
    """Have a host's agent find a record in its history."""
    world.agent(host).stop()
    with (world.agent(host).state / "history.jsonl").open("ab") as history:
        history.write(msgspec.json.encode(record) + b"\n")


def leaving_alone(world: World, host: Hypervisor, peer: str) -> dict[str, Any]:
    """Wait until a host leaves a peer alone, which it does once it hears libvirt; returns its redirect."""
    deadline = time.monotonic() + WAIT_S
    while (intercept := world.agent(host).get("/v1/status")["intercept"])["left_alone"] != [peer]:
        assert time.monotonic() < deadline, intercept
        time.sleep(0.1)
    return dict(intercept)


def test_migrations_to_a_peer_that_is_left_alone_pass_the_agent_by_and_are_recorded(world: World) -> None:
    source, destination = world.shuttle.source, world.shuttle.destination
    remember(world, source, outrun(destination.name))
    world.configure({"policy": {"step_aside": "auto"}}, source)
    intercept = leaving_alone(world, source, destination.name)
    assert (intercept["armed"], intercept["rules"]) == (True, [])
    begin = time.time()
    migrate_stock(world)
    record = newest_record(world.agent(source), "source", after=begin)
    assert (record.result, record.passthrough_reason) == ("completed", "step-aside")
    assert (record.peer, record.domain) == (destination.name, world.shuttle.guest.name)
    assert record.processed_bytes > 0
    assert record.counters.raw_bytes == 0
    assert "left the link idle" in record.events[0].detail


def test_the_same_peer_is_redirected_again_once_bytes_may_not_go_in_clear(world: World) -> None:
    source, destination = world.shuttle.source, world.shuttle.destination
    remember(world, source, outrun(destination.name))
    world.configure({"policy": {"step_aside": "auto"}}, source)
    leaving_alone(world, source, destination.name)
    world.rewrite({}, source)
    reload = UnixConnection(world.agent(source).api_socket, 10.0)
    reload.request("POST", "/v1/reload")
    assert reload.getresponse().status == HTTPStatus.OK
    reload.close()
    assert world.agent(source).get("/v1/status")["intercept"]["left_alone"] == []
    migrate(world)
