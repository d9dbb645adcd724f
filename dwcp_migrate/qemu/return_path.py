"""The return path: the messages of the destination's QEMU to the source's on the main connection.

    message := be16 type, be16 n, data[n]
    1 SHUT   2 PONG   3 REQ_PAGES_ID   4 REQ_PAGES   5 RECV_BITMAP (raw bytes follow)   6 RESUME_ACK   7 SWITCHOVER_ACK

Only page requests are of interest: they mean that the guest runs at the destination and waits for a page. The bytes
themselves are carried untouched and at once. Source: QEMU, migration/migration.c (source_return_path_thread).
"""

from typing import Final

REQUEST_PAGES_ID: Final = 3
REQUEST_PAGES: Final = 4
RECEIVED_BITMAP: Final = 5
TYPES_MAX: Final = 7
DATA_BYTES_MAX: Final = 512


class ReturnPath:
    """Notices page requests; a message that it does not know ends its interest for good.

    Attributes:
        page_requests: requests seen so far.
        lost: True once the messages could not be followed any more.
    """

    def __init__(self) -> None:
        self.page_requests = 0
        self.lost = False
        self._begun = b""

    def feed(self, data: bytes | memoryview) -> int:
        """Look at the next bytes; returns how many page requests ended in them."""
        if self.lost:
            return 0
        buffer = self._begun + bytes(data)
        before, position = self.page_requests, 0
        while len(buffer) - position >= 4 and not self.lost:  # noqa: PLR2004 - type and length
            kind, size = int.from_bytes(buffer[position : position + 2], "big"), buffer[position + 2 : position + 4]
            end = position + 4 + int.from_bytes(size, "big")
            self.lost = not 1 <= kind <= TYPES_MAX or end - position - 4 > DATA_BYTES_MAX or kind == RECEIVED_BITMAP
            if end > len(buffer):
                break
            self.page_requests += kind in (REQUEST_PAGES, REQUEST_PAGES_ID)
            position = end
        self._begun = b"" if self.lost else buffer[position:]
        return self.page_requests - before
