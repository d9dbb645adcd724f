"""Expressions of nftables rules, each encoded as the element of a rule's list.

A load puts something of the packet or its socket into register 1; the comparison or look-up that follows it ends the
rule where it does not hold. Numbers are those of linux/netfilter/nf_tables.h.
"""

import sys
from typing import Final

from dwcp_migrate.hypervisor.netlink.attributes import attribute, nested, text, u32

EQUAL: Final = 0
NOT_EQUAL: Final = 1
AT_MOST: Final = 3
AT_LEAST: Final = 5

NETWORK_HEADER: Final = 1
TRANSPORT_HEADER: Final = 2

META_MARK: Final = 3
META_SOCKET_USER: Final = 10
META_PROTOCOL: Final = 16

_REGISTER: Final = 1
_VERDICT_REGISTER: Final = 0
_RETURN: Final = 0xFFFFFFFF - 4  # -5
_SOCKET_CGROUP: Final = 3


def load_payload(base: int, offset: int, length: int) -> bytes:
    """Load bytes of a header.

    Args:
        base: `NETWORK_HEADER` or `TRANSPORT_HEADER`.
        offset: of the bytes in the header.
        length: number of bytes.
    """
    return _expression("payload", u32(1, _REGISTER), u32(2, base), u32(3, offset), u32(4, length))


def load_meta(key: int) -> bytes:
    """Load something that the kernel knows of the packet."""
    return _expression("meta", u32(1, _REGISTER), u32(2, key))


def load_cgroup(level: int) -> bytes:
    """Load the id of the socket's cgroup at a level below the root; one that is not so deep ends the rule."""
    return _expression("socket", u32(1, _SOCKET_CGROUP), u32(2, _REGISTER), u32(3, level))


def compare(operation: int, value: bytes) -> bytes:
    """Go on with the rule only if the register compares so with a value.

    Args:
        operation: `EQUAL`, `NOT_EQUAL`, `AT_MOST` or `AT_LEAST`.
        value: as long as the bytes that were loaded, in their byte order.
    """
    return _expression("cmp", u32(1, _REGISTER), u32(2, operation), nested(3, attribute(1, value)))


def mask(bits: int) -> bytes:
    """Keep some bits of the 32 in the register, which are in the host's byte order."""
    kept, flipped = bits.to_bytes(4, sys.byteorder), bytes(4)
    return _expression(
        "bitwise",
        u32(1, _REGISTER),
        u32(2, _REGISTER),
        u32(3, 4),
        nested(4, attribute(1, kept)),
        nested(5, attribute(1, flipped)),
    )


def look_up(name: str) -> bytes:
    """Go on if the register's value is in a set."""
    return _expression("lookup", text(1, name), u32(2, _REGISTER))


def load_constant(value: bytes) -> bytes:
    """Load a value that is no packet's."""
    return _expression("immediate", u32(1, _REGISTER), nested(2, attribute(1, value)))


def leave() -> bytes:
    """Leave the chain: the packet goes on as it is."""
    return _expression("immediate", u32(1, _VERDICT_REGISTER), nested(2, nested(2, u32(1, _RETURN))))


def redirect(port: int) -> list[bytes]:
    """Send the connection to a port of the loopback interface."""
    value = nested(2, attribute(1, port.to_bytes(2)))
    return [_expression("immediate", u32(1, _REGISTER), value), _expression("redir", u32(1, _REGISTER))]


COUNTER: Final = text(1, "counter") + nested(2, attribute(1, bytes(8)), attribute(2, bytes(8)))
"""The expression that each element of a set gets, see `nftables.named_set`."""


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))
