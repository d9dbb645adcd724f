"""The link's protocol, sans-IO: the next frame for a channel, the meaning of a received one, the effects of time.

Rule: whatever dies and whenever, each segment reaches the other session exactly once, and each side learns in the end
which ones the other took. Every channel carries everything; losing one loses only time.

    source session      Link                                   Link      destination session
    send(0) ──────> outbox ── SEGMENT(0) on channel 2 ──> inbox ──> on_segment(0)
    send(1) ──────> outbox ── SEGMENT(1) on channel 5 ──> inbox ──> on_segment(1)   any order, once
                       <──────────── ACK(1) on any ───────── acknowledge(1)         cumulative
    on_acknowledged(1)
         channel 5 dies with SEGMENT(2): pulled again by channel 2
         REJECT(3, attempt 0) ──> on_rejected(3) ──> replace(3) ── SEGMENT(3, attempt 1), urgent

Acknowledgements and rejections are state, not events: those that a dead channel may have swallowed are sent again on
the next one, and every new channel begins with all of them. CLOSE follows everything, so it cannot be mistaken for a
cut.
"""

from dataclasses import dataclass
from typing import Final

from dwcp_migrate.errors import DwcpError, LinkLostError, RemoteProtocolError
from dwcp_migrate.transport.core import frames
from dwcp_migrate.transport.core.channel_health import ChannelHealth
from dwcp_migrate.transport.core.frames import Code, Frame, FrameKind
from dwcp_migrate.transport.core.rate_limiter import RateLimiter
from dwcp_migrate.transport.core.receive_queue import PARTIAL_BYTES_MAX, Inbox
from dwcp_migrate.transport.core.segment import Segment
from dwcp_migrate.transport.core.send_queue import Outbox

STALL_S: Final = 1.0
"""Between two ticks; longer means that this process was stopped, not that the peer is silent."""
CHANNELS_KEPT: Final = 2
"""Channels of frames that `detach` leaves, for the frames that are still to come."""
HEDGE_ROUND_TRIPS: Final = 3
HEDGE_S: Final = 0.25
"""A piece is late after three round trips and Linux's least retransmission time-out: TCP has had its try at it."""
RTT_SAMPLES_MAX: Final = 64
"""Over which the smallest round trip is taken."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The peer's QEMU took all up to `sequence`."""

    connection: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The peer rebuilt wrong bytes from this segment."""

    connection: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Retired:
    """Both sides are done with this channel; close it, nothing is on it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """End of the link by the peer; `error` is None when everything was acknowledged on both sides."""

    error: DwcpError | None


@dataclass(frozen=True, slots=True)
class ChannelDead:
    """No progress for too long: give it up."""

    channel: int


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """No channel came back in time."""

    error: DwcpError


Event = Segment | Acknowledged | Rejected | Retired | Closed


