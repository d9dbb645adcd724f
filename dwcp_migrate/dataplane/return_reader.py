"""The reverse direction at the destination: small, latency-critical, never parsed.

Page requests of postcopy, acknowledgements of the return path and NBD's replies go out at once, urgent and raw.
"""

from collections.abc import Callable
from typing import Final

import xxhash

from dwcp_migrate.dataplane.connection import Outlet
from dwcp_migrate.dataplane.direct.path import DirectPath
from dwcp_migrate.dataplane.flow_control import Gate
from dwcp_migrate.dataplane.qemu_socket import Endpoint
from dwcp_migrate.transport import MOVED, URGENT, Segment
from dwcp_migrate.units import KIB

READ_BYTES: Final = 64 * KIB


def raw_segment(connection: int, sequence: int, raw: memoryview) -> Segment:
    """Make a reverse segment: its payload is the bytes themselves.

    Args:
        connection: its number.
        sequence: of the segment.
        raw: the bytes; they must not change until acknowledged.
    """
    return Segment(connection, sequence, URGENT, len(raw), xxhash.xxh3_64_intdigest(raw), raw)


class ReverseReader:
    """Reads the answers of the destination's QEMU (see `connection.Reader`).

    Args:
        path: takes over once the forward direction has moved there.
        send: gives a segment to the link.
    """

    def __init__(self, outlet: Outlet, path: DirectPath, gate: Gate, send: Callable[[Segment], None]) -> None:
        self._outlet = outlet
        self._path = path
        self._gate = gate
        self._send = send

    def pump(self, endpoint: Endpoint) -> None:
        """See `connection.Reader`."""
        buffer = memoryview(bytearray(READ_BYTES))
        while True:
            endpoint.wait_readable(None)
            if self._path.committed:
                self._outlet.signal(MOVED)
                self._path.send_from(endpoint)
                return
            room = self._gate.wait(self._outlet.connection)
            count = endpoint.read_into(buffer[:room])
            if count == 0:
                return
            if count is None:
                self._gate.settle(self._outlet.connection)
                continue
            raw = memoryview(bytes(buffer[:count]))
            kept = self._outlet.retain(raw, None)
            segment = raw_segment(self._outlet.connection, kept.sequence, raw)
            kept.checksum = segment.checksum
            self._send(segment)
            self._gate.settle(self._outlet.connection)
