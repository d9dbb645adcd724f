"""The peers, each found by its name or by any of its addresses; and those that did not answer lately. No IO.

A peer is known by the name in its certificate; addresses only find it. What the configuration calls by a host name is
known here by the addresses that the name resolved to lately (see `peers.addresses`). This host itself is never its own
peer, also where one file lists the whole fleet.
"""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from dwcp_migrate.config import PeerConfig
from dwcp_migrate.config.addresses import is_ip_address, normalise_address
from dwcp_migrate.net import family_of


@dataclass(frozen=True, slots=True)
class PeerSilence:
    """Reason for which a peer is not probed at an address, and the end of that."""

    code: str
    message: str
    until: float


class PeerDirectory:
    """The configured peers.

    Args:
        peers: as configured.
        own_name: this host's.
        is_own: says whether an IP address is this host's.
        resolved: the IP addresses of host names in `peers`, by name in lower case; one that is not there is not known.
    """

    def __init__(
        self,
        peers: Iterable[PeerConfig],
        own_name: str,
        is_own: Callable[[str], bool],
        resolved: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        found: list[PeerConfig] = []
        self._by_address: dict[str, PeerConfig] = {}
        self._without_address: dict[str, str] = {}
        taken: set[str] = set()
        for peer in peers:
            addresses = _ip_addresses(peer, resolved or {})
            if peer.name.lower() == own_name.lower() or any(is_own(address) for address in addresses):
                continue
            mine = [address for address in addresses if address not in taken]
            taken.update(mine)
            if not mine:
                self._without_address[peer.name] = _why_none(peer, addresses)
            known = replace(peer, addresses=mine or peer.addresses)
            found.append(known)
            self._by_address |= dict.fromkeys(mine, known)
        self._peers = tuple(found)
        self._by_name = {peer.name.lower(): peer for peer in self._peers}
        self._redirected = {
            family: frozenset(address for address in self._by_address if family_of(address) == family)
            for family in (socket.AF_INET, socket.AF_INET6)
        }

    def knows_the_same(self, other: "PeerDirectory") -> bool:
        """Whether another directory has the same peers with the same addresses."""
        return self.all() == other.all() and self.without_address == other.without_address

    def all(self) -> tuple[PeerConfig, ...]:
        """All peers, with the IP addresses that are known of them; with what is configured where none is."""
        return self._peers

    @property
    def without_address(self) -> Mapping[str, str]:
        """Peers towards which nothing is redirected, by name, and why."""
        return self._without_address

    def by_address(self, address: str) -> PeerConfig | None:
        """The peer that owns an address."""
        return self._by_address.get(normalise_address(address))

    def by_name(self, name: str) -> PeerConfig | None:
        """The peer of a name."""
        return self._by_name.get(name.lower())

    def by_names(self, names: Iterable[str]) -> PeerConfig | None:
        """The peer that proved one of these names in its certificate."""
        return next((peer for name in names if (peer := self.by_name(name))), None)

    def redirected(self) -> list[tuple[str, PeerConfig]]:
        """Addresses that connections are redirected from, with their peers."""
        return list(self._by_address.items())

    def redirected_of(self, families: Iterable[socket.AddressFamily]) -> frozenset[str]:
        """Addresses that connections are redirected from, of some families."""
        return frozenset().union(*(self._redirected.get(family, frozenset()) for family in families))


def host_names(peers: Iterable[PeerConfig]) -> frozenset[str]:
    """The host names among the peers' addresses, in lower case."""
    return frozenset(normalise_address(found) for peer in peers for found in peer.addresses if not is_ip_address(found))


def numeric(addresses: Iterable[str]) -> list[str]:
    """Those that are IP addresses, not names."""
    return [address for address in addresses if is_ip_address(address)]


def _ip_addresses(peer: PeerConfig, resolved: Mapping[str, Sequence[str]]) -> list[str]:
    found: dict[str, None] = {}
    for address in peer.addresses:
        known = [address] if is_ip_address(address) else resolved.get(normalise_address(address), [])
        found |= dict.fromkeys(normalise_address(one) for one in known)
    return list(found)


def _why_none(peer: PeerConfig, addresses: Sequence[str]) -> str:
    if addresses:
        return f"{addresses[0]} belongs to another peer too"
    return f"{', '.join(peer.addresses)}: no such name is known"


class SilentPeers:
    """The negative cache: an address that let time pass costs one migration the probe, not every one.

    Args:
        lifetime_s: how long it is not probed.
    """

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._silent: dict[tuple[str, str], PeerSilence] = {}

    def add(self, name: str, address: str, code: str, message: str, now: float) -> None:
        """Note that a peer's agent did not answer at an address within the time for it.

        Args:
            name: of the peer.
            address: that was probed.
            code: as in `PeerView.code`.
            message: for people.
            now: seconds, on a clock that never jumps.
        """
        self._silent[name, address] = PeerSilence(code, message, now + self.lifetime_s)

    def remove(self, name: str, address: str) -> None:
        """Note that a peer's agent answered at an address.

        Args:
            name: of the peer.
            address: that was probed.
        """
        self._silent.pop((name, address), None)

    def get(self, name: str, address: str, now: float) -> PeerSilence | None:
        """Say why a peer's address is not probed now.

        Args:
            name: of the peer.
            address: that would be probed.
            now: seconds, as for `add`.

        Returns:
            None where it may be probed.
        """
        found = self._silent.get((name, address))
        if found is not None and found.until <= now:
            del self._silent[name, address]
            return None
        return found
