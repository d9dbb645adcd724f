"""The life cycle that both sides of a migration run on: its table, and its course with real data processes."""

import asyncio
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from dwcp_migrate.agent.migrations.data_process import DataProcessHandle
from dwcp_migrate.agent.migrations.incoming import IncomingMigration
from dwcp_migrate.agent.migrations.life_cycle import TRANSITIONS, MigrationSide, Stage
from dwcp_migrate.agent.migrations.outgoing import OutgoingMigration
from dwcp_migrate.agent.shared_parts import make_runtime
from dwcp_migrate.agent.tracking.domain_tracker import MigrationVerdict
from dwcp_migrate.api.migration import Migration
from dwcp_migrate.config import Config
from dwcp_migrate.dataplane.process_pool import DataProcess

if TYPE_CHECKING:
    from dwcp_migrate.agent.authorization.permits import MigrationAuthorizer

CRASHES = (sys.executable, "-S", "-c", "raise SystemExit(3)")
WAITS = (sys.executable, "-S", "-c", "import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1)")
WAIT_S = 30


class Side(MigrationSide[DataProcessHandle]):
    """A side that keeps its stages and what its peer was told; libvirt says nothing, its peer says "failed"."""

    def __init__(self, directory: Path) -> None:
        config = Config(name="hv1", state_directory=directory, runtime_directory=directory)
        runtime = make_runtime(config, None, CRASHES, list)
        super().__init__(runtime, cast("MigrationAuthorizer", None), bytes(16), "source")
        self.ledger = runtime.ledger
        self.stages = [self.stage]
        self.told: list[str] = []
        self.moved = asyncio.Event()
        self.ledger.put(
            Migration(id=self.identity, role="source", peer="hv2", address="192.0.2.2", port=49152, started_at=1.0)
        )

    def enter(self, stage: Stage) -> bool:
        is_known = super().enter(stage)
        if is_known:
            self.stages.append(stage)
            self.moved.set()
        return is_known

    async def carry(self, process: DataProcess, *beside: "asyncio.Task[None]") -> None:
        """Carry it with a data process, to the end of that."""
        self.enter("carried")
        await self._carry(DataProcessHandle(self.identity, process, self.ledger), *beside)

    async def _tell_of_crash(self) -> None:
        self.told.append(f"crash: {self._reason}")

    async def _judged(self, verdict: MigrationVerdict) -> MigrationVerdict:
        assert verdict == MigrationVerdict()
        return MigrationVerdict("failed")

    async def _settle_with_peer(self, ended: Migration, *, certain: bool) -> None:
        assert certain
        self.told.append(f"end: {ended.result}")

    def _peer_result(self) -> str:
        return "failed"


def test_every_stage_is_reached_and_only_a_side_that_ended_or_was_left_goes_no_further() -> None:
    assert {"opening"}.union(*TRANSITIONS.values()) == TRANSITIONS.keys()
    assert {stage for stage, successors in TRANSITIONS.items() if not successors} == {"left", "ended"}
    assert not {"opening"}.intersection(*TRANSITIONS.values())


def test_both_sides_run_on_the_table_and_on_one_course() -> None:
    for side in (OutgoingMigration, IncomingMigration):
        for shared in ("enter", "is_carried", "_carry", "settle"):
            assert getattr(side, shared) is getattr(MigrationSide, shared)


@pytest.mark.parametrize("stage", TRANSITIONS)
def test_a_move_that_the_table_does_not_know_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    side = Side(tmp_path)
    for unknown in TRANSITIONS.keys() - TRANSITIONS[stage]:
        side.stage = stage
        assert not side.enter(unknown)
        assert side.stage == stage


async def test_a_side_whose_data_process_crashes_tells_its_peer_at_once_and_ends_its_record(tmp_path: Path) -> None:
    side, beside = Side(tmp_path), asyncio.create_task(asyncio.sleep(WAIT_S))
    await side.carry(DataProcess.start(CRASHES), beside)
    assert (beside.cancelling(), side.is_carried) == (1, False)
    await side.settle()
    assert side.stages == ["opening", "carried", "ending", "ended"]
    assert side.told == ["crash: the data process crashed (exit code 3)", "end: failed"]
    (record,) = side.ledger.recent()
    assert (record.result, record.peer_result) == ("failed", "failed")
    assert record.reason == "the data process crashed (exit code 3)"
    assert side.ledger.totals().data_process_crashes == 1


async def test_a_side_whose_agent_ends_is_left_and_its_data_process_goes_on(tmp_path: Path) -> None:
    side = Side(tmp_path)
    ours, theirs = socket.socketpair()
    with theirs:
        child = await asyncio.create_subprocess_exec(*WAITS, str(theirs.fileno()), pass_fds=[theirs.fileno()])
    begun = asyncio.create_task(side.carry(DataProcess(ours, child.pid)))
    await side.moved.wait()
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    assert await child.wait() == 0, "it was killed, instead of seeing that the agent was gone"
    assert side.stages == ["opening", "carried", "left"]
    assert side.told == []
    assert side.ledger.get(side.identity) is not None
