"""The thread that moves a link's bytes: epoll over all channels, dialling, timers, calls to the receiver (shell).

Rule: one thread owns every TLS object and calls the receiver; other threads only change `LinkState` under the lock and
wake this one. The lock is held for a look-up or a list operation, never for a system call or a callback.

    forever:  wait for sockets, a wake-up or the next timer
              read the channels that have bytes        -> frames -> LinkState.receive -> receiver.on_*
              every TICK_S: dead and late channels go, missing ones are dialled
              let the channels that can take bytes pull in turn, one quantum each, while something waits
"""

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from dwcp_migrate.errors import (
    CertificateError,
    DwcpError,
    LocalProtocolError,
    PeerRefusedError,
    PeerUnreachableError,
    VersionMismatchError,
)
from dwcp_migrate.transport.core.channel_count import Controller, Look
from dwcp_migrate.transport.core.dial_policy import Dialer
from dwcp_migrate.transport.core.frames import HEADER_BYTES
from dwcp_migrate.transport.core.options import LinkReceiver
from dwcp_migrate.transport.core.paths import PathTable
from dwcp_migrate.transport.core.protocol import Acknowledged, ChannelDead, Closed, Event, LinkState, Rejected, Retired
from dwcp_migrate.transport.core.segment import Segment
from dwcp_migrate.transport.core.usage import Leaves, LinkUsage
from dwcp_migrate.transport.io import channel as channels
from dwcp_migrate.transport.io.channel import Channel, ChannelEnd, ChannelPhase, Terms
from dwcp_migrate.transport.io.channel_table import ChannelTable
from dwcp_migrate.transport.io.totals import CarriedFrames, ChannelTotals
from dwcp_migrate.units import KIB

TICK_S: Final = 0.25
"""Timers are as fine as that; dead channels are declared after seconds."""
TURN_BYTES: Final = 256 * KIB
"""Read or written on one channel before the others have their turn: about 1 ms."""
CLOSE_S: Final = 5.0
"""Time that a closing link waits for the peer to take CLOSE."""
CARRIER_NICE: Final = -10
"""Priority of the thread. It mostly sleeps, and how soon it wakes is how busy the link is: with five busy processes on
two cores it carried 127 Mbit/s of a 200 Mbit/s link over 40 ms instead of 70."""
ACCEPTED_MAX: Final = 2 * 512
"""Channels of a destination, those that it does not know to be dead included."""


