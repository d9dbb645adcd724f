"""`Link`: one migration's transport as its session uses it (shell).

    link = Link("source", LinkOptions(...), receiver)
    link.start()                      # dials; at the destination: link.add_channel(sock) for each one accepted
    link.send(Segment(0, 0, OPEN))    # any thread, never blocks; bounded by the caller's `InFlightWindow`
    ...
    link.close()                      # in order once everything was acknowledged

Rule: whatever happens to channels, the receiver is given each segment once; in the end it is told `on_closed` or
`on_failed`, unless this side closed first.
"""

import socket
from time import monotonic
from typing import Final, Literal

from dwcp_migrate.transport.core.channel_count import Controller
from dwcp_migrate.transport.core.options import LinkCounters, LinkOptions, LinkReceiver, Role
from dwcp_migrate.transport.core.protocol import LinkState
from dwcp_migrate.transport.core.segment import Segment
from dwcp_migrate.transport.core.usage import Leaves
from dwcp_migrate.transport.io.channel import Terms
from dwcp_migrate.transport.io.io_thread import LinkThread
from dwcp_migrate.transport.tls import make_context

_SIDES: Final[dict[Role, Literal["client", "server"]]] = {"source": "client", "destination": "server"}


class Link:
    """One side of the agents' link for one migration. Methods may be called from any thread.

    Args:
        role: the source dials, the destination is given its channels.
        options: see `LinkOptions`.
        receiver: called on the link's thread.

    Raises:
        ConfigError: the TLS files cannot be used.
    """

    def __init__(self, role: Role, options: LinkOptions, receiver: LinkReceiver) -> None:
        now = monotonic()
        context = make_context(_SIDES[role], options.ca, options.certificate, options.key)
        controller = None
        if role == "source":
            controller = Controller(now, channels=options.channels, channels_max=options.channels_max)
        self._state = LinkState(now, options.loss_s_max, options.partial_bytes_max)
        terms = Terms(options, context, self._has_room)
        self._channels_max = 2 * max(options.channels, options.channels_max)
        self._carrier = LinkThread(self._state, receiver, terms, controller, now)

    def start(self) -> None:
        """Start the thread; the source begins to dial."""
        self._carrier.start()

    def add_channel(self, sock: socket.socket) -> None:
        """Take a TCP connection of the peer's: preamble consumed, TLS not begun. The link closes it."""
        self._carrier.add(sock)

    def send(self, segment: Segment) -> None:
        """Queue a segment; urgent ones go first.

        Raises:
            LocalProtocolError: it breaks a limit or was sent before.
        """
        self._carrier.change(lambda: self._state.outbox.send(segment))

    def replace(self, segment: Segment) -> None:
        """Answer `on_rejected`: other bytes for the same connection and sequence, ahead of bulk.

        Raises:
            LocalProtocolError: it is not unacknowledged, or was replaced too often.
        """
        self._carrier.change(lambda: self._state.outbox.replace(segment))

    def acknowledge(self, connection: int, sequence: int) -> None:
        """Acknowledge everything up to and including a segment: our QEMU took it.

        Args:
            connection: of QEMU.
            sequence: the last one that it took.

        Raises:
            LocalProtocolError: that was not received.
        """
        self._carrier.change(lambda: self._state.acknowledge(connection, sequence))

    def reject(self, connection: int, sequence: int) -> None:
        """Reject a segment: the bytes rebuilt from it were wrong; it comes again.

        Args:
            connection: of QEMU.
            sequence: of the segment.

        Raises:
            LocalProtocolError: it was not received, or is acknowledged.
        """
        self._carrier.change(lambda: self._state.reject(connection, sequence))

    def pace(self, bytes_per_s: float) -> None:
        """Hold everything that is not urgent to a rate on the wire, all channels together; 0 for none."""
        self._carrier.pace(bytes_per_s)

    def detach(self, connection: int) -> None:
        """Let a channel become the plain carrier of a connection; `on_detached` or `on_detach_failed` tells."""
        self._carrier.detach(connection)

    def close(self, reason: str = "") -> None:
        """End the link and wait a few seconds at most for the peer to take it (not on the link's own thread).

        Args:
            reason: empty ends it in order, if everything was acknowledged; otherwise the peer fails with it.
        """
        self._carrier.close(reason)

    def counters(self) -> LinkCounters:
        """Totals and gauges now."""
        carried = self._carrier.carried()
        with self._carrier.lock:
            state = self._state
            return LinkCounters(
                sent_bytes=carried.sent_bytes,
                received_bytes=carried.received_bytes,
                channels=state.up,
                rtt_s=state.rtt_s,
                retransmits=carried.retransmits,
                channels_lost=state.channels_lost,
                link_losses=state.link_losses,
                resent_pieces=state.outbox.resent_pieces,
                hedged_pieces=state.outbox.hedged_pieces,
                duplicate_pieces=state.inbox.duplicates,
                retained_segments=state.outbox.retained_segments,
                retained_bytes=state.outbox.retained_bytes,
                queued_bytes=state.outbox.queued_bytes,
                under_way_bytes=self._carrier.usage.under_way_bytes,
                thread_busy_s=self._carrier.usage.spent_s(monotonic(), Leaves.BUSY),
                blocked_s=self._carrier.usage.spent_s(monotonic(), Leaves.BLOCKED),
                receiver_limited=self._carrier.usage.receiver_limited,
                channel_bytes=carried.by_channel,
                path_bytes=carried.by_path,
                channel_errors=carried.errors,
            )

    def _has_room(self) -> bool:
        return self._state.up < self._channels_max
