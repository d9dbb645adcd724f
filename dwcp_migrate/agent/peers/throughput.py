"""A measurement of the link to a peer: the rate at which it takes bytes over several TLS connections at once.

The rule: it has limits in bytes and in time, whichever comes first, and its rate leaves running migrations what they
need; the peer answers each message with a few bytes, so that a measurement cannot amplify traffic.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dwcp_migrate.agent.peers.client import READ_BYTES, ControlClient, ControlConnection, expect_answer
from dwcp_migrate.api.peer_check import LinkMeasured
from dwcp_migrate.clocks import steady_clock
from dwcp_migrate.config import PeerConfig
from dwcp_migrate.errors import DwcpError, PeerUnreachableError
from dwcp_migrate.protocol.control import PROBE_BYTES_MAX, Probe, Probed, decode_control, encode_control
from dwcp_migrate.units import KIB, MIB

BYTES_MAX: Final = 256 * MIB
SECONDS_MAX: Final = 10.0
CHANNELS_MAX: Final = 16
"""Of one measurement; each costs both hosts a TLS handshake."""

UNANSWERED_MAX: Final = 128
"""Messages under way on one channel: 6 MiB, more than one TCP flow of a usual path has in flight."""

LAST_ANSWERS_S: Final = 2.0
"""Time for the answers to messages that are under way at the end."""

SHARE_BESIDE: Final = 0.05
"""Share of the running migrations' rate that a measurement beside them may take."""

RATE_BESIDE_MIN: Final = 64.0 * KIB

BUSY: Final = 0.8
"""Share of a core from which on an agent itself held the measurement up, and the link may carry more."""

START_SHARE: Final = 0.25
"""Share of the bytes that is not counted, because the channels were still growing."""


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """Bounds of a measurement.

    Attributes:
        channels: TCP connections.
        bytes_max: of all, with `seconds_max`, whichever comes first.
        bytes_per_s: not faster than that; 0 is as fast as it goes.
    """

    channels: int
    bytes_max: int
    seconds_max: float
    bytes_per_s: float = 0.0


def rate_beside(migrations: int, wire_bytes_per_s: float, ceiling: float) -> float:
    """The rate that a measurement may take now, in bytes a second; 0 for any.

    Args:
        migrations: that run on either host.
        wire_bytes_per_s: what those of this host put on the wire.
        ceiling: the configured or commanded maximum of the link; 0 for none.
    """
    if migrations:
        beside = max(RATE_BESIDE_MIN, SHARE_BESIDE * wire_bytes_per_s)
        return min(beside, ceiling) if ceiling else beside
    return ceiling


def steady_rate(samples: Sequence[tuple[float, int]]) -> float:
    """The rate once the channels had grown: without the first quarter of the bytes, where enough is left.

    Args:
        samples: time and all bytes that were taken until then, in order; the first is the beginning.
    """
    (began, _), (ended, total) = samples[0], samples[-1]
    grown, before = next((at, taken) for at, taken in samples if taken >= total * START_SHARE)
    if total - before > 0 and ended > grown:
        return (total - before) / (ended - grown)
    return total / (ended - began) if ended > began else 0.0


@dataclass
class _Course:
    """One measurement under way."""

    plan: MeasurePlan
    began: float
    sent: int = 0
    samples: list[tuple[float, int]] = field(default_factory=list)
    peer_cpu_s: list[tuple[float, float]] = field(default_factory=list)

    @property
    def taken(self) -> int:
        return self.samples[-1][1]

    def wait_s(self) -> float | None:
        """Time until the next message may leave; None where no further one may."""
        now = steady_clock()
        if self.sent + PROBE_BYTES_MAX > self.plan.bytes_max or now - self.began >= self.plan.seconds_max:
            return None
        due = self.began + self.sent / self.plan.bytes_per_s if self.plan.bytes_per_s else now
        return None if due - self.began >= self.plan.seconds_max else max(0.0, due - now)

    def took(self, answer: Probed) -> None:
        now = steady_clock()
        if answer.received:
            self.samples.append((now, self.taken + answer.received))
        self.peer_cpu_s = [*self.peer_cpu_s[:1], (now, answer.cpu_s)]


