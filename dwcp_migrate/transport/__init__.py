"""AMST, the multi-stream transport: one migration over 1 to 512 TLS channels, any of which may die.

The protocol, byte by byte: docs/wire-protocol.md.

Modules:
    core: the protocol without I/O: frames, queues, channel health and count, rates
    io: one TLS socket a channel, the thread that drives them, and `Link`, which a session uses
    tls: TLS contexts of the agents' connections
"""

from dwcp_migrate.transport.core.options import LinkCounters, LinkOptions, LinkReceiver, Role
from dwcp_migrate.transport.core.rate_limiter import RateLimiter
from dwcp_migrate.transport.core.reassembly import Reassembly
from dwcp_migrate.transport.core.receive_queue import PARTIAL_BYTES_MAX
from dwcp_migrate.transport.core.segment import (
    FIN,
    MOVED,
    OPEN,
    PAYLOAD_BYTES_MAX,
    RAW_BYTES_MAX,
    REMARKS,
    RESET,
    URGENT,
    Segment,
)
from dwcp_migrate.transport.core.window import InFlightWindow
from dwcp_migrate.transport.io.link import Link

__all__ = [
    "FIN",
    "MOVED",
    "OPEN",
    "PARTIAL_BYTES_MAX",
    "PAYLOAD_BYTES_MAX",
    "RAW_BYTES_MAX",
    "REMARKS",
    "RESET",
    "URGENT",
    "InFlightWindow",
    "Link",
    "LinkCounters",
    "LinkOptions",
    "LinkReceiver",
    "RateLimiter",
    "Reassembly",
    "Role",
    "Segment",
]
