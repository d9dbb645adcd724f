"""Addresses at which a TCP port is listened on, as the kernel lists them for this network namespace.

/proc/net/tcp, tcp6   one socket a line; local address as hexadecimal 32-bit words in the host's byte order
"""

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Final

_TABLES: Final = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))
_LISTENING: Final = "0A"
_WORD_DIGITS: Final = 8


def listening_addresses(port: int) -> list[str]:
    """Return addresses at which a connection to `port` of this host finds a listener; loopback where it takes all."""
    found = []
    for table in _TABLES:
        try:
            text = table.read_text()
        except OSError:  # no IPv6, or no /proc
            continue
        found += parse(text, port)
    return found


def parse(table: str, port: int) -> list[str]:
    """Read the listeners on a port from one of the kernel's tables.

    Args:
        table: content of /proc/net/tcp or tcp6.
        port: that is listened on.

    Returns:
        Addresses at which a connection of this host reaches them; loopback for a listener on all addresses.
    """
    rows = [line.split() for line in table.splitlines()[1:]]
    locals_ = [row[1].split(":") for row in rows if len(row) > 3 and row[3] == _LISTENING]  # noqa: PLR2004 - st
    return [_address(address) for address, digits in locals_ if int(digits, 16) == port]


def _address(digits: str) -> str:
    words = [digits[at : at + _WORD_DIGITS] for at in range(0, len(digits), _WORD_DIGITS)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ip_address(packed)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - IP's version
    return str(getattr(address, "ipv4_mapped", None) or address)
