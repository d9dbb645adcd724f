"""Periodic pings of all peers, for the metrics."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from dwcp_migrate.errors import DwcpError
from dwcp_migrate.logs import get_logger

ROUND_S: Final = 60.0
"""Between the ends of two rounds."""

RETRY_S: Final = 10.0
"""The same, while a peer does not answer."""

ASKED_AT_ONCE_MAX: Final = 16
"""A fleet of thousands costs a trickle of connections and no burst."""

log = get_logger(component="peers")


class PeerWatch:
    """The watch.

    Args:
        names: of the peers that are configured now.
        ask: asks one peer; returns whether it answered as a peer should.
    """

    def __init__(self, names: Callable[[], Iterable[str]], ask: Callable[[str], Awaitable[bool]]) -> None:
        self._names = names
        self._ask = ask
        self._up: dict[str, bool] = {}

    @property
    def up(self) -> dict[str, bool]:
        """Whether each configured peer answered last, by name; one that was not asked yet is left out."""
        return {name: self._up[name] for name in self._names() if name in self._up}

    async def run(self) -> None:
        """Ask again and again, until it is cancelled."""
        while True:
            try:
                await self.round()
            except Exception:  # a fault of ours in one round must not end all later ones
                log.exception("round of peers failed")
            await asyncio.sleep(ROUND_S if all(self._up.values()) else RETRY_S)

    async def round(self) -> None:
        """Ask every peer once."""
        slots = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

        async def one(name: str) -> tuple[str, bool]:
            async with slots:
                try:
                    return name, await self._ask(name)
                except DwcpError:
                    return name, False

        self._up = dict(await asyncio.gather(*(one(name) for name in self._names())))
