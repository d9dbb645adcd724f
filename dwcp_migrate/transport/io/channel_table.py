"""Channels of a link as its thread waits for them: what epoll looks for on each, and which can go on now.

Rule: only the link's thread uses it, but for `wake`.
"""

import contextlib
import os
import select
from collections import OrderedDict

from dwcp_migrate.transport.io.channel import Channel, ChannelPhase


class ChannelTable:
    """The channels of one link.

    Attributes:
        all: channels by number.
        ready: those that can take bytes; the first is the next to pull.
        again: those that have read more than was taken from them.
    """

    def __init__(self) -> None:
        self.all: dict[int, Channel] = {}
        self.ready: OrderedDict[int, Channel] = OrderedDict()
        self.again: dict[int, Channel] = {}
        self._by_fd: dict[int, Channel] = {}
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)

    @property
    def dialling(self) -> int:
        """Number of channels that were dialled and are not up."""
        return sum(1 for channel in self.all.values() if channel.dialled and channel.phase is not ChannelPhase.UP)

    def wake(self) -> None:
        """End a `poll` that waits; from any thread."""
        with contextlib.suppress(OSError, ValueError):  # it is closed
            os.eventfd_write(self._wake_fd, 1)

    def poll(self, timeout_s: float) -> list[tuple[Channel, bool]]:
        """Wait for channels that can be read or written, or for `wake`; returns each with whether it can be written."""
        found = []
        for descriptor, mask in self._epoll.poll(timeout_s):
            if descriptor == self._wake_fd:
                os.eventfd_read(self._wake_fd)
                continue
            channel = self._by_fd.get(descriptor)
            if channel is not None:
                found.append((channel, bool(mask & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP))))
        return found

    def add(self, channel: Channel) -> None:
        """Take a new channel, which writes first if it was dialled."""
        channel.events = select.EPOLLIN | (select.EPOLLOUT if channel.dialled else 0)
        self.all[channel.number] = self._by_fd[channel.socket.fileno()] = channel
        self._epoll.register(channel.socket, channel.events)

    def settle(self, channel: Channel, *, heard: bool) -> None:
        """Note what a channel can do next, and wait for what it cannot.

        Args:
            channel: that read or wrote.
            heard: its peer was heard on it: it lives, so that acknowledgements go there first.
        """
        if channel.has_buffered:
            self.again[channel.number] = channel
        else:
            self.again.pop(channel.number, None)
        events = select.EPOLLIN | (select.EPOLLOUT if channel.blocked else 0)
        if events != channel.events:
            channel.events = events
            self._epoll.modify(channel.socket, events)
        if channel.phase is ChannelPhase.UP and not channel.blocked:
            self.ready[channel.number] = channel
            if heard:
                self.ready.move_to_end(channel.number, last=False)
        else:
            self.ready.pop(channel.number, None)

    def remove(self, channel: Channel) -> None:
        """Forget a channel, whose socket is still open."""
        self.all.pop(channel.number, None)
        self.ready.pop(channel.number, None)
        self.again.pop(channel.number, None)
        descriptor = channel.socket.fileno()
        if self._by_fd.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Wait for nothing any more; channels that are left are the caller's."""
        self._epoll.close()
        descriptor, self._wake_fd = self._wake_fd, -1
        os.close(descriptor)