class LinkThread:
    """One link's thread.

    Attributes:
        lock: guards `state`.
        state: the protocol.
        usage: what the thread spends its time on.
    """

    def __init__(
        self, state: LinkState, receiver: LinkReceiver, terms: Terms, controller: Controller | None, now: float
    ) -> None:
        self.lock = threading.Lock()
        self.state = state
        self._receiver = receiver
        self._terms = terms
        self._controller = controller
        self._dialer = Dialer(now)
        self._paths = PathTable(terms.options.addresses)
        self._table = ChannelTable()
        self._owing: set[int] = set()
        self._called: deque[int] = deque()
        self._accepted: deque[socket.socket] = deque()
        self._numbers = 0
        self._totals = ChannelTotals()
        self.usage = LinkUsage(now)
        self._ticked_at = now
        self._asleep = False
        self._finished = False
        self._closing_until: float | None = None
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    # --- any thread

    def start(self) -> None:
        """Begin; callbacks may come before this returns."""
        self._thread.start()

    def add(self, sock: socket.socket) -> None:
        """Take an accepted TCP connection whose preamble was consumed."""
        with self.lock:
            if self._finished:
                sock.close()
                return
            self._accepted.append(sock)
        self.wake()

    def wake(self) -> None:
        """End the thread's wait."""
        self._table.wake()

    def pace(self, bytes_per_s: float) -> None:
        """Hold bulk to a rate, 0 for none."""
        with self.lock:
            self.state.pacer.set(monotonic(), bytes_per_s)
        self.wake()

    def change(self, change: Callable[[], None]) -> None:
        """Change `state` under the lock; wakes the thread if it waits with channels that could take bytes."""
        with self.lock:
            change()
            asleep, self._asleep = self._asleep, False
        if asleep:
            self.wake()

    def detach(self, connection: int) -> None:
        """Let a channel leave the link for a connection, if one can be spared; the receiver hears of it."""
        with self.lock:
            channel = self.state.detach(connection)
        if channel is None:
            self._receiver.on_detach_failed(connection)
        else:
            self._called.append(channel)
            self.wake()

    def close(self, reason: str) -> None:
        """Send CLOSE, wait at most `CLOSE_S` for the peer to take it, then be gone. Any thread, any number of times."""
        with self.lock:
            if self._closing_until is None:
                self._closing_until = monotonic() + CLOSE_S
                self.state.close(reason)
        self.wake()
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(CLOSE_S + 1)

    def carried(self) -> CarriedFrames:
        """Total frames and errors of all channels since the start."""
        return self._totals.carried(list(self._table.all.values()))

    # --- the thread

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # not allowed: slower on a busy host, no less right
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), CARRIER_NICE)
        try:
            while not self._finished:
                self._turn()
        except Exception as error:  # noqa: BLE001 - the session must be told of every error
            self._finish(error if isinstance(error, DwcpError) else LocalProtocolError(f"link thread: {error!r}"))
        finally:
            self._tear_down()

    def _turn(self) -> None:
        self._dial(monotonic())
        for channel, writable in self._table.poll(self._timeout()):
            self._advance(channel, writable=writable)
        for channel in list(self._table.again.values()):
            self._advance(channel, writable=False)
        self._accept()
        now = monotonic()
        if now - self._ticked_at >= TICK_S:
            self._ticked_at = now
            self._tick(now)
        self._write()

    def _timeout(self) -> float:
        """Time to wait: none if a channel could go on now. Notes what the turn left behind."""
        with self.lock:
            self._asleep = False
            now = monotonic()
            waiting = self.state.has_work(now)
            self.usage.turned(
                now, (Leaves.BUSY if self._table.ready else Leaves.BLOCKED) if waiting else Leaves.NOTHING
            )
            if self._table.again or self._accepted or (self._table.ready and waiting):
                return 0.0
            self._asleep = bool(self._table.ready)
            held_s = self.state.pacer.wait_s(now) if self._table.ready and self.state.outbox.waiting else TICK_S
        timeout = min(TICK_S, held_s)
        if self._controller is not None:
            up, pending = self.state.up, self._table.dialling
            soon = self._dialer.timeout(monotonic(), up=up, pending=pending, wanted=self._wanted(monotonic()))
            timeout = timeout if soon is None else min(timeout, soon)
        return timeout

    def _advance(self, channel: Channel, *, writable: bool) -> None:
        """Let a channel read, and go on with its greeting or with what it could not write."""
        if channel.number not in self._table.all:
            return
        self._owing.add(channel.number)
        now = monotonic()
        phase = channel.phase
        try:
            received = channel.advance(now, TURN_BYTES)
            if phase is not ChannelPhase.UP and channel.phase is ChannelPhase.UP:
                self._up(channel, now)
            for frame in received:
                with self.lock:
                    event = self.state.receive(now, channel.number, frame)
                if event is not None and not self._delivered(channel, event):
                    return
            if channel.number in self._table.all and not self._detach_if_due(channel, now):
                self._table.settle(channel, heard=not writable)
        except ChannelEnd as end:
            self._lose(channel, str(end), in_order=end.in_order)
        except DwcpError as error:
            self._reject(channel, error, now)

    def _delivered(self, channel: Channel, event: Event) -> bool:
        """Give an event to the receiver, whose error ends the link.

        A segment counts as received by now, so another channel would not bring it again.
        """
        try:
            self._deliver(channel, event)
        except DwcpError as error:
            self._finish(error)
            return False
        return True

    def _deliver(self, channel: Channel, event: Event) -> None:
        match event:
            case Segment():
                self._receiver.on_segment(event)
            case Acknowledged():
                self._receiver.on_acknowledged(event.connection, event.sequence)
            case Rejected():
                self._receiver.on_rejected(event.connection, event.sequence)
            case Retired():
                self._lose(channel, "retired", in_order=True)
            case Closed():
                self._peer_closed(event.error)

    def _write(self) -> None:
        """Let channels send their answers and pings, then all pull in turn while something waits."""
        owing, self._owing = self._owing, set()
        while self._called:
            owing.add(self._called.popleft())
        for number in owing & self._table.ready.keys():
            self._write_one(self._table.ready[number])  # it keeps its place: the one heard last is the first to pull
        for _ in range(len(self._table.ready)):
            with self.lock:
                waiting = self.state.has_work(monotonic())
            if not waiting or not self._table.ready:
                return
            self._write_one(self._table.ready.popitem(last=False)[1])

    def _write_one(self, channel: Channel) -> None:
        try:
            self._fill(channel)
            channel.flush()
            if self._detach_if_due(channel, monotonic()):
                return
        except ChannelEnd as end:
            self._lose(channel, str(end))
            return
        self._table.settle(channel, heard=False)

    def _fill(self, channel: Channel) -> None:
        """One turn of pulling: one large frame, or small ones for one TLS record."""
        now, filled = monotonic(), 0
        while filled < channels.RECORD_BYTES:
            with self.lock:
                frame = self.state.pull(now, channel.number)
            if frame is None:
                break
            channel.queue(frame)
            filled += len(frame.payload) + HEADER_BYTES

    def _detach_if_due(self, channel: Channel, now: float) -> bool:
        """Take a channel out of the link once both sides have sent their last frame on it and ended TLS.

        Raises:
            ChannelEnd: the connection is over.
        """
        connection = self.state.detached(channel.number)
        if connection is None:
            return False
        sock = channel.detach(now)
        if sock is None:
            return False
        self._forget(channel, keep=True)
        with self.lock:
            self.state.channel_detached(channel.number)
            up = self.state.up
        if self._controller is not None:
            self._controller.detached()
        self._receiver.on_detached(connection, sock)
        self._receiver.on_channels(up)
        return True

    # --- channels come and go

    def _adopt(self, sock: socket.socket, path: str = "") -> None:
        self._numbers += 1
        try:
            connect_s = self._dialer.connect_s(self._terms.options.connect_timeout_s)
            channel = Channel(self._numbers, sock, self._terms, monotonic(), path=path, connect_s=connect_s)
        except (ChannelEnd, OSError):
            self._totals.count_error(PeerUnreachableError)
            sock.close()
            return
        self._table.add(channel)
        if path:
            self._paths.dialled(channel.since, channel.number, path)

    def _accept(self) -> None:
        while self._accepted:
            sock = self._accepted.popleft()
            options = self._terms.options
            try:
                if len(self._table.all) >= ACCEPTED_MAX:
                    raise ConnectionError("too many channels")
                channels.prepare(
                    sock, options.congestion_control, channels.unsent_bytes(options.channels or options.channels_max)
                )
            except OSError:
                self._totals.count_error(PeerUnreachableError)
                sock.close()
                continue
            self._adopt(sock)

    def _dial(self, now: float) -> None:
        if self._controller is None or self._finished or self._closing_until is not None:
            return
        up, pending, count = self.state.up, self._table.dialling, self._controller.count
        for _ in range(self._dialer.count(now, up=up, pending=pending, wanted=self._wanted(now))):
            path = self._paths.next(now, count)
            try:
                sock = channels.dial(self._terms, path, channels.unsent_bytes(count))
            except PeerUnreachableError as error:
                self._totals.count_error(type(error))
                self._dialer.failed(now, now)
                self._paths.failed(now, path)
                return
            self._adopt(sock, path)

    def _wanted(self, now: float) -> int:
        """Channels that there should be, those included that are there and will retire when their path is too full."""
        assert self._controller is not None, "only who dials asks"
        return self.state.up + self._table.dialling + self._paths.missing(now, self._controller.count)

    def _up(self, channel: Channel, now: float) -> None:
        with self.lock:
            restored_s = self.state.channel_up(now, channel.number)
            first = self.state.link_losses == 0
            up = self.state.up
        if channel.dialled:
            self._dialer.succeeded(now)
        if restored_s is not None and not first:
            self._receiver.on_link_restored(round(restored_s * 1000))
        self._receiver.on_channels(up)

    def _forget(self, channel: Channel, *, in_order: bool = False, keep: bool = False) -> None:
        self._table.remove(channel)
        self._totals.left(channel)
        self._paths.ended(monotonic(), channel.number, in_order=in_order or keep)
        if not keep:
            channel.close(in_order=in_order)

    def _lose(self, channel: Channel, reason: str, *, in_order: bool = False) -> None:
        """A channel is over, whatever the phase."""
        if channel.number not in self._table.all:
            return
        self._forget(channel, in_order=in_order)
        now = monotonic()
        if channel.phase not in (ChannelPhase.UP, ChannelPhase.DETACHING):
            if channel.dialled:
                self._totals.count_error(PeerUnreachableError)
                self._dialer.failed(now, channel.since)
            return
        with self.lock:
            leaving = self.state.leaving(channel.number)
            lost_before = self.state.channels_lost
            last = self.state.channel_down(now, channel.number, in_order=in_order)
            counted = self.state.channels_lost > lost_before
            up = self.state.up
        if self._closing_until is not None:
            return
        if counted:
            self._receiver.on_channel_lost(reason)
        self._receiver.on_channels(up)
        if leaving is not None:
            self._receiver.on_detach_failed(leaving)
        if last:
            self._dialer.link_lost(now)
            self._receiver.on_link_lost()

    def _reject(self, channel: Channel, error: DwcpError, now: float) -> None:
        """The peer on this channel is not who or what it should be: close it; the others go on."""
        self._totals.count_error(type(error))
        if channel.refused(now, error):
            self._table.settle(channel, heard=False)
            return
        fatal = isinstance(error, CertificateError | VersionMismatchError) or (
            isinstance(error, PeerRefusedError) and error.code != "channels"
        )
        self._lose(channel, str(error))
        if channel.dialled and fatal and not self.state.up:
            self._finish(error)

    # --- time and end

    def _tick(self, now: float) -> None:
        for channel in list(self._table.all.values()):
            if channel.is_late(now):
                self._lose(channel, "timeout")
            elif channel.phase is ChannelPhase.UP:
                with contextlib.suppress(OSError), self.lock:
                    channel.look()
                    self.state.progress(now, channel.number, channel.delivered_bytes)
        self.usage.tick(self._table.all.values())
        self._owing.update(self._table.ready)
        with self.lock:
            verdicts = self.state.tick(now)
            if self._controller is not None:
                self._controller.observe(
                    now,
                    Look(
                        up=self.state.up,
                        acknowledged_bytes=self.state.outbox.acknowledged_bytes,
                        waiting=self.state.outbox.waiting,
                        under_way_bytes=self.usage.under_way_bytes,
                        rtt_s=self.state.rtt_s,
                        held=self.state.pacer.bytes_per_s > 0,
                    ),
                )
                for number in self._paths.surplus(self._controller.count, self.state.in_use):
                    self.state.retire(number)
        for verdict in verdicts:
            if not isinstance(verdict, ChannelDead):
                self._finish(verdict.error)
            elif verdict.channel in self._table.all:
                self._lose(self._table.all[verdict.channel], "no progress")
        self._leave_crawling_paths(now)
        hung_up = self.state.close_sent and not self.state.up
        if self._closing_until is not None and (now > self._closing_until or hung_up):
            self._finish(None)

    def _leave_crawling_paths(self, now: float) -> None:
        if not self._paths.is_due(now):
            return
        up = {number: one.delivered_bytes for number, one in self._table.all.items() if one.phase is ChannelPhase.UP}
        with self.lock:
            rescued = dict(self.state.outbox.rescued)
        for number in self._paths.crawling(now, up, rescued):
            self._lose(self._table.all[number], "its path carries next to nothing")

    def _peer_closed(self, error: DwcpError | None) -> None:
        if self._closing_until is None:
            self._closing_until = monotonic()
            if error is None:
                self._receiver.on_closed()
            else:
                self._receiver.on_failed(error)
        self._finished = True

    def _finish(self, error: DwcpError | None) -> None:
        """End the thread; the receiver hears of an error unless the link was closing."""
        if self._finished:
            return
        self._finished = True
        if error is not None and self._closing_until is None:
            self._receiver.on_failed(error)

    def _tear_down(self) -> None:
        with self.lock:
            self._finished = True
            accepted = list(self._accepted)
            self._accepted.clear()
        for sock in accepted:
            sock.close()
        for channel in list(self._table.all.values()):
            self._forget(channel, in_order=True)
        self._table.close()
