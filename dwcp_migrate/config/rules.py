"""Rules that types cannot express: addresses, names, ports, templates, and keys that contradict each other.

Each fault names its key and value, and all of them are found at once. No file, no resolver: a host name is judged by
its spelling.
"""

from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Final
from urllib.parse import urlsplit

from dwcp_migrate.config.addresses import address_fault, is_host_name, is_ip_address, normalise_address
from dwcp_migrate.config.model import Config, CoordinationConfig, EtcdConfig, MetricsConfig, PbftConfig, PeerConfig
from dwcp_migrate.errors import ConfigFault

SOCKET_PATH_BYTES_MAX: Final = 107
"""Longest path in a Unix socket's address (unix(7))."""


def faults(config: Config) -> list[ConfigFault]:
    """Find everything that is wrong with a configuration whose types are right."""
    return [
        *_host_names(config),
        *_names(config.peers),
        *_addresses(config.peers),
        *_link_addresses(config.peers),
        *_paths(config),
        *_ports(config),
        *_listeners(config),
        *_same_ports(config),
        *_libvirt(config),
        *_joined(config),
        *_rates(config),
        *_hours(config),
        *_domains(config),
        *_coordination_addresses(config.coordination),
        *_coordination(config),
        *_etcd(config.coordination.etcd),
        *_halves("metrics", config.metrics),
        *_pbft(config.coordination.pbft),
    ]


def _host_names(config: Config) -> Iterator[ConfigFault]:
    named = [("name", config.name)] if config.name else []
    named += [(f"peers[{number}].name", peer.name) for number, peer in enumerate(config.peers)]
    named += [(f"coordination.voters[{place}]", name) for place, name in enumerate(config.coordination.voters)]
    for key, name in named:
        if not (is_host_name(name) or is_ip_address(name)):
            hint = "write the name that the host's certificate carries, as hv2.example.net"
            yield ConfigFault(key, name, "it is no host name", hint)


def _paths(config: Config) -> Iterator[ConfigFault]:
    etcd = config.coordination.etcd
    paths = {
        "runtime_directory": str(config.runtime_directory),
        "state_directory": str(config.state_directory),
        "tls.ca": str(config.tls.ca),
        "tls.certificate": str(config.tls.certificate),
        "tls.key": str(config.tls.key),
        "coordination.pbft.key": str(config.coordination.pbft.key),
        "record.directory": config.record.directory,
        "coordination.etcd.ca": etcd.ca,
        "coordination.etcd.certificate": etcd.certificate,
        "coordination.etcd.key": etcd.key,
        "coordination.etcd.password_file": etcd.password_file,
        "metrics.certificate": config.metrics.certificate,
        "metrics.key": config.metrics.key,
        "metrics.password_file": config.metrics.password_file,
    }
    for key, path in paths.items():
        if path and not Path(path).is_absolute():
            yield ConfigFault(key, path, "it is no whole path", "begin it with a slash: the service starts in /")
    longest = max(len(str(path).encode()) for path in (config.control_socket, config.hook_socket))
    if longest > SOCKET_PATH_BYTES_MAX:
        why = f"its sockets' paths take {longest} bytes, and a socket's address holds {SOCKET_PATH_BYTES_MAX}"
        yield ConfigFault("runtime_directory", str(config.runtime_directory), why, "the default is /run/dwcp-migrate")


def _names(peers: list[PeerConfig]) -> Iterator[ConfigFault]:
    seen: dict[str, int] = {}
    for number, peer in enumerate(peers):
        first = seen.setdefault(peer.name.lower(), number)
        if first != number:
            yield ConfigFault(
                f"peers[{number}].name", peer.name, f"peers[{first}] has that name", "names are those of certificates"
            )


def _addresses(peers: list[PeerConfig]) -> Iterator[ConfigFault]:
    seen: dict[str, str] = {}
    for number, peer in enumerate(peers):
        for place, address in enumerate(peer.addresses):
            key = f"peers[{number}].addresses[{place}]"
            why, hint = address_fault(address)
            if why:
                yield ConfigFault(key, address, why, hint)
                continue
            first = seen.setdefault(normalise_address(address), key)
            if first != key:
                yield ConfigFault(key, address, f"{first} is the same address", "leave one of them out")


def _link_addresses(peers: list[PeerConfig]) -> Iterator[ConfigFault]:
    for number, peer in enumerate(peers):
        seen: set[str] = set()
        for place, address in enumerate(peer.link_addresses):
            key = f"peers[{number}].link_addresses[{place}]"
            why, hint = address_fault(address)
            if not why and not is_ip_address(address):
                why, hint = "it is no IP address", "a path is an address, as 192.0.2.12; names belong into `addresses`"
            elif not why and normalise_address(address) in seen:
                why, hint = "it stands there twice", "leave one of them out"
            if why:
                yield ConfigFault(key, address, why, hint)
            else:
                seen.add(normalise_address(address))


