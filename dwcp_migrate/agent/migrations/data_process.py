"""Handle of one migration's data process: its messages change the record, and its end is noticed in any case.

The rule: a fault of a data process costs at most its own migration. If it dies the kernel closes its sockets; if it has
sent its last message and does not exit, it is killed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from socket import socket
from typing import Any, Final

from dwcp_migrate.agent.tracking.registry import MigrationRegistry
from dwcp_migrate.api.migration import MigrationEvent, append_event, apply_counters, apply_finished, apply_happened
from dwcp_migrate.clocks import steady_clock, wall_clock
from dwcp_migrate.dataplane.process_pool import DataProcess
from dwcp_migrate.errors import SessionError
from dwcp_migrate.protocol.worker import Abort, Finished, FromWorker, Happened, Noted, ToWorker, WorkerProgress

EXIT_S_MAX: Final = 10.0
"""From its last message to its end; then it is killed."""


@dataclass(frozen=True, slots=True)
class Crash:
    """A data process that ended without a last message; `code` is None where it was no child of this agent."""

    code: int | None

    @property
    def reason(self) -> str:
        """For the record."""
        if self.code is None:
            return "the data process exited without a message"
        how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return f"the data process crashed ({how})"


class DataProcessHandle:
    """A started data process.

    Attributes:
        returned: connections that it gave back (a relay's with the onward socket), complete once it is `gone`.

    Args:
        identity: of the migration's record.
        process: ready, nothing started in it yet.
        ledger: where the record is.
    """

    def __init__(self, identity: str, process: DataProcess, ledger: MigrationRegistry) -> None:
        self.identity = identity
        self._process = process
        self._ledger = ledger
        self._progress_at = steady_clock()
        self._finished: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        self._linked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.returned: list[tuple[socket, socket | None]] = []
        process.assign(self)

    @property
    def pid(self) -> int:
        """The data process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """It has neither said its last message nor ended."""
        return not self._finished.done() and not self._process.exited.done()

    def send(self, message: ToWorker, sockets: Sequence[socket] = ()) -> None:
        """Hand over a message and sockets; if the process is gone the sockets are closed, and `ended` says why.

        Args:
            message: for the process.
            sockets: that go with it; they are closed here in any case.
        """
        try:
            self._process.send(message, sockets)
        except SessionError as error:
            detail = str(error)
            self._ledger.change(
                self.identity,
                lambda record: append_event(record, MigrationEvent(at=wall_clock(), event="not-taken", detail=detail)),
            )

    def abort(self, reason: str) -> None:
        """Ask it to reset everything and go; it is killed if it does not."""
        self.send(Abort(reason=reason))
        asyncio.get_running_loop().call_later(EXIT_S_MAX, self._process.kill)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def leave(self) -> None:
        """Let it go on without this agent."""
        self._process.leave()

    def heard(self, message: FromWorker) -> None:
        """See `ProcessOwner.heard`."""
        match message:
            case Happened():
                if message.event == "link-up" and not self._linked.done():
                    self._linked.set_result(None)
                self._ledger.change(self.identity, lambda record: apply_happened(record, message, wall_clock()))
            case WorkerProgress(counters=counters):
                now = steady_clock()
                elapsed_s, self._progress_at = now - self._progress_at, now
                self._ledger.change(
                    self.identity, lambda record: apply_counters(record, counters, elapsed_s, wall_clock())
                )
            case Finished() if not self._finished.done():
                self._finished.set_result(message)
            case _:
                pass

    async def link(self, timeout_s: float) -> str:
        """Wait until a source has a channel to its peer; returns why it has none, or nothing."""
        waited: list[asyncio.Future[Any]] = [self._linked, self._finished, self._process.exited]
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self._linked.done():
            return ""
        if self._finished.done():
            return self._finished.result().detail
        if self._process.exited.done():
            return Crash(self._process.exited.result()).reason
        return f"no channel came up within {timeout_s:g} s"

    async def finish(self) -> Finished | Crash:
        """Wait for its last message or its crash, and take it into the record."""
        exited = self._process.exited
        waited: list[asyncio.Future[Any]] = [self._finished, exited]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._finished.done():
            return Crash(exited.result())
        message = self._finished.result()
        self._ledger.change(self.identity, lambda record: apply_finished(record, message, wall_clock()))
        self._ledger.is_over(self.identity)
        self.send(Noted())
        self._process.finish_sending()
        return message

    def returned_connection(self, sockets: list[socket]) -> None:
        """See `ProcessOwner.returned_connection`; it came when the session was over."""
        if sockets:
            self.returned.append((sockets[0], sockets[1] if len(sockets) > 1 else None))

    async def gone(self) -> None:
        """Wait until the process is gone; a laggard is killed."""
        await self._process.wait(EXIT_S_MAX)
