"""Interception of QEMU's outgoing connections by an nftables table that dies with the agent.

The rule: what the agent does not hold up, the kernel removes. The table is owned by the agent's netlink socket, so an
agent that crashes leaves plain TCP behind, and the agent's own sockets pass by their mark. While it lives the chain is
never empty: with the last NAT rule of a network namespace the kernel takes connection tracking away, and connections
that were redirected already would break in mid-migration (measured). So a rule that matches nothing (ports 1 to 0)
stays until the agent ends.

    table ip dwcp_migrate {            # flags owner; a second one, `ip6`, where a peer has such an address
        chain redirect {
            type nat hook output priority -100
            ip daddr PEER tcp dport 49152-49215 meta mark != MARK counter redirect to :7801     # one a peer address
        }
    }

It matches no user: libvirtd itself opens the connection in the plain case, QEMU with `--parallel` or `--postcopy`.

For the same reason a data process holds a table of its own with such a rule (`keep_translation`): when the agent dies,
the data process dies after it, and QEMU must still hear its sockets close. Without the translation their FIN or RST
would come from an address that QEMU never connected to, and a QEMU that only waits would wait for ever.
"""

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final

from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import NFPROTO_IPV4, NFPROTO_IPV6, Cmp, Meta, Regs
from pyroute2.nftables.expressions import genex

from dwcp_migrate.errors import HypervisorError
from dwcp_migrate.hypervisor.base import Caught, Redirect
from dwcp_migrate.hypervisor.nftables import (
    Expression,
    Nftables,
    attributes,
    drop_rules,
    nat_output_chain,
    owned_table,
    rule,
)

TABLE: Final = "dwcp_migrate"
CHAIN: Final = "redirect"

REDIRECTS_MAX: Final = 256
"""Peer addresses. Rules are tried in turn for each new connection of the host, about 10 ns each, and pyroute2 takes
3.4 ms to encode one."""

_NETWORK_HEADER: Final = 1
_TRANSPORT_HEADER: Final = 2
_DESTINATION_PORT: Final = (2, 2)
_DESTINATION: Final = {NFPROTO_IPV4: (16, 4), NFPROTO_IPV6: (24, 16)}
"""Offset and length of the destination address in the network header, by family."""

_HOLD: Final = {NFPROTO_IPV4: "0.0.0.0", NFPROTO_IPV6: "::"}  # noqa: S104 - nobody listens there
"""Address of the rule that only holds connection tracking up."""

_CMP_DATA: Final = 3
_DATA_VALUE: Final = 1
_COUNTER_BYTES: Final = 1
_COUNTER_PACKETS: Final = 2
_SO_ORIGINAL_DST: Final = 80
_SOCKADDR_IN: Final = struct.Struct("!HH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!HHI16sI")


class NftInterceptor:
    """The redirects in the kernel, see `base.Interceptor`."""

    def __init__(self) -> None:
        self._nftables = Nftables()
        self._families: tuple[int, ...] = ()

    def arm(self, redirects: Sequence[Redirect]) -> None:
        """See `base.Interceptor.arm`; also refuses more than `REDIRECTS_MAX`."""
        if len(redirects) > REDIRECTS_MAX:
            self.disarm()
            raise HypervisorError(f"{len(redirects)} peer addresses, at most {REDIRECTS_MAX} can be redirected")
        families = sorted({_family(redirect.address) for redirect in redirects} | set(self._families))
        try:
            self._nftables.commit([change for family in families for change in _changes(family, redirects)])
        except HypervisorError:
            self.disarm()
            raise
        self._families = tuple(families)

    def disarm(self) -> None:
        """See `base.Interceptor.disarm`. The chain stays and holds the translation up, see the rule above."""
        self._nftables.commit([change for family in self._families for change in _changes(family, ())])

    def caught(self) -> list[Caught]:
        """See `base.Interceptor.caught`."""
        found = [_caught(rule) for family in self._families for rule in self._nftables.rules(family, TABLE)]
        return [caught for caught in found if caught.address not in _HOLD.values()]

    def keep_translation(self) -> socket.socket:
        """See `base.Interceptor.keep_translation`."""
        table = f"{TABLE}_{os.urandom(8).hex()}"
        kept, far = socket.socketpair()
        with far, Nftables() as nftables:
            nftables.commit([change for family in self._families for change in _changes(family, (), table)])
            # In flight, it is let go when `kept` is: a process that ends closes all its descriptors first, in whatever
            # order, and what a closed socket's queue held only after that.
            socket.send_fds(far, [b"table"], [nftables.fileno()])
        return kept

    def close(self) -> None:
        """See `base.Interceptor.close`."""
        self._nftables.close()
        self._families = ()