class LinkState:
    """One side of a link; both sides are alike. Not thread-safe: the shell holds a lock.

    Attributes:
        outbox: segments for the peer.
        inbox: segments that came from it.
        pacer: the rate that bulk is held to.
        channels_lost: channels that died, neither retired ones nor those that ended with the link counted.
        link_losses: times that the last channel died.
    """

    def __init__(self, now: float, loss_s_max: float, partial_bytes_max: int = PARTIAL_BYTES_MAX) -> None:
        self.outbox = Outbox()
        self.inbox = Inbox(partial_bytes_max)
        self.pacer = RateLimiter()
        self.channels_lost = 0
        self.link_losses = 0
        self._loss_s_max = loss_s_max
        self._channels: dict[int, ChannelHealth] = {}
        self._acknowledgements: dict[int, int] = {}
        self._rejections: dict[tuple[int, int], int] = {}
        self._said: dict[int, tuple[int, int]] = {}
        self._say_again: dict[int, tuple[int, int]] = {}
        self._lost_since: float | None = now
        self._ticked_at = now
        self._rtts: list[float] = []
        self._close: Frame | None = None

    # --- the session's side

    def acknowledge(self, connection: int, sequence: int) -> None:
        """Acknowledge everything up to a segment: our QEMU took it.

        Args:
            connection: of QEMU.
            sequence: the last one that it took.

        Raises:
            LocalProtocolError: that was not received.
        """
        if self.inbox.acknowledge(connection, sequence):
            self._acknowledgements[connection] = sequence

    def reject(self, connection: int, sequence: int) -> None:
        """Reject a segment: the bytes rebuilt from it were wrong.

        Args:
            connection: of QEMU.
            sequence: of the segment.

        Raises:
            LocalProtocolError: it was not received.
        """
        self._rejections[(connection, sequence)] = self.inbox.reject(connection, sequence)

    def close(self, detail: str = "") -> None:
        """Send CLOSE on every channel: in order if all was acknowledged and no `detail` says otherwise."""
        if detail or not self.outbox.is_settled:
            self._close = frames.close(Code.ABORTED, detail or "closed early")
        else:
            self._close = frames.close(Code.DONE)

    # --- the channels' side

    @property
    def up(self) -> int:
        """Channels in use."""
        return len(self._channels)

    @property
    def lost_since(self) -> float | None:
        """Time since when there has been no channel; None while there is one."""
        return self._lost_since

    @property
    def rtt_s(self) -> float:
        """Smallest of the last round trips, 0 before the first."""
        return min(self._rtts, default=0.0)

    def has_work(self, now: float) -> bool:
        """Tell whether a channel that can take bytes would find something to send, pings apart."""
        if self.close_sent:
            return False  # nothing follows CLOSE, whatever the channels that end now leave to be said again
        if self._acknowledgements or self._rejections or self.outbox.waiting_urgent:
            return True
        return self.outbox.waiting and not self.pacer.wait_s(now)

    @property
    def is_closing(self) -> bool:
        """Tell whether this side has ended the link: channels that end now are not lost."""
        return self._close is not None

    @property
    def close_sent(self) -> bool:
        """Tell whether CLOSE went out on every channel that is up."""
        return self._close is not None and all(
            health.close_sent or health.detach_sent for health in self._channels.values()
        )

    def channel_up(self, now: float, channel: int) -> float | None:
        """Take a channel into use.

        Args:
            now: the clock, monotonic seconds.
            channel: its number, never used before.

        Returns:
            Seconds that the link was lost, if this channel ends that; else None.
        """
        lost_since, self._lost_since = self._lost_since, None
        self._channels[channel] = ChannelHealth(now)
        self._repeat_state()
        return None if lost_since is None else now - lost_since

    def channel_down(self, now: float, channel: int, *, in_order: bool = False) -> bool:
        """Forget a channel that is gone.

        Args:
            now: the clock.
            channel: its number.
            in_order: it ended by an orderly end of file; then a retired one has lost nothing.

        Returns:
            Whether it was the last one.
        """
        health = self._channels.pop(channel, None)
        if health is None:
            return False
        if in_order and health.retire_sent and health.retire_received:
            self.outbox.received(channel, self.outbox.ledger_length(channel))
        elif not self.is_closing:
            self.channels_lost += 1
        self.outbox.channel_lost(channel)
        self._repeat_state()
        if self._channels:
            return False
        self._lost_since = now
        if not self.is_closing:
            self.link_losses += 1
        return True

    def retire(self, channel: int) -> None:
        """Use the channel no more; `Retired` comes once the peer agrees."""
        if channel in self._channels:
            self._channels[channel].retiring = True

    @property
    def in_use(self) -> list[int]:
        """Channels that are up and do not retire, the oldest first."""
        return [channel for channel, health in self._channels.items() if not health.retiring]

    def detach(self, connection: int) -> int | None:
        """Let a channel leave the link to carry a connection as it is; returns it, or None if none can be spared.

        It leaves once both sides have said DETACH on it (`detached`), with nothing of it lost or doubled.
        """
        in_use = [
            channel for channel, health in self._channels.items() if not health.retiring and health.detaching is None
        ]
        if len(in_use) <= CHANNELS_KEPT or self.is_closing:
            return None
        self._channels[in_use[-1]].detaching = connection
        return in_use[-1]

    def detached(self, channel: int) -> int | None:
        """Find the connection that a channel is to carry as it is, once both sides have sent their last frame on it."""
        health = self._channels.get(channel)
        return health.detaching if health is not None and health.detach_sent and health.detach_received else None

    def leaving(self, channel: int) -> int | None:
        """Find the connection that a channel is to carry, as soon as either side wants it to."""
        health = self._channels.get(channel)
        return None if health is None else health.detaching

    def channel_detached(self, channel: int) -> None:
        """Forget a channel that left, when the peer has ended TLS on it: all its frames have arrived, both ways."""
        del self._channels[channel]
        self.outbox.received(channel, self.outbox.ledger_length(channel))
        self.outbox.channel_lost(channel)

    def progress(self, now: float, channel: int, delivered_bytes: int) -> None:
        """Note how much the peer's kernel has acknowledged.

        Args:
            now: the clock, monotonic seconds.
            channel: its number.
            delivered_bytes: of this channel since its start.
        """
        if channel in self._channels:
            self._channels[channel].delivered(now, delivered_bytes)

    def pull(self, now: float, channel: int) -> Frame | None:
        """Give a channel that can take bytes its next frame.

        Args:
            now: the clock, monotonic seconds.
            channel: its number.

        Returns:
            None when there is nothing to send on it.
        """
        health = self._channels.get(channel)
        if health is None or health.close_sent or health.detach_sent:
            return None
        control = self._pull_control(now, channel, health)
        if control is not None:
            return control
        if self._close is not None:
            return self._pull_farewell(health, self._close)
        if health.retiring:
            if health.retire_sent:
                return None
            health.retire_sent = True
            return Frame(FrameKind.RETIRE)
        frame = self.outbox.pull(channel, health.quantum(now), bulk=not self.pacer.wait_s(now), now=now)
        if frame is None and self._rtts and not self.outbox.waiting:
            frame = self._hedge(now, channel, health)
        if frame is not None:
            health.took(len(frame.payload))
            self.pacer.took(len(frame.payload))
        return frame

    def _hedge(self, now: float, channel: int, health: ChannelHealth) -> Frame | None:
        late_s = HEDGE_ROUND_TRIPS * self.rtt_s + HEDGE_S
        if health.is_silent(now, late_s):
            return None

        def is_silent(other: int) -> bool:
            return other in self._channels and self._channels[other].is_silent(now, late_s)

        return self.outbox.hedge(channel, now, late_s, is_silent)

    def receive(self, now: float, channel: int, frame: Frame) -> Event | None:  # noqa: PLR0911 - one for each kind
        """Take a frame from a channel that is up.

        Args:
            now: the clock, monotonic seconds.
            channel: its number.
            frame: checked by `FrameReader`.

        Returns:
            Its meaning for the session or the shell; None if it has none.

        Raises:
            RemoteProtocolError: the frame breaks the protocol; the channel is to be closed.
        """
        health = self._channels.get(channel)
        if health is None:
            return None
        health.received(now)
        match frame.kind:
            case FrameKind.SEGMENT:
                return self._receive_segment(frame)
            case FrameKind.ACK:
                news = self.outbox.acknowledge(frame.connection, frame.sequence)
                return Acknowledged(frame.connection, frame.sequence) if news else None
            case FrameKind.REJECT:
                news = self.outbox.reject(frame.connection, frame.sequence, frame.attempt)
                return Rejected(frame.connection, frame.sequence) if news else None
            case FrameKind.PING:
                health.asked(frame.sequence)
            case FrameKind.PONG:
                self.outbox.received(channel, health.pong(now, frame.sequence))
                self._rtts = [*self._rtts[-(RTT_SAMPLES_MAX - 1) :], health.rtt_s]
            case FrameKind.RETIRE:
                health.retiring = health.retire_received = True
                return Retired() if health.retire_sent else None
            case FrameKind.DETACH:
                self._receive_detach(health, frame)
            case FrameKind.CLOSE:
                return Closed(self._closing_error(frame))
            case _:
                raise RemoteProtocolError(f"{FrameKind(frame.kind).name} after the greeting")
        return None

    def tick(self, now: float) -> list[ChannelDead | LinkFailed]:
        """Advance the time; call it at least every `STALL_S`."""
        self._say_again.update(self._said)
        self._said.clear()
        stalled = now - self._ticked_at
        self._ticked_at = now
        if stalled > STALL_S:
            for health in self._channels.values():
                health.shift(stalled)
            if self._lost_since is not None:
                self._lost_since += stalled
        if self._lost_since is not None and now - self._lost_since > self._loss_s_max:
            return [LinkFailed(LinkLostError(f"no channel for {self._loss_s_max:.0f} s", hint="check the network"))]
        return [ChannelDead(channel) for channel, health in self._channels.items() if health.is_dead(now)]

    def _repeat_state(self) -> None:
        """Send all acknowledgements and open rejections again: the last ones may have died with a channel."""
        self._acknowledgements = self.inbox.acknowledgements()
        self._rejections = self.inbox.rejections()

    def _receive_segment(self, frame: Frame) -> Segment | None:
        segment = self.inbox.receive(frame)
        if segment is not None:
            self._rejections.pop((frame.connection, frame.sequence), None)
        return segment

    @staticmethod
    def _receive_detach(health: ChannelHealth, frame: Frame) -> None:
        if health.detach_received or (health.detach_sent and health.detaching != frame.connection):
            raise RemoteProtocolError(f"DETACH for connection {frame.connection} out of place")
        health.detaching, health.detach_received = frame.connection, True

    def _pull_control(self, now: float, channel: int, health: ChannelHealth) -> Frame | None:
        if health.detaching is not None:
            health.detach_sent = True
            return Frame(FrameKind.DETACH, health.detaching)
        number = health.answer()
        if number is not None:
            return Frame(FrameKind.PONG, sequence=number)
        if self._acknowledgements:
            connection, sequence = self._acknowledgements.popitem()
            self._said[connection] = sequence, channel
            self._say_again.pop(connection, None)
            return Frame(FrameKind.ACK, connection, sequence)
        if self._rejections:
            connection, sequence = first = next(iter(self._rejections))  # those that follow may have failed with it
            attempt = self._rejections.pop(first)
            return Frame(FrameKind.REJECT, connection, sequence, attempt=attempt)
        if health.is_ping_due(now):
            return Frame(FrameKind.PING, sequence=health.ping(now, self.outbox.ledger_length(channel)))
        return self._pull_again(channel)

    def _pull_again(self, channel: int) -> Frame | None:
        """Repeat an acknowledgement on another channel than the one that it was sent on and may be stuck in."""
        for connection, (sequence, said_on) in self._say_again.items():
            if said_on != channel:
                del self._say_again[connection]
                return Frame(FrameKind.ACK, connection, sequence)
        return None

    def _pull_farewell(self, health: ChannelHealth, close: Frame) -> Frame:
        """Send all acknowledgements on each channel, then CLOSE, so that the first CLOSE to arrive is complete."""
        if health.farewell is None:
            health.farewell = list(self.inbox.acknowledgements().items())
        if health.farewell:
            return Frame(FrameKind.ACK, *health.farewell.pop())
        health.close_sent = True
        return close

    def _closing_error(self, frame: Frame) -> DwcpError | None:
        if frame.raw_size == Code.DONE and self.outbox.is_settled:
            return None
        reason = frames.read_detail(frame) or "with segments not acknowledged"
        return LinkLostError(f"the peer closed the link: {reason}", hint="see the peer's log")
