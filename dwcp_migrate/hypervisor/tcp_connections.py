"""The established TCP connections of this network namespace, as /proc/net shows them to everybody."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc/net")

BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes that are read of each file, 200,000 connections; the rest is ignored."""

_ESTABLISHED: Final = "01"


@dataclass(frozen=True, slots=True)
class TcpConnection:
    """One end of a connection: IPv4 addresses that are mapped into IPv6 are told as IPv4; `uid` owns this end."""

    address: str
    port: int
    far_address: str
    far_port: int
    uid: int


def read_established(proc: Path = PROC) -> list[TcpConnection]:
    """Read them all; a family that the kernel does not have has none. Blocks for a millisecond per thousand."""
    found: list[TcpConnection] = []
    for name in ("tcp", "tcp6"):
        try:
            with (proc / name).open(encoding="ascii", errors="replace") as file:
                text = file.read(BYTES_MAX)
        except OSError:
            continue
        found += parse(text)
    return found


def parse(text: str) -> list[TcpConnection]:
    """Read a file of the kind of /proc/net/tcp; lines of another form are left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            near, far, state, uid = fields[1], fields[2], fields[3], int(fields[7])
            if state == _ESTABLISHED:
                found.append(TcpConnection(*_end(near), *_end(far), uid))
        except (IndexError, ValueError):
            continue
    return found


def _end(text: str) -> tuple[str, int]:
    """Read `0100007F:C000`: words of 32 bits in the host's order, then the port."""
    digits, _, port = text.partition(":")
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    packed = b"".join(words)
    address = ip_address(packed)  # not socket.inet_ntop, in whose place pysyncobj puts one for Windows
    return str(getattr(address, "ipv4_mapped", None) or address), int(port, 16)
