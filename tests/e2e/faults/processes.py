"""Agents that are absent, draining, stopped or killed, and data processes that say nothing."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from dwcp_migrate.dataplane.process_pool import SPARES
from dwcp_migrate.lab.observation.census import children
from tests.e2e.faults.stage import NOT_SEEN, SIDES, Doctor, Side, Stage, fault

PARALLEL = ("--parallel", "--parallel-connections", "4")


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
