"""Interception of QEMU's outgoing connections by an nftables table that dies with the agent.

The table is owned by the agent's netlink socket, and the kernel removes it with the socket: after a crash of the agent
connections are plain TCP. While the agent lives the chain is never empty: with the last NAT rule of a network namespace
the kernel ends connection tracking, and redirected connections would break in mid-migration (measured). So a rule that
matches nothing (ports 1 to 0) stays until the agent ends.

    table ip dwcp_migrate {            # flags owner; a second one, `ip6`, where a peer has such an address
        set peers { type ipv4_addr; counter; }
        set alive { type mark; timeout 6s; }                         # one element, put in anew by an agent that lives
        set foreign2 { type cgroupsv2; }                             # one a level at which there are such groups
        chain redirect {
            type nat hook output priority -100
            socket cgroupv2 level 2 @foreign2 return
            tcp dport 49152-49215 meta skuid != AGENT 1 @alive ip daddr @peers counter redirect to :7801
        }
    }

An agent that hangs would hold up every connection that is caught. So the rule matches only while the agent reports that
it lives (`keep_alive`); a few seconds after the last report connections pass as if there were no rule.

A set is looked up in constant time, and a change of the peers sends only the changed elements to the kernel. The
agent's own sockets pass by their user. An agent that runs as root shares its user with libvirtd, and marks its sockets
instead.

It matches no user of QEMU's: libvirtd itself opens the connection in the plain case, QEMU with `--parallel` or
`--postcopy`. Connections of services that are known to be neither pass by their control group (see `cgroups`), for
instance to storage that listens in libvirt's range. A kernel that cannot tell a socket's group redirects those too.

A data process holds a table of its own with a rule that matches nothing (`keep_translation`): when it ends after its
agent, QEMU must still see its sockets close. Without address translation their FIN or RST would come from an address
that QEMU never connected to, and a QEMU that only waits would wait for ever.
"""

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Final

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.base import Caught, Cgroup, Redirect
from dwcp_migrate.hypervisor.netlink import expressions as ex
from dwcp_migrate.hypervisor.netlink.nftables import (
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    Nftables,
    TableChange,
    add_elements,
    append_rule,
    delete_elements,
    drop_rules,
    flush_set,
    named_set,
    nat_output_chain,
    owned_table,
)
from dwcp_migrate.logs import get_logger

TABLE: Final = "dwcp_migrate"
CHAIN: Final = "redirect"
PEERS: Final = "peers"
ALIVE: Final = "alive"

ALIVE_S: Final = 6.0
"""Time from the agent's last `keep_alive` until the rule matches nothing: three of its periodic calls."""

_ALIVE_KEY: Final = (1).to_bytes(4)
_MARK_TYPE: Final = 19

IPV4_BYTES: Final = 4

_DESTINATION: Final = {NFPROTO_IPV4: (16, 4), NFPROTO_IPV6: (24, 16)}
"""Offset and length of the destination address in the network header, by family."""

_ADDRESS_TYPE: Final = {NFPROTO_IPV4: 7, NFPROTO_IPV6: 8}
_CGROUP_TYPE: Final = 46
"""nft's numbers of the data types of sets."""

_SO_ORIGINAL_DST: Final = 80
_SOCKADDR_IN: Final = struct.Struct("!HH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!HHI16sI")

log = get_logger(component="redirect")


