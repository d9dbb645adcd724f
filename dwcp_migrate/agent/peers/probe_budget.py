"""Budget of bytes that each peer may send to this host for measurements. No clock; `now` is an argument.

The rule: a peer that measures has authenticated, sends the bytes itself and gets less back than it sent; the budget
keeps a peer that measures without end from filling the link and a core of this host.
"""

from typing import Final

from dwcp_migrate.units import MIB

BYTES_MAX: Final = 1024 * MIB
"""Of one peer in a window: four of the largest measurements."""

WINDOW_S: Final = 60.0

PEERS_MAX: Final = 4096
"""Peers in the account; beyond that the one whose window began first makes room."""


class ProbeBudget:
    """The account, by peer.

    Args:
        bytes_max: in a window.
        window_s: its length.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, window_s: float = WINDOW_S) -> None:
        self._bytes_max = bytes_max
        self._window_s = window_s
        self._taken: dict[str, tuple[float, int]] = {}

    def take(self, peer: str, count: int, now: float) -> bool:
        """Take bytes of a peer's; False where its window holds no more.

        Args:
            peer: its name.
            count: of bytes.
            now: the caller's clock, in seconds.
        """
        began, taken = self._taken.get(peer, (now, 0))
        if now - began >= self._window_s:
            self._taken.pop(peer, None)  # to the end: the order is that of the windows' beginnings
            began, taken = now, 0
        if taken + count > self._bytes_max:
            return False
        self._taken[peer] = (began, taken + count)
        if len(self._taken) > PEERS_MAX:
            del self._taken[next(iter(self._taken))]
        return True
