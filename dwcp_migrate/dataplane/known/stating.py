"""The destination's half: this host's pages of the scope, stated in pieces, and fetched by name.

Pieces go as segments of a connection of their own, `REMARKS`, behind everything that is urgent, few at a time: pieces
that are not sent when the migration ends are dropped.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import xxhash

from dwcp_migrate.errors import DwcpError
from dwcp_migrate.protocol.worker import Happened, StoreOptions
from dwcp_migrate.qemu.layout import Bytes, Words
from dwcp_migrate.store.reader import PageMissingError, PageReader
from dwcp_migrate.store.shelf import Shelf
from dwcp_migrate.transport import REMARKS, Segment

PIECES_AHEAD: Final = 4
"""Pieces on the way at once: 600 KB, a tenth of a second at 50 Mbit/s."""


class StateOfStore:
    """Pages that this host has for one migration.

    Args:
        options: where the store is, and the scope.
        send: gives a segment to the link.
        report: takes events, from any thread.
    """

    def __init__(
        self, options: StoreOptions, send: Callable[[Segment], None], report: Callable[[Happened], None]
    ) -> None:
        self._options, self._send, self._report = options, send, report
        self._reader: PageReader | None = None
        self._room = threading.Semaphore(PIECES_AHEAD)
        self._acknowledged = -1
        self._is_over = threading.Event()
        self.stated_pages = 0
        threading.Thread(target=self._state, name="store", daemon=True).start()

    def fetch(self, digests: Bytes) -> Words:
        """See `PageReader.fetch`."""
        if self._reader is None:
            raise PageMissingError("the store is not read yet")
        return self._reader.fetch(digests)

    def acknowledged(self, sequence: int) -> None:
        """Note that the source took all pieces up to this one."""
        if sequence > self._acknowledged:
            self._room.release(sequence - self._acknowledged)
            self._acknowledged = sequence

    def close(self) -> None:
        """State nothing more, and note which volumes were of use."""
        self._is_over.set()
        self._room.release(PIECES_AHEAD)
        if self._reader is not None:
            self._reader.close(time.time())

    def _complain(self, what: str) -> None:
        self._report(Happened(event="store", detail=what))

    def _state(self) -> None:
        """The thread: read the indexes and state their pages."""
        try:
            shelf = Shelf(Path(self._options.directory), self._options.bytes_max)
            reader = PageReader(shelf, self._options.scope, self._complain)
            table = reader.statement()
            self._reader = reader
            self.stated_pages = table.stated
            if not table.stated:
                return
            for sequence, piece in enumerate(table.pieces()):
                self._room.acquire()
                if self._is_over.is_set():
                    return
                self._send(Segment(REMARKS, sequence, 0, len(piece), xxhash.xxh3_64_intdigest(piece), piece))
        except (DwcpError, OSError) as error:  # without it the migration is as it would be without a store
            self._complain(str(error))
