"""Real replica processes while they are killed, stopped, cut off and run out of disk: every history is linearizable."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from dwcp_migrate.consensus.io.client_node import GroupClient
from dwcp_migrate.errors import ConsensusError
from tests.consensus.processes import Processes
from tests.consensus.registers import encode
from tests.linearizability.checker import REGISTER, UNKNOWN, Operation, check

CLIENTS = 3
WAIT_S = 60.0


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Processes]:
    processes = Processes(tmp_path, 4, CLIENTS)
    await processes.start()
    yield processes
    await processes.stop()


class Load:
    """Clients that read, write and swap a few registers, and the history of what they saw."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.history: list[Operation] = []
        self.decided = asyncio.Event()
        self._wanted = 0
        self._stopping = False

    async def run(self, client: GroupClient) -> None:
        while not self._stopping:
            name = self._rng.choice("xy")
            value = str(self._rng.randrange(1000))
            action = self._rng.choice([("read",), ("write", value), ("swap", self._last(name), value)])
            called = time.monotonic()
            try:
                decision = await client.decide(encode(name, action), timeout_s=WAIT_S)
            except ConsensusError:
                self.history.append(Operation(name, action, UNKNOWN, called))
            else:
                operation = Operation(name, action, decision.result.decode(), called, time.monotonic())
                self.history.append(operation)
            if len(self.history) >= self._wanted:
                self.decided.set()

    def _last(self, name: str) -> str:
        return next((str(o.result) for o in reversed(self.history) if o.key == name), "")

    async def wait(self, more: int) -> None:
        """Await so many more operations."""
        self._wanted = len(self.history) + more
        self.decided.clear()
        await asyncio.wait_for(self.decided.wait(), WAIT_S)

    def stop(self) -> None:
        self._stopping = True


async def _kill_all_but_never_two(group: Processes, load: Load) -> None:
    for name in group.names:
        await group.kill(name)
        await load.wait(40)
        await group.launch(name)
        await load.wait(40)


async def _kill_all_at_once(group: Processes, load: Load) -> None:
    await asyncio.gather(*(group.kill(name) for name in group.names))
    await asyncio.gather(*(group.launch(name) for name in group.names))
    await load.wait(40)


async def _stop_and_continue(group: Processes, load: Load) -> None:
    for name in group.names[:2]:
        group.pause(name)
        await load.wait(40)
        group.resume(name)
        await load.wait(40)


async def _cut_off(group: Processes, load: Load) -> None:
    for name in group.names[:2]:
        group.cut(name)
        await load.wait(40)
        group.heal()
        await load.wait(40)


async def _fill_the_disk(group: Processes, load: Load) -> None:
    for name in group.names[:2]:
        group.fill_disk(name)
        await load.wait(40)
        group.free_disk(name)
        await load.wait(40)


@pytest.mark.parametrize(
    "disturb", [_kill_all_but_never_two, _kill_all_at_once, _stop_and_continue, _cut_off, _fill_the_disk]
)
async def test_history_stays_linearizable(
    group: Processes, disturb: Callable[[Processes, Load], Awaitable[None]]
) -> None:
    load = Load(seed=1)
    clients = [await group.client(name, 4) for name in group.clients]
    tasks = [asyncio.create_task(load.run(client)) for client in clients]
    await load.wait(100)
    await disturb(group, load)
    load.stop()
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)
    for client in clients:
        await client.stop()
    assert check(load.history, REGISTER) is None
    assert not any(operation.result is UNKNOWN for operation in load.history)