def _ports(config: Config) -> Iterator[ConfigFault]:
    """Find ports of agents that the redirect would catch."""
    intercept = config.intercept
    if intercept.port_min > intercept.port_max:
        why = f"it is above intercept.port_max, {intercept.port_max}"
        yield ConfigFault(
            "intercept.port_min", intercept.port_min, why, "write qemu.conf's range, the lower port first"
        )
        return
    within = f"it is between intercept.port_min and intercept.port_max ({intercept.port_min}-{intercept.port_max})"
    hint = "these are QEMU's; the default is 7802"
    if intercept.port_min <= config.link.port <= intercept.port_max:
        yield ConfigFault("link.port", config.link.port, within, hint)
    for number, peer in enumerate(config.peers):
        if intercept.port_min <= peer.port <= intercept.port_max:
            yield ConfigFault(f"peers[{number}].port", peer.port, within, hint)


def _listeners(config: Config) -> Iterator[ConfigFault]:
    if not is_ip_address(config.link.listen):
        yield ConfigFault("link.listen", config.link.listen, "it is no IP address", "`::` is every address")
    where = config.metrics_listen
    if where and not listen_port(where):
        hint = 'as "127.0.0.1:7803" or "[::1]:7803"; empty is off'
        yield ConfigFault("metrics_listen", where, "it is no ADDRESS:PORT", hint)


def listen_port(where: str) -> int:
    """Return the port of `ADDRESS:PORT`; 0 where it is not spelt so."""
    address, _, port = where.rpartition(":")
    good = is_ip_address(address.strip("[]")) and port.isdecimal() and 0 < int(port) < 1 << 16
    return int(port) if good else 0


def _same_ports(config: Config) -> Iterator[ConfigFault]:
    """Find ports of this host that two listeners want."""
    ports = {
        "intercept.port": config.intercept.port,
        "intercept.explicit_port": config.intercept.explicit_port,
        "link.port": config.link.port,
        "metrics_listen": listen_port(config.metrics_listen) if config.metrics_listen else 0,
    }
    seen: dict[int, str] = {}
    for key, port in ports.items():
        first = seen.setdefault(port, key)
        if port and first != key:
            value = config.metrics_listen if key == "metrics_listen" else port
            hint = "defaults: intercept.port 7801, link.port 7802, metrics_listen 127.0.0.1:7803"
            yield ConfigFault(key, value, f"{first} is the same port", hint)


def _libvirt(config: Config) -> Iterator[ConfigFault]:
    uri = config.libvirt_uri
    if uri and urlsplit(uri).scheme.partition("+")[0] not in {"qemu", "test"}:
        hint = 'as "qemu:///system"; empty runs without libvirt\'s names and statistics'
        yield ConfigFault("libvirt_uri", uri, "it leads to no QEMU", hint)


def _joined(config: Config) -> Iterator[ConfigFault]:
    if why := template_fault(config.placement.uri):
        hint = "put {address} or {name} in it, as in qemu+ssh://{address}/system"
        yield ConfigFault("placement.uri", config.placement.uri, why, hint)
    if config.placement.address and (found := address_fault(config.placement.address))[0]:
        yield ConfigFault("placement.address", config.placement.address, *found)
    if config.link.channels > config.link.channels_max:
        why = f"it is above link.channels_max, {config.link.channels_max}"
        yield ConfigFault("link.channels", config.link.channels, why, "raise link.channels_max, or take fewer channels")
    control = config.link.congestion_control
    if control and not control.replace("_", "").replace("-", "").isalnum():
        yield ConfigFault("link.congestion_control", control, "it is no name of one", 'as "bbr" or "cubic"')
    intercept = config.intercept
    if intercept.explicit_port and intercept.explicit_peer not in {peer.name for peer in config.peers}:
        yield ConfigFault(
            "intercept.explicit_peer",
            intercept.explicit_peer,
            "intercept.explicit_port needs one",
            "name one of the peers",
        )


def template_fault(uri: str) -> str:
    """Say what is wrong with the pattern of a libvirtd's URI; empty if nothing is."""
    try:
        fields = [(name, spec) for _, name, spec, _ in Formatter().parse(uri) if name is not None]
    except ValueError:
        return "its braces do not match"
    strange = [name for name, spec in fields if name not in {"address", "name"} or spec]
    if strange:
        return f"nothing is filled in for {{{strange[0]}}}"
    if not fields:
        return "it is the same for all hosts"
    return "" if "://" in uri else "it is no URI"


