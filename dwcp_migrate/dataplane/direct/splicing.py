"""Moves bytes from one socket to another, to the end of the stream: by splice in the kernel, or through a buffer."""

import contextlib
import fcntl
import os
from collections.abc import Callable

from dwcp_migrate.dataplane.qemu_socket import Endpoint


def splice_to_end(source: Endpoint, sink: Endpoint, pipe_bytes: int, moved: Callable[[int], None]) -> None:
    """Move everything from `source` to `sink`, then end the sink's writing half.

    Args:
        source: read to its end.
        sink: gets all of it.
        pipe_bytes: most that is on its way between them; a wish, since one user may have so much in pipes and no more.
        moved: told of each piece once the sink has it.

    Raises:
        OSError: no descriptor is left, or either end was reset or broke.
        CancelledError: either end was cancelled.
    """
    outlet, inlet = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, pipe_bytes)
        while taken := _splice(source.fileno(), inlet, pipe_bytes, lambda: source.wait_readable(None)):
            while taken:
                count = _splice(outlet, sink.fileno(), taken, sink.wait_writable)
                taken -= count
                moved(count)
        sink.finish_writing()
    finally:
        os.close(outlet)
        os.close(inlet)


def _splice(taken_from: int, put_into: int, count: int, wait: Callable[[], object]) -> int:
    while True:
        try:
            return os.splice(taken_from, put_into, count, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        except BlockingIOError:
            wait()


def copy_to_end(source: Endpoint, sink: Endpoint, buffer_bytes: int, moved: Callable[[int], None]) -> None:
    """Move everything as `splice_to_end` does, where an end is no plain socket.

    Args:
        source: read to its end.
        sink: gets all of it.
        buffer_bytes: most that is read at once.
        moved: told of each piece once the sink has it.

    Raises:
        OSError: either end was reset or broke.
        CancelledError: either end was cancelled.
    """
    buffer = memoryview(bytearray(buffer_bytes))
    while (count := source.read_into(buffer)) != 0:
        if count is None:
            source.wait_readable(None)
            continue
        sink.write(buffer[:count])
        moved(count)
    sink.finish_writing()
