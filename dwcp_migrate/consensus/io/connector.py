"""Dialling: keeps one connection to each replica, and dials again when it ends.

Rule: the set of replicas may change at any time through `reach`. A channel that is open already belongs to its owner,
which ends it.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from dwcp_migrate.consensus.io.channel import ChannelOwner, MemberChannel, Route, dial, only
from dwcp_migrate.consensus.pbft.model.messages import Hello
from dwcp_migrate.tasks import begin_task, run_again

REDIAL_S: Final = 0.3
"""A replica that restarts is back in the group within a second."""


class Dialling:
    """One task for each replica that is dialled.

    Args:
        owner: of the channels.
        greet: makes the hello to each.
        route: how replicas are reached.
    """

    def __init__(self, owner: ChannelOwner, greet: Callable[[str], Hello], route: Route) -> None:
        self._owner = owner
        self._greet = greet
        self._route = route
        self._addresses: Mapping[str, tuple[str, int]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def reach(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        """Dial these replicas, at these addresses, from now on."""
        self._addresses = addresses
        for name in self._tasks.keys() - addresses.keys():
            self._tasks.pop(name).cancel()
        for name in addresses.keys() - self._tasks.keys():
            self._tasks[name] = begin_task(run_again("pbft", partial(self._stay, name)))

    async def _stay(self, name: str) -> None:
        while True:
            address = self._addresses[name]
            channel = await dial(
                address, name, self._route, lambda: MemberChannel(self._owner, self._greet, only(name))
            )
            if channel is not None:
                await channel.gone
            await asyncio.sleep(REDIAL_S)

    async def stop(self) -> None:
        """Dial no more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
