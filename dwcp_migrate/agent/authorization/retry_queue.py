"""Retry queue of notifications to the PBFT group: kept on disk, and sent again until the group has confirmed them.

The rule: one at a time, in the order of their events. Each operation changes nothing the second time, so after a lost
answer it is simply sent again. A crash loses none.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dwcp_migrate.agent.disk_thread import DiskThread
from dwcp_migrate.consensus.tickets.operations import (
    Operation,
    Result,
)
from dwcp_migrate.durable import write_whole
from dwcp_migrate.errors import NoQuorumError
from dwcp_migrate.logs import get_logger

OWED_MAX: Final = 1024
"""Kept at most, the newest; a host ends a few migrations a minute, and `policy.sessions_max` run at once."""

log = get_logger(component="certifying")

_waiting = msgspec.msgpack.Decoder(Annotated[list[Operation], Meta(max_length=OWED_MAX)])


class RetryQueue:
    """Notifications that the group has not confirmed yet.

    Args:
        ask: has an operation decided; raises NoQuorumError when the group does not in time.
        path: where it is kept. Damage there is logged and costs what was owed: a domain that moved is put right when it
            moves next, a ticket by its expiry.
        disk: writes it, before anybody is told.
    """

    def __init__(self, ask: Callable[[Operation], Awaitable[Result]], path: Path, disk: DiskThread) -> None:
        self._disk = disk
        self._ask = ask
        self._path = path
        self._waiting: deque[Operation] = deque(self._read(), maxlen=OWED_MAX)
        self._is_telling = False

    def __len__(self) -> int:
        return len(self._waiting)

    def _read(self) -> list[Operation]:
        try:
            return _waiting.decode(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            log.error("notifications to the PBFT group cannot be read", path=str(self._path), error=str(error))  # noqa: TRY400
            return []

    def _write(self) -> None:
        """Begin to write the queue; where the disk refuses, it is sent from memory all the same."""
        data, path = msgspec.msgpack.encode(list(self._waiting)), self._path

        def write() -> None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(path, data)
            except OSError as error:
                log.error("notifications to the PBFT group are not on disk", path=str(path), error=error.strerror)  # noqa: TRY400

        self._disk.begin(write)

    def add(self, operation: Operation) -> None:
        """Add a notification."""
        self._waiting.append(operation)
        self._write()

    async def send_pending(self) -> None:
        """Send what is pending, until the group does not decide."""
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._waiting:
                await self._disk.settled()  # send only what a crash cannot make this host forget
                operation = self._waiting[0]
                result = await self._ask(operation)
                log.info("group", operation=type(operation).__name__, result=str(result))
                if self._waiting and self._waiting[0] is operation:  # it may have made room for newer ones
                    self._waiting.popleft()
                self._write()
            await self._disk.settled()  # nor is told again what it was told
        except NoQuorumError as error:
            log.warning("the group was not told yet", waiting=len(self._waiting), error=str(error))
        finally:
            self._is_telling = False
