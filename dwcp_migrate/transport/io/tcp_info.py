"""Kernel statistics of one TCP connection: `struct tcp_info` of linux/tcp.h, as far as it is used here.

The rule: a kernel may be older or newer than this file; fields that its structure does not reach read as 0.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Final

BYTES: Final = 184
"""Up to tcpi_rwnd_limited (Linux 4.10)."""

_MSS_AT: Final = 16
_UNACKED_AT: Final = 24
_RTT_AT: Final = 68
_TOTAL_RETRANS_AT: Final = 100
_BYTES_ACKED_AT: Final = 120
_BYTES_RECEIVED_AT: Final = 128
_NOTSENT_AT: Final = 144
_BUSY_AT: Final = 168
_RECEIVER_LIMITED_AT: Final = 176


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The kernel's figures of one connection.

    Attributes:
        rtt_s: smoothed round trip.
        retransmits: packets sent again so far.
        acknowledged_bytes: that the peer's kernel has acknowledged so far.
        under_way_bytes: in the socket, sent or not, and not acknowledged.
        busy_s: time in which it had something to send.
        receiver_limited_s: of that, time in which the peer's window was full: its reader is slow, not the path.
        received_bytes: that came so far.
    """

    rtt_s: float = 0.0
    retransmits: int = 0
    acknowledged_bytes: int = 0
    under_way_bytes: int = 0
    busy_s: float = 0.0
    receiver_limited_s: float = 0.0
    received_bytes: int = 0


def parse(data: bytes) -> TcpInfo:
    """Read the structure."""
    data = data.ljust(BYTES, b"\0")
    (rtt_us,) = struct.unpack_from("=I", data, _RTT_AT)
    (retransmits,) = struct.unpack_from("=I", data, _TOTAL_RETRANS_AT)
    (acknowledged,) = struct.unpack_from("=Q", data, _BYTES_ACKED_AT)
    (received,) = struct.unpack_from("=Q", data, _BYTES_RECEIVED_AT)
    (mss,) = struct.unpack_from("=I", data, _MSS_AT)
    (unacknowledged,) = struct.unpack_from("=I", data, _UNACKED_AT)
    (unsent,) = struct.unpack_from("=I", data, _NOTSENT_AT)
    (busy_us,) = struct.unpack_from("=Q", data, _BUSY_AT)
    (receiver_us,) = struct.unpack_from("=Q", data, _RECEIVER_LIMITED_AT)
    under_way = unacknowledged * mss + unsent
    return TcpInfo(rtt_us / 1e6, retransmits, acknowledged, under_way, busy_us / 1e6, receiver_us / 1e6, received)


def read(sock: socket.socket) -> TcpInfo:
    """Ask the kernel.

    Raises:
        OSError: the socket is gone.
    """
    return parse(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES))
