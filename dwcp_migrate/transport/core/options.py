"""Options, counters and callbacks of a link."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from dwcp_migrate.errors import DwcpError
from dwcp_migrate.transport.core.receive_queue import PARTIAL_BYTES_MAX
from dwcp_migrate.transport.core.segment import Segment

Role = Literal["source", "destination"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """One session's link.

    Attributes:
        session_id: routing key of the channels, 16 bytes.
        token: 32 secret bytes that a channel proves inside TLS.
        peer_name: DNS name that the peer's certificate must carry.
        addresses: of the peer, over which the source spreads its channels; unused at the destination.
        port: the peer's link port; unused at the destination.
        ca: PEM of the fleet's CA.
        certificate: PEM of this host.
        key: PEM of its key.
        channels: 0 is adaptive.
        channels_max: bound of the adaptive count, and of what a destination takes.
        congestion_control: empty keeps the kernel's default.
        connect_timeout_s: of one TCP connect; the first ones are given up sooner (`Dialer.connect_s`).
        loss_s_max: how long a link without a channel lives.
        partial_bytes_max: of segments of which pieces are missing.
        detaches_in_tls: a channel that leaves the link keeps its TLS; the same at both ends.
    """

    session_id: bytes
    token: bytes
    peer_name: str
    ca: Path
    certificate: Path
    key: Path
    addresses: tuple[str, ...] = ()
    port: int = 0
    channels: int = 0
    channels_max: int = 64
    congestion_control: str = ""
    connect_timeout_s: float = 1.0
    loss_s_max: float = 120.0
    partial_bytes_max: int = PARTIAL_BYTES_MAX
    detaches_in_tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCounters:
    """Totals since the start, and a few gauges.

    Attributes:
        sent_bytes: frames given to TLS.
        received_bytes: frames taken out of TLS.
        channels: up now (gauge).
        rtt_s: smallest of the last round trips (gauge), 0 before the first.
        retransmits: packets that the kernel sent again.
        channels_lost: died; those retired are not counted.
        link_losses: times that the last channel died.
        resent_pieces: frames sent again because their channel died.
        hedged_pieces: frames sent again because their channel did not bring them in time.
        duplicate_pieces: frames received that had come before.
        retained_segments: sent and not acknowledged (gauge).
        retained_bytes: their encoded bytes (gauge).
        queued_bytes: encoded bytes that no channel has taken yet (gauge).
        under_way_bytes: in the kernel's hands and not acknowledged by the peer's, as of the last tick (gauge).
        thread_busy_s: time in which there was something to send and a channel to take it: the thread was behind.
        blocked_s: time in which there was something to send and no channel took more.
        receiver_limited: share of their sending time in which the peer's kernel had no room, since the last tick
            but one (gauge).
        channel_bytes: both ways, of each channel, those that are gone first.
        path_bytes: both ways, by the peer's address; empty at the destination.
        channel_errors: by class name of the error, channels that never came up or broke the protocol.
    """

    sent_bytes: int = 0
    received_bytes: int = 0
    channels: int = 0
    rtt_s: float = 0.0
    retransmits: int = 0
    channels_lost: int = 0
    link_losses: int = 0
    resent_pieces: int = 0
    hedged_pieces: int = 0
    duplicate_pieces: int = 0
    retained_segments: int = 0
    retained_bytes: int = 0
    queued_bytes: int = 0
    under_way_bytes: int = 0
    thread_busy_s: float = 0.0
    blocked_s: float = 0.0
    receiver_limited: float = 0.0
    channel_errors: dict[str, int] = field(default_factory=dict)
    channel_bytes: list[int] = field(default_factory=list)
    path_bytes: dict[str, int] = field(default_factory=dict)


class LinkReceiver(Protocol):
    """Called on the link's thread; must not block, may call the link."""

    def on_segment(self, segment: Segment) -> None:
        """Take a segment; each comes exactly once (a replaced one again), in any order."""

    def on_acknowledged(self, connection: int, sequence: int) -> None:
        """Note that the other QEMU took everything up to a segment.

        Args:
            connection: of QEMU.
            sequence: the last one that it took.
        """

    def on_rejected(self, connection: int, sequence: int) -> None:
        """Call `Link.replace` with the raw bytes: the peer rebuilt wrong ones from a segment.

        Args:
            connection: of QEMU.
            sequence: of the segment.
        """

    def on_channels(self, up: int) -> None:
        """Note the number of channels, which changed."""

    def on_channel_lost(self, reason: str) -> None:
        """Note that a channel died; nothing is lost."""

    def on_link_lost(self) -> None:
        """Note that the last channel died; the link waits for a new one."""

    def on_link_restored(self, milliseconds: int) -> None:
        """Note that a channel is there again, so long after the last one died."""

    def on_detached(self, connection: int, sock: Any) -> None:
        """Take over a channel that left the link, for one connection's bytes.

        Args:
            connection: of QEMU.
            sock: plain TCP from here on, or an `ssl.SSLSocket` by `LinkOptions.detaches_in_tls`; the receiver's.
        """

    def on_detach_failed(self, connection: int) -> None:
        """Note that the channel that was to leave for this connection died; its frames go again on others."""

    def on_closed(self) -> None:
        """Note that the peer closed the link in order: everything was acknowledged. The link is finished."""

    def on_failed(self, error: DwcpError) -> None:
        """Note that the link is finished without that: cut for too long, refused, or the protocol was broken."""
