"""Asking side of one bulk connection: TLS on a blocking socket, used by one thread.

The rule: a peer costs its time-out and no more. Nothing for `SILENT_S_MAX`, or an answer that takes longer than
`ANSWER_S_MAX`, ends the connection; an answer of more bytes than were asked for does at its head.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dwcp_migrate.bulk.core.manifest import MANIFEST_BYTES_MAX, ObjectManifest, decode_manifest
from dwcp_migrate.bulk.core.messages import (
    ANSWER_HEAD_BYTES,
    OK,
    UNKNOWN,
    BulkRequest,
    Describe,
    GetList,
    decode_answer_head,
    encode_request,
)
from dwcp_migrate.errors import NotFoundError, PeerUnreachableError, RemoteProtocolError
from dwcp_migrate.net import open_tcp_socket, wrap_in_tls
from dwcp_migrate.transport.io import tcp_info
from dwcp_migrate.transport.tls import as_typed

CONNECT_S_MAX: Final = 3.0
"""For TCP and TLS together, each."""
SILENT_S_MAX: Final = 10.0
"""Longer than a peer holds a question back (`server.HOLD_S_MAX`)."""
LIST_S_MAX: Final = 3.0
"""Likewise for the list of chunks, which is small, and another host can be asked (longer than `server.START_S_MAX`)."""
ANSWER_S_MAX: Final = 60.0
"""For one answer: 35 kB/s at least."""


@dataclass(frozen=True, slots=True)
class BulkPeer:
    """A host that has an object, or fetches it too.

    Attributes:
        name: that its certificate has to prove.
        address: IP address to dial.
        port: to dial.
        has_all: it has the whole object.
    """

    name: str
    address: str
    port: int
    has_all: bool


@dataclass(frozen=True, slots=True)
class BulkDialling:
    """The way to reach other hosts.

    Attributes:
        context: makes the TLS context of the asking side, anew each time, so that renewed certificates count.
        greeting: sent in clear before TLS, so that the port's owner knows whose the connection is.
        mark: socket mark, 0 for none.
        silent_s: time without a byte after which a peer is given up.
    """

    context: Callable[[], ssl.SSLContext]
    greeting: bytes = b""
    mark: int = 0
    silent_s: float = SILENT_S_MAX


class BulkConnection:
    """A connection to one peer, TLS done.

    Attributes:
        received: bytes that came so far, TLS's own counted.
        heard_at: monotonic seconds of the last byte.

    Args:
        peer: who has to answer.
        dialling: the way to reach it.

    Raises:
        PeerUnreachableError: no connection in time.
        CertificateError: either side's certificate was not accepted.
        RemoteProtocolError: what answers there does not speak TLS.
        ConfigError: this host's TLS files cannot be read.
    """

    def __init__(self, peer: BulkPeer, dialling: BulkDialling) -> None:
        self._where = f"{peer.name} ({peer.address}, port {peer.port})"
        self._silent_s = dialling.silent_s
        self.received = 0
        self.heard_at = 0.0
        sock = open_tcp_socket(peer.address, dialling.mark)
        try:
            sock.settimeout(CONNECT_S_MAX)
            sock.connect((peer.address, peer.port))
            sock.sendall(dialling.greeting)
            self._sock = wrap_in_tls(sock, dialling.context(), peer.name)
            self._sock.do_handshake()
            self._sock.settimeout(dialling.silent_s)
        except ssl.SSLError as error:
            self._abandon(sock)
            raise as_typed(error) from error
        except OSError as error:
            self._abandon(sock)
            raise PeerUnreachableError(
                f"{self._where}: {error}", hint=f"`dwcp-migrate check {peer.name}` says whether its agent answers"
            ) from error
        except BaseException:
            self._abandon(sock)
            raise

    def _abandon(self, sock: socket.socket) -> None:
        """Close a connection that was not made; once TLS has the socket, `sock` is only its empty shell."""
        getattr(self, "_sock", sock).close()

    def send(self, request: BulkRequest) -> None:
        """Ask; several questions may be under way, and are answered in order.

        Raises:
            PeerUnreachableError: the connection broke.
        """
        try:
            self._sock.sendall(encode_request(request))
        except OSError as error:
            raise PeerUnreachableError(f"{self._where}: {error}") from error

    def receive(self, into: memoryview) -> tuple[int, int]:
        """Read the answer to the oldest question: its code, and its bytes' number.

        Args:
            into: takes the bytes; as many as it holds are allowed.

        Raises:
            PeerUnreachableError: the connection broke, or the answer did not come in time.
            RemoteProtocolError: no answer to what was asked.
        """
        until = time.monotonic() + ANSWER_S_MAX
        head = bytearray(ANSWER_HEAD_BYTES)
        self._fill(memoryview(head), until)
        code, length = decode_answer_head(head, len(into))
        self._fill(into[:length], until)
        self.received = tcp_info.read(self._sock).received_bytes
        return code, length

    def _fill(self, into: memoryview, until: float) -> None:
        at = 0
        while at < len(into):
            try:
                count = self._sock.recv_into(into[at:])
            except OSError as error:
                raise PeerUnreachableError(f"{self._where}: {error}") from error
            if not count:
                raise PeerUnreachableError(f"{self._where} closed the connection")
            at += count
            self.heard_at = time.monotonic()
            if at < len(into) and self.heard_at > until:
                raise PeerUnreachableError(f"{self._where} took longer than {ANSWER_S_MAX:g} s for an answer")

    def describe(self, name: str) -> ObjectManifest:
        """Ask for the manifest of the newest version of an object.

        Raises:
            NotFoundError: the peer has no such object.
            PeerUnreachableError: as for `receive`.
            RemoteProtocolError: likewise, or it is none, or another object's.
        """
        manifest = decode_manifest(self._whole(Describe(name), MANIFEST_BYTES_MAX))
        if manifest.name != name:
            raise RemoteProtocolError(f"{self._where} was asked for {name} and described {manifest.name}")
        return manifest

    def get_list(self, version: bytes, size: int) -> bytes:
        """Ask for the list of an object's chunks; it is not verified here.

        Args:
            version: digest of the list.
            size: bytes of it.

        Raises:
            NotFoundError: the peer has no such version.
            PeerUnreachableError: as for `receive`.
            RemoteProtocolError: likewise.
        """
        self._sock.settimeout(min(LIST_S_MAX, self._silent_s))
        found = self._whole(GetList(version), size)
        self._sock.settimeout(self._silent_s)
        return found

    def _whole(self, request: BulkRequest, bytes_max: int) -> bytes:
        self.send(request)
        data = bytearray(bytes_max)
        code, length = self.receive(memoryview(data))
        if code != OK:
            why = "does not know the object" if code == UNKNOWN else "does not have the object yet"
            raise NotFoundError(f"{self._where} {why}")
        return bytes(data[:length])

    def close(self) -> None:
        """Break it off; may be called from another thread than the one that uses it."""
        with contextlib.suppress(OSError, ValueError):  # it is broken already
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # not TLS's own, which goes on in clear meanwhile

    def end(self) -> None:
        """Close the socket; for the thread that uses the connection."""
        self._sock.close()
