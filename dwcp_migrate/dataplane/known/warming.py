"""Warming up: the source reads the memory of a guest that runs, the destination keeps the pages; no QEMU takes part.

    source       GuestReader: memory, as much as both page caches hold ──> a stream of pages ──> the session
    destination  `discarding_socket` in the place of QEMU; the pages of the cache go to the store as ever

It reads a fourth of the time at most (`READ_SHARE`), a piece at a time, and no faster than the link takes it: the
session's window of bytes in flight is the only thing that holds it back. What the destination states that it has is
waited for, so that those pages cross as names.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from dwcp_migrate.dataplane.known.page_stream import page_section, stream_head
from dwcp_migrate.errors import DwcpError
from dwcp_migrate.hypervisor.memory.address_map import MemoryRange
from dwcp_migrate.hypervisor.memory.base import READ_BYTES_MAX, GuestMemory
from dwcp_migrate.hypervisor.memory.opening import open_memory
from dwcp_migrate.protocol.worker import GuestPages, Happened, MigrationCounters
from dwcp_migrate.units import KIB, PAGE_BYTES

READ_SHARE: Final = 4
"""One part in so many of the time is spent in reading: QEMU holds its lock for less than that."""

STATED_S_MIN: Final = 2.0
"""For the first piece of the destination's statement to come; a store that is empty states nothing."""

STATED_QUIET_S: Final = 0.5
"""Without a further piece: all have come."""

STATED_S_MAX: Final = 60.0
"""For the whole statement: 2^25 pages are 75 MB. Without it pages cross that are there already."""

LOOK_S: Final = 0.1

DISCARD_BYTES: Final = 256 * KIB


class WarmingSession(Protocol):
    """The part of a source's session that a reader uses."""

    report: Callable[[Happened], None]

    def add_connection(self, number: int, sock: socket.socket) -> None:
        """See `SourceSession.add_connection`."""

    def counters(self) -> MigrationCounters:
        """See `LinkSession.counters`."""

    def fail(self, error: BaseException) -> None:
        """See `LinkSession.fail`."""


class GuestReader:
    """Reads a guest's memory into a session, in a thread of its own.

    Args:
        wanted: which memory.
        session: carries it; it gets its one connection here.
    """

    def __init__(self, wanted: GuestPages, session: WarmingSession) -> None:
        self._wanted = wanted
        self._session = session
        self._sock, theirs = socket.socketpair()
        session.add_connection(0, theirs)
        threading.Thread(target=self._run, name="warm", daemon=True).start()

    def _run(self) -> None:
        with self._sock:
            try:
                with contextlib.closing(open_memory(self._wanted.uri, self._wanted.uuid)) as memory:
                    self._wait_stated()
                    self._send(memory)
                self._sock.shutdown(socket.SHUT_WR)
                while self._sock.recv(DISCARD_BYTES):  # until the destination has all of it
                    pass
            except DwcpError as error:  # before the socket is closed, which would look like the end
                self._session.fail(error)
            except OSError:  # the session is over, for a reason that it tells itself
                pass

    def _wait_stated(self) -> None:
        """Wait until the destination has stated what it has."""
        began = changed_at = time.monotonic()
        stated, patience_s = 0, STATED_S_MIN
        while (now := time.monotonic()) - began < STATED_S_MAX and now - changed_at < patience_s:
            time.sleep(LOOK_S)
            counters = self._session.counters()
            if not counters.channels and not stated:
                changed_at = now  # no link yet: nothing can have come
            elif counters.stated_pages != stated:
                stated, changed_at, patience_s = counters.stated_pages, now, STATED_QUIET_S

    def _send(self, memory: GuestMemory) -> None:
        """Send pages from where it is to begin, as many as are wanted; report where the next ones begin."""
        self._session.report(Happened(event="readable", number=sum(one.size for one in memory.ranges)))
        self._sock.sendall(stream_head(memory.ranges[-1].end))
        left, stopped_at = self._wanted.pages_max, 0
        for begin, size in pieces(memory.ranges, self._wanted.begin):
            if size // PAGE_BYTES > left:
                stopped_at = begin
                break
            began = time.monotonic()
            section, pages = page_section(begin, memory.read(begin, size))
            left -= pages
            pause_s = (READ_SHARE - 1) * (time.monotonic() - began)
            self._sock.sendall(section)
            time.sleep(pause_s)
        self._session.report(Happened(event="warmed", number=stopped_at))


def pieces(ranges: tuple[MemoryRange, ...], first: int) -> Iterator[tuple[int, int]]:
    """Yield addresses and sizes of pieces, one read each, from an address on.

    Args:
        ranges: of plain memory, in order.
        first: the address, a multiple of a page.
    """
    for one in ranges:
        for begin in range(max(one.begin, first), one.end, READ_BYTES_MAX):
            yield begin, min(READ_BYTES_MAX, one.end - begin)


def discarding_socket() -> socket.socket:
    """Return a connected socket whose other end reads everything, keeps nothing and ends when this one does."""
    ours, theirs = socket.socketpair()

    def discard() -> None:
        with theirs, contextlib.suppress(OSError):
            while theirs.recv(DISCARD_BYTES):
                pass

    threading.Thread(target=discard, name="discard", daemon=True).start()
    return ours
