"""Garbage at the agents' ports while a migration runs: counted, and nothing else."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from dwcp_migrate.config import LinkConfig
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.observation.census import resident_bytes
from dwcp_migrate.lab.shuttle import Watch
from dwcp_migrate.units import MIB
from tests.e2e.world import SLOW, World, completed

pytestmark = pytest.mark.lab

INTRUDER: Final = Path(__file__).with_name("intruder.py")
SECONDS: Final = "8"
GROWTH_BYTES_MAX: Final = 24 * MIB
"""What an agent may grow by under fire: TLS contexts and buffers of a few dozen open connections."""


def intrude(world: World, at: Hypervisor, target: Hypervisor) -> "subprocess.Popen[str]":
    """Let the intruder loose on `at`, with the certificate of that host, against the agent of `target`."""
    own = world.agent(at).config.parent
    tls = [str(own / "ca.pem"), str(own / f"{at.name}.pem"), str(own / f"{at.name}.key")]
    argv = [sys.executable, str(INTRUDER), target.address, str(LinkConfig().port), *tls, target.name, SECONDS]
    return subprocess.Popen(at.namespace.beside(argv), stdout=subprocess.PIPE, text=True)


def counted(world: World, host: Hypervisor) -> dict[str, int]:
    totals: dict[str, Any] = world.agent(host).get("/v1/status")["totals"]
    return dict(totals["rejected"])


def test_garbage_at_the_link_ports_is_counted_and_hurts_nobody(world: World) -> None:
    world.lab.wan.set(SLOW)
    source, destination, begin = world.shuttle.source, world.shuttle.destination, time.time()
    agents = [world.agent(source), world.agent(destination)]
    before = [resident_bytes(agent.process.pid) for agent in agents]
    with Watch(agents[0]) as watch:
        move = world.shuttle.begin()
        watch.until(lambda record: record.counters.raw_bytes > 0)
        intruders = [intrude(world, source, destination), intrude(world, destination, source)]
        made = [int(each.communicate(timeout=60)[0]) for each in intruders]
    assert min(made) >= 9
    out, into = completed(world, move.wait(), (source, destination), begin)
    assert out.counters.raw_bytes == into.counters.raw_bytes
    for host in (source, destination):
        rejected = counted(world, host)
        reasons = {"link preamble", "link version", "link unknown-session", "link tls", "link preamble-cut"}
        assert reasons <= rejected.keys(), rejected
    for agent, resident in zip(agents, before, strict=True):
        assert resident_bytes(agent.process.pid) - resident < GROWTH_BYTES_MAX


def test_a_stranger_on_the_redirects_port_is_turned_away(world: World) -> None:
    source = world.shuttle.source
    before = counted(world, source).get("redirect not-redirected", 0)
    probe = "import socket; s = socket.create_connection(('127.0.0.1', 7801), 5); s.sendall(b'x'); print(s.recv(1))"
    done = subprocess.run(
        source.namespace.beside([sys.executable, "-c", probe]), capture_output=True, text=True, check=False
    )
    assert "ConnectionResetError" in done.stderr or done.stdout == "b''\n"
    assert counted(world, source)["redirect not-redirected"] == before + 1
