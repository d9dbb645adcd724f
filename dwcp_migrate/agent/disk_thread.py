"""One thread for all that the agent writes durably, so that a slow disk delays only those who wait for it.

The rule: the event loop never waits for a disk. Writes are done one after the other in the order in which they were
begun, so that the second is never on the disk without the first. A caller that may answer only once something is
written awaits the write, or `settled`, before it answers.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dwcp_migrate.logs import get_logger

log = get_logger(component="disk")


class DiskThread:
    """The thread; used from one event loop."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="disk")

    def begin(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Do some work after all that was begun before.

        Args:
            work: writes; it runs on the thread and must share nothing that changes.

        Returns:
            Done with it, or with its error, which is logged where nobody awaits it.
        """
        done = asyncio.get_running_loop().run_in_executor(self._executor, work)
        done.add_done_callback(_look)
        return done

    async def settled(self) -> None:
        """Wait until all that was begun before is done."""
        await self.begin(_nothing)

    async def close(self) -> None:
        """Wait for all that was begun, and end the thread."""
        await self.settled()
        self._executor.shutdown(wait=False)


def _nothing() -> None:
    pass


def _look(done: asyncio.Future[None]) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        log.warning("not written", error=str(error))
