"""Migrations as orchestrators ask for them: the calls, flags and addresses of Nova, oVirt, CloudStack and Pacemaker.

None of these tools runs here. A row makes the libvirt call that the tool makes, by libvirt's own Python binding on the
source as those do (or by virsh, as Pacemaker's agent does), with that tool's flags and parameters. All rows are played
unless `MATRIX_SEED` is set: then a third of them, drawn by it (`make test`).
"""

import json
import os
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import pytest

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import Move, Watch, newest_record
from tests.e2e.sampling import sampled
from tests.e2e.world import GUEST, SLOW, World, completed

pytestmark = pytest.mark.lab

PORT: Final = 49199
"""Pacemaker's agent draws one of libvirt's range itself where a network for migrations is named."""

FIRST_MIB_PER_S: Final = 1
SEEN_BYTES: Final = 4 << 20
"""At one MiB/s of QEMU's the migration is in its first pass for half a minute; this much of it is four seconds."""

CALL: Final = """
import json, sys, libvirt
name, destination, flags, parameters, is_direct = json.loads(sys.argv[1])
domain = libvirt.open("qemu:///system").lookupByName(name)
parameters["destination_xml"] = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
bits = 0
for flag in flags:
    bits |= getattr(libvirt, "VIR_MIGRATE_" + flag)
if is_direct:
    domain.migrate3(libvirt.open(destination), parameters, bits)
else:
    domain.migrateToURI3(destination, parameters, bits)
"""

RAISE: Final = """
import sys, libvirt
libvirt.open("qemu:///system").lookupByName(sys.argv[1]).migrateSetMaxSpeed(0)
"""


class Row(NamedTuple):
    """A tool's call.

    Attributes:
        flags: of libvirt, without their prefix.
        parameters: of the call; `NAME` and `ADDRESS` in texts are the destination's.
        is_direct: the tool holds a connection to the destination itself; else the source's libvirt does (`--p2p`).
        connections: that QEMU opens.
    """

    flags: tuple[str, ...]
    parameters: dict[str, Any]
    is_direct: bool = False
    connections: dict[str, int] = {"main": 1}  # noqa: RUF012 - a default that nobody changes


ROWS: Final = {
    "nova": Row(
        ("LIVE", "PEER2PEER", "UNDEFINE_SOURCE"),
        {"bandwidth": 0, "migrate_uri": "tcp://NAME"},
    ),
    "nova-inbound-address-auto-converge": Row(
        ("LIVE", "PEER2PEER", "UNDEFINE_SOURCE", "AUTO_CONVERGE"),
        {"bandwidth": 0, "migrate_uri": "tcp://ADDRESS"},
    ),
    "nova-parallel": Row(
        ("LIVE", "PEER2PEER", "UNDEFINE_SOURCE", "PARALLEL"),
        {"bandwidth": 0, "migrate_uri": "tcp://ADDRESS", "parallel.connections": 4},
        connections={"main": 1, "multifd": 4},
    ),
    "ovirt": Row(
        ("LIVE", "PEER2PEER", "ABORT_ON_ERROR", "AUTO_CONVERGE"),
        {"bandwidth": 52, "migrate_uri": "tcp://ADDRESS"},
    ),
    "ovirt-parallel": Row(
        ("LIVE", "PEER2PEER", "ABORT_ON_ERROR", "AUTO_CONVERGE", "PARALLEL"),
        {"bandwidth": 52, "migrate_uri": "tcp://ADDRESS", "parallel.connections": 2},
        connections={"main": 1, "multifd": 2},
    ),
    "cloudstack": Row(
        ("LIVE", "COMPRESSED", "AUTO_CONVERGE"),
        {"destination_name": GUEST.name, "bandwidth": 125, "migrate_uri": "tcp:ADDRESS"},
        is_direct=True,
    ),
    "virt-manager": Row(("LIVE",), {}, is_direct=True),
}


def start(source: Hypervisor, argv: Sequence[str]) -> Move:
    return Move(source.popen(argv), argv[0])


def call(row: Row, source: Hypervisor, destination: Hypervisor) -> Move:
    """Make a row's call on the source."""
    parameters = {
        key: value.replace("NAME", destination.name).replace("ADDRESS", destination.address)
        if isinstance(value, str) and key == "migrate_uri"
        else value
        for key, value in row.parameters.items()
    }
    uri = f"qemu+tcp://{destination.name}/system"
    said = json.dumps([GUEST.name, uri, row.flags, parameters, row.is_direct])
    return start(source, ["python3", "-c", CALL, said])


def carried(world: World, move: Move, way: tuple[Hypervisor, Hypervisor], begin: float) -> Migration:
    """Wait for the end and check it; returns the source's record."""
    out, into = completed(world, move.wait(), way, begin)
    assert into.counters.raw_bytes == out.counters.raw_bytes
    return out


@pytest.mark.parametrize("name", sampled(list(ROWS), os.environ.get("MATRIX_SEED", "")))
def test_a_migration_that_an_orchestrator_asks_for_is_accelerated(world: World, name: str) -> None:
    row = ROWS[name]
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    out = carried(world, call(row, source, destination), (source, destination), begin)
    assert out.connections == row.connections
    assert out.counters.wire_bytes < out.counters.raw_bytes


def test_a_bandwidth_first_low_and_then_raised_is_followed(world: World) -> None:
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    low = ROWS["nova"]._replace(parameters={"bandwidth": FIRST_MIB_PER_S, "migrate_uri": "tcp://NAME"})
    with Watch(world.agent(source)) as watch:
        move = call(low, source, destination)
        watch.until(lambda record: record.counters.raw_bytes > SEEN_BYTES)
        assert time.time() - begin > SEEN_BYTES / 2 / (FIRST_MIB_PER_S << 20)  # it was held
        raised = start(source, ["python3", "-c", RAISE, GUEST.name]).wait()
        assert raised.succeeded, raised.said
    out = carried(world, move, (source, destination), begin)
    assert out.ended_at - out.started_at < (GUEST.fill_mib << 20) / (FIRST_MIB_PER_S << 20)


def test_pacemakers_agent_names_a_port_of_its_own_and_a_speed(world: World) -> None:
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    connect = ["virsh", "--connect=qemu:///system", "--quiet"]
    source.run([*connect, "migrate-setspeed", GUEST.name, "100"])
    uris = [f"qemu+tcp://{destination.name}/system", f"tcp:{destination.name}:{PORT}"]
    move = start(source, [*connect, "migrate", "--live", GUEST.name, *uris])
    assert carried(world, move, (source, destination), begin).port == PORT


def test_a_tunnelled_migration_goes_its_way_and_the_record_says_that_it_was_not_seen(world: World) -> None:
    world.lab.wan.set(SLOW)  # long enough for the agent to look where it goes
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    tunnelled = Row(("LIVE", "PEER2PEER", "UNDEFINE_SOURCE", "TUNNELLED"), {"bandwidth": 0})
    outcome = call(tunnelled, source, destination).wait()
    assert outcome.succeeded, outcome.said
    assert world.shuttle.source == destination
    world.shuttle.check()
    record = newest_record(world.agent(source), "source", after=begin)
    assert (record.result, record.passthrough_reason) == ("completed", "not-caught"), record
    assert any("--tunnelled" in event.detail for event in record.events), record.events
