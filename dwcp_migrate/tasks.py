"""Tasks with an owner, and the handling of unforeseen exceptions in them.

The rule: the event loop by itself keeps no task alive, so the owner of a task holds it until it is done, and can wait
for all of its tasks or end them. No task fails in silence: the exception is logged with its trace and counted, and a
loop that has to run as long as its owner begins anew.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

from dwcp_migrate.logs import get_logger

RESTART_S: Final = 1.0
"""Pause before a loop that failed begins anew: one that always fails costs one log line a second, and no core."""

ONCE: Final = "task"
"""Part under which the failure of a task that runs once is counted."""

faults: Final = Counter[str]()
"""Unforeseen exceptions of this process since it started, by part; a process has one agent."""

log = get_logger(component="tasks")

T = TypeVar("T")


class Tasks:
    """The tasks of one owner that are not done yet."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()

    @property
    def count(self) -> int:
        """Number of tasks that run."""
        return len(self._running)

    def begin(self, work: Coroutine[object, object, object], owned: socket.socket | None = None) -> None:
        """Begin a task that runs once, in the running loop.

        Args:
            work: what it does.
            owned: what it took over. One that is cancelled, perhaps before it ran a line of `work`, has it closed.
        """
        task = begin_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if owned is not None:
            task.add_done_callback(lambda ended: owned.close() if ended.cancelled() else None)

    def keep_running(self, part: str, work: Callable[[], Coroutine[object, object, object]]) -> None:
        """Begin a loop that has to run as long as its owner.

        Args:
            part: of the agent, as the log and `dwcp_migrate_faults_total` name it.
            work: makes the loop's coroutine; called again each time that the loop raised, see `run_again`.
        """
        self.begin(run_again(part, work))

    async def drained(self) -> None:
        """Wait until none runs, those that begin meanwhile included."""
        while self._running:
            await asyncio.wait(list(self._running))

    async def cancel(self) -> None:
        """End all that run, and wait for that."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def begin_task(work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
    """Begin a task that its caller holds until it is done; a failure is logged and counted in any case."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_note_failure)
    return task


def _note_failure(task: "asyncio.Task[T]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        faults[ONCE] += 1
        log.error("a task failed", task=str(task.get_coro()), exc_info=error)


async def wait_within(awaited: Awaitable[T], seconds: float) -> T:
    """Wait for something, and cancel it where it takes too long.

    Until Python 3.12 `asyncio.wait_for` loses a cancellation that comes together with the result, so that a loop which
    was told to end goes on.

    Args:
        awaited: what is waited for.
        seconds: at most.

    Raises:
        TimeoutError: it took longer.
    """
    async with asyncio.timeout(seconds):
        return await awaited


async def run_again(part: str, work: Callable[[], Coroutine[object, object, object]]) -> None:
    """Run a loop until it returns or is cancelled; begin it anew when it raises.

    Args:
        part: of the agent, as the log and `dwcp_migrate_faults_total` name it.
        work: makes the loop's coroutine; called again `RESTART_S` after one that raised.
    """
    while True:
        try:
            await work()
        except Exception:  # nobody foresaw it, so nobody else can take care of it
            faults[part] += 1
            log.exception("a part of the agent failed and begins anew", part=part, again_in_s=RESTART_S)
        else:
            return
        await asyncio.sleep(RESTART_S)
