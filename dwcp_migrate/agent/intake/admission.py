"""Places at the link port for connections that have not authenticated yet. No IO; `now` is an argument.

Connections from a peer's configured address, or from one that showed a certificate of the fleet lately, may take all
places. Strangers have a part of them, and each source of strangers a part of that, so that a source that takes all it
can shuts out strangers only.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

PROVEN_S: Final = 3600.0
"""After a source proved a certificate it counts as a peer for so long."""

PROVEN_MAX: Final = 4096
"""Such sources; the oldest are forgotten first."""

IPV6_PREFIX_BITS: Final = 64
"""Prefix that counts as one source: a site can have any number of addresses below it."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Connections at once.

    Attributes:
        total: of everybody.
        strangers: of all that are not known as peers.
        source: of one of these.
    """

    total: int
    strangers: int
    source: int


class SourceRegistry:
    """The sources that are peers.

    Args:
        is_configured: says whether an address is one of a configured peer.
    """

    def __init__(self, is_configured: Callable[[str], bool]) -> None:
        self._is_configured = is_configured
        self._proven: OrderedDict[str, float] = OrderedDict()

    def prove(self, source: str, now: float) -> None:
        """Note that a connection from an address proved itself by a certificate of the fleet.

        Args:
            source: IP address.
            now: seconds; the proof counts for `PROVEN_S`.
        """
        self._proven[source] = now + PROVEN_S
        self._proven.move_to_end(source)
        while len(self._proven) > PROVEN_MAX:
            self._proven.popitem(last=False)

    def is_peer(self, source: str, now: float) -> bool:
        """Whether a peer is expected at an address: it is configured, or proved itself lately.

        Args:
            source: IP address.
            now: seconds, as for `prove`.
        """
        return self._is_configured(source) or self._proven.get(source, 0.0) > now


class Admission:
    """Counts who waits.

    Args:
        limits: how many may.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._total = 0
        self._strangers: Counter[str] = Counter()

    def enter(self, source: str, *, is_peer: bool) -> Callable[[], None] | None:
        """Take a place for a connection.

        Args:
            source: IP address.
            is_peer: whether the places of strangers are not counted.

        Returns:
            To be called when the connection ends; None where there is no place.
        """
        limits, key = self._limits, _group(source)
        if self._total >= limits.total:
            return None
        if is_peer:
            self._total += 1
            return self._leave
        if self._strangers.total() >= limits.strangers or self._strangers[key] >= limits.source:
            return None
        self._total += 1
        self._strangers[key] += 1
        return lambda: self._leave(key)

    def _leave(self, stranger: str = "") -> None:
        self._total -= 1
        if stranger:
            self._strangers[stranger] -= 1
            if not self._strangers[stranger]:
                del self._strangers[stranger]

    @property
    def count(self) -> int:
        """Number of connections that wait."""
        return self._total


def _group(source: str) -> str:
    """The unit that counts as one source."""
    try:
        parsed = ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(IPv6Address(int(parsed) >> IPV6_PREFIX_BITS << IPV6_PREFIX_BITS))
    return source
