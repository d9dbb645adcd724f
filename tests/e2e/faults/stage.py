"""A row of the matrix: a fault of ours, of the configuration or of the surroundings, and what is said of it.

To add one: a context manager that takes the `Stage`, breaks something, yields and mends it, under `@fault(...)`.

    @fault("destination-absent", reason="unreachable", doctor=Doctor("source", "peer-", "refused"))
    @contextmanager
    def absent(stage: Stage) -> Iterator[None]:
        stage.world.agent(stage.destination).stop()
        yield                                          # `World.restore` starts it again
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from dwcp_migrate.api.migration import Migration
from dwcp_migrate.lab import commands
from dwcp_migrate.lab.hosts.hypervisor import Hypervisor
from dwcp_migrate.lab.shuttle import newest_record
from tests.e2e.world import World

Side = Literal["source", "destination"]

SIDES: Final[tuple[Side, Side]] = ("source", "destination")

ACCELERATED: Final = ""
"""The reason of a migration that was accelerated all the same."""

NOT_SEEN: Final = "not-seen"
"""The source's agent takes no part: there is no record to look at."""


@dataclass(frozen=True)
class Doctor:
    """What `doctor` says on a host while the fault is there.

    Attributes:
        side: whose.
        check: beginning of the check's id.
        words: in what it found, its cause; the check is not ok and has a remedy.
    """

    side: Side
    check: str
    words: str


@dataclass(frozen=True)
class Stage:
    """Two hosts with agents, and the guest on one of them.

    Attributes:
        world: the lab.
        source: where the guest is.
        destination: where it goes.
        meanwhile: what a row does while the migration runs; it is over before anything is judged.
    """

    world: World
    source: Hypervisor
    destination: Hypervisor
    meanwhile: list[Future[None]] = field(default_factory=list)

    @classmethod
    def of(cls, world: World) -> "Stage":
        """Return the stage as it stands: the guest stays where the row before left it."""
        return cls(world, world.shuttle.source, world.shuttle.destination)

    def host(self, side: Side) -> Hypervisor:
        return self.source if side == "source" else self.destination

    def configure(self, side: Side, changes: Mapping[str, Any]) -> None:
        """Restart a side's agent with a configuration that differs; the next row finds it as it was."""
        self.world.configure(changes, self.host(side))

    @contextmanager
    def directory(self, side: Side) -> Iterator[Path]:
        """Make a directory where a side's agent sees it; what is put there has to be given to it."""
        with tempfile.TemporaryDirectory(dir=self.world.agent(self.host(side)).config.parent) as made:
            yield Path(made)

    @contextmanager
    def started_with(self, environment: Mapping[str, str]) -> Iterator[None]:
        """Let agents that are started meanwhile have these variables in their environment."""
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def reload(self, side: Side, changes: Mapping[str, Any]) -> None:
        """Change a side's configuration and have its agent read it again, as `systemctl reload` does."""
        self.world.rewrite(changes, self.host(side))
        self.says(side, "reload")

    def beside(self, side: Side, *argv: str) -> str:
        """Run a program of this machine in a host's network, and return what it prints."""
        return commands.run_program(self.host(side).namespace.beside(argv), timeout_s=20, check=True).stdout

    def says(self, side: Side, *arguments: str) -> str:
        """Run one of the project's commands against a host's agent, and return what it prints.

        It is a process of its own: its connection to the agent ends with it, and is none that the row leaves behind.
        """
        agent = self.world.agent(self.host(side))
        where = ["--config", str(agent.config), "--socket", str(agent.api_socket)]
        command = [sys.executable, "-m", "dwcp_migrate", *arguments, *where]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
        return done.stdout

    def forget_silence(self) -> None:
        """Let the source ask its peer although the row before left it thinking that this one is silent."""
        peers = self.world.agent(self.source).get("/v1/doctor")["peers"]
        if any(peer["retry_in_s"] for peer in peers):
            self.world.restart(self.source)

    def counted(self) -> Mapping[str, Any]:
        """Totals of the source's agent; nothing where it does not run."""
        agent = self.world.agent(self.source)
        return agent.get("/v1/status")["totals"] if agent.is_alive() else {}

    def record(self, *, after: float) -> Migration:
        """What the source's agent recorded, by this machine's clock."""
        return newest_record(self.world.agent(self.source), "source", after=after)

    def diagnosis(self, doctor: Doctor) -> dict[str, str]:
        """The check of `doctor` that names the cause."""
        root = str(self.host(doctor.side).namespace.root)
        checks = json.loads(self.says(doctor.side, "doctor", "--json", "--root", root))["checks"]
        found = [check for check in checks if check["id"].startswith(doctor.check) and doctor.words in check["what"]]
        assert found, [check for check in checks if check["verdict"] != "ok"]
        check: dict[str, str] = found[0]
        return check


Inject = Callable[[Stage], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        name: of the row.
        inject: breaks something, and mends it at its end.
        reason: the record's reason for running unaccelerated; several may come, by the moment.
        says: words in `show --events` of the source.
        doctor: what it says; None where the host itself is as it should be.
        flags: of `virsh migrate`.
        clock_ahead_s: how far the source's clock is ahead of this machine's.
    """

    name: str
    inject: Inject
    reason: tuple[str, ...]
    says: str
    doctor: Doctor | None
    flags: tuple[str, ...]
    clock_ahead_s: float


ROWS: Final[list[Fault]] = []


def fault(
    name: str,
    *,
    reason: str | tuple[str, ...] = ACCELERATED,
    says: str = "",
    doctor: Doctor | None = None,
    flags: tuple[str, ...] = (),
    clock_ahead_s: float = 0.0,
) -> Callable[[Inject], Inject]:
    """Enter a context manager into the matrix; several of these make several rows of it."""
    reasons = (reason,) if isinstance(reason, str) else reason

    def enter(inject: Inject) -> Inject:
        ROWS.append(Fault(name, inject, reasons, says, doctor, flags, clock_ahead_s))
        return inject

    return enter


def play(world: World, row: Fault) -> None:
    """Play a row: the migration succeeds, the guest's memory is whole, and what happened is said truthfully."""
    stage = Stage.of(world)
    stage.forget_silence()
    with row.inject(stage):
        is_seen = row.reason != (NOT_SEEN,)
        before, begin = stage.counted() if is_seen else {}, time.time() + row.clock_ahead_s
        process = world.agent(stage.source).process
        outcome = world.shuttle.move(*row.flags)
        assert outcome.succeeded, outcome.said
        for done in stage.meanwhile:
            done.result()
        assert world.shuttle.source == stage.destination
        world.shuttle.check()
        if row.doctor is not None:
            check = stage.diagnosis(row.doctor)
            assert check["verdict"] != "ok", check
            assert check["remedy"], check
        if world.agent(stage.source).process != process:
            before = {}  # it was started again meanwhile, and counts anew
        if is_seen:
            judge(stage, row, stage.record(after=begin - 1.0), before)


def judge(stage: Stage, row: Fault, record: Migration, before: Mapping[str, Any]) -> None:
    """Hold the record, its page and the counters against the row."""
    assert record.result == "completed", record
    assert record.passthrough_reason in row.reason, record
    shown = stage.says("source", "show", record.id, "--events")
    assert row.says in shown, shown
    if record.passthrough_reason:
        assert "What to do" in shown, shown
    table, key = ("passthrough", record.passthrough_reason) if record.passthrough_reason else ("accelerated", "source")
    assert stage.counted()[table].get(key, 0) == before.get(table, {}).get(key, 0) + 1
    assert record.counters.channels_lost == record.counters.link_losses == 0
