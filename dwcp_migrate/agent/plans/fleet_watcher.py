"""The service that relieves the fleet by itself: the agent that holds its lease looks, in a helper process.

The rule: while it is off, no host is asked for anything. A look that fails is followed by the next one.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dwcp_migrate.agent.plans.look_loop import keep_looking
from dwcp_migrate.agent.plans.watch_book import WatchBook
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.logs import get_logger

LOOK_S: Final = 10.0
"""Between two looks at the settings."""

LEASE_LOOKS: Final = 3
"""Looks that the lease lasts: so long after the death of an agent another one takes over."""

HELPER_S_MAX: Final = 600.0

log = get_logger(component="watch")


class FleetWatcher:
    """Starts the looks.

    Args:
        book: the record of the service.
        config: the file that the helper reads.
        state: of the agent: one that drains or stops does not look.
        command: how the helper is started.
    """

    def __init__(
        self, book: WatchBook, config: Path, state: Callable[[], str], command: Sequence[str] | None = None
    ) -> None:
        self._book, self._state = book, state
        self._command = command or (sys.executable, "-m", "dwcp_migrate", "lookout", "--config", str(config))
        self._due = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        await keep_looking("the fleet's load", self.turn, lambda: asyncio.sleep(LOOK_S))

    async def turn(self) -> bool:
        """Look, where that is due and this host's turn; whether it did."""
        settings = (await self._book.read(fresh=False)).record.settings
        if settings.mode == "off" or self._state() != "running" or steady_clock() < self._due:
            return False
        self._due = steady_clock() + settings.every_s
        if not await self._book.takes_turn(LEASE_LOOKS * max(settings.every_s, LOOK_S)):
            return False
        process = await asyncio.create_subprocess_exec(*self._command, stdin=asyncio.subprocess.DEVNULL)
        try:
            async with asyncio.timeout(HELPER_S_MAX):
                code = await process.wait()
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if code:
            log.warning("look at the fleet failed", code=code)
        return True
