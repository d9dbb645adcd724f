"""Retry queue of notifications to the PBFT group: kept until the group has confirmed them.

The rule: in the order in which it happened, one at a time. Each of these changes nothing the second time, so that an
answer that was lost costs a repetition. What is older than a ticket's life is left out: the ticket is void by itself by
then, and a domain that moved is made up for when it is registered next.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from dwcp_migrate.consensus.tickets.machine import Operation, Result
from dwcp_migrate.errors import NoQuorumError
from dwcp_migrate.logs import get_logger

OWED_MAX: Final = 256
"""Kept at most, the newest; a host ends a few migrations a minute, and `policy.sessions_max` run at once."""

log = get_logger(component="certifying")


class RetryQueue:
    """What is owed to the group.

    Args:
        ask: has an operation decided; raises NoQuorumError when the group does not in time.
        clock: seconds, steady.
    """

    def __init__(self, ask: Callable[[Operation], Awaitable[Result]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._waiting: deque[tuple[float, Operation]] = deque(maxlen=OWED_MAX)
        self._is_telling = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operation: Operation, lifetime_s: float) -> None:
        """Owe another one, for so long."""
        self._waiting.append((self._clock() + lifetime_s, operation))

    async def tell(self) -> None:
        """Tell what is owed, until the group does not decide."""
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._waiting:
                until, operation = self._waiting.popleft()
                if until > self._clock():
                    await self._say(until, operation)
        except NoQuorumError as error:
            log.warning("the group was not told yet", waiting=len(self._waiting), error=str(error))
        finally:
            self._is_telling = False

    async def _say(self, until: float, operation: Operation) -> None:
        try:
            result = await self._ask(operation)
        except NoQuorumError:
            self._waiting.appendleft((until, operation))
            raise
        log.info("group", operation=type(operation).__name__, result=str(result))
