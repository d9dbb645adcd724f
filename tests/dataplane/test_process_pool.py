"""The data processes that wait: how many, when they are started, and what becomes of one that ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from dwcp_migrate.dataplane import process_pool
from dwcp_migrate.dataplane.process_pool import SPARES, DataProcess, DataProcessPool
from dwcp_migrate.errors import SessionError
from dwcp_migrate.protocol.worker import WorkerReady, encode_worker_message

READY = encode_worker_message(WorkerReady(pid=1)).hex()
PROGRAM = f"import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.send(bytes.fromhex('{READY}')); s.recv(1)"
COMMAND = (sys.executable, "-S", "-c", PROGRAM)
WAIT_S = 30


class Watched(DataProcessPool):
    """DataProcessPool that a test can wait for."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self.changed = asyncio.Event()
        super().__init__(command)

    def _became_ready(self, spare: DataProcess) -> None:
        super()._became_ready(spare)
        self.changed.set()

    def _failed(self, error: str) -> None:
        super()._failed(error)
        self.changed.set()

    @property
    def warm(self) -> list[int]:
        """Those that wait, imports done."""
        return [spare.pid for spare in self._waiting if spare.ready.done()]

    async def counted(self) -> list[int]:
        """How many are warm each time that one becomes so, until all are; never are two being started."""
        counts = [0]
        while counts[-1] < SPARES:
            await self.until(lambda: len(self.warm) > counts[-1])
            assert len(self._waiting) <= len(self.warm) + 1
            counts.append(len(self.warm))
        return counts[1:]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await self.changed.wait()
                self.changed.clear()


@asynccontextmanager
async def started(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """All of them warm, and no further start but where one is due at once."""
    monkeypatch.setattr(process_pool, "REFILL_S", 0.0)
    spares = Watched()
    spares.start()
    try:
        await spares.until(lambda: len(spares.warm) == SPARES)
        monkeypatch.setattr(process_pool, "REFILL_S", 3600.0)
        yield spares
    finally:
        await spares.close()


async def end(process: DataProcess) -> None:
    process.kill()
    await process.wait(WAIT_S)


async def test_one_is_started_after_the_other_until_all_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "REFILL_S", 3600.0)  # none was taken: nobody needs the cores
    spares = Watched()
    for _ in range(3):
        spares.start()
        assert len(spares._waiting) == 1
    assert await spares.counted() == list(range(1, SPARES + 1))
    assert spares.ready
    spares.start()
    assert len(spares._waiting) == SPARES
    await spares.close()


async def test_as_many_as_wait_are_handed_out_at_once_and_only_the_last_one_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with started(monkeypatch) as spares:
        waiting = spares.warm
        taken = [await spares.take() for _ in range(SPARES - 1)]
        assert spares.warm == waiting[-1:]
        taken.append(await spares.take())
        assert [process.pid for process in taken] == waiting
        assert len(spares._waiting) == 1
        assert not spares.ready
        late = await spares.take()  # one more is waited for
        assert late.ready.done()
        assert late.pid not in waiting
        for process in (*taken, late):
            await end(process)


async def test_those_taken_are_replaced_once_no_more_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(monkeypatch) as spares:
        monkeypatch.setattr(process_pool, "REFILL_S", 0.0)
        taken = await spares.take()
        await spares.until(lambda: len(spares.warm) == SPARES)
        assert taken.pid not in spares.warm
        await end(taken)


async def test_one_that_ends_while_it_waits_is_replaced_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "RESTART_S_MIN", 0.0)
    async with started(monkeypatch) as spares:
        first, *others = spares.warm
        os.kill(first, signal.SIGKILL)
        await spares.until(lambda: first not in spares.warm)
        assert spares.failures == 1
        assert "ended while it waited" in spares.error
        assert spares.ready
        await spares.until(lambda: len(spares.warm) == SPARES)
        assert spares.warm[:-1] == others
        assert (spares.failures, spares.error) == (0, "")


async def test_one_that_is_started_apart_leaves_those_that_wait_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with started(monkeypatch) as spares:
        waiting = spares.warm
        apart = await spares.start_apart()
        assert apart.ready.done()
        assert apart.pid not in waiting
        assert spares.warm == waiting
        await end(apart)
        assert spares.failures == 0


async def test_one_that_cannot_be_started_apart_or_is_late_is_said_and_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_pool, "READY_S_MAX", 0.2)
    for command, words in (
        (("/nowhere/python",), "cannot start"),
        ((*COMMAND[:-1], "import time; time.sleep(60)"), "not ready"),
    ):
        spares = Watched(command)
        with pytest.raises(SessionError, match=words):
            await spares.start_apart()


async def test_where_none_can_be_started_it_is_said() -> None:
    spares = Watched(("/nowhere/python",))
    with pytest.raises(SessionError, match="cannot start a data process"):
        await spares.take()
    assert spares.failures == 1
    await spares.close()


async def test_when_they_are_closed_none_is_left_and_none_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(monkeypatch) as spares:
        waiting = spares.warm
    for pid in waiting:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    spares.start()
    with pytest.raises(SessionError, match="stopping"):
        await spares.take()
