"""Tasks that somebody began and answers for.

The rule: the event loop by itself keeps no task alive. Whoever begins one holds it until it is done, and can wait for
all of its own or end them. One that fails says so in the log at once, with its trace.
"""

import asyncio
import socket
from collections.abc import Coroutine

from dwcp_migrate.logs import get_logger

log = get_logger(component="tasks")


class Tasks:
    """The tasks of one owner that are not done yet."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()

    @property
    def count(self) -> int:
        """Number of tasks that run."""
        return len(self._running)

    def begin(self, work: Coroutine[object, object, object], owned: socket.socket | None = None) -> None:
        """Begin one in the running loop.

        Args:
            work: what it does.
            owned: what it took over. One that is cancelled, perhaps before it ran a line of `work`, has it closed.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        if owned is not None:
            task.add_done_callback(lambda ended: owned.close() if ended.cancelled() else None)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a task failed", task=str(task.get_coro()), exc_info=error)

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
