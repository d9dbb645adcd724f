"""What operators see before, after and without a migration: `check`, the course in a record, agents that observe."""

import time

import msgspec
import pytest

from dwcp_migrate.api.peer_check import PeerCheck
from dwcp_migrate.api.schema import AgentStatus
from dwcp_migrate.cli.migrations.peer_judgement import conclude, judge_peer
from dwcp_migrate.cli.pages.migration_page import migration_page
from dwcp_migrate.lab.shuttle import newest_record
from tests.e2e.world import World, migrate, migrate_stock

pytestmark = pytest.mark.lab


def test_a_destination_that_is_checked_takes_the_migration_and_its_record_has_a_course(world: World) -> None:
    source, destination = world.shuttle.source, world.shuttle.destination
    answer = world.agent(source).get(f"/v1/check?peer={destination.name}&seconds=2&bytes=8000000")
    found = msgspec.convert(answer, PeerCheck)
    verdict = conclude(found, judge_peer(found, time.time()))
    assert verdict.accelerated, verdict.text
    assert verdict.bytes_per_s > 0
    assert found.examined is not None
    assert found.examined.refuses == ""
    # Not its hook: an agent of the lab sees the files of this machine, not those of its hypervisor.
    out, _ = migrate(world)
    assert out.course[-1].raw_bytes == out.counters.raw_bytes
    status = msgspec.convert(world.agent(source).get("/v1/status"), AgentStatus)
    assert out.domain in migration_page(out, status, time.time())


def test_agents_that_observe_take_part_in_nothing_and_keep_a_record(world: World) -> None:
    world.configure({"policy": {"observe": True}})
    source, begin = world.shuttle.source, time.time()
    migrate_stock(world)
    record = newest_record(world.agent(source), "source", after=begin)
    assert (record.result, record.passthrough_reason) == ("completed", "observe")
    assert record.domain == world.shuttle.guest.name
    assert record.counters.raw_bytes == 0
