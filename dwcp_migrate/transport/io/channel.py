"""One TCP connection between two agents: connect, preamble, TLS, greeting, then frames (shell; one thread owns it).

Rule: never blocks, and never holds more unsent than one pull gave it, so whatever waits can still go elsewhere.

    dialled:   CONNECTING ─> HANDSHAKING ─> GREETING (HELLO sent) ─> UP
    accepted:                HANDSHAKING ─> GREETING (HELLO awaited) ─> UP
                                  ├─ both sides said DETACH ─> DETACHING: the socket goes to the session, with or
                                  │                            after the end of its TLS
                                  └─ refused ─> LINGERING: our alert or REFUSE is out, the peer's bytes are discarded
                                                until it hangs up, since closing at once would destroy what we said
"""

import contextlib
import errno
import hmac
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from dwcp_migrate.errors import (
    CertificateError,
    DwcpError,
    PeerRefusedError,
    PeerUnreachableError,
    RemoteProtocolError,
    VersionMismatchError,
)
from dwcp_migrate.net import open_tcp_socket, send_at_once, wrap_in_tls
from dwcp_migrate.transport import tls
from dwcp_migrate.transport.core import frames
from dwcp_migrate.transport.core.frames import Code, Frame, FrameKind, FrameReader, Preamble
from dwcp_migrate.transport.core.options import LinkOptions
from dwcp_migrate.transport.io import tcp_info
from dwcp_migrate.units import KIB

HANDSHAKE_S: Final = 5.0
"""From the TCP connection to WELCOME; 512 handshakes on two busy cores take about 2 s."""
LINGER_S: Final = 1.0
"""Time in which a refused peer can read the reason."""
RECORD_BYTES: Final = 16 * KIB
"""Largest TLS record (RFC 8446, 5.1)."""
SLICE_BYTES: Final = 64 * KIB
"""One call into OpenSSL: four records, about 30 us."""
UNSENT_BYTES_MIN: Final = 16 * KIB
UNSENT_BYTES_MAX: Final = 128 * KIB
UNSENT_BYTES_ALL: Final = 512 * KIB
"""TCP_NOTSENT_LOWAT: what the kernel queues beyond the congestion window, a channel and all together. 128 KiB in a flow
that loss has slowed to 300 KB/s hold up everything behind them for 0.4 s."""
_TCP_NOTSENT_LOWAT: Final = 25


class ChannelPhase(Enum):
    """Phase of a channel."""

    CONNECTING = auto()
    HANDSHAKING = auto()
    GREETING = auto()
    UP = auto()
    DETACHING = auto()
    LINGERING = auto()


class ChannelEnd(Exception):  # noqa: N818 - an end is no error when it is in order
    """The channel is over.

    Attributes:
        in_order: the peer ended TLS properly.
    """

    def __init__(self, reason: str, *, in_order: bool = False) -> None:
        super().__init__(reason)
        self.in_order = in_order


