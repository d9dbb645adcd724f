"""The unit that the transport carries: a run of one connection's bytes, as the session encoded it.

Rule: a segment is named by (direction, connection, sequence) and by nothing else. OPEN, FIN, RESET and MOVED
are segments without bytes, so that they are ordered, acknowledged and re-sent as all others are.
"""

from dataclasses import dataclass
from typing import Final

from dwcp_migrate.units import MIB

OPEN: Final = 0x01
"""Dial the target: the first segment of a connection."""
FIN: Final = 0x02
"""The sender's QEMU closed its writing half; nothing follows but a RESET."""
RESET: Final = 0x04
"""The sender's QEMU reset the connection."""
URGENT: Final = 0x08
"""Goes ahead of everything that is not urgent: return path, page requests, the tail of switchover."""
MOVED: Final = 0x10
"""The rest of this direction goes as it is over a detached channel (`FrameKind.DETACH`); only a RESET may follow."""
SEGMENT_FLAGS: Final = OPEN | FIN | RESET | URGENT | MOVED

PAYLOAD_BYTES_MAX: Final = 4 * MIB
"""Encoded bytes of one segment, and so of one frame."""
RAW_BYTES_MAX: Final = 16 * MIB
"""Bytes that one segment stands for. More than the payload, since zero pages cost almost nothing."""
CONNECTIONS_MAX: Final = 1024
"""Connections of one migration; multifd has at most 255 channels, NBD one or two a disk."""
REMARKS: Final = CONNECTIONS_MAX - 1
"""No connection of QEMU's: notes of the destination to the source about its page store, where both agents know them.
They may be missing when the session ends."""
SEQUENCE_MAX: Final = 2**62
"""Beyond what any migration sends; keeps arithmetic on sequences far from the field's end."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One run of a connection's bytes.

    Attributes:
        connection: which of QEMU's connections, below `CONNECTIONS_MAX`.
        sequence: 0, 1, 2... for each connection and direction, without gaps.
        flags: of OPEN, FIN, RESET, URGENT, MOVED.
        raw_size: bytes that it stands for, at most `RAW_BYTES_MAX`.
        checksum: xxh3_64 of those bytes; the transport carries it and never checks it.
        payload: the encoded bytes, at most `PAYLOAD_BYTES_MAX`. They must not change until acknowledged.
    """

    connection: int
    sequence: int
    flags: int = 0
    raw_size: int = 0
    checksum: int = 0
    payload: bytes | memoryview = b""
