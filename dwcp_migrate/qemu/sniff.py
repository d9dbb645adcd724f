"""Kind of a connection, recognised by its first eight bytes.

    51 45 56 4d | version        main channel ("QEVM")
    11 22 33 44 | 00 00 00 01    multifd channel
    16 03 01..04                 TLS: a migration with --tls
    server says "NBDMAGIC"       disk copy: the server speaks first, the client's side has no magic of its own

Anything else is opaque: postcopy's preempt channel, for one, begins with a page.
"""

from enum import StrEnum
from typing import Final

SNIFF_BYTES: Final = 8
MAIN_MAGIC: Final = b"QEVM"
MAIN_VERSIONS: Final = (2, 3)
MULTIFD_MAGIC: Final = b"\x11\x22\x33\x44"
MULTIFD_VERSION: Final = 1
NBD_GREETING: Final = b"NBDMAGIC"
TLS_HANDSHAKE: Final = 0x16


class StreamKind(StrEnum):
    """Kind of a connection."""

    UNKNOWN = "unknown"
    MAIN = "main"
    MULTIFD = "multifd"
    TLS = "tls"
    NBD = "nbd"
    OPAQUE = "opaque"


def sniff(head: bytes) -> StreamKind:
    """Name the kind from the first `SNIFF_BYTES` bytes; UNKNOWN while fewer came and all is still possible."""
    if head[:2] == bytes((TLS_HANDSHAKE, 3)):
        return StreamKind.TLS
    if len(head) < SNIFF_BYTES:
        possible = (MAIN_MAGIC, MULTIFD_MAGIC, bytes((TLS_HANDSHAKE, 3)))
        hopeful = any(head[: len(magic)] == magic[: len(head)] for magic in possible)
        return StreamKind.UNKNOWN if hopeful else StreamKind.OPAQUE
    version = int.from_bytes(head[4:8], "big")
    if head[:4] == MAIN_MAGIC and version in MAIN_VERSIONS:
        return StreamKind.MAIN
    if head[:4] == MULTIFD_MAGIC and version == MULTIFD_VERSION:
        return StreamKind.MULTIFD
    return StreamKind.OPAQUE


def is_nbd_greeting(reverse: bytes) -> bool:
    """True if the first bytes against the connection's direction are an NBD server's greeting."""
    return reverse[: len(NBD_GREETING)] == NBD_GREETING