def _changes(family: int, redirects: Sequence[Redirect], table: str = TABLE) -> list[nfgen_msg]:
    """Put exactly the redirects of one family in force."""
    hold = Redirect(_HOLD[family], port_min=1, port_max=0, to_port=1, mark=0)
    mine = [redirect for redirect in redirects if _family(redirect.address) == family]
    return [
        owned_table(family, table),
        nat_output_chain(family, table, CHAIN),
        drop_rules(family, table, CHAIN),
        *(rule(family, table, CHAIN, _expressions(family, redirect)) for redirect in [*mine, hold]),
    ]


def _family(address: str) -> int:
    family: int = NFPROTO_IPV6 if ":" in address else NFPROTO_IPV4
    return family


def _expressions(family: int, redirect: Redirect) -> list[Any]:
    """Encode a redirect: each load into register 1 is followed by the comparison that may end the rule."""
    offset, length = _DESTINATION[family]
    address = ipaddress.ip_address(redirect.address).packed
    ports = _DESTINATION_PORT
    return [
        _load_payload(_NETWORK_HEADER, offset, length),
        _compare(Cmp.NFT_CMP_EQ, address),
        _load_meta(Meta.NFT_META_L4PROTO),
        _compare(Cmp.NFT_CMP_EQ, bytes([socket.IPPROTO_TCP])),
        _load_payload(_TRANSPORT_HEADER, *ports),
        _compare(Cmp.NFT_CMP_GTE, redirect.port_min.to_bytes(2)),
        _compare(Cmp.NFT_CMP_LTE, redirect.port_max.to_bytes(2)),
        _load_meta(Meta.NFT_META_MARK),
        _compare(Cmp.NFT_CMP_NEQ, redirect.mark.to_bytes(4, sys.byteorder)),
        genex("counter", {"bytes": 0, "packets": 0}),
        genex("immediate", {"dreg": Regs.NFT_REG_1, "data": _value(redirect.to_port.to_bytes(2))}),
        genex("redir", {"reg_proto_min": Regs.NFT_REG_1}),
    ]


def _load_payload(base: int, offset: int, length: int) -> Any:
    return genex("payload", {"dreg": Regs.NFT_REG_1, "base": base, "offset": offset, "len": length})


def _load_meta(key: int) -> Any:
    return genex("meta", {"dreg": Regs.NFT_REG_1, "key": key})


def _compare(op: int, value: bytes) -> Any:
    return genex("cmp", {"sreg": Regs.NFT_REG_1, "op": op, "data": _value(value)})


def _value(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _caught(found: list[Expression]) -> Caught:
    """Read a rule of ours back: its address is in the first comparison."""
    first = {expression.name: expression.values for expression in reversed(found)}
    packed = attributes(first["cmp"][_CMP_DATA])[_DATA_VALUE]
    counter = first["counter"]
    return Caught(
        address=str(ipaddress.ip_address(packed)),
        packets=int.from_bytes(counter[_COUNTER_PACKETS]),
        bytes=int.from_bytes(counter[_COUNTER_BYTES]),
    )


def original_destination(connection: socket.socket) -> tuple[str, int] | None:
    """Where a redirected connection wanted to go; None when it was not redirected.

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
