"""QEMU's migration stream, sans-IO: what a connection carries and where the guest's pages lie in it.

Parsing is advisory: whatever the bytes are, they come back in order and complete, and nothing raises.

    sniff        first bytes -> main, multifd, tls, nbd, opaque
    stream       StreamParser: bytes of one connection -> cuts
    main         sections and commands of the main channel      records    RAM records inside them
    multifd      packets                                         layout     cuts, runs, keys of pages
    return_path  page requests of a postcopy migration           events     what a stream tells beside its bytes
"""

from dwcp_migrate.qemu.blocks import RamBlocks
from dwcp_migrate.qemu.events import Event, GuestUuid, Iteration, Opaque, Postcopy, RamTotal, Switchover
from dwcp_migrate.qemu.layout import Cut, Layout
from dwcp_migrate.qemu.return_path import ReturnPath
from dwcp_migrate.qemu.sniff import StreamKind
from dwcp_migrate.qemu.stream import SEGMENT_BYTES_MAX, Fed, StreamParser

__all__ = [
    "SEGMENT_BYTES_MAX",
    "Cut",
    "Event",
    "Fed",
    "GuestUuid",
    "Iteration",
    "Layout",
    "Opaque",
    "Postcopy",
    "RamBlocks",
    "RamTotal",
    "ReturnPath",
    "StreamKind",
    "StreamParser",
    "Switchover",
]