class NftInterceptor:
    """The redirect in the kernel, see `base.Interceptor`.

    Args:
        alive_s: time from the last `keep_alive` until the rule matches nothing.
    """

    def __init__(self, alive_s: float = ALIVE_S) -> None:
        self._nftables = Nftables()
        self._alive_s = alive_s
        self._addresses: dict[int, frozenset[bytes]] = {}
        self._tells_groups = True

    def arm(self, redirect: Redirect) -> None:
        """See `base.Interceptor.arm`."""
        wanted = _by_family(redirect.addresses)
        families = sorted(wanted.keys() | self._addresses.keys())
        foreign = redirect.foreign if self._tells_groups else frozenset()
        try:
            try:
                self._put(families, wanted, redirect, foreign)
            except HypervisorError as error:
                if not foreign:
                    raise
                self._put(families, wanted, redirect, frozenset())
                self._tells_groups = False
                log.warning("connections of other services are redirected too", error=str(error))
        except HypervisorError:
            self.disarm()
            raise

    def _put(
        self,
        families: Iterable[int],
        wanted: dict[int, frozenset[bytes]],
        redirect: Redirect,
        foreign: frozenset[Cgroup],
    ) -> None:
        changes: list[TableChange] = []
        for family in families:
            before, after = self._addresses.get(family, frozenset()), wanted.get(family, frozenset())
            rules = [_redirecting(family, redirect)] if after else []
            changes += _frame(family, TABLE)
            changes += _set_of_peers(family, before, after)
            changes += [self._alive(family), *_sign_of_life(family)]
            changes += _sets_of_foreign(family, foreign)
            changes += _rules(family, TABLE, [*_passing(foreign), *rules])
        self._nftables.commit(changes)
        self._addresses = {family: wanted.get(family, frozenset()) for family in families}

    def keep_alive(self) -> None:
        """See `base.Interceptor.keep_alive`."""
        armed = [family for family, addresses in self._addresses.items() if addresses]
        self._nftables.commit([change for family in armed for change in _sign_of_life(family)])

    def _alive(self, family: int) -> TableChange:
        return named_set(family, TABLE, ALIVE, (_MARK_TYPE, len(_ALIVE_KEY)), lifetime_s=self._alive_s)

    def disarm(self) -> None:
        """See `base.Interceptor.disarm`. The chain stays and holds the translation up, see the module's head."""
        changes: list[TableChange] = []
        for family in self._addresses:
            changes += [*_frame(family, TABLE), *_rules(family, TABLE, []), _peers(family)]
            changes.append(flush_set(family, TABLE, PEERS))
        self._nftables.commit(changes)
        self._addresses = dict.fromkeys(self._addresses, frozenset())

    def caught(self) -> list[Caught]:
        """See `base.Interceptor.caught`."""
        return [
            Caught(_text(found.key), found.packets, found.bytes)
            for family in sorted(self._addresses)
            for found in sorted(self._nftables.elements(family, TABLE, PEERS), key=lambda found: found.key)
        ]

    def keep_translation(self) -> socket.socket:
        """See `base.Interceptor.keep_translation`."""
        table = f"{TABLE}_{os.urandom(8).hex()}"
        kept, far = socket.socketpair()
        with far, Nftables() as nftables:
            frames = [[*_frame(family, table), *_rules(family, table, [])] for family in self._addresses]
            nftables.commit([change for frame in frames for change in frame])
            # In flight, it is let go when `kept` is: a process that ends closes all its descriptors first, in whatever
            # order, and what a closed socket's queue held only after that.
            socket.send_fds(far, [b"table"], [nftables.fileno()])
        return kept

    def close(self) -> None:
        """See `base.Interceptor.close`."""
        self._nftables.close()
        self._addresses = {}


def _by_family(addresses: Iterable[str]) -> dict[int, frozenset[bytes]]:
    found: dict[int, set[bytes]] = {}
    for address in addresses:
        if ":" in address:
            found.setdefault(NFPROTO_IPV6, set()).add(ipaddress.IPv6Address(address).packed)
        else:
            found.setdefault(NFPROTO_IPV4, set()).add(socket.inet_aton(address))
    return {family: frozenset(mine) for family, mine in found.items()}


def _text(key: bytes) -> str:
    return socket.inet_ntoa(key) if len(key) == IPV4_BYTES else str(ipaddress.IPv6Address(key))


def _frame(family: int, table: str) -> list[TableChange]:
    return [owned_table(family, table), nat_output_chain(family, table, CHAIN)]


