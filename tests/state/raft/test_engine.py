"""The Raft engine when its replica cannot go on: whoever asks gets an answer, and the reason."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from dwcp_migrate.errors import NoQuorumError
from dwcp_migrate.state.fleet import machine
from dwcp_migrate.state.fleet.commands import PutHost, SetHostState
from dwcp_migrate.state.raft import engine as module
from tests.state.engines import lone_raft

TIMEOUT_S = 20.0


async def test_an_error_that_nobody_foresaw_ends_the_replica_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        await engine.submit(PutHost(name="a"), TIMEOUT_S)
        monkeypatch.setitem(machine._HANDLERS, SetHostState, broken)  # type: ignore[misc]
        with pytest.raises(NoQuorumError, match="unexpected KeyError"):
            await engine.submit(SetHostState(name="a", state="up"), 2.0)
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(NoQuorumError, match="stopped"):
                await engine.look(lambda fleet: fleet.index)
            status = await engine.status()
        assert status.state == "stopped"
        assert "KeyError" in status.error


async def test_a_look_that_raises_ends_nothing(tmp_path: Path) -> None:
    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        with pytest.raises(ZeroDivisionError):
            await engine.look(lambda fleet: 1 // fleet.index)
        assert (await engine.submit(PutHost(name="a"), TIMEOUT_S)).code == ""


async def test_a_failed_sync_is_final_even_if_it_says_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISK_RETRY_S", 0.05)
    real = os.fdatasync
    failed: list[int] = []

    def fail_once(file: int) -> None:
        if failed:
            real(file)
            return
        failed.append(file)
        raise OSError(errno.ENOSPC, "no space")

    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        await engine.submit(PutHost(name="a"), TIMEOUT_S)
        monkeypatch.setattr(os, "fdatasync", fail_once)
        with pytest.raises(NoQuorumError, match="failed to keep"):
            await engine.submit(PutHost(name="a"), 1.5)
        assert (await engine.status()).state == "stopped"


async def test_a_replica_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_S_MAX", 0.2)
    released = threading.Event()
    async with lone_raft(tmp_path, lambda: 1.0) as engine:
        await engine.submit(PutHost(name="a"), TIMEOUT_S)
        with pytest.raises(NoQuorumError, match="did not answer"):
            await engine.look(lambda _: released.wait(TIMEOUT_S))
        with pytest.raises(NoQuorumError, match="did not answer"):
            await engine.look(lambda fleet: fleet.index)
        released.set()
        assert (await engine.submit(PutHost(name="a"), TIMEOUT_S)).code == ""
