"""Peers found in the fleet's state, with the addresses that each host publishes there. No IO.

The rule: the fleet's state only locates a host. Trust comes from a certificate of the fleet's CA, with a name that
`coordination.discover` allows; for names and addresses the configured list comes first.

A host that publishes another one's address only makes migrations to that one run unaccelerated, because the host at the
address has to prove the name.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

from dwcp_migrate.config import Config, PeerConfig
from dwcp_migrate.config.addresses import is_ip_address, normalise_address
from dwcp_migrate.state.fleet.model import HostReach, HostRecord

WILDCARD: Final = "*."


def is_allowed(name: str, patterns: Iterable[str]) -> bool:
    """Whether a certificate's name is one that is believed to be a host of the fleet.

    Args:
        name: as the certificate has it.
        patterns: names, or `*.domain` for every name with one label before that domain.
    """
    name = name.rstrip(".").lower()
    parent = name.partition(".")[2]
    return any(
        parent == pattern[len(WILDCARD) :] if pattern.startswith(WILDCARD) else name == pattern
        for pattern in (one.rstrip(".").lower() for one in patterns)
    )


def usable_addresses(addresses: Iterable[str]) -> list[str]:
    """Those that another host can dial, each once: no names, loopback, link-local or multicast addresses."""
    found = dict.fromkeys(normalise_address(one) for one in addresses if is_ip_address(one))
    return [one for one in found if _is_usable(ipaddress.ip_address(one))]


def _is_usable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast)


def fleet_peers(hosts: Mapping[str, HostRecord], own_name: str, config: Config) -> tuple[PeerConfig, ...]:
    """The fleet's hosts as peers, by name; those that the configuration lists are left to it.

    Args:
        hosts: of the fleet's state.
        own_name: this host's.
        config: this host's.
    """
    coordination = config.coordination
    listed = {peer.name.lower() for peer in config.peers} | {own_name.lower()}
    found = []
    for name in sorted(hosts):
        host = hosts[name]
        addresses = usable_addresses([host.reach.migration_address, *host.reach.addresses])
        is_ours = host.trust_domain == coordination.trust_domain
        if addresses and is_ours and name.lower() not in listed and is_allowed(name, coordination.discover):
            found.append(PeerConfig(name, addresses, host.reach.port, coordination.trust_domain))
    return tuple(found)


def ports_that_differ(reach: HostReach, config: Config) -> str:
    """Say which part of a host's published migration range is not redirected here.

    Args:
        reach: that the host published.
        config: of this host.

    Returns:
        Text for people; empty where all of it is redirected.
    """
    ours = config.intercept
    if ours.port_min <= reach.port_min and reach.port_max <= ours.port_max:
        return ""
    return (
        f"it migrates at {reach.port_min} to {reach.port_max}, here {ours.port_min} to {ours.port_max} are redirected"
    )