def _rules(family: int, table: str, rules: list[list[bytes]]) -> list[TableChange]:
    """Put exactly these in force, before the one that only holds connection tracking up."""
    hold = [*_tcp_ports(1, 0), *ex.redirect(1)]
    return [drop_rules(family, table, CHAIN), *(append_rule(family, table, CHAIN, each) for each in [*rules, hold])]


def _peers(family: int) -> TableChange:
    key = (_ADDRESS_TYPE[family], _DESTINATION[family][1])
    return named_set(family, TABLE, PEERS, key, ex.COUNTER)


def _sign_of_life(family: int) -> list[TableChange]:
    return [flush_set(family, TABLE, ALIVE), *add_elements(family, TABLE, ALIVE, [_ALIVE_KEY])]


def _set_of_peers(family: int, before: frozenset[bytes], after: frozenset[bytes]) -> list[TableChange]:
    return [
        _peers(family),
        *delete_elements(family, TABLE, PEERS, sorted(before - after)),
        *add_elements(family, TABLE, PEERS, sorted(after - before)),
    ]


def _levels(foreign: frozenset[Cgroup]) -> list[int]:
    return sorted({group.level for group in foreign})


def _sets_of_foreign(family: int, foreign: frozenset[Cgroup]) -> list[TableChange]:
    changes = []
    for level in _levels(foreign):
        name = f"foreign{level}"
        numbers = sorted(group.number for group in foreign if group.level == level)
        keys = [number.to_bytes(8, sys.byteorder) for number in numbers]
        changes += [named_set(family, TABLE, name, (_CGROUP_TYPE, 8)), flush_set(family, TABLE, name)]
        changes += add_elements(family, TABLE, name, keys)
    return changes


def _passing(foreign: frozenset[Cgroup]) -> list[list[bytes]]:
    return [[ex.load_cgroup(level), ex.look_up(f"foreign{level}"), ex.leave()] for level in _levels(foreign)]


def _tcp_ports(port_min: int, port_max: int) -> list[bytes]:
    return [
        ex.load_meta(ex.META_PROTOCOL),
        ex.compare(ex.EQUAL, bytes([socket.IPPROTO_TCP])),
        ex.load_payload(ex.TRANSPORT_HEADER, 2, 2),
        ex.compare(ex.AT_LEAST, port_min.to_bytes(2)),
        ex.compare(ex.AT_MOST, port_max.to_bytes(2)),
    ]


def _redirecting(family: int, redirect: Redirect) -> list[bytes]:
    """The rule that redirects; the address comes last, so that only what is redirected is counted."""
    found = _tcp_ports(redirect.port_min, redirect.port_max)
    if redirect.exempt.user:
        found += [
            ex.load_meta(ex.META_SOCKET_USER),
            ex.compare(ex.NOT_EQUAL, redirect.exempt.user.to_bytes(4, sys.byteorder)),
        ]
    if mark := redirect.exempt.mark:
        found += [
            ex.load_meta(ex.META_MARK),
            ex.mask(mark),
            ex.compare(ex.NOT_EQUAL, mark.to_bytes(4, sys.byteorder)),
        ]
    found += [ex.load_constant(_ALIVE_KEY), ex.look_up(ALIVE)]
    found += [ex.load_payload(ex.NETWORK_HEADER, *_DESTINATION[family]), ex.look_up(PEERS)]
    return found + ex.redirect(redirect.to_port)


def original_destination(connection: socket.socket) -> tuple[str, int] | None:
    """Original destination of a redirected connection; None when it was not redirected.

    Source: `SO_ORIGINAL_DST`, linux/netfilter_ipv4.h (also answered by IP6T_SO_ORIGINAL_DST for IPv6).
    """
    try:
        if connection.family == socket.AF_INET6:
            raw = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            _, port, _, packed, _ = _SOCKADDR_IN6.unpack(raw)
        else:
            raw = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
            _, port, packed = _SOCKADDR_IN.unpack(raw)
    except OSError:
        return None
    found = (str(ipaddress.ip_address(packed)), port)
    return None if found == connection.getsockname()[:2] else found
