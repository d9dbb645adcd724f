"""AMST: one migration over 1 to 512 TLS channels, none of which matters by itself.

Core (sans-IO): `frames`, `segment`, `outbox`, `inbox`, `health`, `link`, `reassembly`, `window`, `controller`,
`dialer`. Shell: `channel` (one TLS socket), `carrier` (the thread), `endpoint` (`Link`, what a session uses), `tls`,
`certificates`.
The protocol, byte by byte: docs/wire-protocol.md.
"""

from dwcp_migrate.transport.core.options import LinkCounters, LinkOptions, LinkReceiver, Role
from dwcp_migrate.transport.core.reassembly import Reassembly
from dwcp_migrate.transport.core.segment import FIN, OPEN, PAYLOAD_BYTES_MAX, RAW_BYTES_MAX, RESET, URGENT, Segment
from dwcp_migrate.transport.core.window import InFlightWindow
from dwcp_migrate.transport.io.link import Link

__all__ = [
    "FIN",
    "OPEN",
    "PAYLOAD_BYTES_MAX",
    "RAW_BYTES_MAX",
    "RESET",
    "URGENT",
    "InFlightWindow",
    "Link",
    "LinkCounters",
    "LinkOptions",
    "LinkReceiver",
    "Reassembly",
    "Role",
    "Segment",
]
