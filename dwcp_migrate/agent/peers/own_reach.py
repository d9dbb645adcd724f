"""Facts that this host publishes to the fleet: its addresses, and the settings of its qemu.conf for migrations.

The rule: an address is published only where somebody meant other hosts to use it: configured, named by qemu.conf, what
this host's name resolves to, or the one that it reaches its peers from. Bridges of guests and containers have the same
address on every host, and are none.
"""

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dwcp_migrate.agent.peers.directory import numeric
from dwcp_migrate.agent.peers.fleet_peers import usable_addresses
from dwcp_migrate.config import Config
from dwcp_migrate.hypervisor.qemu_conf import QEMU_CONF, integer_setting, text_setting
from dwcp_migrate.net import family_of
from dwcp_migrate.state.fleet.model import REACH_ADDRESSES_MAX, HostReach

SEEDS_MAX: Final = 16
"""Peers towards which the own address is looked up."""


def own_reach(config: Config, own_name: str, root: Path = Path("/")) -> HostReach:
    """Find out; it reads a file and may ask a name server, so not on an event loop.

    Args:
        config: this host's.
        own_name: as its certificate has it.
        root: where the host's files are.
    """
    text = _text(root / QEMU_CONF)
    addresses = list(config.coordination.addresses)
    if not addresses:
        addresses = [*_resolved(own_name), *_towards(address for peer in config.peers for address in peer.addresses)]
    migration_address = text_setting(text, "migration_address")
    return HostReach(
        addresses=tuple(usable_addresses(addresses)[:REACH_ADDRESSES_MAX]),
        migration_address="".join(usable_addresses([migration_address])),
        port=config.link.port,
        port_min=integer_setting(text, "migration_port_min") or config.intercept.port_min,
        port_max=integer_setting(text, "migration_port_max") or config.intercept.port_max,
    )


def _resolved(name: str) -> list[str]:
    try:
        return [str(where[0]) for *_, where in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []


def _towards(addresses: Iterable[str]) -> list[str]:
    """The addresses of this host that it reaches others from; nothing is sent."""
    found = []
    for address in numeric(addresses)[:SEEDS_MAX]:
        with contextlib.suppress(OSError), socket.socket(family_of(address), socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            found.append(str(probe.getsockname()[0]))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
