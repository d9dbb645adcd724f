"""Answering side of bulk connections: chunks of the objects that this host has, to hosts of its fleet.

The rule: the certificate names the peer, and it must be one of the fleet's. One question at a time is answered, so
that a peer costs one thread and one run of chunks, however much it asks. A question for chunks that are not here
yet waits a moment, because a host that fetches an object passes it on.
"""

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from dwcp_migrate.bulk.core.manifest import encode_manifest
from dwcp_migrate.bulk.core.messages import (
    LACKS,
    OK,
    RUN_BYTES_MAX,
    UNKNOWN,
    BulkRequest,
    Describe,
    GetChunks,
    GetList,
    encode_answer_head,
    request_frames,
)
from dwcp_migrate.bulk.io.held import HeldObjects
from dwcp_migrate.bulk.io.pace import SLICE_BYTES, BulkPace
from dwcp_migrate.errors import DwcpError, LimitExceededError, ProtocolError
from dwcp_migrate.logs import get_logger
from dwcp_migrate.net import dns_names, send_at_once, wrap_in_tls
from dwcp_migrate.units import KIB

CONNECTIONS_MAX: Final = 64
"""Connections at once, each a thread: four fetches of `schedule.SOURCES_MAX` hosts."""
CONNECTIONS_EACH_MAX: Final = 8
"""Connections of one host: one for each object that it fetches at a time."""
HANDSHAKE_S_MAX: Final = 5.0
IDLE_S_MAX: Final = 60.0
"""A connection without a question, or whose answer is not taken, is closed."""
HOLD_S_MAX: Final = 0.5
"""A question for chunks that are about to come waits so long; then it is answered that they are not here yet."""
START_S_MAX: Final = 2.0
"""Likewise for an object: hosts begin to fetch it at about the same time."""
READ_BYTES: Final = 4 * KIB

log = get_logger(component="bulk")


class BulkServer:
    """Serves chunks.

    Args:
        objects: of this host.
        context: makes the TLS context of the answering side, anew each time.
        identify: name of the fleet's host that one of a certificate's names belongs to; None for strangers.
        pace: rate of all that is sent.
        rejected: counts a connection that was closed for a fault of the other end, by reason.
    """

    def __init__(
        self,
        objects: HeldObjects,
        context: Callable[[], ssl.SSLContext],
        identify: Callable[[list[str]], str | None],
        pace: BulkPace,
        rejected: Callable[[str], None],
    ) -> None:
        self._objects = objects
        self._context = context
        self._identify = identify
        self._pace = pace
        self._rejected = rejected
        self._guard = threading.Lock()
        self._threads: dict[threading.Thread, socket.socket] = {}
        self._by_name = Counter[str]()
        self._is_closed = False
        self.sent = 0

    def adopt(self, sock: socket.socket) -> None:
        """Serve a connection whose greeting was read; the socket is owned from now on."""
        thread = threading.Thread(target=self._run, args=(sock,), name="bulk-serve", daemon=True)
        with self._guard:
            if self._is_closed or len(self._threads) >= CONNECTIONS_MAX:
                sock.close()
                self._rejected("full")
                return
            self._threads[thread] = sock
        thread.start()

    def accept_from(self, listener: socket.socket) -> None:
        """Adopt what connects to a listening socket, until that is shut down; for a thread of the caller's."""
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.adopt(sock)

    def _run(self, sock: socket.socket) -> None:
        name = ""
        try:
            sock.settimeout(HANDSHAKE_S_MAX)
            send_at_once(sock)
            secure = wrap_in_tls(sock, self._context(), None)
            with self._guard:
                self._threads[threading.current_thread()] = sock = secure
            secure.do_handshake()
            name = self._admit(secure)
            if name:
                secure.settimeout(IDLE_S_MAX)
                self._serve(secure)
        except ProtocolError:
            self._rejected("protocol")
        except ssl.SSLError:
            self._rejected("tls")
        except (OSError, ValueError):
            pass  # it went away; nothing of it is left here
        except DwcpError as error:
            log.warning("bulk: an object cannot be served", error=str(error))
        finally:
            sock.close()
            with self._guard:
                del self._threads[threading.current_thread()]
                self._by_name[name] -= bool(name)

    def _admit(self, sock: ssl.SSLSocket) -> str:
        """Name of the peer if it may ask, else nothing."""
        name = self._identify(dns_names(sock.getpeercert())) or ""
        with self._guard:
            reason = "unknown-peer" if not name else "full" if self._by_name[name] >= CONNECTIONS_EACH_MAX else ""
            self._by_name[name] += not reason
        if reason:
            self._rejected(reason)
        return "" if reason else name

    def _serve(self, sock: ssl.SSLSocket) -> None:
        frames = request_frames()
        memory = bytearray(RUN_BYTES_MAX)
        while data := sock.recv(READ_BYTES):
            for request in frames.feed(data):
                code, answer = self._answer(request, memory)
                self._send(sock, code, answer)

    def _answer(self, request: BulkRequest, memory: bytearray) -> tuple[int, bytes | memoryview]:
        if isinstance(request, Describe):
            newest = self._objects.newest(request.name)
            return (UNKNOWN, b"") if newest is None else (OK, encode_manifest(newest.manifest))
        held = self._objects.wait_for(request.version, START_S_MAX)
        if held is None:
            return UNKNOWN, b""
        if isinstance(request, GetList):
            return OK, held.packed_list
        self._check(request, held.manifest.chunks)
        _, size = held.chunks.span(request.first, request.count)
        if size > RUN_BYTES_MAX:
            raise LimitExceededError(f"{size} bytes asked for, at most {RUN_BYTES_MAX}")
        if not held.wait_for(request.first, request.count, HOLD_S_MAX):
            return LACKS, b""
        return OK, held.read(request.first, request.count, memory)

    @staticmethod
    def _check(request: GetChunks, chunks: int) -> None:
        if request.first < 0 or request.count < 1 or request.first + request.count > chunks:
            raise LimitExceededError(f"chunks {request.first} to {request.first + request.count} of {chunks} asked for")

    def _send(self, sock: ssl.SSLSocket, code: int, answer: bytes | memoryview) -> None:
        sock.sendall(encode_answer_head(code, len(answer)))
        with memoryview(answer) as view:
            for at in range(0, len(view), SLICE_BYTES):
                piece = view[at : at + SLICE_BYTES]
                self._pace.spend(len(piece))
                sock.sendall(piece)
        with self._guard:
            self.sent += len(answer)

    def close(self) -> None:
        """End all connections, and wait for their threads."""
        with self._guard:
            self._is_closed = True
            running = dict(self._threads)
        for sock in running.values():
            with contextlib.suppress(OSError, ValueError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which goes on in clear meanwhile
        for thread in running:
            thread.join(START_S_MAX + HANDSHAKE_S_MAX)
