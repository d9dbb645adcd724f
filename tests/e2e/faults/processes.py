"""Agents that are absent, draining, stopped or killed, and data processes that say nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.dataplane.process_pool import SPARES
from dwcp_migrate.lab.hosts.service import user_of
from dwcp_migrate.lab.observation.census import children
from dwcp_migrate.lab.shuttle import Watch
from tests.e2e.faults.stage import ACCELERATED, NOT_SEEN, SIDES, Doctor, Side, Stage, fault
from tests.e2e.world import SLOW

PARALLEL = ("--parallel", "--parallel-connections", "4")
LAPSES_S_MAX: Final = 60.0

MOMENTS: Final[dict[str, Callable[[Migration], bool]]] = {
    "set-up": lambda record: record.state in {"opening", "precopy"},
    "first-pass": lambda record: record.counters.raw_bytes > 8 << 20,
    "switchover": lambda record: record.state == "switchover",
}
"""When an agent is killed, by the source's record."""


@fault("destination-absent", reason="unreachable", says="refused", doctor=Doctor("source", "peer-", "refused"))
@fault("destination-absent-p2p", reason="unreachable", flags=("--p2p",), doctor=Doctor("source", "peer-", "refused"))
@fault("destination-absent-parallel", reason="unreachable", flags=PARALLEL, doctor=Doctor("source", "peer-", "refused"))
@fault("destination-absent-postcopy", reason="unreachable", flags=("--postcopy",), doctor=Doctor("source", "peer-", ""))
@contextmanager
def destination_absent(stage: Stage) -> Iterator[None]:
    stage.world.agent(stage.destination).stop()
    yield


@fault("destination-killed", reason="unreachable", says="refused", doctor=Doctor("source", "peer-", "refused"))
@contextmanager
def destination_killed(stage: Stage) -> Iterator[None]:
    stage.world.agent(stage.destination).kill()
    yield


@fault("source-absent", reason=NOT_SEEN, doctor=Doctor("source", "agent", ""))
@contextmanager
def source_absent(stage: Stage) -> Iterator[None]:
    stage.world.agent(stage.source).stop()
    yield


@fault("source-killed", reason=NOT_SEEN, doctor=Doctor("source", "agent", ""))
@contextmanager
def source_killed(stage: Stage) -> Iterator[None]:
    stage.world.agent(stage.source).kill()
    yield


@contextmanager
def hanging(stage: Stage, acquainted: bool) -> Iterator[None]:  # noqa: FBT001 - a row's parameter
    """Stop the destination's agent as a hang would; its host and its libvirt go on."""
    if acquainted:
        stage.says("source", "doctor")  # a connection is kept from now on
    pid = stage.world.agent(stage.destination).process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


_HANGS = Doctor("source", "peer-", "did not answer")
fault("destination-hangs", reason="unreachable", says="did not answer", doctor=_HANGS)(
    partial(hanging, acquainted=False)
)
fault("destination-hangs-parallel", reason="unreachable", says="did not answer", doctor=_HANGS, flags=PARALLEL)(
    partial(hanging, acquainted=False)
)
fault("known-destination-hangs", reason="unreachable", says="did not answer", doctor=_HANGS)(
    partial(hanging, acquainted=True)
)


@contextmanager
def asked(stage: Stage, side: Side, do: str, undo: str) -> Iterator[None]:
    stage.world.agent(stage.host(side)).post(do)
    try:
        yield
    finally:
        stage.world.agent(stage.host(side)).post(undo)


for _side in SIDES:
    fault(
        f"{_side}-drains",
        reason=NOT_SEEN if _side == "source" else "draining",
        says="draining",
        doctor=Doctor(_side, "agent", "draining"),
    )(partial(asked, side=_side, do="/v1/drain", undo="/v1/undrain"))


