"""The other end of a path that keeps its TLS: reads and writes pieces, with an end that can be told from a cut.

Rule: each direction is a row of pieces, each behind its length (4 bytes, big-endian); a piece of length 0 is the end of
the direction. TLS alone has no half-close to rely on here: OpenSSL loses what comes in after it has said that it ends.

One thread reads and another one writes, but OpenSSL wants one at a time in each connection: no call blocks, and a lock
is held for the length of one.
"""

import ssl
import struct
import threading
from typing import Final

from dwcp_migrate.dataplane.qemu_socket import Endpoint
from dwcp_migrate.units import KIB, MIB

PIECE_BYTES_MAX: Final = MIB
"""A longer piece is none of ours."""
SLICE_BYTES: Final = 256 * KIB
"""One call into OpenSSL, in which the lock is held."""
_LENGTH: Final = struct.Struct(">I")


class TlsEndpoint(Endpoint):
    """See the head of this module; used as an `Endpoint`.

    Args:
        sock: its handshake is over; owned from now on.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock, is_local=False)
        self._tls = sock
        self._turn = threading.Lock()
        self._header = bytearray(_LENGTH.size)
        self._header_filled = 0
        self._left = 0
        self._ended = False

    def wait_readable(self, timeout_s: float | None) -> bool:
        """See `Endpoint.wait_readable`; bytes that TLS has taken in already count."""
        with self._turn:
            if self._tls.pending():
                return True
        return super().wait_readable(timeout_s)

    def read_into(self, buffer: memoryview) -> int | None:
        """See `Endpoint.read_into`.

        Raises:
            OSError: the connection was cut, or the peer broke the rule.
        """
        filled = 0
        while filled < len(buffer) and (self._left or self._begins_piece()):
            count = self._receive(buffer[filled : filled + self._left])
            if count is None:
                break
            self._left -= count
            filled += count
        return filled if filled or self._ended else None

    def _begins_piece(self) -> bool:
        """Read the length of the next piece; False where it is not all there, or there is none."""
        if self._ended:
            return False
        count = self._receive(memoryview(self._header)[self._header_filled :])
        self._header_filled += count or 0
        if self._header_filled < _LENGTH.size:
            return False
        self._header_filled = 0
        (self._left,) = _LENGTH.unpack(self._header)
        if self._left > PIECE_BYTES_MAX:
            raise ConnectionError(f"a piece of {self._left} bytes on a path past the channels")
        self._ended = not self._left
        return not self._ended

    def _receive(self, buffer: memoryview) -> int | None:
        with self._turn:
            try:
                count = self._tls.recv_into(buffer)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return None
        if count == 0:
            raise ConnectionError("a path past the channels was cut")
        return count

    def write(self, data: memoryview | bytes) -> None:
        """See `Endpoint.write`."""
        rest = memoryview(data)
        while rest:
            piece, rest = rest[:PIECE_BYTES_MAX], rest[PIECE_BYTES_MAX:]
            self._send(_LENGTH.pack(len(piece)))
            self._send(piece)

    def finish_writing(self) -> None:
        """See `Endpoint.finish_writing`."""
        self._send(_LENGTH.pack(0))

    def _send(self, data: memoryview | bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                with self._turn:
                    count = self._tls.send(rest[:SLICE_BYTES])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.wait_writable()
            else:
                rest = rest[count:]
