"""Tasks that somebody began and answers for.

The rule: the event loop by itself keeps no task alive. Whoever begins one holds it until it is done, and can wait for
all of its own or end them.
"""

import asyncio
from collections.abc import Coroutine


class Tasks:
    """The tasks of one owner that are not done yet."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()

    @property
    def count(self) -> int:
        """How many run."""
        return len(self._running)

    def begin(self, work: Coroutine[object, object, object]) -> None:
        """Begin one in the running loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

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