def waiting(stage: Stage, side: Side) -> list[int]:
    """Data processes that wait; a child that runs no program of its own yet is none."""
    pids = children(stage.world.agent(stage.host(side)).process.pid)
    return [pid for pid in pids if b"dataplane.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def mute(stage: Stage) -> Iterator[None]:
    """Have the destination's waiting data processes take channels and say nothing."""
    pids = waiting(stage, "destination")
    assert 1 <= len(pids) <= SPARES
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # the one that was taken has been ended
                os.kill(pid, signal.SIGKILL)


fault("link-answers-and-carries-nothing", reason=("no-link", "no-data-process"), says="What to do")(mute)
fault("link-carries-nothing-parallel", reason=("no-link", "no-data-process"), says="What to do", flags=PARALLEL)(mute)


@fault("source-hangs", reason=NOT_SEEN, doctor=Doctor("source", "agent", ""))
@contextmanager
def source_hangs(stage: Stage) -> Iterator[None]:
    """Stop the source's agent as a hang would, until the kernel no longer sends it connections."""
    pid = stage.world.agent(stage.source).process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + LAPSES_S_MAX
        while "elements" in stage.beside("source", "nft", "list", "set", "ip", "dwcp_migrate", "alive"):
            assert time.monotonic() < deadline
            time.sleep(0.2)  # an element that expires is no event
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def killed_meanwhile(stage: Stage, side: Side, moment: str, after_s: float = 0.0) -> Iterator[None]:
    """Kill a side's agent at a moment of the migration, or so long after it, and start it again."""
    stage.world.lab.wan.set(SLOW)
    host, watch = stage.host(side), Watch(stage.world.agent(stage.source))

    def kill() -> None:
        with watch:
            watch.until(MOMENTS[moment])
        time.sleep(after_s)
        stage.world.agent(host).kill()
        stage.world.restore_wan()
        stage.world.restart(host)

    with ThreadPoolExecutor(1) as threads:
        stage.meanwhile.append(threads.submit(kill))
        yield


_IN_THE_SET_UP: Final[dict[Side, str]] = {"source": "left-alone", "destination": "unreachable"}
"""The reason where the agent had not handed the connection over yet."""

for _side in SIDES:
    for _moment in MOMENTS:
        fault(
            f"{_side}-killed-in-the-{_moment}",
            reason=(ACCELERATED, _IN_THE_SET_UP[_side]) if _moment == "set-up" else ACCELERATED,
        )(partial(killed_meanwhile, side=_side, moment=_moment))


@fault("source-killed-while-it-asks", reason="left-alone")
@fault("source-killed-while-it-asks-parallel", reason="left-alone", flags=PARALLEL)
@contextmanager
def source_killed_while_it_asks(stage: Stage) -> Iterator[None]:
    """Kill the source's agent while it waits for the answer of one that hangs, once it has all connections.

    Nothing tells of those that QEMU opens behind the first one, some milliseconds later; one that is in the kernel's
    queue then dies with its listener, whoever holds the others.
    """
    with hanging(stage, acquainted=False), killed_meanwhile(stage, "source", "set-up", after_s=1.0):
        yield


PIPES: Final = """
import fcntl, os, sys
os.setuid(int(sys.argv[1]))
pipes = []
try:
    while True:
        pipes.append(os.pipe())
        fcntl.fcntl(pipes[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20)
except OSError:
    print("full", flush=True)
sys.stdin.read()
"""
"""Takes all the memory in pipes that the kernel lets one user have."""


@contextmanager
def no_pipes(stage: Stage) -> Iterator[None]:
    """Have the source's agent relay for a user who has all that a user may have in pipes."""
    stage.world.agent(stage.destination).stop()
    argv = [sys.executable, "-c", PIPES, str(user_of(stage.source.address))]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as taking:
        assert taking.stdin is not None
        assert taking.stdout is not None
        assert taking.stdout.readline() == "full\n"
        yield
        taking.stdin.close()


fault(
    "pipes-used-up",
    reason="unreachable",
    doctor=Doctor("source", "peer-", ""),
    flags=("--parallel", "--parallel-connections", "64"),
)(no_pipes)
