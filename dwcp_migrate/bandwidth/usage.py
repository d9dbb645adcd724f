"""What a migration can use of its link, seen from what it used (pure).

The rule: only a migration that leaves its channels idle shows what it can use; one that keeps them busy could use more.
Its encoder, its QEMU or the other host is the bound then, and what it leaves is the others'. A few looks must agree,
since a stream also pauses between two passes.
"""

from collections import deque
from collections.abc import Collection
from typing import Final

BUSY_MIN: Final = 0.8
"""Share of the time that encoded bytes wait for a channel, from which on the link is the bound."""

LOOKS: Final = 3
"""One a second; so many without a busy one among them show what can be used."""

ROOM: Final = 1.25
"""What is granted beyond what was used: an encoder that gets faster shows it, a quarter more each second."""


class Usage:
    """The last looks at each migration."""

    def __init__(self) -> None:
        self._looks: dict[str, deque[tuple[float, float]]] = {}

    def saw(self, identity: str, bytes_per_s: float, busy: float) -> None:
        """Take in a look: what it sent on the wire, and how much of the time it waited for the link."""
        self._looks.setdefault(identity, deque(maxlen=LOOKS)).append((bytes_per_s, busy))

    def most(self, identity: str) -> float:
        """What it can use, bytes/s; infinite where the link is its bound or too little was seen."""
        looks = self._looks.get(identity, ())
        if len(looks) < LOOKS or any(busy >= BUSY_MIN for _, busy in looks):
            return float("inf")
        return ROOM * max(rate for rate, _ in looks)

    def keep(self, identities: Collection[str]) -> None:
        """Forget all others."""
        self._looks = {identity: looks for identity, looks in self._looks.items() if identity in identities}
