"""Pass-through: connections carried byte for byte, by splice, when no agent answers at the destination.

Rule: no byte is looked at. Half-close and reset cross to the other side; the session ends with its last connection.
"""

import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from dwcp_migrate.dataplane.direct.splicing import splice_to_end
from dwcp_migrate.dataplane.qemu_socket import CancelledError, Endpoint
from dwcp_migrate.net import reset_and_close
from dwcp_migrate.protocol.worker import Finished, Happened, MigrationCounters
from dwcp_migrate.units import KIB

FORWARD_PIPE_BYTES: Final = 128 * KIB
"""Bytes of a connection's forward direction in the kernel: 256 connections stay below the 64 MiB of pipes
that the kernel lets one unprivileged user have."""
REVERSE_PIPE_BYTES: Final = 16 * KIB
"""The same for answers: page requests, acknowledgements of the return path, NBD replies."""


class _Direction(threading.Thread):
    """Moves bytes from one endpoint to the other until the end of the stream or an error."""

    def __init__(
        self, source: Endpoint, sink: Endpoint, broken: Callable[[], None], name: str, pipe_bytes: int
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.moved_bytes = 0
        self._pipe_bytes = pipe_bytes
        self._source, self._sink, self._broken = source, sink, broken

    def run(self) -> None:
        try:
            splice_to_end(self._source, self._sink, self._pipe_bytes, self._moved)
        except (OSError, CancelledError):  # where no descriptor is left this connection breaks, the others go on
            self._broken()

    def _moved(self, count: int) -> None:
        self.moved_bytes += count


class _Pair(threading.Thread):
    """One connection: both directions, and the closing of both sockets when they are through."""

    def __init__(self, inner: Endpoint, onward: Endpoint, connection: int, ended: Callable[["_Pair"], None]) -> None:
        super().__init__(name=f"relay-{connection}", daemon=True)
        self.connection = connection
        self.was_reset = False
        self._ends = (inner, onward)
        self._ended = ended
        self.forward = _Direction(inner, onward, self.reset, f"relay-{connection}-forward", FORWARD_PIPE_BYTES)
        self.reverse = _Direction(onward, inner, self.reset, f"relay-{connection}-reverse", REVERSE_PIPE_BYTES)

    def reset(self) -> None:
        self.was_reset = True
        for end in self._ends:
            end.cancel()

    def run(self) -> None:
        directions = (self.forward, self.reverse)
        for direction in directions:
            direction.start()
        for direction in directions:
            direction.join()
        for end in self._ends:
            end.close(reset=self.was_reset)
        self._ended(self)


class RelaySession:
    """All passed-through connections of one migration.

    Args:
        report: takes what happened, from any thread.
    """

    def __init__(self, report: Callable[[Happened], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._pairs: dict[int, _Pair] = {}
        self._ended_bytes = [0, 0]
        self._was_reset = False
        self._any_ended = False
        self._finished: Finished | None = None

    def add_connection(self, connection: int, inner: socket.socket, onward: socket.socket) -> None:
        """Carry one connection.

        Args:
            connection: its number, for the record.
            inner: QEMU's end.
            onward: connected to where QEMU wanted to go.
        """
        ends: list[Endpoint] = []
        try:
            ends += [Endpoint(inner)]
            ends += [Endpoint(onward)]
        except OSError as error:
            self._refuse(connection, ends, (inner, onward), error)
            return
        pair = _Pair(ends[0], ends[1], connection, self._ended)
        with self._lock:
            self._pairs[connection] = pair
        self._report(Happened(event="connection-opened", connection=connection, detail="opaque"))
        pair.start()

    def _refuse(
        self, connection: int, ends: list[Endpoint], sockets: tuple[socket.socket, ...], error: OSError
    ) -> None:
        """No descriptor is left for a connection: it breaks, the others go on."""
        for end in ends:
            end.close(reset=True)
        for sock in sockets:
            reset_and_close(sock)
        with self._lock:
            self._was_reset = self._any_ended = True
        detail = f"no descriptor is left: {error}"
        self._report(Happened(event="connection-closed", connection=connection, detail=detail))

    def _ended(self, pair: _Pair) -> None:
        with self._lock:
            del self._pairs[pair.connection]
            self._ended_bytes[0] += pair.forward.moved_bytes
            self._ended_bytes[1] += pair.reverse.moved_bytes
            self._was_reset |= pair.was_reset
            self._any_ended = True
        self._report(Happened(event="connection-closed", connection=pair.connection))  # wakes the main thread

    def abort(self, reason: str) -> None:
        """Reset every connection."""
        with self._lock:
            self._finished = Finished(result="aborted", counters=self._totals(), detail=reason)
            pairs = list(self._pairs.values())
        for pair in pairs:
            pair.reset()

    def _totals(self) -> MigrationCounters:
        forward = self._ended_bytes[0] + sum(pair.forward.moved_bytes for pair in self._pairs.values())
        reverse = self._ended_bytes[1] + sum(pair.reverse.moved_bytes for pair in self._pairs.values())
        return MigrationCounters(
            raw_bytes=forward,
            wire_bytes=forward,
            opaque_bytes=forward,
            reverse_bytes=reverse,
            cpu_s=time.process_time(),
        )

    def counters(self) -> MigrationCounters:
        """Bytes so far, both directions."""
        with self._lock:
            return self._totals()

    def finished(self) -> Finished | None:
        """Return the result once the last connection ended; asked on the thread that adds connections."""
        with self._lock:
            if self._finished is None and self._any_ended and not self._pairs:
                self._finished = Finished(result="reset" if self._was_reset else "carried", counters=self._totals())
            return self._finished
