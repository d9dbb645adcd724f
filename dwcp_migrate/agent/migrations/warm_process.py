"""Data process of a warm-up, on either host.

The rule: it is none of the spares that migrations begin with, it ends with the agent, and it is ended at once where a
migration begins: whatever its cache holds by then is kept.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from socket import socket
from typing import Final

from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import SessionError
from dwcp_migrate.protocol.worker import (
    Abort,
    Finished,
    FromWorker,
    Happened,
    MigrationCounters,
    Noted,
    ToWorker,
    WorkerProgress,
)

EXIT_S_MAX: Final = 10.0
"""From the order to end, or from its last message, to its end; then it is killed."""

LEAVE_S_MAX: Final = 2.0
"""For that where the agent ends: it waits for no more."""


class WarmProcess:
    """A started data process; see `ProcessOwner`.

    Attributes:
        readable_bytes: of the guest's memory, once it said so.
        stopped_at: address at which it stopped; 0: it came to the end; None: it did not come that far.
        made_way: it was ended for a migration.

    Args:
        process: ready, nothing started in it.
        progress: takes its counters.
    """

    def __init__(self, process: DataProcess, progress: Callable[[MigrationCounters], None]) -> None:
        self._process = process
        self._progress = progress
        self._finished: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        self.readable_bytes = 0
        self.stopped_at: int | None = None
        self.made_way = False
        process.assign(self)

    def send(self, message: ToWorker, sockets: Sequence[socket] = ()) -> None:
        """Hand over a message and sockets; where the process is gone they are closed.

        Args:
            message: for the process.
            sockets: that go with it.
        """
        with contextlib.suppress(SessionError):  # `wait` says that it is gone
            self._process.send(message, sockets)

    def end(self, reason: str, *, made_way: bool = False) -> None:
        """Have it end at once.

        Args:
            reason: for the other side.
            made_way: for a migration.
        """
        self.made_way = self.made_way or made_way
        self.send(Abort(reason=reason))
        asyncio.get_running_loop().call_later(EXIT_S_MAX, self._process.kill)

    async def discard(self) -> None:
        """End one in which nothing was started."""
        self._process.kill()
        await self._process.wait(EXIT_S_MAX)

    def heard(self, message: FromWorker) -> None:
        """See `ProcessOwner.heard`."""
        match message:
            case Happened(event="readable"):
                self.readable_bytes = message.number
            case Happened(event="warmed"):
                self.stopped_at = message.number
            case WorkerProgress(counters=counters):
                self._progress(counters)
            case Finished() if not self._finished.done():
                self._progress(message.counters)
                self._finished.set_result(message)
            case _:
                pass

    def returned_connection(self, sockets: list[socket]) -> None:
        """See `ProcessOwner.returned_connection`; it has none that anybody waits for."""
        for sock in sockets:
            sock.close()

    async def wait(self) -> Finished | None:
        """Wait for its end; None: it crashed. Where this is cancelled the agent ends, and the process by that."""
        exited = self._process.exited
        waited: list[asyncio.Future[Finished] | asyncio.Future[int | None]] = [self._finished, exited]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not self._finished.done():
                return None
            self.send(Noted())
            self._process.finish_sending()
            await self._process.wait(EXIT_S_MAX)
        except asyncio.CancelledError:
            self._process.finish_sending()  # it keeps its pages and goes
            await self._process.wait(LEAVE_S_MAX)
            raise
        return self._finished.result()