def _rates(config: Config) -> Iterator[ConfigFault]:
    bandwidth = config.bandwidth
    most, kept = bandwidth.link_bytes_per_s_max, bandwidth.reserved_bytes_per_s
    if most and kept >= most:
        why = f"bandwidth.link_bytes_per_s_max, {most:.0f}, leaves nothing beside it"
        yield ConfigFault("bandwidth.reserved_bytes_per_s", kept, why, "reserve less, or raise the maximum")


def _hours(config: Config) -> Iterator[ConfigFault]:
    found = [(f"peers[{number}]", entry.hours) for number, entry in enumerate(config.peers)]
    found += [(f"domains[{number}]", entry.hours) for number, entry in enumerate(config.domains)]
    for table, all_hours in found:
        for place, hours in enumerate(all_hours):
            if hours.begin == hours.end:
                hint = "for the whole day use link_bytes_per_s_max of the entry itself"
                yield ConfigFault(f"{table}.hours[{place}].end", hours.end, "it ends when it begins", hint)


def _domains(config: Config) -> Iterator[ConfigFault]:
    """Find names that an earlier entry takes: the first counts."""
    seen: dict[str, str] = {}
    for number, entry in enumerate(config.domains):
        for place, name in enumerate(entry.names):
            key = f"domains[{number}].names[{place}]"
            first = seen.setdefault(name, key)
            if first != key:
                yield ConfigFault(key, name, f"{first} is the same, and the first counts", "leave one of them out")


def _etcd(etcd: EtcdConfig) -> Iterator[ConfigFault]:
    yield from _halves("coordination.etcd", etcd)
    if etcd.certificate and etcd.key and not etcd.ca:
        key, hint = "coordination.etcd.certificate", "name coordination.etcd.ca, or leave certificate and key out"
        yield ConfigFault(key, etcd.certificate, "it only counts beside coordination.etcd.ca", hint)


def _halves(table: str, found: EtcdConfig | MetricsConfig) -> Iterator[ConfigFault]:
    """Find one of two keys that only mean something together."""
    for one, other in (("certificate", "key"), ("username", "password_file")):
        here, missing = (one, other) if getattr(found, one) else (other, one)
        if getattr(found, here) and not getattr(found, missing):
            hint = f"{table}.{missing} is missing"
            yield ConfigFault(f"{table}.{here}", getattr(found, here), "it is half of a pair", hint)


def _coordination_addresses(coordination: CoordinationConfig) -> Iterator[ConfigFault]:
    for place, endpoint in enumerate(coordination.endpoints):
        if not _is_http(endpoint):
            hint = 'as "https://etcd1.example.net:2379"'
            yield ConfigFault(f"coordination.endpoints[{place}]", endpoint, "it is no http or https URL", hint)
    for place, address in enumerate(coordination.addresses):
        if not is_ip_address(address):
            key, hint = f"coordination.addresses[{place}]", "write an address of this host, as 192.0.2.11"
            yield ConfigFault(key, address, "it is no IP address", hint)


def _coordination(config: Config) -> Iterator[ConfigFault]:
    coordination: CoordinationConfig = config.coordination
    names = {peer.name for peer in config.peers}
    for place, name in enumerate(coordination.voters):
        key = f"coordination.voters[{place}]"
        if config.name and name != config.name and name not in names:
            yield ConfigFault(key, name, "it is no peer", "add it to [[peers]]")
        if name in coordination.voters[:place]:
            yield ConfigFault(key, name, "it is named twice", "leave one of them out")
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


def _is_http(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is none
        return False


def _pbft(pbft: PbftConfig) -> Iterator[ConfigFault]:
    names = [member.name for member in (*pbft.members, *pbft.clients)]
    for place, name in enumerate(names):
        if name in names[:place]:
            yield ConfigFault("coordination.pbft", name, "it is named twice", "members need not be clients")
    keys = [member.key for member in (*pbft.members, *pbft.clients)]
    for place, key in enumerate(keys):
        if key in keys[:place] and names[place] not in names[:place]:
            hint = "each host makes its own: `dwcp-migrate cluster key` there"
            yield ConfigFault("coordination.pbft", key, f"{names[keys.index(key)]} has the same key", hint)
    if pbft.members and not pbft.cluster:
        yield ConfigFault(
            "coordination.pbft.cluster",
            pbft.cluster,
            "coordination.pbft.members needs it",
            "32 hexadecimal digits, the same on every host: `openssl rand -hex 16`",
        )