_Tcp = socket.socket
_WITHOUT_FRAMES: Final = (ChannelPhase.DETACHING, ChannelPhase.LINGERING)


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings that all channels of a link share."""

    options: LinkOptions
    context: ssl.SSLContext
    admit: Callable[[], bool]


def dial(terms: Terms, address: str, unsent_bytes: int) -> socket.socket:
    """Begin a TCP connection to the peer.

    Args:
        terms: settings of the link.
        address: of the peer.
        unsent_bytes: the socket's TCP_NOTSENT_LOWAT.

    Returns:
        A non-blocking socket that connects.

    Raises:
        PeerUnreachableError: the address is impossible or there is no route.
    """
    options = terms.options
    try:
        sock = open_tcp_socket(address)
    except OSError as error:
        raise PeerUnreachableError(f"no socket: {error}") from error
    try:
        prepare(sock, options.congestion_control, unsent_bytes)
        code = sock.connect_ex((address, options.port))
    except OSError as error:
        sock.close()
        raise PeerUnreachableError(f"cannot dial {address}: {error}") from error
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        raise PeerUnreachableError(f"cannot dial {address}:{options.port}: {errno.errorcode.get(code, code)}")
    return sock


def prepare(sock: socket.socket, congestion_control: str, unsent_bytes: int) -> None:
    """Set the options of a channel's TCP socket.

    Args:
        sock: of the channel.
        congestion_control: the kernel's name of it; empty keeps the default.
        unsent_bytes: TCP_NOTSENT_LOWAT.

    Raises:
        OSError: the kernel knows no such congestion control, or the socket is gone.
    """
    sock.setblocking(False)
    send_at_once(sock)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, unsent_bytes)
    if congestion_control:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion_control.encode())


def unsent_bytes(channels: int) -> int:
    """Choose TCP_NOTSENT_LOWAT for each of so many channels."""
    return min(max(UNSENT_BYTES_ALL // max(channels, 1), UNSENT_BYTES_MIN), UNSENT_BYTES_MAX)


class Channel:
    """See the head of this module.

    Attributes:
        number: the link's name for it, never reused.
        path: the peer's address where we dialled it; empty where the peer did.
        since: when it was made.
        phase: see `ChannelPhase`.
        blocked: unsent bytes wait for the kernel; pull nothing for it.
        events: what epoll watches for it; the carrier's.
        sent_bytes: frames given to TLS.
        received_bytes: frames taken out of it.
        retransmits: packets sent again, as of the last look.
        under_way_bytes: in the kernel and not acknowledged, as of the last look.
        delivered_bytes: that the peer's kernel has acknowledged, as of the last look; 0 if unknown.
        busy_s: time in which the kernel had something of it to send, as of the last look.
        receiver_limited_s: of that, time in which the peer's kernel had no room, as of the last look.
    """

    def __init__(
        self, number: int, sock: socket.socket, terms: Terms, now: float, *, path: str = "", connect_s: float = 0.0
    ) -> None:
        self.number = number
        self.path = path
        self.since = now
        self.phase = ChannelPhase.CONNECTING if self.dialled else ChannelPhase.HANDSHAKING
        self.blocked = self.dialled
        self.events = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.retransmits = 0
        self.under_way_bytes = self.delivered_bytes = 0
        self.busy_s = self.receiver_limited_s = 0.0
        self._terms = terms
        self._reader = FrameReader()
        self._out: deque[bytes | bytearray | memoryview] = deque()
        self._open: bytearray | None = None
        self._raw = sock
        self._tls: ssl.SSLSocket | None = None
        self._deadline = now + (connect_s or terms.options.connect_timeout_s if self.dialled else HANDSHAKE_S)
        if not self.dialled:
            self._begin_tls()

    @property
    def dialled(self) -> bool:
        """Tell whether we dialled it."""
        return bool(self.path)

    @property
    def socket(self) -> socket.socket:
        """The socket, for epoll."""
        return self._tls or self._raw

    @property
    def has_buffered(self) -> bool:
        """Tell whether TLS holds decrypted bytes of which epoll knows nothing."""
        return self._tls is not None and self.phase not in _WITHOUT_FRAMES and self._tls.pending() > 0

    def is_late(self, now: float) -> bool:
        """Tell whether it took too long to come up, or to go."""
        return self.phase is not ChannelPhase.UP and now > self._deadline

    def look(self) -> None:
        """Note the kernel's figures. Raises OSError where the socket is gone."""
        info = tcp_info.read(self.socket)
        self.retransmits, self.under_way_bytes = info.retransmits, info.under_way_bytes
        self.busy_s, self.receiver_limited_s = info.busy_s, info.receiver_limited_s
        self.delivered_bytes = info.acknowledged_bytes

    def advance(self, now: float, budget: int) -> list[Frame]:
        """Go on as far as the socket allows.

        Args:
            now: the clock, monotonic seconds.
            budget: bytes to read, about.

        Returns:
            The frames that came while UP.

        Raises:
            ChannelEnd: the connection is over.
            DwcpError: the peer is not who or what it should be; see `refused`.
        """
        if self.phase is ChannelPhase.CONNECTING:
            self._finish_connect(now)
        if self.phase is ChannelPhase.HANDSHAKING and not self._handshake():
            return []
        if self.phase is ChannelPhase.LINGERING:
            self._discard()
        if self.phase in _WITHOUT_FRAMES:
            return []
        received = self._read(budget)
        while self.phase is ChannelPhase.GREETING and received:
            self._greet(received.pop(0))
        self.flush()
        return received

    def refused(self, now: float, error: DwcpError) -> bool:
        """After `error` from `advance`: tell the peer if it can be told.

        Args:
            now: the clock, monotonic seconds.
            error: the reason.

        Returns:
            Whether the channel lingers; if not, it is to be closed.
        """
        if self.dialled or self.phase is ChannelPhase.UP:
            return False
        if self.phase is ChannelPhase.GREETING:
            self._queue_refusal(error)
        try:
            self.flush()
            self.socket.shutdown(socket.SHUT_WR)
        except (OSError, ChannelEnd):
            return False
        self.phase, self._deadline, self.blocked = ChannelPhase.LINGERING, now + LINGER_S, False
        self._out.clear()
        return True

    def queue(self, frame: Frame) -> None:
        """Take a frame to send; small ones share a TLS record, the payload of large ones is not copied."""
        header = frames.encode_header(frame)
        payload = memoryview(frame.payload)
        self.sent_bytes += len(header) + len(payload)
        if self._open is not None and len(self._open) + len(header) + len(payload) <= RECORD_BYTES:
            self._open += header
            self._open += payload
            return
        head = min(len(payload), RECORD_BYTES - len(header))
        self._open = bytearray(header)
        self._open += payload[:head]
        self._out.append(self._open)
        for begin in range(head, len(payload), SLICE_BYTES):
            self._open = None
            self._out.append(payload[begin : begin + SLICE_BYTES])

    def flush(self) -> None:
        """Give TLS the bytes that wait, until the kernel takes no more (`blocked`).

        Raises:
            ChannelEnd: the connection is over.
        """
        self.blocked = False
        self._open = None
        while self._out and self._tls is not None:
            data = self._out[0]
            try:
                count = self._tls.send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self.blocked = True
                return
            except OSError as error:
                self._explain_write_error(error)
            if count == len(data):
                self._out.popleft()
            else:
                self._out[0] = memoryview(data)[count:]

    def close(self, *, in_order: bool = False) -> None:
        """Close the socket; `in_order` ends TLS first, as far as that goes without waiting."""
        if in_order and self._tls is not None:
            with contextlib.suppress(OSError, ValueError):  # the peer may be gone, or has not ended its half yet
                self._tls.unwrap()
        self.socket.close()

    def detach(self, now: float) -> _Tcp | None:
        """Give the socket away, once both sides have sent their last frame. None: not yet, ask again.

        Where TLS is not kept, both sides end it; no byte behind the peer's end of it is read here. Where it is kept,
        the peer sends nothing behind its DETACH until it has ours, which is out only now.

        Raises:
            ChannelEnd: the connection is over.
        """
        if self.phase is not ChannelPhase.DETACHING:
            self.phase, self._deadline = ChannelPhase.DETACHING, now + HANDSHAKE_S
        self.flush()
        if self._out or self._tls is None:
            return None
        if self._terms.options.detaches_in_tls:
            if self._reader.has_rest:
                raise ChannelEnd("bytes behind the last frame")
            return self._as_bulk(self._tls)
        try:
            ended = self._tls.unwrap()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLWantWriteError:
            self.blocked = True
            return None
        except (OSError, ValueError) as error:
            raise ChannelEnd(f"connection lost as its TLS ended: {error}") from error
        self._tls, self._raw = None, socket.socket(fileno=ended.detach())
        return self._as_bulk(self._raw)

    @staticmethod
    def _as_bulk(sock: _Tcp) -> _Tcp:
        with contextlib.suppress(OSError):  # bulk, not frames: the kernel's own bound again
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 0)
        return sock

    # --- steps

    def _begin_tls(self) -> None:
        options = self._terms.options
        try:
            self._tls = wrap_in_tls(self._raw, self._terms.context, options.peer_name if self.dialled else None)
        except OSError as error:
            raise ChannelEnd(f"connection ended before TLS: {error}") from error

    def _finish_connect(self, now: float) -> None:
        code = self._raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise ChannelEnd(f"connect: {errno.errorcode.get(code, code)}")
        try:
            self._raw.send(frames.encode_preamble(Preamble(self._terms.options.session_id)))
            self._set_congestion_control()
        except OSError as error:
            raise ChannelEnd(f"preamble: {error}") from error
        self.phase, self._deadline = ChannelPhase.HANDSHAKING, now + HANDSHAKE_S
        self._begin_tls()

    def _set_congestion_control(self) -> None:
        """Set it once more: at connect a route's own choice (`congctl`) replaces what was set before."""
        if name := self._terms.options.congestion_control:
            self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())

    def _handshake(self) -> bool:
        assert self._tls is not None  # the phase says so
        if self.dialled:
            self._check_version_refusal()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.blocked = False
            return False
        except ssl.SSLWantWriteError:
            self.blocked = True
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise ChannelEnd("connection ended within the TLS handshake") from error
        except ssl.SSLError as error:
            raise tls.as_typed(error) from error
        except OSError as error:
            raise ChannelEnd(f"TLS handshake: {error}") from error
        self.phase = ChannelPhase.GREETING
        if self.dialled:
            self.queue(frames.hello(self._terms.options.token))
        else:
            tls.check_peer_name(self._tls.getpeercert(), self._terms.options.peer_name)
        return True

    def _check_version_refusal(self) -> None:
        """A listener of another version answers in clear, with its own preamble (see docs/wire-protocol.md)."""
        try:
            start = socket.socket.recv(self.socket, frames.PREAMBLE_BYTES, socket.MSG_PEEK)
        except OSError:
            return
        if start.startswith(frames.MAGIC) and len(start) == frames.PREAMBLE_BYTES:
            frames.decode_preamble(start)
            raise RemoteProtocolError("the peer answered our preamble with its own, of the same version")

    def _greet(self, frame: Frame) -> None:
        if self.dialled:
            self._take_answer(frame)
            return
        token = frames.read_hello(frame)
        if not hmac.compare_digest(token, self._terms.options.token):
            raise PeerRefusedError("a channel with a wrong token", code="token")
        if not self._terms.admit():
            raise PeerRefusedError("too many channels", code="channels")
        self.queue(frames.welcome())
        self.phase = ChannelPhase.UP

    def _take_answer(self, frame: Frame) -> None:
        if frame.kind == FrameKind.WELCOME:
            self.phase = ChannelPhase.UP
            return
        if frame.kind != FrameKind.REFUSE:
            raise RemoteProtocolError(f"expected WELCOME, got {FrameKind(frame.kind).name}")
        detail = f"the peer refused a channel: {frames.read_detail(frame)}"
        if frame.raw_size == Code.VERSION:
            raise VersionMismatchError(detail, hint="upgrade the older agent")
        if frame.raw_size == Code.NAME:
            raise CertificateError(detail, hint="compare the peer's [[peers]] name with our certificate")
        code = "channels" if frame.raw_size == Code.CHANNELS else "token"
        raise PeerRefusedError(detail, code=code)

    def _queue_refusal(self, error: DwcpError) -> None:
        code = Code.ABORTED
        if isinstance(error, VersionMismatchError):
            code = Code.VERSION
        elif isinstance(error, CertificateError):
            code = Code.NAME
        elif isinstance(error, PeerRefusedError):
            code = Code.CHANNELS if error.code == "channels" else Code.TOKEN
        self.queue(frames.refuse(code, str(error)))

    def _read(self, budget: int) -> list[Frame]:
        assert self._tls is not None  # the phase says so
        received: list[Frame] = []
        while budget > 0:
            try:
                count = self._tls.recv_into(self._reader.buffer())
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except ssl.SSLEOFError as error:
                raise ChannelEnd("connection cut") from error
            except ssl.SSLError as error:
                raise tls.as_typed(error) from error
            except OSError as error:
                raise ChannelEnd(f"connection lost: {error}") from error
            if count == 0:
                if received:
                    break  # the end comes again with the next read
                raise ChannelEnd("the peer ended the connection", in_order=True)
            self.received_bytes += count
            budget -= count
            received += self._reader.received(count)
        return received

    def _explain_write_error(self, error: OSError) -> None:
        """Raise with the peer's alert or REFUSE, if one waits to be read; a broken write alone says little."""
        if self.phase is ChannelPhase.GREETING:
            for frame in self._read(RECORD_BYTES):
                self._greet(frame)
        raise ChannelEnd(f"connection lost: {error}") from error

    def _discard(self) -> None:
        try:
            while socket.socket.recv(self.socket, RECORD_BYTES):
                pass
        except BlockingIOError:
            return
        except OSError as error:
            raise ChannelEnd("refused peer is gone") from error
        raise ChannelEnd("refused peer is gone")
