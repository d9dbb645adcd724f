"""The loopback listeners that redirected connections arrive at, one for each address family.

A family is redirected only while its listener accepts (`families`). One that cannot listen now, on a host without `::1`
or while somebody else has the port, is tried again each time that `hold` is called.
"""

import socket
from collections.abc import Callable
from typing import Final

from dwcp_migrate.agent.accept_loop import AcceptLoop, open_listener
from dwcp_migrate.agent.context import is_own_address
from dwcp_migrate.api.schema import ListenerStatus
from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.logs import get_logger

LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
USE: Final = {socket.AF_INET: "redirect", socket.AF_INET6: "redirect6"}

log = get_logger(component="listener")


class LoopbackListeners:
    """Listens where the redirect leads.

    Args:
        port: `intercept.port`.
        take: takes a connection.
        failed: see `AcceptLoop`.
    """

    def __init__(self, port: int, take: Callable[[socket.socket], None], failed: Callable[[str], None]) -> None:
        self._port = port
        self._take = take
        self._failed = failed
        self._loops: dict[socket.AddressFamily, AcceptLoop] = {}
        self._errors: dict[socket.AddressFamily, str] = {}

    def hold(self) -> None:
        """Begin to listen wherever this host does not yet."""
        for family, address in LOOPBACK.items():
            if family in self._loops:
                continue
            try:
                self._loops[family] = AcceptLoop(open_listener(address, self._port), self._take, self._failed).start()
            except HypervisorError as error:
                if self._errors.get(family) != str(error):
                    log.warning("one address family is not redirected", error=str(error), hint=error.hint)
                self._errors[family] = str(error)
            else:
                self._errors.pop(family, None)

    @property
    def families(self) -> frozenset[socket.AddressFamily]:
        """Those whose listener takes a connection that is redirected now."""
        return frozenset(
            family for family, loop in self._loops.items() if loop.accepting and is_own_address(LOOPBACK[family])
        )

    def view(self, needed: frozenset[socket.AddressFamily]) -> list[ListenerStatus]:
        """Say how each stands; one that does not listen and is not needed is left out."""
        up = self.families
        return [
            ListenerStatus(
                use=USE[family],
                address=f"[{address}]:{self._port}" if ":" in address else f"{address}:{self._port}",
                listening=family in up,
                error="" if family in up else self._errors.get(family, f"this host has no {address}"),
            )
            for family, address in LOOPBACK.items()
            if family in needed or family in up
        ]

    def close(self) -> None:
        """Stop accepting."""
        for loop in self._loops.values():
            loop.close()
        self._loops.clear()
