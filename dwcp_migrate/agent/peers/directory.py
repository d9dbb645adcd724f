"""Directory of the peers, and a record of those that did not answer lately. No IO; `now` is an argument.

The rule: a peer is known by the name in its certificate; addresses only find it. This host itself is never its own
peer, also where one file lists the whole fleet.
"""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from dwcp_migrate.config import PeerConfig


@dataclass(frozen=True, slots=True)
class PeerSilence:
    """Why a peer is not probed at an address, and until when."""

    code: str
    message: str
    until: float


class PeerDirectory:
    """The configured peers.

    Args:
        peers: as configured; addresses that are names are left to `--migrateuri` and not redirected.
        own_name: this host's.
        is_own: says whether an address is this host's.
    """

    def __init__(self, peers: Iterable[PeerConfig], own_name: str, is_own: Callable[[str], bool]) -> None:
        self._peers = tuple(
            peer for peer in peers if peer.name != own_name and not any(is_own(address) for address in peer.addresses)
        )
        self._by_name = {peer.name.lower(): peer for peer in self._peers}
        self._by_address = {canonical(address): peer for peer in self._peers for address in peer.addresses}
        addresses = [address for address in self._by_address if _is_address(address)]
        self._redirected = {
            family: frozenset(address for address in addresses if family_of(address) == family)
            for family in (socket.AF_INET, socket.AF_INET6)
        }

    def all(self) -> tuple[PeerConfig, ...]:
        """All peers, as configured."""
        return self._peers

    def by_address(self, address: str) -> PeerConfig | None:
        """The peer that owns an address."""
        return self._by_address.get(canonical(address))

    def by_name(self, name: str) -> PeerConfig | None:
        """The peer of a name."""
        return self._by_name.get(name.lower())

    def by_names(self, names: Iterable[str]) -> PeerConfig | None:
        """The peer that proved one of these names in its certificate."""
        return next((peer for name in names if (peer := self.by_name(name))), None)

    def redirected(self) -> list[tuple[str, PeerConfig]]:
        """Addresses that connections are redirected from, with their peers."""
        return [(address, peer) for address, peer in self._by_address.items() if _is_address(address)]

    def redirected_of(self, families: Iterable[socket.AddressFamily]) -> frozenset[str]:
        """Addresses that connections are redirected from, of some families."""
        return frozenset().union(*(self._redirected.get(family, frozenset()) for family in families))


def canonical(address: str) -> str:
    """One spelling for each IP address, IPv4 mapped into IPv6 included; a host name in lower case."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address.lower()
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def family_of(address: str) -> socket.AddressFamily:
    """The family of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def numeric(addresses: Iterable[str]) -> list[str]:
    """Those that are IP addresses, not names."""
    return [address for address in addresses if _is_address(address)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class SilentPeers:
    """The negative cache: an address that let time pass costs one migration the probe, not every one.

    Args:
        lifetime_s: how long it is not probed.
    """

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._silent: dict[tuple[str, str], PeerSilence] = {}

    def add(self, name: str, address: str, code: str, message: str, now: float) -> None:
        """A probe of a peer's address took its time and failed."""
        self._silent[name, address] = PeerSilence(code, message, now + self.lifetime_s)

    def remove(self, name: str, address: str) -> None:
        """It answered there."""
        self._silent.pop((name, address), None)

    def get(self, name: str, address: str, now: float) -> PeerSilence | None:
        """Why it is not probed there now; None when it may be."""
        found = self._silent.get((name, address))
        if found is not None and found.until <= now:
            del self._silent[name, address]
            return None
        return found
