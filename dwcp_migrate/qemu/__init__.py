"""QEMU's migration stream, without I/O: the content of a connection and the guest's pages in it.

Parsing is advisory: whatever the bytes are, they come back in order and complete, and nothing raises.

Modules:
    sniff: the kind of a connection, from its first bytes
    stream: `StreamParser`: one connection's bytes, cut into runs whose pages are known
    main, records: sections and commands of the main channel; the RAM records in them
    multifd: packets of a multifd channel
    return_path: page requests of a postcopy migration
    layout, blocks: positions and keys of pages; RAM blocks as numbers
    events: events of a stream, for the migration's record
    window: the bytes that a parser looks at
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
