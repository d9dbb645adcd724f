"""Rules that the types of the configuration cannot express: addresses, names, and keys that contradict each other.

Each fault names its key and value, and all of them are found at once. No file, no resolver: a host name is judged by
its spelling.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dwcp_migrate.errors import ConfigFault

if TYPE_CHECKING:
    from dwcp_migrate.config import Config, CoordinationConfig, PbftConfig, PeerConfig

NAME_LENGTH_MAX: Final = 253
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]+")
_WITH_PORT: Final = re.compile(r"[^:]+:[0-9]+|\[.*\](:[0-9]+)?")


def faults(config: "Config") -> list[ConfigFault]:
    """Find everything that is wrong with a configuration whose types are right."""
    return [
        *_names(config.peers),
        *_addresses(config.peers),
        *_ports(config),
        *_listeners(config),
        *_joined(config),
        *_coordination(config),
        *_pbft(config.coordination.pbft),
    ]


def canonical(address: str) -> str:
    """One spelling for each IP address, IPv4 mapped into IPv6 included; a name in lower case without a last dot."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address.lower().rstrip(".")
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def is_ip_address(text: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def address_fault(text: str) -> tuple[str, str]:
    """Say what is wrong with an address of a peer and what to do about it; twice empty if nothing is."""
    if not text.strip():
        return "it is empty", "leave it out"
    if "/" in text:
        return "it is a network", "list single addresses"
    if _WITH_PORT.fullmatch(text):
        return "it has a port or brackets", "write the address alone; the agent's port is the key `port` of the peer"
    if is_ip_address(text):
        return _ip_fault(text)
    if not _is_host_name(text):
        return "it is neither an IP address nor a host name", "correct it"
    return "", ""


def _ip_fault(text: str) -> tuple[str, str]:
    parsed = ipaddress.ip_address(text)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.is_link_local:
        return "it is link-local, so that it means nothing without an interface", "list a routable address"
    if parsed.is_unspecified or parsed.is_multicast:
        return "no host has it", "list the host's own addresses"
    if parsed.is_loopback:
        return "every host has it", "list the addresses by which other hosts reach it"
    return "", ""


def _is_host_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    whole = len(text) <= NAME_LENGTH_MAX and all(_LABEL.fullmatch(label) for label in labels)
    return whole and not _NUMERIC.fullmatch(labels[-1])  # as in 192.0.2.300, which is no name


def _names(peers: "list[PeerConfig]") -> Iterator[ConfigFault]:
    seen: dict[str, int] = {}
    for number, peer in enumerate(peers):
        first = seen.setdefault(peer.name.lower(), number)
        if first != number:
            yield ConfigFault(
                f"peers[{number}].name", peer.name, f"peers[{first}] has that name", "names are those of certificates"
            )


def _addresses(peers: "list[PeerConfig]") -> Iterator[ConfigFault]:
    seen: dict[str, str] = {}
    for number, peer in enumerate(peers):
        for place, address in enumerate(peer.addresses):
            key = f"peers[{number}].addresses[{place}]"
            why, hint = address_fault(address)
            if why:
                yield ConfigFault(key, address, why, hint)
                continue
            first = seen.setdefault(canonical(address), key)
            if first != key:
                yield ConfigFault(key, address, f"{first} is the same address", "leave one of them out")


def _ports(config: "Config") -> Iterator[ConfigFault]:
    """Find ports of agents that the redirect would catch."""
    intercept = config.intercept
    if intercept.port_min > intercept.port_max:
        yield ConfigFault("intercept.port_min", intercept.port_min, "it is above intercept.port_max")
        return
    within = f"it is between intercept.port_min and intercept.port_max ({intercept.port_min}-{intercept.port_max})"
    hint = "these are QEMU's; the default is 7802"
    if intercept.port_min <= config.link.port <= intercept.port_max:
        yield ConfigFault("link.port", config.link.port, within, hint)
    for number, peer in enumerate(config.peers):
        if intercept.port_min <= peer.port <= intercept.port_max:
            yield ConfigFault(f"peers[{number}].port", peer.port, within, hint)


def _listeners(config: "Config") -> Iterator[ConfigFault]:
    if not is_ip_address(config.link.listen):
        yield ConfigFault("link.listen", config.link.listen, "it is no IP address", "`::` is every address")
    if config.link.port == config.intercept.port:
        yield ConfigFault("link.port", config.link.port, "intercept.port is the same", "the default is 7802")
    where = config.metrics_listen
    address, _, port = where.rpartition(":")
    if where and not (is_ip_address(address.strip("[]")) and port.isdecimal() and 0 < int(port) < 1 << 16):
        yield ConfigFault("metrics_listen", where, "it is no ADDRESS:PORT", 'as "127.0.0.1:9177" or "[::1]:9177"')


def _joined(config: "Config") -> Iterator[ConfigFault]:
    if "{address}" not in config.placement.uri and "{name}" not in config.placement.uri:
        yield ConfigFault(
            "placement.uri", config.placement.uri, "it is the same for all hosts", "put {address} or {name} in it"
        )
    if config.link.channels > config.link.channels_max:
        yield ConfigFault("link.channels", config.link.channels, "it is above link.channels_max")
    intercept = config.intercept
    if intercept.explicit_port and intercept.explicit_peer not in {peer.name for peer in config.peers}:
        yield ConfigFault(
            "intercept.explicit_peer",
            intercept.explicit_peer,
            "intercept.explicit_port needs one",
            "name one of the peers",
        )


def _coordination(config: "Config") -> Iterator[ConfigFault]:
    coordination: CoordinationConfig = config.coordination
    names = {peer.name for peer in config.peers}
    for place, name in enumerate(coordination.voters):
        key = f"coordination.voters[{place}]"
        if config.name and name != config.name and name not in names:
            yield ConfigFault(key, name, "it is no peer", "add it to [[peers]]")
        if name in coordination.voters[:place]:
            yield ConfigFault(key, name, "it is named twice")
    for place, address in enumerate(coordination.addresses):
        if not is_ip_address(address):
            yield ConfigFault(f"coordination.addresses[{place}]", address, "it is no IP address")
    if coordination.require == "across" and not coordination.pbft.is_used:
        yield ConfigFault(
            "coordination.require",
            coordination.require,
            "it needs a PBFT group",
            "name its members in [coordination.pbft], the same on every host",
        )
    if coordination.discover and not coordination.is_shared:
        yield ConfigFault(
            "coordination.discover",
            ", ".join(coordination.discover),
            "hosts are found by the fleet's state, and there is none",
            "name coordination.voters, or use etcd",
        )
    if coordination.require is True and not coordination.is_shared:
        yield ConfigFault(
            "coordination.require",
            coordination.require,
            "it needs coordination.voters",
            "name the hosts with a vote, three or five of them, the same on every host",
        )


def _pbft(pbft: "PbftConfig") -> Iterator[ConfigFault]:
    names = [member.name for member in (*pbft.members, *pbft.clients)]
    for place, name in enumerate(names):
        if name in names[:place]:
            yield ConfigFault("coordination.pbft", name, "it is named twice", "members need not be clients")
    if pbft.members and not pbft.cluster:
        yield ConfigFault(
            "coordination.pbft.cluster",
            pbft.cluster,
            "coordination.pbft.members needs it",
            "32 hexadecimal digits, the same on every host: `openssl rand -hex 16`",
        )
