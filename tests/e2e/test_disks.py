"""The disk's copy over NBD, beside the memory."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import pytest

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.api.schema import Migrations
from dwcp_migrate.lab.guest import LabGuest
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import Shuttle, Watch, newest_record
from dwcp_migrate.lab.wan import WanLink
from tests.e2e.world import GUEST, World

pytestmark = pytest.mark.lab

DISK: Final = replace(GUEST, name="disk", memory_mib=192, disk_mib=24)
"""Of another size than the lab's own guest, so that the agents can tell their streams apart."""

SHARED: Final = WanLink(rate_bytes_per_s=8e6, delay_s=0.005, loss=0.0)
"""64 Mbit/s: the disk and the memory of two guests take long enough to be in each other's way."""


def image(host: Hypervisor) -> Path:
    return host.directory / "disks" / f"{DISK.name}.raw"


@pytest.fixture
def with_disk(world: World) -> Iterator[Shuttle]:
    """A second guest, on the first host, whose disk holds bytes that do not compress."""
    guest = LabGuest(DISK)
    source, destination = world.lab.hypervisors
    guest.start(source)
    image(source).write_bytes(random.Random(7).randbytes(DISK.disk_mib << 20))
    guest.make_disk(destination)
    yield Shuttle(world.lab, guest)
    guest.destroy(source, destination)
    for host in (source, destination):
        image(host).unlink()


def test_a_disk_is_copied_by_the_agents_beside_the_memory(world: World, with_disk: Shuttle) -> None:
    source, destination, begin = with_disk.source, with_disk.destination, time.time()
    content = sha256(image(source).read_bytes()).digest()
    outcome = with_disk.move("--copy-storage-all")
    assert outcome.succeeded, outcome.said
    with_disk.check()
    assert sha256(image(destination).read_bytes()).digest() == content
    records = ended(world, source, begin)
    assert [record.kind for record in records].count("disk") >= 1
    assert {record.kind for record in records} == {"disk", "memory"}
    assert {record.result for record in records} == {"completed"}
    assert {record.domain for record in records} == {DISK.name}
    assert sum(record.counters.raw_bytes for record in records if record.kind == "disk") >= DISK.disk_mib << 20


@pytest.mark.long
def test_a_disk_is_copied_while_the_link_is_shared_with_another_migration(world: World, with_disk: Shuttle) -> None:
    source, destination, begin = with_disk.source, with_disk.destination, time.time()
    if world.shuttle.source != source:
        assert world.shuttle.move().succeeded
    world.lab.wan.set(SHARED)
    world.configure({"bandwidth": {"share": True, "link_bytes_per_s_max": SHARED.rate_bytes_per_s}}, source)
    assert world.shuttle.move().succeeded  # from which the link is known
    assert world.shuttle.move().succeeded
    begin, content = time.time(), sha256(image(source).read_bytes()).digest()
    with Watch(world.agent(source)) as watch:
        moves = with_disk.begin("--copy-storage-all"), world.shuttle.begin()
        watch.until(lambda record: record.granted_bytes_per_s > 0)
        outcomes = [move.wait() for move in moves]
    assert [outcome.succeeded for outcome in outcomes] == [True, True], outcomes
    with_disk.check()
    assert sha256(image(destination).read_bytes()).digest() == content
    records = ended(world, source, begin)
    assert {record.kind for record in records} == {"disk", "memory"}
    assert {record.result for record in records} == {"completed"}
    assert DISK.name in {record.domain for record in records}


def ended(world: World, source: Hypervisor, begin: float) -> list[Migration]:
    """Wait until no migration runs and return those that left the source since `begin`, the disk's and the memory's."""
    newest_record(world.agent(source), "source", after=begin)
    listed = msgspec.convert(world.agent(source).get("/v1/history"), Migrations).migrations
    return [record for record in listed if record.started_at >= begin and record.role == "source"]
