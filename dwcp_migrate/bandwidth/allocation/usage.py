"""Estimate of the rate that a migration can use, from the rate that it used (pure).

The rule: only a migration that leaves its channels idle shows the rate that it can use; one that keeps them busy could
use more, and so could one that uses up the rate that it is held to: nothing of it waits for a channel then, because
QEMU is not asked. Otherwise its encoder, its QEMU or the other host is the bound, and the rest of the link is for
others. A few samples must agree, since a stream also pauses between two passes.
"""

from collections import deque
from collections.abc import Collection
from typing import Final

BUSY_MIN: Final = 0.8
"""Share of the time that encoded bytes wait for a channel, from which on the link is the bound."""

USED_UP: Final = 0.9
"""Share of the rate that it is held to. One whose bound is elsewhere is held to `ROOM` times what it uses: it uses four
fifths."""

LOOKS: Final = 3
"""One a second; so many without a busy one among them show the rate that can be used."""

ROOM: Final = 1.25
"""Grant in relation to the rate that was used: an encoder that gets faster shows it, a quarter more each second."""


class Usage:
    """The last samples of each migration."""

    def __init__(self) -> None:
        self._looks: dict[str, deque[tuple[float, float]]] = {}

    def saw(self, identity: str, bytes_per_s: float, busy: float, *, held_bytes_per_s: float = 0.0) -> None:
        """Take a sample.

        Args:
            identity: of the migration.
            bytes_per_s: what it sent on the wire.
            busy: share of the time in which it waited for the link.
            held_bytes_per_s: the rate that it was held to, 0 for none.
        """
        if held_bytes_per_s and bytes_per_s >= USED_UP * held_bytes_per_s:
            busy = 1.0
        self._looks.setdefault(identity, deque(maxlen=LOOKS)).append((bytes_per_s, busy))

    def most(self, identity: str) -> float:
        """Return the rate that it can use, bytes/s; infinite where the link is its bound or samples are few."""
        looks = self._looks.get(identity, ())
        if len(looks) < LOOKS or any(busy >= BUSY_MIN for _, busy in looks):
            return float("inf")
        return ROOM * max(rate for rate, _ in looks)

    def keep(self, identities: Collection[str]) -> None:
        """Forget all others."""
        self._looks = {identity: looks for identity, looks in self._looks.items() if identity in identities}