class _Channel:
    """One connection of a measurement."""

    def __init__(self, peer: str, connection: ControlConnection, course: _Course, data: bytes) -> None:
        self._peer = peer
        self._connection = connection
        self._course = course
        self._data = data
        self._room = asyncio.Semaphore(UNANSWERED_MAX)
        self._is_over = False

    async def run(self) -> None:
        """Send until the bounds are reached, and count what is taken.

        Raises:
            DwcpError: the peer refused, or is gone.
        """
        ended = await asyncio.gather(self._send(), self._receive(), return_exceptions=True)
        for error in reversed(ended):  # what the peer said tells more than that nothing can be sent any more
            if isinstance(error, DwcpError):
                raise error
            if error is not None:
                raise PeerUnreachableError(f"{self._peer}: a channel broke ({error})") from error

    async def _send(self) -> None:
        while not self._is_over and (wait_s := self._course.wait_s()) is not None:
            if wait_s:
                await asyncio.sleep(wait_s)
                continue
            self._course.sent += len(self._data)
            await self._put(self._data)
        self._is_over = True
        await self._put(b"")  # its answer is the last one

    async def _put(self, data: bytes) -> None:
        await self._room.acquire()
        connection = self._connection
        connection.requests += 1
        connection.writer.write(encode_control(connection.requests, Probe(data=data)))
        await connection.writer.drain()

    async def _receive(self) -> None:
        answered = 0
        try:
            while not self._is_over or answered < self._connection.requests:
                data = await self._connection.reader.read(READ_BYTES)
                if not data:
                    raise PeerUnreachableError(f"{self._peer} closed the connection", hint="see its agent's log")
                for envelope in self._connection.frames.feed(data):
                    answered += 1
                    self._course.took(expect_answer(self._peer, decode_control(envelope), Probed))
                    self._room.release()
        finally:
            self._connection.close()  # also ends a sender that waits for room


async def measure_link(control: ControlClient, peer: PeerConfig, address: str, plan: MeasurePlan) -> LinkMeasured:
    """Send bytes to a peer and say how fast it took them.

    Args:
        control: connects.
        peer: who has to take them, by its certificate.
        address: where.
        plan: bounds.

    Raises:
        DwcpError: no channel came up, or the peer refused, as `ControlClient.ask` says it.
    """
    opening = [control.connect(peer, address) for _ in range(min(plan.channels, CHANNELS_MAX))]
    opened = await asyncio.gather(*opening, return_exceptions=True)
    connections = [one for one in opened if isinstance(one, ControlConnection)]
    failed = [one for one in opened if isinstance(one, BaseException)]
    if not connections:
        raise failed[0]
    began, used = steady_clock(), time.process_time()
    course = _Course(plan, began, samples=[(began, 0)])
    data = os.urandom(PROBE_BYTES_MAX)  # nothing on the way makes it smaller
    errors: list[BaseException] = []
    try:
        async with asyncio.timeout(plan.seconds_max + LAST_ANSWERS_S):
            runs = (_Channel(peer.name, one, course, data).run() for one in connections)
            ended = await asyncio.gather(*runs, return_exceptions=True)
            errors = [error for error in ended if error is not None]
    except TimeoutError:
        errors = [PeerUnreachableError(f"{peer.name} took nothing more", hint="is a channel stuck on the way?")]
    finally:
        for one in connections:
            one.close()
    if errors and not course.taken:
        raise errors[0]
    seconds = course.samples[-1][0] - began
    return LinkMeasured(
        channels=len(connections),
        channels_wanted=plan.channels,
        bytes=course.taken,
        seconds=seconds,
        bytes_per_s=steady_rate(course.samples),
        held_to_bytes_per_s=plan.bytes_per_s,
        is_bound_here=seconds > 0 and (time.process_time() - used) / seconds >= BUSY,
        is_bound_there=_is_busy(course.peer_cpu_s),
        error=str(next(iter([*failed, *errors]), "")),
    )


def _is_busy(cpu_s: Sequence[tuple[float, float]]) -> bool:
    """Whether the peer's agent used most of a core, by the first and last word of it."""
    (then, before), (now, after) = (cpu_s[0], cpu_s[-1]) if cpu_s else ((0.0, 0.0), (0.0, 0.0))
    return now > then and (after - before) / (now - then) >= BUSY
