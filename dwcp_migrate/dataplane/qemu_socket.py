"""One TCP connection of QEMU's (or libvirtd's) that a data process holds.

Rule: an event on the socket of one side (bytes, half-close, reset) reaches the QEMU of the other side as the same
event. One thread reads, one writes; both can be woken by `cancel`, so that no thread outlives its session.
"""

import errno
import os
import select
import socket
import threading
from typing import Final

from dwcp_migrate.net import reset_and_close, send_at_once
from dwcp_migrate.units import KIB

RECEIVE_BUFFER_BYTES: Final = 512 * KIB
"""Kernel receive buffer. QEMU counts what it pushed in here as sent, so autotuning's 6 MiB would be downtime."""


class CancelledError(Exception):
    """The session is ending; the blocked thread must return."""


class Endpoint:
    """A non-blocking TCP socket with waiting, half-close and reset.

    Args:
        sock: connected; owned from now on.
        is_local: the other end is a process of this host, so that the kernel's buffers are all that is between.
    """

    def __init__(self, sock: socket.socket, *, is_local: bool = True) -> None:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            send_at_once(sock)
        if sock.family in (socket.AF_INET, socket.AF_INET6) and is_local:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._sock = sock
        self._cancelled = os.eventfd(0, os.EFD_CLOEXEC)
        self._closing = threading.Lock()
        self._reading = self._poller(select.POLLIN)
        self._writing = self._poller(select.POLLOUT)

    def _poller(self, events: int) -> select.poll:
        poller = select.poll()
        poller.register(self._sock.fileno(), events)
        poller.register(self._cancelled, select.POLLIN)
        return poller

    def wait_readable(self, timeout_s: float | None) -> bool:
        """Wait for bytes, an end or an error to read.

        Args:
            timeout_s: None waits for ever.

        Returns:
            False after the timeout.

        Raises:
            CancelledError: `cancel` was called.
        """
        return self._wait(self._reading, timeout_s)

    def wait_writable(self) -> None:
        """Wait until bytes can be written or the connection broke.

        Raises:
            CancelledError: `cancel` was called.
        """
        self._wait(self._writing, None)

    def fileno(self) -> int:
        """The socket's descriptor, for splice."""
        return self._sock.fileno()

    def _wait(self, poller: select.poll, timeout_s: float | None) -> bool:
        ready = poller.poll(None if timeout_s is None else timeout_s * 1000)
        if any(fd == self._cancelled for fd, _ in ready):
            raise CancelledError
        return bool(ready)

    def read_into(self, buffer: memoryview) -> int | None:
        """Take what is there, at most `len(buffer)` bytes.

        Returns:
            Bytes taken; 0 at the end of the stream; None when nothing is there now.

        Raises:
            OSError: the connection was reset or broke.
        """
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            return None

    def write(self, data: memoryview | bytes) -> None:
        """Write everything, waiting as long as the other end takes.

        Raises:
            CancelledError: `cancel` was called.
            OSError: the connection was reset or broke.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                self.wait_writable()

    def finish_writing(self) -> None:
        """Half-close: the other end reads what was written, then the end of the stream."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise

    def cancel(self) -> None:
        """Make the threads in `wait_readable` and `write` raise. Safe from any thread, also twice."""
        with self._closing:
            if self._sock.fileno() >= 0:  # else its threads have left already
                os.eventfd_write(self._cancelled, 1)

    def close(self, *, reset: bool = False) -> None:
        """Close for good, once no thread uses it any more.

        Args:
            reset: send RST, so that the other end sees a broken connection and not an end.
        """
        with self._closing:
            if self._sock.fileno() < 0:
                return
            if reset:
                reset_and_close(self._sock)
            else:
                self._sock.close()
            os.close(self._cancelled)
