"""A connection's own way past the link, where that outruns the whole pipeline: TCP with its TLS, or splice in clear.

Rule: each direction changes over at one point of its bytes, which a MOVED segment marks. All before it comes over the
link, all behind it over this path, so that nothing is lost or doubled whatever overtakes what. The source begins, and
only once its end is there; the destination's answers follow only after the source's MOVED has come.

    source                                                        destination
    ask ──> link.detach ──── DETACH, in clear: end of TLS ──────> offer
    offer; QEMU's next byte: MOVED ───── over the link, in order ──> all before it is in QEMU: take from the path
    all further bytes into the path                                  `committed`: MOVED at the next answer, likewise
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from dwcp_migrate.dataplane.direct.splicing import copy_to_end, splice_to_end
from dwcp_migrate.dataplane.direct.tls_endpoint import TlsEndpoint
from dwcp_migrate.dataplane.qemu_socket import CancelledError, Endpoint
from dwcp_migrate.units import KIB, MIB

FORWARD_BYTES: Final = MIB
REVERSE_BYTES: Final = 64 * KIB
"""Bytes that the pipe of one direction may hold in clear."""
COPIED_BYTES: Final = 256 * KIB
"""Bytes that are copied at once in TLS: QEMU's socket holds hardly more, and an answer is shorter."""
ARRIVAL_S_MAX: Final = 5.0
"""From MOVED to the path that it speaks of, which was there at the sender: the rest of a round trip."""


class DirectPath:
    """One connection's path, at one side.

    Args:
        request: asks the link for a channel to become it; `offer` or `fail` answers.
        hold_s: takes a count of bytes that went out, and returns the seconds that the next ones have to wait.

    Attributes:
        sent_bytes: of this side's QEMU.
        received_bytes: of the other side's.
        committed: the other side's bytes come this way.
    """

    def __init__(self, request: Callable[[], None], hold_s: Callable[[int], float]) -> None:
        self.sent_bytes = self.received_bytes = 0
        self.committed = False
        self._request, self._hold_s = request, hold_s
        self._endpoint: Endpoint | None = None
        self._changed = threading.Condition()
        self._asked = self._closed = self._cancelled = False

    @property
    def moved_bytes(self) -> int:
        """Bytes that it carried, both ways."""
        return self.sent_bytes + self.received_bytes

    @property
    def is_asked(self) -> bool:
        """Tell whether somebody waits for it, or has it."""
        return self._asked

    @property
    def is_in_tls(self) -> bool:
        """Tell whether its bytes are encrypted; before it is there, no."""
        return isinstance(self._endpoint, TlsEndpoint)

    @property
    def is_there(self) -> bool:
        """Tell whether it can be used."""
        return self._endpoint is not None

    def ask(self) -> None:
        """Ask for it, unless that was done."""
        with self._changed:
            if self._asked or self._closed or self._cancelled:
                return
            self._asked = True
        self._request()

    def offer(self, sock: socket.socket) -> None:
        """Provide its socket; closed at once where nobody can use it any more."""
        with self._changed:
            if self._endpoint is None and not self._closed and not self._cancelled:
                if isinstance(sock, ssl.SSLSocket):
                    self._endpoint = TlsEndpoint(sock)
                else:
                    self._endpoint = Endpoint(sock, is_local=False)
                self._changed.notify_all()
                return
        sock.close()

    def fail(self) -> None:
        """Note that it did not come; it may be asked for again."""
        with self._changed:
            self._asked = False

    def send_from(self, source: Endpoint) -> None:
        """Move all that QEMU still has into the path. Raises as `splice_to_end`."""
        assert self._endpoint is not None, "the source moves only once it is there"
        self._move(source, self._endpoint, FORWARD_BYTES if self._asked else REVERSE_BYTES, self._sent)

    def _move(self, source: Endpoint, sink: Endpoint, pipe_bytes: int, moved: Callable[[int], None]) -> None:
        if self.is_in_tls:
            copy_to_end(source, sink, COPIED_BYTES, moved)
        else:
            splice_to_end(source, sink, pipe_bytes, moved)

    def _sent(self, count: int) -> None:
        self.sent_bytes += count
        until = time.monotonic() + self._hold_s(count)
        while (left := until - time.monotonic()) > 0:
            with self._changed:
                if self._cancelled:
                    raise CancelledError
                self._changed.wait(left)

    def receive_into(self, sink: Endpoint) -> None:
        """Move all that comes over the path into QEMU; from now on answers may take it too.

        Raises:
            OSError: it did not come, or broke.
            CancelledError: the connection was broken off.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._endpoint is not None or self._cancelled, ARRIVAL_S_MAX)
            if self._cancelled:
                raise CancelledError
            endpoint = self._endpoint
        if endpoint is None:
            raise ConnectionError("the plain path did not come")
        self.committed = True
        self._move(endpoint, sink, REVERSE_BYTES if self._asked else FORWARD_BYTES, self._received)

    def _received(self, count: int) -> None:
        self.received_bytes += count

    def cancel(self) -> None:
        """Wake the threads that wait for or on it."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
            endpoint = self._endpoint
        if endpoint is not None:
            endpoint.cancel()

    def close(self, *, reset: bool) -> None:
        """Close it, once no thread uses it any more, and take none that comes later."""
        with self._changed:
            self._closed = True
            endpoint = self._endpoint
        if endpoint is not None:
            endpoint.close(reset=reset)
