"""What the agents do when they cannot accelerate: they say why, and the migration runs as if they were not there."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dwcp_migrate import pki
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.lab.hosts.agents import give
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import newest_record
from tests.e2e.world import World, migrate, migrate_stock

pytestmark = pytest.mark.lab


def passed_through(world: World) -> Migration:
    """Migrate, and return what the source's agent recorded."""
    source, begin = world.shuttle.source, time.time()
    migrate_stock(world)
    return newest_record(world.agent(source), "source", after=begin)


@contextmanager
def without_hook(host: Hypervisor) -> Iterator[None]:
    hook = host.namespace.root / "etc/libvirt/hooks/qemu.d/50-dwcp-migrate"
    aside = hook.with_name("aside")
    hook.rename(aside)
    aside.chmod(0o644)  # libvirt runs every executable there
    try:
        yield
    finally:
        aside.chmod(0o755)
        aside.rename(hook)


def test_without_an_agent_at_the_destination_it_passes_through_and_says_so(world: World) -> None:
    world.agent(world.shuttle.destination).stop()
    record = passed_through(world)
    assert (record.result, record.passthrough_reason) == ("completed", "unreachable")
    assert record.domain == world.shuttle.guest.name
    assert record.counters.raw_bytes == record.counters.wire_bytes > 0


def test_without_an_agent_at_the_source_it_is_stock(world: World) -> None:
    source, destination = world.shuttle.source, world.shuttle.destination
    world.agent(source).stop()
    before = world.agent(destination).get("/v1/status")["totals"]
    migrate_stock(world)
    assert world.agent(destination).get("/v1/status")["totals"]["migrations"] == before["migrations"]


def test_a_migration_that_no_hook_announced_is_announced_by_libvirt(world: World) -> None:
    with without_hook(world.shuttle.destination):
        migrate(world)


def test_a_migration_that_nobody_announced_passes_through(world: World) -> None:
    destination = world.shuttle.destination
    world.configure({"libvirt_uri": ""}, destination)
    with without_hook(destination):
        record = passed_through(world)
    assert (record.result, record.passthrough_reason) == ("completed", "not-announced")
    world.restart(destination)
    migrate(world)


def test_a_draining_destination_is_passed_through(world: World) -> None:
    destination = world.shuttle.destination
    world.agent(destination).post("/v1/drain")
    record = passed_through(world)
    assert (record.result, record.passthrough_reason) == ("completed", "draining")
    world.agent(destination).post("/v1/undrain")
    migrate(world)


def test_a_peer_with_a_certificate_of_another_authority_is_passed_through(world: World) -> None:
    destination = world.shuttle.destination
    directory = world.agent(destination).config.parent / "foreign"
    directory.mkdir(exist_ok=True)
    tls = foreign_certificate(directory, destination.name)
    give(destination, directory)
    world.configure({"tls": tls}, destination)
    record = passed_through(world)
    assert (record.result, record.passthrough_reason) == ("completed", "certificate")


def foreign_certificate(directory: Path, name: str) -> dict[str, str]:
    pki.create_authority(directory, name="somebody else")
    certificate, key = pki.issue(directory, name)
    return {"ca": str(directory / "ca.pem"), "certificate": str(certificate), "key": str(key)}
